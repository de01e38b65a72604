//! What the metrics APIs say, where somebody serves them: `metrics.k8s.io`, `custom.metrics.k8s.io`, `external.metrics.k8s.io`. Errors are
//! upstream's words, for conditions and events.

use super::replicas::{Sample, Samples};
use crate::inventory::Inventory;
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::CrossVersionObjectReference;
use kube::Client;
use machinery::quantity::Quantity;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// Over how long a custom metric was measured, where it does not say.
const WINDOW: Duration = Duration::from_secs(60);

pub(super) struct Metrics<'a> {
    pub client: &'a Client,
    pub namespace: &'a str,
}

fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let one = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(one).collect()
}

/// An amount in thousandths.
fn milli(value: &Value) -> i64 {
    let text = value.as_str().and_then(|text| Quantity::parse(text).ok());
    text.map_or_else(|| value.as_i64().map_or(0, |n| n.saturating_mul(1000)), |q| q.milli_value())
}

fn time(value: &Value) -> Timestamp {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn items(list: &Value) -> &[Value] {
    list["items"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn name(described: &Value) -> Option<String> {
    described["name"].as_str().map(str::to_owned)
}

/// What a client says where the answer is no API object: nobody serves the path, or whoever does is away.
fn refusal(error: kube::Error, what: &str) -> String {
    match error {
        kube::Error::Api(status) => match status.code {
            404 if status.reason != "NotFound" || status.details.is_none() => {
                format!("the server could not find the requested resource (get {what})")
            }
            503 => format!("the server is currently unable to handle the request (get {what})"),
            _ => status.message.clone(),
        },
        other => other.to_string(),
    }
}

impl Metrics<'_> {
    async fn get(&self, path: &str, what: &str) -> Result<Value, String> {
        let request = http::Request::get(path).body(Vec::new()).map_err(|e| e.to_string())?;
        self.client.request(request).await.map_err(|error| refusal(error, what))
    }

    /// Use of `cpu` or `memory` by pod: of one container, or of all of them.
    pub(super) async fn resource(
        &self,
        resource: &str,
        selector: &str,
        container: &str,
    ) -> Result<Samples, String> {
        let (namespace, selector) = (self.namespace, escaped(selector));
        let path =
            format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods?labelSelector={selector}");
        let list = self.get(&path, "pods.metrics.k8s.io").await;
        let list = list.map_err(|why| format!("unable to fetch metrics from resource metrics API: {why}"))?;
        if items(&list).is_empty() {
            return Err("no metrics returned from resource metrics API".to_owned());
        }
        Ok(items(&list).iter().filter_map(|pod| used(pod, resource, container)).collect())
    }

    /// A metric of each pod.
    pub(super) async fn pods(&self, metric: &str, selector: &str, of: &str) -> Result<Samples, String> {
        let path = format!("namespaces/{}/pods/*/{}", self.namespace, escaped(metric));
        let query = format!("labelSelector={}&metricLabelSelector={}", escaped(selector), escaped(of));
        let list = self.custom(&path, &query, "pods.custom.metrics.k8s.io *").await?;
        if items(&list).is_empty() {
            return Err("no metrics returned from custom metrics API".to_owned());
        }
        let sample = |item: &Value| {
            let window = item["windowSeconds"].as_u64().map_or(WINDOW, Duration::from_secs);
            let sample = Sample { value: milli(&item["value"]), at: time(&item["timestamp"]), window };
            Some((name(&item["describedObject"])?, sample))
        };
        Ok(items(&list).iter().filter_map(sample).collect())
    }

    /// A metric of one object.
    pub(super) async fn object(
        &self,
        metric: &str,
        object: &CrossVersionObjectReference,
        selector: &str,
        inventory: &Inventory,
    ) -> Result<i64, String> {
        let (group, _) =
            object.api_version.as_deref().unwrap_or_default().split_once('/').unwrap_or_default();
        let path = if group.is_empty() && object.kind == "Namespace" {
            format!("namespaces/{}/metrics/{}", self.namespace, escaped(metric))
        } else {
            let served = inventory.by_kind(group, &object.kind);
            let served = served.ok_or_else(|| {
                format!("unable to fetch metrics from custom metrics API: {}", no_match(group, &object.kind))
            })?;
            let resource = match group {
                "" => served.resource.plural,
                group => format!("{}.{group}", served.resource.plural),
            };
            format!("namespaces/{}/{resource}/{}/{}", self.namespace, object.name, escaped(metric))
        };
        let query = format!("metricLabelSelector={}", escaped(selector));
        let list = self.custom(&path, &query, &format!("{}.custom.metrics.k8s.io", object.kind)).await?;
        match items(&list) {
            [one] => Ok(milli(&one["value"])),
            all => Err(format!(
                "unable to fetch metrics from custom metrics API: the custom metrics API server returned {} results when we asked for exactly one",
                all.len()
            )),
        }
    }

    /// In the newest version served.
    async fn custom(&self, path: &str, query: &str, what: &str) -> Result<Value, String> {
        let failed = |why: String| format!("unable to fetch metrics from custom metrics API: {why}");
        let group: Result<Value, String> = self.get("/apis/custom.metrics.k8s.io", what).await;
        let group = group
            .map_err(|_| failed("no custom metrics API (custom.metrics.k8s.io) registered".to_owned()))?;
        let served = group["versions"].as_array().into_iter().flatten().filter_map(|v| v["version"].as_str());
        let version = served.filter(|v| ["v1beta2", "v1beta1"].contains(v)).max().unwrap_or("v1beta2");
        let path = format!("/apis/custom.metrics.k8s.io/{version}/{path}?{query}");
        self.get(&path, what).await.map_err(failed)
    }

    /// The values of a metric of something outside the cluster.
    pub(super) async fn external(&self, metric: &str, selector: &str) -> Result<i64, String> {
        let (namespace, name, selector) = (self.namespace, escaped(metric), escaped(selector));
        let path = format!(
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{name}?labelSelector={selector}"
        );
        let list = self.get(&path, &format!("{metric}.external.metrics.k8s.io")).await;
        let list = list.map_err(|why| format!("unable to fetch metrics from external metrics API: {why}"))?;
        if items(&list).is_empty() {
            return Err("no metrics returned from external metrics API".to_owned());
        }
        Ok(items(&list).iter().fold(0_i64, |sum, item| sum.saturating_add(milli(&item["value"]))))
    }
}

/// What is said of a kind nobody serves.
pub(super) fn no_match(group: &str, kind: &str) -> String {
    format!("no matches for kind \"{kind}\" in group \"{group}\"")
}

/// What a pod used, unless one of its containers does not tell.
fn used(pod: &Value, resource: &str, container: &str) -> Option<(String, Sample)> {
    let containers = pod["containers"].as_array()?;
    let usage: BTreeMap<&str, Option<i64>> = containers
        .iter()
        .map(|c| (c["name"].as_str().unwrap_or_default(), c["usage"].get(resource).map(milli)))
        .collect();
    let value = match container {
        "" if usage.is_empty() => return None,
        "" => usage.values().copied().sum::<Option<i64>>()?,
        one => (*usage.get(one)?)?,
    };
    let window = pod["window"].as_str().and_then(|text| machinery::duration::parse(text).ok());
    let window = window.and_then(|nanos| u64::try_from(nanos).ok()).map_or(WINDOW, Duration::from_nanos);
    Some((name(&pod["metadata"])?, Sample { value, at: time(&pod["timestamp"]), window }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_whose_containers_do_not_all_tell_is_not_known() {
        let mut pod = json!({"metadata": {"name": "p"}, "timestamp": "1970-01-01T00:00:10Z", "window": "30s",
            "containers": [{"name": "a", "usage": {"cpu": "250m"}}, {"name": "b", "usage": {"cpu": "1"}}]});
        let (name, sample) = used(&pod, "cpu", "").unwrap();
        assert_eq!((name.as_str(), sample.value, sample.window), ("p", 1250, Duration::from_secs(30)));
        assert_eq!(used(&pod, "cpu", "b").unwrap().1.value, 1000);
        assert_eq!(used(&pod, "cpu", "c"), None);
        pod["containers"][1]["usage"] = json!({"memory": "1Mi"});
        assert_eq!(used(&pod, "cpu", ""), None);
    }

    #[test]
    fn selectors_travel_whole() {
        assert_eq!(escaped("a=b,c in (d)"), "a%3Db%2Cc%20in%20%28d%29");
    }
}
