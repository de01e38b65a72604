//! Which credentials are tried for an image, and in which order. Pure. Upstream: `pkg/credentialprovider/keyring.go`.
//!
//! An entry names a host, each label of which may hold wildcards, a port, and the beginning of a path. Every entry that
//! matches is tried, in the reverse order of names, so that the longer path comes first. The runtime is told a name and a
//! password and no server: runtimes compare that with the host they ask, which a mirror or a bare name is not.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use cri_proto::v1;
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The key of Docker Hub's entries.
const HUB: &str = "index.docker.io";

/// A name and a password.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Entry")]
pub struct Login {
    pub username: String,
    /// The password; an identity token's name says so.
    pub password: String,
}

/// Logins by registry, as a `.dockercfg` has them.
pub type DockerConfig = BTreeMap<String, Login>;

/// A `config.json` of Docker's.
#[derive(Debug, Default, Deserialize)]
struct DockerConfigJson {
    #[serde(default)]
    auths: Option<DockerConfig>,
}

#[derive(Deserialize)]
struct Entry {
    username: Option<String>,
    password: Option<String>,
    auth: Option<String>,
}

impl TryFrom<Entry> for Login {
    type Error = String;

    fn try_from(entry: Entry) -> Result<Self, String> {
        let auth = entry.auth.unwrap_or_default().replace(['\r', '\n'], "");
        if auth.is_empty() {
            let [username, password] = [entry.username, entry.password].map(Option::unwrap_or_default);
            return Ok(Self { username, password });
        }
        let engine = if auth.trim().ends_with('=') { &STANDARD } else { &STANDARD_NO_PAD };
        let bytes = engine.decode(auth).map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&bytes);
        let (username, password) = text
            .split_once(':')
            .ok_or("unable to parse auth field, must be formatted as base64(username:password)")?;
        Ok(Self { username: username.to_owned(), password: password.to_owned() })
    }
}

impl From<Login> for v1::AuthConfig {
    fn from(login: Login) -> Self {
        Self { username: login.username, password: login.password, ..Default::default() }
    }
}

/// Logins by host and beginning of a path.
#[derive(Clone, Debug, Default)]
pub struct Keyring(BTreeMap<String, Vec<Login>>);

impl Keyring {
    /// Adds a configuration's logins; what is no URL is left out.
    pub fn add(&mut self, config: DockerConfig) {
        for (location, login) in config {
            let rest = ["https://", "http://"].iter().find_map(|scheme| location.strip_prefix(scheme));
            let Some(at) = Location::parse(rest.unwrap_or(&location)) else {
                tracing::warn!("a registry's entry in a Docker configuration is no URL");
                continue;
            };
            // Docker takes `/v1/` and `/v2/` for the host alone.
            let path = ["/v1/", "/v2/"].into_iter().find_map(|version| at.path.strip_prefix(version));
            let key = match path.map_or_else(|| at.path.to_owned(), |rest| format!("/{rest}")).as_str() {
                "" | "/" => at.authority.to_owned(),
                path => format!("{}{path}", at.authority),
            };
            self.0.entry(key).or_default().push(login);
        }
    }

    /// The logins for a repository, which is named in full: `docker.io/library/busybox`.
    pub fn lookup(&self, repository: &str) -> Vec<Login> {
        let matching = self.0.iter().rev().filter(|(key, _)| is_match(key, repository));
        let found: Vec<Login> = matching.flat_map(|(_, logins)| logins).cloned().collect();
        let hub = matches!(repository.split('/').next(), Some("docker.io" | HUB));
        if found.is_empty() && hub { self.0.get(HUB).cloned().unwrap_or_default() } else { found }
    }
}

struct Location<'a> {
    authority: &'a str,
    host: &'a str,
    port: &'a str,
    path: &'a str,
}

impl<'a> Location<'a> {
    /// Reads a URL without its scheme.
    fn parse(text: &'a str) -> Option<Self> {
        let text = text.split(['?', '#']).next().unwrap_or_default();
        let (authority, path) = text.split_at(text.find('/').unwrap_or(text.len()));
        let authority = authority.rsplit('@').next().unwrap_or_default();
        if text.contains(char::is_whitespace) {
            return None;
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port),
            _ => (authority, ""),
        };
        port.bytes().all(|b| b.is_ascii_digit()).then_some(Self { authority, host, port, path })
    }
}

/// Whether an image is of the registry, port and path that `glob` names.
pub fn is_match(glob: &str, image: &str) -> bool {
    let (Some(glob), Some(image)) = (Location::parse(glob), Location::parse(image)) else { return false };
    glob.port == image.port
        && image.path.starts_with(glob.path)
        && glob.host.split('.').count() == image.host.split('.').count()
        && glob
            .host
            .split('.')
            .zip(image.host.split('.'))
            .all(|(glob, label)| wild(&glob.chars().collect::<Vec<_>>(), &label.chars().collect::<Vec<_>>()))
}

/// A host's label and its pattern.
fn wild(pattern: &[char], text: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['*', rest @ ..] => (0..=text.len()).any(|taken| wild(rest, &text[taken..])),
        [literal, rest @ ..] => text.first() == Some(literal) && wild(rest, &text[1..]),
    }
}

/// An image's repository in full, without tag and digest.
pub fn repository(image: &str) -> String {
    let name = image.split('@').next().unwrap_or_default();
    let slash = name.rfind('/').map_or(0, |at| at + 1);
    let name = name[slash..].find(':').map_or(name, |at| &name[..slash + at]);
    match name.split_once('/') {
        Some((HUB | "docker.io", path)) => hub(path),
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => name.to_owned(),
        _ => hub(name),
    }
}

fn hub(path: &str) -> String {
    if path.contains('/') { format!("docker.io/{path}") } else { format!("docker.io/library/{path}") }
}

