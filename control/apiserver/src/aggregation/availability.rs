//! Whether other servers answer: the Available condition of their APIServices.
//! Upstream: `kube-aggregator/pkg/controllers/status/remote`.

use super::remote::{Remote, resources};
use super::{Aggregator, proxy};
use crate::registry::kind::Kind;
use crate::upkeep::api_services::available;
use crate::upkeep::reconcile;
use futures::future::join_all;
use machinery::access::Get as _;
use machinery::object;
use machinery::status::Status;
use serde_json::Value;
use std::time::Duration;

/// Longest time of one question.
const LONGEST: Duration = Duration::from_secs(5);
/// Questions before a server counts as unavailable: one of several endpoints may be broken.
const ATTEMPTS: usize = 5;

pub(super) async fn check_all(aggregator: &Aggregator) -> Result<(), Status> {
    let remotes = aggregator.remotes();
    aggregator.retain(&remotes);
    join_all(remotes.iter().map(|remote| check(aggregator, remote))).await.into_iter().collect()
}

async fn check(aggregator: &Aggregator, remote: &Remote) -> Result<(), Status> {
    let registry = &aggregator.writer.registry;
    let Some(kind) = Kind::of("apiregistration.k8s.io", "apiservices") else { return Ok(()) };
    let Some(stored) = registry.lookup(&kind, "", &remote.name).await? else { return Ok(()) };
    let (condition, said) = match endpoints(aggregator, remote).await {
        Err(condition) => (condition, None),
        Ok(()) => match discover(aggregator, remote).await {
            Ok(document) => (available("True", "Passed", "all checks passed"), Some(resources(&document))),
            Err(why) => (available("False", "FailedDiscoveryCheck", &why), None),
        },
    };
    aggregator.note(remote, said);
    reconcile::say(&aggregator.writer, &kind, &stored, &condition).await
}

/// Has the Service what the APIService says? The condition, where not.
async fn endpoints(aggregator: &Aggregator, remote: &Remote) -> Result<(), Value> {
    let no = |reason: &str, message: String| Err(available("False", reason, &message));
    let registry = &aggregator.writer.registry;
    let (Some(services), Some(slices)) =
        (Kind::of("", "services"), Kind::of("discovery.k8s.io", "endpointslices"))
    else {
        return Ok(());
    };
    let subject = format!("service/{} in {:?}", remote.service, remote.namespace);
    let service = match registry.lookup(&services, &remote.namespace, &remote.service).await {
        Ok(Some(service)) => service,
        Ok(None) => return no("ServiceNotFound", format!("{subject} is not present")),
        Err(e) => {
            let message = format!("{subject} cannot be checked due to: {e}");
            return Err(available("Unknown", "ServiceAccessError", &message));
        }
    };
    if !matches!(service.text("spec.type"), "ClusterIP" | "") {
        return Ok(());
    }
    let port = service
        .items("spec.ports")
        .iter()
        .find(|p| p.present("port").and_then(Value::as_u64) == Some(u64::from(remote.port)))
        .map(|p| p.text("name"));
    let Some(port) = port else {
        return no("ServicePortError", format!("{subject} is not listening on port {}", remote.port));
    };
    let slices: Vec<Value> = registry
        .cached(&slices, &remote.namespace)
        .unwrap_or_default()
        .into_iter()
        .filter(|s| object::label(s, "kubernetes.io/service-name").unwrap_or_default() == remote.service)
        .collect();
    if slices.is_empty() {
        let message =
            format!("cannot find endpointslices for service/{} in {:?}", remote.service, remote.namespace);
        return no("EndpointsNotFound", message);
    }
    if !slices.iter().any(|slice| answers(slice, port)) {
        let message = format!(
            "endpointslices for service/{} in {:?} have no addresses with port name {port:?}",
            remote.service, remote.namespace
        );
        return no("MissingEndpoints", message);
    }
    Ok(())
}

fn answers(slice: &Value, port: &str) -> bool {
    slice.items("ports").iter().any(|p| p.text("name") == port)
        && slice.items("endpoints").iter().any(|e| {
            e.present("conditions.ready").and_then(Value::as_bool) != Some(false)
                && !e.items("addresses").is_empty()
        })
}

/// The server's list of resources; the error is the condition's message.
async fn discover(aggregator: &Aggregator, remote: &Remote) -> Result<Value, String> {
    let (mut last, root) = (String::new(), remote.root());
    for _ in 0..ATTEMPTS {
        let asked = tokio::time::timeout(LONGEST, proxy::get(aggregator, remote, &root));
        match asked.await.unwrap_or_else(|_| Err("context deadline exceeded".to_owned())) {
            Ok((code, body)) if (200..300).contains(&code) => {
                return Ok(serde_json::from_slice(&body).unwrap_or_default());
            }
            // It answers, but wants to know who asks: upstream takes that for an answer, too.
            Ok((401 | 403, _)) => return Ok(Value::Null),
            Ok((code, _)) => last = format!("bad status from {}: {code}", url(remote)),
            Err(why) => last = format!("Get {:?}: {why}", url(remote)),
        }
    }
    Err(format!("failing or missing response from {}: {last}", url(remote)))
}

fn url(remote: &Remote) -> String {
    format!("https://{}:{}{}", remote.host(), remote.port, remote.root())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_address_counts_where_the_port_is_served() {
        let slice =
            json!({"ports": [{"name": "https", "port": 1}], "endpoints": [{"addresses": ["10.0.0.1"]}]});
        assert!(answers(&slice, "https") && !answers(&slice, ""));
        let gone = json!({"ports": [{"name": "https", "port": 1}],
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": false}}]});
        assert!(!answers(&gone, "https"));
    }
}
