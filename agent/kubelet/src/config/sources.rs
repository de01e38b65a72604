//! Where a configuration comes from: a file, a directory of drop-ins over it, flags over both. Upstream: `cmd/kubelet/app/server.go`.

use super::Error;
use super::file::File;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// Everything a kubelet may be told by.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// `--config`
    pub file: Option<PathBuf>,
    /// `--config-dir`: its files `*.conf`, those of directories in it, too, in the order of their paths.
    pub drop_ins: Option<PathBuf>,
    /// What flags say, as a file would have it.
    pub flags: Value,
}

/// Numbers that stand for "as by default" where a file has zero. Upstream: `SetDefaults_KubeletConfiguration`.
const ZERO_IS_DEFAULT: [&str; 8] = [
    "eventBurst",
    "kubeAPIBurst",
    "maxOpenFiles",
    "maxPods",
    "nodeLeaseDurationSeconds",
    "port",
    "registryBurst",
    "containerLogMaxWorkers",
];

/// Texts that stand for the same where a file has an empty one.
const EMPTY_IS_DEFAULT: [&str; 8] = [
    "address",
    "cgroupDriver",
    "containerLogMaxSize",
    "containerRuntimeEndpoint",
    "hairpinMode",
    "podLogsDir",
    "topologyManagerPolicy",
    "topologyManagerScope",
];

/// Without what stands for defaults.
fn without_defaults(mut document: Value) -> Value {
    if let Value::Object(fields) = &mut document {
        fields.retain(|name, value| {
            let zero = *value == 0 && ZERO_IS_DEFAULT.contains(&name.as_str());
            let empty = *value == "" && EMPTY_IS_DEFAULT.contains(&name.as_str());
            !zero && !empty
        });
    }
    document
}

impl Sources {
    /// One document of all.
    pub(super) fn merged(&self) -> Result<Value, Error> {
        let mut all = match &self.file {
            Some(path) => document(&read(path)?)?,
            None => with_thresholds(empty()),
        };
        for path in self.drop_in_files()? {
            let over = mapping(&read(&path)?)?;
            // Each must be right by itself: what is wrong is named with its file.
            File::of(without_defaults(without_nulls(over.clone())))
                .map_err(|source| Error::DropIn { path: path.clone(), source: Box::new(source) })?;
            merge_patch(&mut all, over);
        }
        all = without_defaults(all);
        settle_report_frequency(&mut all);
        lay_flags(&mut all, &self.flags);
        Ok(without_nulls(all))
    }

    fn drop_in_files(&self) -> Result<Vec<PathBuf>, Error> {
        let mut files = Vec::new();
        let mut waiting: Vec<PathBuf> = self.drop_ins.iter().cloned().collect();
        while let Some(dir) = waiting.pop() {
            let failed = |source| Error::Read { path: dir.clone(), source };
            for entry in std::fs::read_dir(&dir).map_err(failed)? {
                let path = entry.map_err(failed)?.path();
                if path.is_dir() {
                    waiting.push(path);
                } else if path.extension().is_some_and(|extension| extension == "conf") {
                    files.push(path);
                } else {
                    tracing::debug!(path = %path.display(), "not a drop-in: its name does not end in .conf");
                }
            }
        }
        files.sort();
        Ok(files)
    }
}

/// What the files leave open of `nodeStatusReportFrequency` follows their `nodeStatusUpdateFrequency`, not the flag's: upstream sets the
/// default before it reads flags.
fn settle_report_frequency(document: &mut Value) {
    if let Value::Object(fields) = document
        && !fields.contains_key("nodeStatusReportFrequency")
    {
        let update = fields.get("nodeStatusUpdateFrequency").cloned();
        fields.insert("nodeStatusReportFrequency".to_owned(), update.unwrap_or_else(|| json!("5m")));
    }
}

fn empty() -> Value {
    json!({"apiVersion": super::API_VERSION, "kind": "KubeletConfiguration"})
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

/// A file's text (YAML or JSON), with the thresholds it leaves to defaults.
pub(super) fn document(text: &str) -> Result<Value, Error> {
    mapping(text).map(|value| with_thresholds(without_defaults(without_nulls(value))))
}

fn mapping(text: &str) -> Result<Value, Error> {
    let value: Value = serde_saphyr::from_str(text)
        .map_err(|error| Error::Decode { reason: error.to_string().trim().to_owned() })?;
    match value {
        Value::Object(_) => Ok(value),
        other => Err(Error::Decode { reason: format!("a mapping is expected, not {other}") }),
    }
}

/// Null is absent.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(name, value)| (name, without_nulls(value))).collect())
        }
        other => other,
    }
}