/// Reads a `config.json`.
///
/// # Errors
///
/// It is no such file.
pub fn read_json(bytes: &[u8]) -> Result<DockerConfig, serde_json::Error> {
    serde_json::from_slice::<DockerConfigJson>(bytes).map(|config| config.auths.unwrap_or_default())
}

/// The logins of a pod's secrets.
///
/// # Errors
///
/// A secret's configuration cannot be read. No part of it is in the text.
pub fn of_secrets(secrets: &[Arc<Secret>]) -> Result<Keyring, String> {
    let mut keyring = Keyring::default();
    for secret in secrets {
        let bytes = |key: &str| {
            let data = secret.data.as_ref().and_then(|data| data.get(key));
            data.map(|bytes| bytes.0.as_slice()).filter(|bytes| !bytes.is_empty())
        };
        let read = match secret.type_.as_deref() {
            Some("kubernetes.io/dockerconfigjson") => bytes(".dockerconfigjson").map(read_json),
            Some("kubernetes.io/dockercfg") => {
                bytes(".dockercfg").map(serde_json::from_slice::<DockerConfig>)
            }
            _ => None,
        };
        match read {
            Some(Ok(config)) => keyring.add(config),
            Some(Err(error)) => {
                let name = secret.metadata.name.as_deref().unwrap_or_default();
                return Err(format!(
                    "image pull secret {name} cannot be read at line {} column {}",
                    error.line(),
                    error.column()
                ));
            }
            None => {}
        }
    }
    Ok(keyring)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn keyring(config: serde_json::Value) -> Keyring {
        let mut keyring = Keyring::default();
        keyring.add(serde_json::from_value(config).unwrap());
        keyring
    }

    fn users(keyring: &Keyring, image: &str) -> Vec<String> {
        keyring.lookup(&repository(image)).into_iter().map(|login| login.username).collect()
    }

    fn named(registries: &[&str]) -> Keyring {
        keyring(registries.iter().map(|r| ((*r).to_owned(), json!({"username": r}))).collect())
    }

    #[test]
    fn hosts_ports_paths_and_wildcards_match_as_upstreams_do() {
        for (glob, image, want) in [
            ("reg.example", "reg.example/a", true),
            ("reg.example:5000", "reg.example:5000/a:1", true),
            ("reg.example", "reg.example:5000/a", false),
            ("reg.example:5000", "reg.example/a", false),
            ("reg.example:5000/team", "reg.example:5000/team/a", true),
            ("reg.example/team", "reg.example/teams/a", true),
            ("reg.example/team", "reg.example/other/a", false),
            ("*.example", "reg.example/a", true),
            ("*.example", "a.reg.example/a", false),
            ("*.*.example:5000/p", "a.reg.example:5000/p/q", true),
            ("reg*.example", "reg7.example/a", true),
            ("*", "localhost/a", true),
        ] {
            assert_eq!(is_match(glob, &repository(image)), want, "{glob} {image}");
        }
    }

    #[test]
    fn every_match_is_tried_and_the_longer_path_first() {
        let keyring = named(&["https://reg.example/v1/", "reg.example/team", "*.example", "http://other"]);
        assert_eq!(
            users(&keyring, "reg.example/team/a:1"),
            ["reg.example/team", "https://reg.example/v1/", "*.example"]
        );
        assert_eq!(users(&keyring, "reg.example/a"), ["https://reg.example/v1/", "*.example"]);
        assert!(users(&keyring, "busybox").is_empty());
    }

    #[test]
    fn docker_hub_has_several_names() {
        for image in ["busybox", "library/busybox:1", "docker.io/u/a", "index.docker.io/u/a"] {
            assert_eq!(users(&named(&["https://index.docker.io/v1/"]), image).len(), 1, "{image}");
        }
        assert_eq!(users(&named(&["docker.io"]), "busybox"), ["docker.io"]);
        assert!(users(&named(&["https://index.docker.io/v1/"]), "reg.example/busybox").is_empty());
        assert_eq!(repository("a/b:1@sha256:00"), "docker.io/a/b");
    }

    #[test]
    fn the_runtime_must_not_be_told_a_bare_host_as_the_server() {
        let secret = |kind: &str, key: &str, config: serde_json::Value| -> Arc<Secret> {
            let data = STANDARD.encode(config.to_string());
            Arc::new(serde_json::from_value(json!({"type": kind, "data": {key: data}})).unwrap())
        };
        let entry = json!({"reg.example:5000": {"auth": STANDARD.encode("u:p:q"), "email": "e@x"}});
        for secret in [
            secret("kubernetes.io/dockerconfigjson", ".dockerconfigjson", json!({"auths": entry})),
            secret("kubernetes.io/dockercfg", ".dockercfg", entry),
        ] {
            let logins = of_secrets(&[secret]).unwrap().lookup("reg.example:5000/a");
            let want = v1::AuthConfig { username: "u".into(), password: "p:q".into(), ..Default::default() };
            assert_eq!(logins.into_iter().map(v1::AuthConfig::from).collect::<Vec<_>>(), [want]);
        }
        let other = secret("Opaque", ".dockercfg", json!({"reg.example": {"username": "u"}}));
        assert!(of_secrets(&[other]).unwrap().lookup("reg.example/a").is_empty());
    }

    #[test]
    fn a_broken_secret_is_told_without_its_content() {
        let data = STANDARD.encode(r#"{"auths": {"r": {"auth": "hidden"}}}"#);
        let secret: Secret = serde_json::from_value(json!({"metadata": {"name": "s"},
            "type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": data}}))
        .unwrap();
        let error = of_secrets(&[Arc::new(secret)]).unwrap_err();
        assert!(error.contains("pull secret s ") && !error.contains("hidden"), "{error}");
    }
}
