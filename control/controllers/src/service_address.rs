//! IPAddresses: one for each cluster IP of each Service, so that people see what is taken and by whom.
//!
//! Woken by: a service, an address of ours. Reads: services, IPAddresses. Writes: IPAddresses managed by `ipallocator.k8s.io`.
//! Promises: every cluster IP has its object a moment after its Service is there, and none stays behind; objects of others are left
//! alone. The API server gives the addresses; these objects follow.

use crate::cluster::Cluster;
use crate::informer::Informer;
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, code, found};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::{IPAddress, IPAddressSpec, ParentReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
const MANAGER: &str = "ipallocator.k8s.io";

/// The address, if the object is of a Service's cluster IP.
pub(crate) fn of_service(address: &IPAddress) -> Option<IpAddr> {
    let ours = address.labels().get(MANAGED_BY).map(String::as_str) == Some(MANAGER);
    address.metadata.name.as_deref().filter(|_| ours)?.parse().ok()
}

fn cluster_ips(service: &Service) -> Vec<IpAddr> {
    let spec = service.spec.as_ref().filter(|s| s.type_.as_deref() != Some("ExternalName"));
    let all = spec.into_iter().flat_map(|s| s.cluster_ips.iter().flatten().chain(&s.cluster_ip));
    let mut ips: Vec<IpAddr> = all.filter_map(|ip| ip.parse().ok()).collect();
    ips.sort_unstable();
    ips.dedup();
    ips
}

/// The Service an address names as its own.
fn parent(address: &IPAddress) -> Option<Key> {
    let parent = &address.spec.parent_ref;
    let of_service = parent.resource == "services" && parent.group.as_deref().unwrap_or_default().is_empty();
    of_service.then(|| Key::new(parent.namespace.as_deref().unwrap_or_default(), &parent.name))
}

/// The controller. A key is a Service's.
pub(crate) struct ServiceAddresses {
    services: Arc<Informer<Service>>,
    addresses: Arc<Informer<IPAddress>>,
    client: Client,
}

impl ServiceAddresses {
    /// Registers for what wakes it.
    #[must_use]
    pub(crate) fn new(cluster: &Cluster, client: Client, queue: &Arc<Queue>) -> Self {
        let wake = queue.clone();
        cluster.services.on_change(move |old, new| {
            let ips = |service: Option<&Arc<Service>>| service.map(|s| cluster_ips(s)).unwrap_or_default();
            if let Some(service) = new.or(old)
                && ips(old) != ips(new)
            {
                wake.add(crate::informer::key_of(&**service));
            }
        });
        let wake = queue.clone();
        cluster.services.on_unread_gone(move |key| wake.add(key.clone()));
        let wake = queue.clone();
        cluster.ip_addresses.on_change(move |old, new| {
            for address in [old, new].into_iter().flatten().filter(|a| of_service(a).is_some()) {
                if let Some(key) = parent(address) {
                    wake.add(key);
                }
            }
        });
        Self { services: cluster.services.clone(), addresses: cluster.ip_addresses.clone(), client }
    }
}

impl Reconcile for ServiceAddresses {
    const NAME: &'static str = "service-address-controller";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let api: Api<IPAddress> = Api::all(self.client.clone());
        let wanted = match self.services.get(key) {
            Some(service) => cluster_ips(&service),
            // What it has is not known: nothing is given, and nothing taken away.
            None if self.services.exists(key) => return Ok(None),
            None => Vec::new(),
        };
        for address in self.addresses.list("") {
            let Some(ip) = of_service(&address) else { continue };
            if parent(&address).as_ref() != Some(key) || wanted.contains(&ip) {
                continue;
            }
            // somebody else may have the address by now
            let exactly = Preconditions { uid: address.metadata.uid.clone(), resource_version: None };
            let params = DeleteParams { preconditions: Some(exactly), ..DeleteParams::default() };
            let deleted = api.delete(&address.name_any(), &params).await;
            found(deleted).doing(|| format!("delete IP address {ip} of service {key}"))?;
        }
        for ip in wanted {
            let name = ip.to_string();
            if let Some(there) = self.addresses.get(&Key::new("", &name)) {
                // its Service is about to go, which wakes us again; what is not ours stays
                if parent(&there).as_ref() == Some(key) || of_service(&there).is_none() {
                    continue;
                }
                let gone = parent(&there).is_none_or(|other| !self.services.exists(&other));
                if !gone {
                    continue;
                }
                let deleted = api.delete(&name, &DeleteParams::default()).await;
                found(deleted).doing(|| format!("delete IP address {ip}"))?;
            }
            let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
            let labels = [(FAMILY, family), (MANAGED_BY, MANAGER)];
            let address = IPAddress {
                metadata: ObjectMeta {
                    name: Some(name),
                    labels: Some(BTreeMap::from(labels.map(|(k, v)| (k.to_owned(), v.to_owned())))),
                    ..ObjectMeta::default()
                },
                spec: IPAddressSpec {
                    parent_ref: ParentReference {
                        group: None,
                        name: key.name.to_string(),
                        namespace: Some(key.namespace.to_string()),
                        resource: "services".to_owned(),
                    },
                },
            };
            match api.create(&PostParams::default(), &address).await {
                Err(error) if code(&error) == Some(409) => {}
                created => created.map(drop).doing(|| format!("create IP address {ip} of service {key}"))?,
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;
    use serde_json::{Value, json};
    use supervise::{Scope, Supervisor};
    use tokio_util::sync::CancellationToken;

    const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";

    fn address(name: &str, service: &str) -> Value {
        json!({"metadata": {"name": name, "uid": name, "labels": {(MANAGED_BY): MANAGER}},
            "spec": {"parentRef": {"resource": "services", "namespace": "n", "name": service}}})
    }

    /// A service with two things in its status or spec that nobody asked for.
    fn service(name: &str, ip: &str, port: Value, transition: Value) -> Value {
        json!({"metadata": {"name": name, "namespace": "n", "uid": name},
            "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": port}]},
            "status": {"conditions": [{"type": "t", "status": "True", "lastTransitionTime": transition}]}})
    }

    /// The addresses left after each service was looked at, and whose they are.
    async fn left(services: &[Value], addresses: &[Value], keys: &[&str]) -> Vec<String> {
        let fake = Fake::default();
        for object in services {
            fake.put(
                &format!("/api/v1/services/{}", object["metadata"]["name"].as_str().unwrap()),
                object.clone(),
            );
        }
        for object in addresses {
            fake.put(
                &format!("{ADDRESSES}/{}", object["metadata"]["name"].as_str().unwrap()),
                object.clone(),
            );
        }
        let scope = Scope::new(&Supervisor::default(), "controllers/", &CancellationToken::new());
        let (cluster, client) = (Cluster::default(), fake.client());
        scope.keep(cluster.services.task("services", client::Source::all::<Service>(&client)));
        scope.keep(cluster.ip_addresses.task("ipaddresses", client::Source::all::<IPAddress>(&client)));
        let synced = async { tokio::join!(cluster.services.synced(), cluster.ip_addresses.synced()) };
        tokio::time::timeout(Duration::from_secs(10), synced).await.unwrap();
        let controller = ServiceAddresses::new(&cluster, client, &Arc::default());
        for name in keys {
            controller.reconcile(&Key::new("n", name)).await.unwrap();
        }
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let named = |address: &Value| {
            format!("{} {}", text(&address["metadata"]["name"]), text(&address["spec"]["parentRef"]["name"]))
        };
        fake.under(&format!("{ADDRESSES}/")).iter().map(named).collect()
    }

    #[tokio::test]
    async fn an_unreadable_services_address_must_not_be_taken_for_free() {
        let services = [
            service("null", "10.0.0.1", json!(80), Value::Null),
            service("bad", "10.0.0.2", json!({}), Value::Null),
        ];
        let addresses =
            [address("10.0.0.1", "null"), address("10.0.0.2", "bad"), address("10.0.0.3", "gone")];
        assert_eq!(
            left(&services, &addresses, &["null", "bad", "gone"]).await,
            ["10.0.0.1 null", "10.0.0.2 bad"]
        );
    }

    #[tokio::test]
    async fn a_deleted_service_whose_conditions_had_no_time_must_not_keep_its_address() {
        let other = service("other", "10.0.0.9", json!(80), Value::Null);
        assert_eq!(
            left(&[other], &[address("10.0.0.1", "null")], &["null", "other"]).await,
            ["10.0.0.9 other"]
        );
    }

    #[tokio::test]
    async fn an_address_named_by_an_unreadable_service_must_not_be_given_to_another() {
        let services = [
            service("bad", "10.0.0.1", json!({}), Value::Null),
            service("good", "10.0.0.1", json!(80), Value::Null),
        ];
        assert_eq!(left(&services, &[address("10.0.0.1", "bad")], &["good"]).await, ["10.0.0.1 bad"]);
    }
}
