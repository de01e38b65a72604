//! A container's environment: service variables, `envFrom`, `env`, and `$(VAR)` expansion.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, Pod, Secret, Service};

use super::downward::{self, Facts};
use super::env_file;

/// The objects a pod's environment refers to, as far as they exist.
#[derive(Clone, Debug, Default)]
pub struct References {
    /// By name, in the pod's namespace; `None` when it does not exist.
    pub config_maps: BTreeMap<String, Option<Arc<ConfigMap>>>,
    pub secrets: BTreeMap<String, Option<Arc<Secret>>>,
    /// Services of the pod's namespace, and `kubernetes` of `default`.
    pub services: Vec<Arc<Service>>,
    /// Files, by volume and path, of the volumes that are there.
    pub files: BTreeMap<(String, String), env_file::File>,
}

/// The files a container's environment names: `(volume, path)`.
pub fn files(container: &Container) -> impl Iterator<Item = (&str, &str)> {
    let sources = container.env.iter().flatten().filter_map(|var| var.value_from.as_ref());
    sources.filter_map(|from| from.file_key_ref.as_ref()).map(|f| (f.volume_name.as_str(), f.path.as_str()))
}

/// A variable that cannot be given its value; the texts are upstream's.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A ConfigMap that must exist does not.
    #[error("configmap {0:?} not found")]
    ConfigMap(String),
    /// A Secret that must exist does not.
    #[error("secret {0:?} not found")]
    Secret(String),
    /// A key that must exist does not.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    Key {
        key: String,
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        namespace: String,
        name: String,
    },
    /// A field of the pod that cannot be read.
    #[error(transparent)]
    Downward(#[from] downward::Error),
    /// A file's volume is not there.
    #[error("cannot find the volume {0:?} referenced by FileKeyRef")]
    Volume(String),
    /// A file cannot be read, or holds something else than definitions.
    #[error("couldn't parse env file")]
    File,
    /// A file lacks a key that must exist.
    #[error("environment variable key {key:?} not found in file {path:?}")]
    FileKey { key: String, path: String },
}

/// The ConfigMaps and Secrets a container's environment names: `(config maps, secrets)`.
pub fn named(container: &Container) -> (Vec<&str>, Vec<&str>) {
    let (mut maps, mut secrets) = (Vec::new(), Vec::new());
    for source in container.env_from.iter().flatten() {
        maps.extend(source.config_map_ref.as_ref().map(|r| r.name.as_str()));
        secrets.extend(source.secret_ref.as_ref().map(|r| r.name.as_str()));
    }
    for from in container.env.iter().flatten().filter_map(|var| var.value_from.as_ref()) {
        maps.extend(from.config_map_key_ref.as_ref().map(|r| r.name.as_str()));
        secrets.extend(from.secret_key_ref.as_ref().map(|r| r.name.as_str()));
    }
    (maps, secrets)
}

/// The environment of a container, in the order it is defined; later definitions replace earlier ones.
pub fn build(
    pod: &Pod,
    container: &Container,
    references: &References,
    facts: &Facts,
) -> Result<Vec<(String, String)>, Error> {
    let links = pod.spec.as_ref().and_then(|s| s.enable_service_links).unwrap_or(true);
    let services = service_variables(&references.services, crate::pod::namespace(pod), links);
    let mut all: Vec<(String, String)> = Vec::new();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let entries: Vec<(String, String)> = if let Some(source) = &source.config_map_ref {
            match references.config_maps.get(&source.name).cloned().flatten() {
                Some(map) => map.data.clone().unwrap_or_default().into_iter().collect(),
                None if source.optional == Some(true) => continue,
                None => return Err(Error::ConfigMap(source.name.clone())),
            }
        } else if let Some(source) = &source.secret_ref {
            match references.secrets.get(&source.name).cloned().flatten() {
                Some(secret) => secret
                    .data
                    .iter()
                    .flatten()
                    .map(|(k, v)| (k.clone(), String::from_utf8_lossy(&v.0).into_owned()))
                    .collect(),
                None if source.optional == Some(true) => continue,
                None => return Err(Error::Secret(source.name.clone())),
            }
        } else {
            continue;
        };
        for (key, value) in entries {
            set(&mut all, format!("{prefix}{key}"), value);
        }
    }
    for variable in container.env.iter().flatten() {
        if let Some(value) = value(pod, container, references, facts, variable, &all, &services)? {
            set(&mut all, variable.name.clone(), value);
        }
    }
    for (name, value) in services {
        if !all.iter().any(|(known, _)| *known == name) {
            all.push((name, value));
        }
    }
    Ok(all)
}

