//! Files of one volume that stand in each other's way.

use serde_json::Value;

use crate::{access::Get, goformat::go_quote};

/// A file and where it comes from, where that is not the volume itself.
#[derive(PartialEq)]
struct File {
    path: String,
    source: String,
}

impl File {
    fn new(path: &str, source: &str) -> Self {
        File { path: path.trim_end_matches('/').to_owned(), source: source.to_owned() }
    }

    fn shown(&self) -> String {
        if self.source.is_empty() {
            go_quote(&self.path)
        } else {
            format!("{} ({})", go_quote(&self.path), self.source)
        }
    }

    /// Whether one is the other, or a directory above it.
    fn meets(&self, other: &File) -> bool {
        let below = |a: &File, b: &File| format!("{}/", a.path).starts_with(&format!("{}/", b.path));
        !self.path.is_empty() && !other.path.is_empty() && (below(self, other) || below(other, self))
    }
}

pub(super) fn warnings(volumes: &[Value], found: &mut Vec<String>) {
    for volume in volumes {
        let name = volume.text("name");
        let mut of = |what: &str, source: &Value| {
            let files = listed(source, "");
            let tell = |overlap| format!("volume {} ({what}): overlapping paths: {overlap}", go_quote(name));
            found.extend(overlaps(&mut Vec::new(), files).into_iter().map(tell));
        };
        let config_map = volume.at("configMap");
        of(&format!("ConfigMap {}", go_quote(config_map.text("name"))), config_map);
        let secret = volume.at("secret");
        of(&format!("Secret {}", go_quote(secret.text("secretName"))), secret);
        of("DownwardAPI", volume.at("downwardAPI"));
        let mut before = Vec::new();
        for source in volume.items("projected.sources") {
            if source.as_object().is_none_or(serde_json::Map::is_empty) {
                found.push(format!("volume {} (Projected) has no sources provided", go_quote(name)));
                continue;
            }
            for overlap in overlaps(&mut before, projected(source)) {
                found.push(format!("volume {} (Projected): overlapping paths: {overlap}", go_quote(name)));
            }
        }
    }
}

fn listed(source: &Value, named: &str) -> Vec<File> {
    source.items("items").iter().map(|item| File::new(item.text("path"), named)).collect()
}

fn projected(source: &Value) -> Vec<File> {
    let named = |kind: &str, of: &Value| format!("{kind} {}", go_quote(of.text("name")));
    let one = |path: &str, of: &str| vec![File::new(path, of)];
    for (key, kind) in [("configMap", "ConfigMap"), ("secret", "Secret")] {
        let of = source.at(key);
        if !of.items("items").is_empty() {
            return listed(of, &named(kind, of));
        }
    }
    let (token, bundle) = (source.at("serviceAccountToken"), source.at("clusterTrustBundle"));
    let certificate = source.at("podCertificate");
    if !source.items("downwardAPI.items").is_empty() {
        listed(source.at("downwardAPI"), "DownwardAPI")
    } else if token.is_object() {
        one(token.text("path"), "ServiceAccountToken")
    } else if bundle.is_object() {
        let name = if bundle.has("name") { bundle.text("name") } else { bundle.text("signerName") };
        one(bundle.text("path"), &format!("ClusterTrustBundle {}", go_quote(name)))
    } else {
        [
            ("certificateChainPath", "PodCertificate chain"),
            ("keyPath", "PodCertificate key"),
            ("credentialBundlePath", "PodCertificate credential bundle"),
        ]
        .into_iter()
        .filter(|(key, _)| !certificate.text(key).is_empty())
        .map(|(key, of)| File::new(certificate.text(key), of))
        .collect()
    }
}

/// Which of `files` meet one before them; all are among `before` then.
fn overlaps(before: &mut Vec<File>, files: Vec<File>) -> Vec<String> {
    let mut out = Vec::new();
    for file in files {
        let met = before.iter().filter(|other| file.meets(other));
        out.extend(met.map(|other| format!("{} with {}", file.shown(), other.shown())));
        before.push(file);
    }
    out
}
