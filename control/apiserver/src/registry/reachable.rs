//! Where a Service can be reached from this server: at one of its endpoints, since a server need not be where cluster IPs
//! are routed, unless it is told that they are. Upstream: `kube-aggregator/pkg/apiserver/resolvers.go`.

use super::Registry;
use super::kind::Kind;
use crate::webhook::{Address, Services};
use futures::future::BoxFuture;
use machinery::access::Get as _;
use machinery::goformat::go_quote;
use machinery::object;
use machinery::status::Status;
use serde_json::Value;

impl Services for Registry {
    fn reach<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
        port: u16,
    ) -> BoxFuture<'a, Result<Address, Status>> {
        Box::pin(self.address_of(namespace, name, port))
    }
}

impl Registry {
    async fn address_of(&self, namespace: &str, name: &str, port: u16) -> Result<Address, Status> {
        let (Some(services), Some(slices)) =
            (Kind::of("", "services"), Kind::of("discovery.k8s.io", "endpointslices"))
        else {
            return Err(Status::internal_error("services are not served"));
        };
        let service = self.lookup(&services, namespace, name).await?.ok_or_else(|| {
            Status::failure(404, Default::default(), format!("service {} not found", go_quote(name)))
        })?;
        if service.text("spec.type") == "ExternalName" {
            return Ok((service.text("spec.externalName").to_owned(), port));
        }
        let wanted = service_port(&service, port).ok_or_else(|| {
            Status::service_unavailable(format!(
                "no service port {port} found for service {}",
                go_quote(name)
            ))
        })?;
        if self.config.by_cluster_ip {
            return cluster_ip(&service, port);
        }
        let mut places = Vec::new();
        for slice in self.cached(&slices, namespace)? {
            if object::label(&slice, "kubernetes.io/service-name").unwrap_or_default() == name {
                places.append(&mut ready(&slice, &wanted));
            }
        }
        if places.is_empty() {
            return Err(Status::service_unavailable(format!(
                "no endpoints available for service {}",
                go_quote(name)
            )));
        }
        let chosen = usize::try_from(self.random()).unwrap_or_default() % places.len();
        Ok(places.swap_remove(chosen))
    }
}

/// The cluster IP, at which the port is the Service's own.
fn cluster_ip(service: &Value, port: u16) -> Result<Address, Status> {
    match service.text("spec.clusterIP") {
        "" | "None" => Err(Status::internal_error("cannot route to service with ClusterIP \"None\"")),
        ip => Ok((ip.to_owned(), port)),
    }
}

/// The name of the Service's port of that number.
fn service_port(service: &Value, port: u16) -> Option<String> {
    service
        .items("spec.ports")
        .iter()
        .find(|p| p.present("port").and_then(Value::as_u64) == Some(u64::from(port)))
        .map(|p| p.text("name").to_owned())
}

/// The places of a slice that answer the port of that name.
fn ready(slice: &Value, port: &str) -> Vec<Address> {
    let number = slice
        .items("ports")
        .iter()
        .find(|p| p.text("name") == port)
        .and_then(|p| p.present("port")?.as_u64())
        .and_then(|p| u16::try_from(p).ok());
    let Some(number) = number else { return Vec::new() };
    slice
        .items("endpoints")
        .iter()
        .filter(|e| e.present("conditions.ready").and_then(Value::as_bool) != Some(false))
        .filter_map(|e| e.items("addresses").first()?.as_str())
        .map(|address| (address.to_owned(), number))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_ready_endpoints_of_the_port_are_reached() {
        let service = json!({"spec": {"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 443}]}});
        assert_eq!(service_port(&service, 443).as_deref(), Some("b"));
        assert_eq!(service_port(&service, 8443), None);
        let slice = json!({
            "ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2}],
            "endpoints": [
                {"addresses": ["10.0.0.1"], "conditions": {"ready": false}},
                {"addresses": ["10.0.0.2"], "conditions": {}},
                {"addresses": ["10.0.0.3"]},
            ],
        });
        assert_eq!(ready(&slice, "b"), [("10.0.0.2".to_owned(), 2), ("10.0.0.3".to_owned(), 2)]);
        assert_eq!(ready(&slice, "c"), []);
    }

    #[test]
    fn a_headless_service_must_not_be_called_at_a_cluster_ip() {
        let of = |ip: &str| cluster_ip(&json!({"spec": {"clusterIP": ip}}), 443);
        assert_eq!(of("10.96.0.7").ok(), Some(("10.96.0.7".to_owned(), 443)));
        assert!(of("None").is_err() && of("").is_err());
    }
}
