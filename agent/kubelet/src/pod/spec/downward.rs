//! The downward API: a pod's own fields and resources as text.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::quantity::{divided, milli};
use machinery::goformat::go_quote;

/// What a pod's fields do not say.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The node's addresses, primary first.
    pub host_ips: Vec<String>,
    /// The pod's addresses, primary first.
    pub pod_ips: Vec<String>,
    /// What the node offers pods, for limits that are not set.
    pub allocatable: BTreeMap<String, Quantity>,
}

/// A field that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("unsupported fieldPath: {0}")]
    Field(String),
    /// No such container resource.
    #[error("unsupported container resource : {0}")]
    Resource(String),
    #[error("container {0} not found")]
    Container(String),
}

/// The value of a `fieldRef`.
pub fn field(pod: &Pod, facts: &Facts, path: &str) -> Result<String, Error> {
    let map = |map: Option<&BTreeMap<String, String>>, key: &str| {
        map.and_then(|m| m.get(key)).cloned().unwrap_or_default()
    };
    let metadata = &pod.metadata;
    if let Some((field, key)) = path.strip_suffix("']").and_then(|p| p.split_once("['")) {
        return match field {
            "metadata.labels" => Ok(map(metadata.labels.as_ref(), key)),
            "metadata.annotations" => Ok(map(metadata.annotations.as_ref(), key)),
            _ => Err(Error::Field(path.to_owned())),
        };
    }
    let spec = pod.spec.as_ref();
    Ok(match path {
        "metadata.name" => metadata.name.clone().unwrap_or_default(),
        "metadata.namespace" => metadata.namespace.clone().unwrap_or_default(),
        "metadata.uid" => metadata.uid.clone().unwrap_or_default(),
        "metadata.labels" => lines(metadata.labels.as_ref()),
        "metadata.annotations" => lines(metadata.annotations.as_ref()),
        "spec.nodeName" => spec.and_then(|s| s.node_name.clone()).unwrap_or_default(),
        "spec.serviceAccountName" => spec.and_then(|s| s.service_account_name.clone()).unwrap_or_default(),
        "status.hostIP" => facts.host_ips.first().cloned().unwrap_or_default(),
        "status.hostIPs" => facts.host_ips.join(","),
        "status.podIP" => facts.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => facts.pod_ips.join(","),
        _ => return Err(Error::Field(path.to_owned())),
    })
}

/// `key="value"` lines in key order, the value quoted as Go quotes.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<_> = map.into_iter().flatten().map(|(k, v)| format!("{k}={}", go_quote(v))).collect();
    lines.join("\n")
}

/// The value of a `resourceFieldRef`; `own` is the container it stands in, for selectors that name none.
pub fn resource(
    pod: &Pod,
    own: Option<&Container>,
    facts: &Facts,
    selector: &ResourceFieldSelector,
) -> Result<String, Error> {
    let named = selector.container_name.as_deref().filter(|name| !name.is_empty());
    let container = match (named, own) {
        (Some(name), _) => crate::pod::container(pod, name).map(|(_, c)| c),
        (None, own) => own.map(Cow::Borrowed),
    };
    let container = container.ok_or_else(|| Error::Container(named.unwrap_or_default().to_owned()))?;
    let resources = container.resources.as_ref();
    let (limits, requests) =
        (resources.and_then(|r| r.limits.as_ref()), resources.and_then(|r| r.requests.as_ref()));
    let unsupported = || Error::Resource(selector.resource.clone());
    let (kind, name) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    if !(matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-")) {
        return Err(unsupported());
    }
    let set = |list: Option<&'_ BTreeMap<String, Quantity>>| -> Option<Quantity> {
        list.and_then(|list| list.get(name)).filter(|amount| milli(amount) != 0).cloned()
    };
    let quantity = match kind {
        "limits" => set(limits).or_else(|| default_limit(pod, own.is_some(), facts, name)),
        "requests" => [requests, limits].into_iter().flatten().find_map(|list| list.get(name)).cloned(),
        _ => return Err(unsupported()),
    };
    let quantity = quantity.unwrap_or_else(|| Quantity("0".to_owned()));
    Ok(divided(&quantity, selector.divisor.as_ref()).to_string())
}

