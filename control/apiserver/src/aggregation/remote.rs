//! An APIService that delegates a group version, as the aggregator uses it.

use crate::discovery::{Resource, Subresource};
use crate::objects::{list, text, texts};
use crate::stream::trusted::{self, Identity};
use base64::Engine as _;
use rustls::ClientConfig;
use serde_json::Value;
use std::sync::Arc;

/// Another server of a group version.
#[derive(Debug)]
pub(super) struct Remote {
    /// Of the APIService.
    pub name: String,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub service: String,
    pub port: u16,
    /// Of its group among groups, and of the version in it: the greater, the further in front.
    pub priorities: (i64, i64),
    /// Whether its Available condition is true.
    pub available: bool,
    bundle: Vec<u8>,
    unverified: bool,
}

impl Remote {
    /// `None` for what is served here, by its own word or because it is built in.
    pub(super) fn parse(object: &Value) -> Option<Self> {
        let spec = object.get("spec")?;
        let service = spec.get("service").filter(|s| s.is_object())?;
        let (group, version) = (text(spec, "/group"), text(spec, "/version"));
        if machinery::resources::groups().iter().any(|g| g.name == group && g.versions.contains(&version)) {
            return None;
        }
        let port = service.get("port").and_then(Value::as_u64).and_then(|p| u16::try_from(p).ok());
        let available = list(object, "/status/conditions")
            .iter()
            .any(|c| text(c, "/type") == "Available" && text(c, "/status") == "True");
        Some(Remote {
            name: text(object, "/metadata/name").to_owned(),
            group: group.to_owned(),
            version: version.to_owned(),
            namespace: text(service, "/namespace").to_owned(),
            service: text(service, "/name").to_owned(),
            port: port.unwrap_or(443),
            priorities: (number(spec, "groupPriorityMinimum"), number(spec, "versionPriority")),
            available,
            bundle: base64::engine::general_purpose::STANDARD
                .decode(text(spec, "/caBundle"))
                .unwrap_or_default(),
            unverified: spec.get("insecureSkipTLSVerify").and_then(Value::as_bool).unwrap_or_default(),
        })
    }

    /// Its group and version.
    pub(super) fn place(&self) -> (String, String) {
        (self.group.clone(), self.version.clone())
    }

    /// The name its certificate must be for.
    pub(super) fn host(&self) -> String {
        format!("{}.{}.svc", self.service, self.namespace)
    }

    /// Where its discovery document is.
    pub(super) fn root(&self) -> String {
        format!("/apis/{}/{}", self.group, self.version)
    }

    /// How to talk to it, showing `identity` (PEM).
    pub(super) fn tls(&self, identity: &super::Identity) -> Result<Arc<ClientConfig>, String> {
        let read = |e: pki::Error| e.to_string();
        let shown: Identity = (
            pki::pem::certificates(identity.0.as_bytes()).map_err(read)?,
            pki::pem::private_key(identity.1.as_bytes()).map_err(read)?,
        );
        trusted::config(&self.bundle, self.unverified, Some(shown)).map_err(|e| e.to_string())
    }
}

fn number(spec: &Value, name: &str) -> i64 {
    spec.get(name).and_then(Value::as_i64).unwrap_or_default()
}

/// The resources of an `APIResourceList`.
pub(super) fn resources(document: &Value) -> Vec<Resource> {
    let mut resources: Vec<Resource> = Vec::new();
    let entries = list(document, "/resources");
    for entry in entries.iter().filter(|e| !text(e, "/name").contains('/')) {
        resources.push(Resource {
            plural: text(entry, "/name").to_owned(),
            singular: text(entry, "/singularName").to_owned(),
            kind: text(entry, "/kind").to_owned(),
            list_kind: String::new(),
            namespaced: entry.get("namespaced").and_then(Value::as_bool).unwrap_or_default(),
            verbs: texts(entry, "/verbs"),
            short_names: texts(entry, "/shortNames"),
            categories: texts(entry, "/categories"),
            storage_version_hash: text(entry, "/storageVersionHash").to_owned(),
            subresources: Vec::new(),
        });
    }
    for entry in entries {
        let Some((plural, name)) = text(entry, "/name").split_once('/') else { continue };
        let Some(resource) = resources.iter_mut().find(|r| r.plural == plural) else { continue };
        let (group, version) = (text(entry, "/group"), text(entry, "/version"));
        resource.subresources.push(Subresource {
            name: name.to_owned(),
            kind: text(entry, "/kind").to_owned(),
            group_version: (!version.is_empty()).then(|| (group.to_owned(), version.to_owned())),
            verbs: texts(entry, "/verbs"),
        });
    }
    resources.sort_by(|a, b| a.plural.cmp(&b.plural));
    resources
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_built_in_is_never_handed_over() {
        let service = |group: &str| {
            json!({"metadata": {"name": "x"}, "spec": {"group": group, "version": "v1",
                "service": {"namespace": "n", "name": "s"}}})
        };
        assert!(Remote::parse(&service("apps")).is_none());
        let remote = Remote::parse(&service("metrics.example.io")).unwrap();
        assert_eq!((remote.port, remote.host(), remote.available), (443, "s.n.svc".to_owned(), false));
        assert!(Remote::parse(&json!({"spec": {"group": "g.io", "version": "v1"}})).is_none());
    }

    #[test]
    fn a_servers_list_becomes_resources_with_their_parts() {
        let document = json!({"resources": [
            {"name": "flunders/status", "kind": "Flunder", "verbs": ["get"]},
            {"name": "flunders", "singularName": "flunder", "kind": "Flunder", "namespaced": true, "verbs": ["list"]},
        ]});
        let found = resources(&document);
        assert_eq!((found.len(), found[0].subresources[0].name.as_str()), (1, "status"));
    }
}