fn set(all: &mut Vec<(String, String)>, name: String, value: String) {
    match all.iter_mut().find(|(known, _)| *known == name) {
        Some((_, old)) => *old = value,
        None => all.push((name, value)),
    }
}

/// `None`: an optional source that does not exist; the variable is not set.
fn value(
    pod: &Pod,
    container: &Container,
    references: &References,
    facts: &Facts,
    variable: &EnvVar,
    earlier: &[(String, String)],
    services: &BTreeMap<String, String>,
) -> Result<Option<String>, Error> {
    let Some(from) = &variable.value_from else {
        let text = variable.value.as_deref().unwrap_or_default();
        let lookup = |name: &str| {
            let own = earlier.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
            own.or_else(|| services.get(name).cloned())
        };
        return Ok(Some(expand(text, lookup)));
    };
    let missing = |kind, name: &str, key: &str| Error::Key {
        key: key.to_owned(),
        kind,
        namespace: crate::pod::namespace(pod).to_owned(),
        name: name.to_owned(),
    };
    if let Some(selector) = &from.field_ref {
        return Ok(Some(downward::field(pod, facts, &selector.field_path)?));
    }
    if let Some(selector) = &from.resource_field_ref {
        return Ok(Some(downward::resource(pod, Some(container), facts, selector)?));
    }
    if let Some(selector) = &from.config_map_key_ref {
        let optional = selector.optional == Some(true);
        return match references.config_maps.get(&selector.name).cloned().flatten() {
            None if optional => Ok(None),
            None => Err(Error::ConfigMap(selector.name.clone())),
            Some(map) => match map.data.as_ref().and_then(|data| data.get(&selector.key)) {
                Some(value) => Ok(Some(value.clone())),
                None if optional => Ok(None),
                None => Err(missing("ConfigMap", &selector.name, &selector.key)),
            },
        };
    }
    if let Some(selector) = &from.secret_key_ref {
        let optional = selector.optional == Some(true);
        return match references.secrets.get(&selector.name).cloned().flatten() {
            None if optional => Ok(None),
            None => Err(Error::Secret(selector.name.clone())),
            Some(secret) => match secret.data.as_ref().and_then(|data| data.get(&selector.key)) {
                Some(value) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
                None if optional => Ok(None),
                None => Err(missing("Secret", &selector.name, &selector.key)),
            },
        };
    }
    if let Some(source) = &from.file_key_ref {
        let file = references.files.get(&(source.volume_name.clone(), source.path.clone()));
        let file = file.ok_or_else(|| Error::Volume(source.volume_name.clone()))?;
        let text = file.text.as_deref().ok_or(Error::File)?;
        let value = env_file::value(text, &source.key).map_err(|_| Error::File)?;
        return match (value.is_empty(), source.optional == Some(true)) {
            (false, _) => Ok(Some(value)),
            (true, true) => Ok(None),
            (true, false) => Err(Error::FileKey { key: source.key.clone(), path: file.path.clone() }),
        };
    }
    Ok(Some(String::new()))
}

