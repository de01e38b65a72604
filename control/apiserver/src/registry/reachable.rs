//! Where a Service can be reached from this server: at one of its endpoints, since a server need not be where cluster IPs
//! are routed. Upstream: `kube-aggregator/pkg/apiserver/resolvers.go`.

use super::Registry;
use super::kind::Kind;
use super::metadata::{at, items, text};
use crate::webhook::{Address, Services};
use futures::future::BoxFuture;
use machinery::goformat::go_quote;
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
        if text(&service, &["spec", "type"]) == "ExternalName" {
            return Ok((text(&service, &["spec", "externalName"]).to_owned(), port));
        }
        let wanted = service_port(&service, port).ok_or_else(|| {
            Status::service_unavailable(format!(
                "no service port {port} found for service {}",
                go_quote(name)
            ))
        })?;
        let mut places = Vec::new();
        for slice in self.cached(&slices, namespace)? {
            if text(&slice, &["metadata", "labels", "kubernetes.io/service-name"]) == name {
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

/// The name of the Service's port of that number.
fn service_port(service: &Value, port: u16) -> Option<String> {
    items(service, &["spec", "ports"])
        .iter()
        .find(|p| at(p, &["port"]).and_then(Value::as_u64) == Some(u64::from(port)))
        .map(|p| text(p, &["name"]).to_owned())
}

/// The places of a slice that answer the port of that name.
fn ready(slice: &Value, port: &str) -> Vec<Address> {
    let number = items(slice, &["ports"])
        .iter()
        .find(|p| text(p, &["name"]) == port)
        .and_then(|p| at(p, &["port"])?.as_u64())
        .and_then(|p| u16::try_from(p).ok());
    let Some(number) = number else { return Vec::new() };
    items(slice, &["endpoints"])
        .iter()
        .filter(|e| at(e, &["conditions", "ready"]).and_then(Value::as_bool) != Some(false))
        .filter_map(|e| items(e, &["addresses"]).first()?.as_str())
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
}