/// What stands for a limit that is not set or zero: what the node offers pods, of which an environment variable is told the
/// pod's own part. Huge pages are never had without a limit. Upstream: `defaultPodLimitsForDownwardAPI`.
fn default_limit(pod: &Pod, variable: bool, facts: &Facts, name: &str) -> Option<Quantity> {
    if name.starts_with("hugepages-") {
        return None;
    }
    let offered = facts.allocatable.get(name)?;
    let of_pod = pod.spec.as_ref().and_then(|s| s.resources.as_ref()?.limits.as_ref()?.get(name));
    let of_pod = of_pod.filter(|limit| variable && name != "ephemeral-storage" && milli(limit) != 0);
    Some(of_pod.unwrap_or(offered).clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_limit_that_is_not_set_must_not_be_told_as_more_than_the_pod_may_have() {
        let facts = Facts {
            allocatable: ["cpu", "memory", "ephemeral-storage", "hugepages-2Mi"]
                .map(|name| (name.to_owned(), Quantity("64".to_owned())))
                .into(),
            ..Facts::default()
        };
        let told = |spec: serde_json::Value, name: &str, volume: bool| {
            let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
            let selector = json!({"resource": name, "containerName": if volume { "c" } else { "" }});
            let container = pod.spec.as_ref().unwrap().containers[0].clone();
            let own = (!volume).then_some(&container);
            resource(&pod, own, &facts, &serde_json::from_value(selector).unwrap()).unwrap()
        };
        let pod = |limits: serde_json::Value| {
            json!({"resources": {"limits": {"memory": "7"}},
            "containers": [{"name": "c", "resources": {"limits": limits}}]})
        };
        assert_eq!(told(pod(json!({})), "limits.memory", false), "7");
        assert_eq!(told(pod(json!({"memory": "0"})), "limits.memory", false), "7", "zero is no limit");
        assert_eq!(told(pod(json!({"memory": "5"})), "limits.memory", false), "5");
        assert_eq!(told(pod(json!({})), "limits.memory", true), "64", "files are told the node's");
        assert_eq!(told(pod(json!({})), "limits.cpu", false), "64");
        assert_eq!(told(pod(json!({})), "limits.hugepages-2Mi", false), "0");
    }

    #[test]
    fn what_go_quotes_must_not_be_quoted_as_rust_does() {
        let all = BTreeMap::from([("a".to_owned(), "\u{7}é\u{200b}\"".to_owned())]);
        assert_eq!(lines(Some(&all)), r#"a="\aé\u200b\"""#);
    }

    #[test]
    fn fields_and_resources() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "labels": {"b": "2", "a": "1\"x"}},
            "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}}}]},
        }))
        .unwrap();
        let facts = Facts {
            host_ips: vec!["10.0.0.1".into()],
            pod_ips: vec!["10.1.0.1".into(), "fd00::1".into()],
            allocatable: BTreeMap::new(),
        };
        let get = |path: &str| field(&pod, &facts, path).unwrap();
        assert_eq!(get("metadata.labels"), "a=\"1\\\"x\"\nb=\"2\"");
        assert_eq!(get("metadata.labels['b']"), "2");
        assert_eq!(get("status.podIPs"), "10.1.0.1,fd00::1");
        assert!(field(&pod, &facts, "spec.volumes").is_err());
        let resource = |name: &str| {
            let selector = serde_json::from_value(json!({"resource": name, "divisor": "0"})).unwrap();
            resource(&pod, Some(&pod.spec.as_ref().unwrap().containers[0]), &facts, &selector)
        };
        assert_eq!(resource("limits.cpu").unwrap(), "2");
        assert_eq!(resource("requests.memory").unwrap(), (64 << 20).to_string());
        assert!(resource("limits.gpu").is_err());
    }
}