/// Replaces `$(NAME)` by its value; `$$` is a dollar sign, and unknown references stay as they are.
pub fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(next) = after.strip_prefix('$') {
            out.push('$');
            rest = next;
        } else if let Some((name, next)) = after.strip_prefix('(').and_then(|a| a.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = next;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

/// `REDIS_SERVICE_HOST` and its kin. Without links only `kubernetes` of `default` is there.
fn service_variables(services: &[Arc<Service>], namespace: &str, links: bool) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let is_master = |s: &Service| {
        s.metadata.name.as_deref() == Some("kubernetes") && s.metadata.namespace.as_deref() == Some("default")
    };
    // The pod's own namespace wins over the master service of the same name.
    let mut chosen: Vec<_> = services
        .iter()
        .filter(|s| is_master(s) || (links && s.metadata.namespace.as_deref() == Some(namespace)))
        .collect();
    chosen.sort_by_key(|s| s.metadata.namespace.as_deref() == Some(namespace));
    for service in chosen {
        let (Some(name), Some(spec)) = (&service.metadata.name, &service.spec) else { continue };
        let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else {
            continue;
        };
        let upper = |text: &str| text.to_uppercase().replace('-', "_");
        let name = upper(name);
        let ports = spec.ports.as_deref().unwrap_or_default();
        let Some(first) = ports.first() else { continue };
        all.insert(format!("{name}_SERVICE_HOST"), ip.to_owned());
        all.insert(format!("{name}_SERVICE_PORT"), first.port.to_string());
        for (index, port) in ports.iter().enumerate() {
            if let Some(port_name) = port.name.as_deref().filter(|n| !n.is_empty()) {
                all.insert(format!("{name}_SERVICE_PORT_{}", upper(port_name)), port.port.to_string());
            }
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let lower = protocol.to_lowercase();
            let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
            let url = format!("{lower}://{host}:{}", port.port);
            if index == 0 {
                all.insert(format!("{name}_PORT"), url.clone());
            }
            let prefix = format!("{name}_PORT_{}_{}", port.port, protocol.to_uppercase());
            all.insert(format!("{prefix}_PROTO"), lower);
            all.insert(format!("{prefix}_PORT"), port.port.to_string());
            all.insert(format!("{prefix}_ADDR"), ip.to_owned());
            all.insert(prefix, url);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn from<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn expansion() {
        let lookup = |name: &str| (name == "A").then(|| "1".to_owned());
        for (text, want) in [
            ("$(A)", "1"),
            ("$$(A)", "$(A)"),
            ("$(B)-$(A)", "$(B)-1"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
            ("ü$(A)ü", "ü1ü"),
        ] {
            assert_eq!(expand(text, lookup), want, "{text}");
        }
    }

    #[test]
    fn later_definitions_win_and_optional_sources_may_miss() {
        let pod: Pod = from(
            json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": [{"name": "c",
            "envFrom": [{"prefix": "X_", "configMapRef": {"name": "m"}}, {"secretRef": {"name": "no", "optional": true}}],
            "env": [
                {"name": "X_k", "value": "own"},
                {"name": "both", "value": "$(X_k)/$(REDIS_SERVICE_HOST)/$(later)"},
                {"name": "later", "value": "z"},
                {"name": "opt", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "no", "optional": true}}},
            ]}]}}),
        );
        let map: ConfigMap = from(json!({"data": {"k": "v", "l": "w"}}));
        let redis: Service = from(json!({"metadata": {"name": "redis", "namespace": "n"},
            "spec": {"clusterIP": "10.0.0.9", "ports": [{"name": "main-port", "port": 6379, "protocol": "TCP"}]}}));
        let references = References {
            config_maps: BTreeMap::from([("m".to_owned(), Some(Arc::new(map)))]),
            secrets: BTreeMap::from([("no".to_owned(), None)]),
            services: vec![Arc::new(redis)],
            ..Default::default()
        };
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let env: BTreeMap<_, _> =
            build(&pod, container, &references, &Facts::default()).unwrap().into_iter().collect();
        assert_eq!(env["X_k"], "own");
        assert_eq!(env["X_l"], "w");
        assert_eq!(env["both"], "own/10.0.0.9/$(later)");
        assert_eq!(env["REDIS_PORT_6379_TCP"], "tcp://10.0.0.9:6379");
        assert_eq!(env["REDIS_SERVICE_PORT_MAIN_PORT"], "6379");
        assert!(!env.contains_key("opt"));
    }

    #[test]
    fn what_must_exist_is_named_when_it_does_not() {
        let pod: Pod = from(json!({"metadata": {"namespace": "n"}, "spec": {"containers": [{"name": "c",
            "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}]}}));
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let mut references = References::default();
        let text = |r: &References| build(&pod, container, r, &Facts::default()).unwrap_err().to_string();
        assert_eq!(text(&references), "secret \"s\" not found");
        references.secrets.insert("s".to_owned(), Some(Arc::new(Secret::default())));
        assert_eq!(text(&references), "couldn't find key k in Secret n/s");
    }
}