/// A file without hard thresholds has upstream's, and one that asks for it has them where it names none.
fn with_thresholds(mut document: Value) -> Value {
    let usual = json!({"imagefs.available": "15%", "imagefs.inodesFree": "5%", "memory.available": "100Mi",
        "nodefs.available": "10%", "nodefs.inodesFree": "5%"});
    let merged = document["mergeDefaultEvictionSettings"] == true;
    match (&mut document["evictionHard"], usual) {
        (Value::Object(own), Value::Object(usual)) if merged => {
            for (signal, threshold) in usual {
                own.entry(signal).or_insert(threshold);
            }
        }
        (Value::Object(_), _) => {}
        (absent, usual) => *absent = usual,
    }
    document
}

/// A merge patch (RFC 7386).
fn merge_patch(under: &mut Value, over: Value) {
    match over {
        Value::Object(over) => {
            if !under.is_object() {
                *under = Value::Object(Map::new());
            }
            for (name, value) in over {
                merge_patch(&mut under[name], value);
            }
        }
        other => *under = other,
    }
}

/// Flags replace what files say, as wholes; gates they do not name stay.
fn lay_flags(under: &mut Value, flags: &Value) {
    const SECTIONS: [&str; 6] =
        ["authentication", "authorization", "anonymous", "webhook", "x509", "featureGates"];
    let Value::Object(flags) = flags else { return };
    for (name, value) in flags {
        match value {
            Value::Object(_) if SECTIONS.contains(&name.as_str()) => lay_flags(&mut under[name], value),
            value => under[name] = value.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(dir: &Path, name: &str, body: &str) -> PathBuf {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
        std::fs::write(&path, format!("{head}{body}")).unwrap();
        path
    }

    #[test]
    fn drop_ins_are_laid_over_the_file_in_order_and_flags_over_both() {
        let dir = tempfile::tempdir().unwrap();
        let conf = dir.path().join("conf");
        file(&conf, "20-b.conf", "maxPods: 30\nkubeReserved: {memory: 2Gi}\nclusterDNS: [10.0.0.2]");
        file(&conf, "10-a.conf", "maxPods: 20\nsyncFrequency: 2m");
        file(&conf, "sub/30-c.conf", "registryBurst: 0\nevictionHard: {memory.available: 1Gi}");
        file(&conf, "40-d.yaml", "maxPods: 1");
        let main = "maxPods: 10\nkubeReserved: {cpu: 100m}\nclusterDNS: [10.0.0.1, 10.0.0.3]\nfeatureGates: {A: true}";
        let sources = Sources {
            file: Some(file(dir.path(), "kubelet.yaml", main)),
            drop_ins: Some(conf.clone()),
            flags: json!({"syncFrequency": "3m", "featureGates": {"B": false},
                "authentication": {"anonymous": {"enabled": true}}}),
        };
        let all = sources.merged().unwrap();
        assert_eq!((&all["maxPods"], &all["syncFrequency"]), (&json!(30), &json!("3m")));
        assert_eq!(all["kubeReserved"], json!({"cpu": "100m", "memory": "2Gi"}), "maps are merged");
        assert_eq!(all["clusterDNS"], json!(["10.0.0.2"]), "lists are replaced");
        assert_eq!(all["featureGates"], json!({"A": true, "B": false}));
        assert_eq!(all["authentication"], json!({"anonymous": {"enabled": true}}));
        assert_eq!(all["evictionHard"]["memory.available"], json!("1Gi"));
        assert_eq!(all["evictionHard"]["nodefs.available"], json!("10%"), "the file had none");
        assert!(all.get("registryBurst").is_none(), "zero in a file is the default");
        file(&conf, "50-e.conf", "maxPodz: 1");
        let error = supervise::chain(&sources.merged().unwrap_err());
        assert!(error.contains("50-e.conf") && error.contains("maxPodz"), "{error}");
    }

    #[test]
    fn thresholds_are_whole_or_merged_as_asked() {
        let of = |text: &str| document(text).unwrap();
        assert_eq!(of("a: 1")["evictionHard"]["imagefs.available"], json!("15%"));
        let own = "evictionHard: {memory.available: 1Gi}\n";
        assert_eq!(of(own)["evictionHard"], json!({"memory.available": "1Gi"}));
        let merged = of(&format!("{own}mergeDefaultEvictionSettings: true"));
        assert_eq!(merged["evictionHard"]["memory.available"], json!("1Gi"));
        assert_eq!(merged["evictionHard"]["nodefs.inodesFree"], json!("5%"));
    }
}
