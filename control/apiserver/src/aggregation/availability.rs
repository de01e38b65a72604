//! Whether other servers answer: the Available condition of their APIServices.
//! Upstream: `kube-aggregator/pkg/controllers/status/remote`.

use super::remote::{Remote, resources};
use super::{Aggregator, proxy};
use crate::registry::kind::Kind;
use crate::upkeep::api_services::available;
use crate::upkeep::reconcile;
use futures::future::{join_all, select_ok};
use machinery::access::Get as _;
use machinery::goformat::go_quote;
use machinery::object;
use machinery::status::Status;
use serde_json::Value;
use std::time::Duration;

/// Longest time of one question.
const LONGEST: Duration = Duration::from_secs(5);
/// Questions before a server counts as unavailable: one of several endpoints may be broken.
const ATTEMPTS: usize = 5;
/// Bytes of a discovery document.
const LONGEST_DOCUMENT: usize = 4 * 1024 * 1024;

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
        Ok(host) => match discover(aggregator, remote, &host).await {
            Ok(document) => {
                // It answers; what is no document does not say that it has nothing.
                let said = document.is_object().then(|| resources(&document));
                (available("True", "Passed", "all checks passed"), said)
            }
            Err(why) => (available("False", "FailedDiscoveryCheck", &why), None),
        },
    };
    aggregator.note(remote, said);
    reconcile::say(&aggregator.writer, &kind, &stored, &condition).await
}

/// Has the Service what the APIService says? Its host, as messages show it; the condition, where not.
async fn endpoints(aggregator: &Aggregator, remote: &Remote) -> Result<String, Value> {
    let no = |reason: &str, message: String| Err(available("False", reason, &message));
    let registry = &aggregator.writer.registry;
    let (Some(services), Some(slices)) =
        (Kind::of("", "services"), Kind::of("discovery.k8s.io", "endpointslices"))
    else {
        return Ok(remote.host());
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
    let host = shown_host(&service);
    if !matches!(service.text("spec.type"), "ClusterIP" | "") {
        return Ok(host);
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
    Ok(host)
}

/// Where upstream would reach the Service, which is what its messages name.
fn shown_host(service: &Value) -> String {
    match (service.text("spec.type"), service.text("spec.clusterIP")) {
        ("ExternalName", _) => service.text("spec.externalName").to_owned(),
        (_, ip) if ip.contains(':') => format!("[{ip}]"),
        (_, ip) => ip.to_owned(),
    }
}

fn answers(slice: &Value, port: &str) -> bool {
    slice.items("ports").iter().any(|p| p.text("name") == port)
        && slice.items("endpoints").iter().any(|e| {
            e.present("conditions.ready").and_then(Value::as_bool) != Some(false)
                && !e.items("addresses").is_empty()
        })
}

/// The server's list of resources; the error is the condition's message. `host` is where it is said to be. What a broken endpoint does not
/// answer, another may: all further questions are asked at once.
async fn discover(aggregator: &Aggregator, remote: &Remote, host: &str) -> Result<Value, String> {
    let url = format!("https://{host}:{}{}", remote.port, remote.root());
    let first = ask(aggregator, remote, &url).await;
    if first.is_ok() {
        return first;
    }
    let others = (1..ATTEMPTS).map(|_| Box::pin(ask(aggregator, remote, &url)));
    select_ok(others).await.map(|(document, _)| document)
}

async fn ask(aggregator: &Aggregator, remote: &Remote, url: &str) -> Result<Value, String> {
    let root = remote.root();
    let user = ("system:kube-aggregator", Some("system:masters"));
    let question = proxy::Question { path: &root, user, known: "", longest: LONGEST_DOCUMENT };
    let asked = tokio::time::timeout(LONGEST, proxy::get(aggregator, remote, &question)).await;
    let why = match asked {
        Ok(Ok(answer)) => match judged(answer.code, &answer.body, url) {
            Ok(document) => return Ok(document),
            Err(why) => why,
        },
        Ok(Err(why)) => format!("Get {}: {why}", go_quote(url)),
        Err(_) => format!(
            "Get {}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
            go_quote(url)
        ),
    };
    Err(format!("failing or missing response from {url}: {why}"))
}

/// Only a success counts: who may not ask, or is sent elsewhere, has not been served.
fn judged(code: u16, body: &[u8], url: &str) -> Result<Value, String> {
    match code {
        200..300 => Ok(serde_json::from_slice(body).unwrap_or_default()),
        _ => Err(format!("bad status from {url}: {code}")),
    }
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

    #[test]
    fn a_server_that_refuses_to_say_what_it_serves_must_not_pass_for_available() {
        let url = "https://10.96.0.7:443/apis/g.io/v1";
        assert_eq!(judged(200, br#"{"a":1}"#, url), Ok(json!({"a": 1})));
        assert_eq!(judged(206, b"", url), Ok(Value::Null));
        for code in [199, 301, 401, 403, 404, 503] {
            assert_eq!(judged(code, b"{}", url), Err(format!("bad status from {url}: {code}")));
        }
    }

    #[test]
    fn messages_name_the_service_as_upstream_reaches_it() {
        for (spec, host) in [
            (json!({"clusterIP": "10.96.0.7"}), "10.96.0.7"),
            (json!({"clusterIP": "fd00::7"}), "[fd00::7]"),
            (json!({"type": "ExternalName", "externalName": "a.example"}), "a.example"),
        ] {
            assert_eq!(shown_host(&json!({"spec": spec})), host);
        }
    }
}
