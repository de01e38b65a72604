//! Which API servers there are: the endpoints of the Service `kubernetes`, and on disk, for a start while none of the known ones answers.

use client::{Event, Source, mirror};
use futures::StreamExt as _;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

const NAMESPACE: &str = "default";
const SERVICE: &str = "kubernetes";

/// The list on disk.
pub(super) struct File(PathBuf);

impl File {
    pub(super) fn new(dir: &Path) -> Self {
        Self(dir.join("api-servers.json"))
    }

    /// Nothing where there is none, or it cannot be read: it is written again when the cluster has been asked.
    pub(super) fn read(&self) -> Vec<String> {
        let text = pki::files::read_optional(&self.0).ok().flatten().unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    pub(super) fn write(&self, servers: &[String]) -> Result<(), pki::Error> {
        let text = serde_json::to_vec(servers).unwrap_or_default();
        pki::files::write_atomic(&self.0, &text, pki::files::PRIVATE)
    }
}

/// Says which servers there are, at once and whenever that changes, forever.
pub(super) async fn follow(client: &kube::Client, mut known: impl FnMut(Vec<String>)) {
    let source = Source::of(Api::<EndpointSlice>::namespaced(client.clone(), NAMESPACE));
    let mut changes =
        mirror::<EndpointSlice>(source.labels(&format!("kubernetes.io/service-name={SERVICE}")));
    let (mut slices, mut synced) = (BTreeMap::new(), false);
    while let Some(change) = changes.next().await {
        match change {
            Event::Set(key, slice) => drop(slices.insert(key, servers(&slice))),
            Event::Gone(identity) => drop(slices.remove(&identity.key)),
            Event::Synced => synced = true,
            Event::Unreadable(_) | Event::Failed(_) => continue,
        }
        // Half a list would make the other half unknown.
        if synced {
            known(slices.values().flatten().cloned().collect());
        }
    }
}

/// `IP:PORT` of each endpoint that may be used.
fn servers(slice: &EndpointSlice) -> Vec<String> {
    let ports = slice.ports.iter().flatten();
    let ports: Vec<u16> = ports.filter_map(|port| u16::try_from(port.port?).ok()).collect();
    let ready = slice.endpoints.iter().flatten().filter(|endpoint| {
        endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) != Some(false)
    });
    let addresses =
        ready.flat_map(|endpoint| &endpoint.addresses).filter_map(|text| text.parse::<IpAddr>().ok());
    addresses.flat_map(|ip| ports.iter().map(move |port| SocketAddr::new(ip, *port).to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_endpoints_that_may_be_used_are_servers() {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "addressType": "IPv4", "metadata": {"name": "kubernetes"},
            "ports": [{"name": "https", "port": 6443, "protocol": "TCP"}],
            "endpoints": [
                {"addresses": ["192.0.2.1"], "conditions": {"ready": true}},
                {"addresses": ["192.0.2.2"], "conditions": {"ready": false}},
                {"addresses": ["192.0.2.3"]},
                {"addresses": ["a.name"]},
            ],
        }))
        .unwrap();
        assert_eq!(servers(&slice), ["192.0.2.1:6443", "192.0.2.3:6443"]);
    }

    #[test]
    fn what_was_known_is_known_after_a_restart_and_nonsense_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::new(dir.path());
        assert!(file.read().is_empty());
        file.write(&["192.0.2.1:6443".to_owned()]).unwrap();
        assert_eq!(File::new(dir.path()).read(), ["192.0.2.1:6443"]);
        std::fs::write(dir.path().join("api-servers.json"), "{").unwrap();
        assert!(file.read().is_empty());
    }
}
