//! How many replicas each metric of an autoscaler asks for, and what its status says of it.

use super::metrics::Metrics;
use super::replicas::{Pods, Samples, Tolerance, by_mean, by_share, by_total, by_utilization};
use crate::claim::printed;
use crate::inventory::Inventory;
use crate::options::Autoscaling;
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, MetricSpec, MetricTarget};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use machinery::labels::Selector;
use machinery::quantity::{Format, Quantity};
use serde_json::{Value, json};
use std::sync::Arc;

/// What a metric asks for.
pub(super) struct Wish {
    pub replicas: i32,
    /// Which metric, in words.
    pub name: String,
    /// For `status.currentMetrics`.
    pub status: Value,
}

/// Why a metric cannot be had.
pub(super) struct Failure {
    /// The event's and condition's reason.
    pub reason: &'static str,
    /// What could not be done.
    pub what: String,
    pub why: String,
}

/// How far from their targets this autoscaler's metrics may be; `usual` where it does not say.
pub(super) fn tolerance(autoscaler: &HorizontalPodAutoscaler, usual: f64) -> Tolerance {
    let behavior = autoscaler.spec.behavior.as_ref();
    let stated = |quantity: Option<&ApiQuantity>| {
        quantity.and_then(|q| Quantity::parse(&q.0).ok()).map_or(usual, |q| q.as_f64())
    };
    Tolerance {
        down: stated(behavior.and_then(|b| b.scale_down.as_ref()?.tolerance.as_ref())),
        up: stated(behavior.and_then(|b| b.scale_up.as_ref()?.tolerance.as_ref())),
    }
}

/// What all metrics of one autoscaler are judged by.
pub(super) struct Wishes<'a> {
    pub metrics: Metrics<'a>,
    /// The kinds there are.
    pub inventory: &'a Inventory,
    /// Selects the target's pods.
    pub selector: &'a str,
    pub pods: &'a [Arc<Pod>],
    /// Replicas the target is told to have.
    pub current: i32,
    /// Replicas it says it has.
    pub observed: i32,
    /// How far from targets is near enough.
    pub tolerance: Tolerance,
    pub options: Autoscaling,
}

fn milli(quantity: &ApiQuantity) -> i64 {
    Quantity::parse(&quantity.0).map_or(0, |q| q.milli_value())
}

fn amount(milli: i64, format: Format) -> String {
    Quantity::from_milli(milli, format).canonical()
}

fn query(selector: Option<&LabelSelector>) -> Result<String, String> {
    match selector {
        None => Ok(String::new()),
        Some(selector) => {
            let value = serde_json::to_value(selector).map_err(|e| e.to_string())?;
            Selector::from_label_selector(&value).map(|s| s.to_string()).map_err(|e| e.to_string())
        }
    }
}

impl Wishes<'_> {
    fn pods(&self) -> Pods<'_> {
        Pods { all: self.pods, replicas: self.current, now: Timestamp::now(), options: self.options }
    }

    /// What one metric asks for.
    pub(super) async fn of(&self, spec: &MetricSpec) -> Result<Wish, Failure> {
        let (reason, what, wish) = match spec.type_.as_str() {
            "Resource" => {
                let Some(source) = &spec.resource else { return Err(unknown(spec)) };
                let wish = self.resource(&source.name, "", &source.target).await.map(|(replicas, name, current)| {
                    let status = json!({ "type": "Resource", "resource": { "name": source.name, "current": current } });
                    Wish { replicas, name, status }
                });
                let what = format!("failed to get {} resource metric value", source.name);
                ("FailedGetResourceMetric", what, wish)
            }
            "ContainerResource" => {
                let Some(source) = &spec.container_resource else { return Err(unknown(spec)) };
                let (name, container) = (&source.name, &source.container);
                let wish =
                    self.resource(name, container, &source.target).await.map(|(replicas, told, current)| {
                        let status = json!({ "name": name, "container": container, "current": current });
                        let status = json!({ "type": "ContainerResource", "containerResource": status });
                        Wish { replicas, name: told, status }
                    });
                let what = format!("failed to get {container} container metric value");
                ("FailedGetContainerResourceMetric", what, wish)
            }
            "Pods" => (
                "FailedGetPodsMetric",
                "failed to get pods metric value".to_owned(),
                self.each_pod(spec).await,
            ),
            "Object" => (
                "FailedGetObjectMetric",
                "failed to get object metric value".to_owned(),
                self.object(spec).await,
            ),
            "External" => {
                let name = spec.external.as_ref().map_or("", |s| s.metric.name.as_str());
                let what = format!("failed to get {name} external metric value");
                ("FailedGetExternalMetric", what, self.external(spec).await)
            }
            _ => return Err(unknown(spec)),
        };
        wish.map_err(|why| Failure { reason, what, why })
    }

    async fn resource(
        &self,
        resource: &str,
        container: &str,
        target: &MetricTarget,
    ) -> Result<(i32, String, Value), String> {
        let format = if resource == "memory" { Format::BinarySi } else { Format::DecimalSi };
        let samples = async || -> Result<Samples, String> {
            let samples = self.metrics.resource(resource, self.selector, container).await;
            samples.map_err(|why| format!("unable to get metrics for resource {resource}: {why}"))
        };
        if let Some(value) = &target.average_value {
            let found = match samples().await {
                Ok(samples) => by_mean(self.pods(), self.tolerance, resource, milli(value), samples),
                Err(why) => Err(why),
            };
            let (replicas, mean) = found.map_err(|why| format!("failed to get {resource} usage: {why}"))?;
            return Ok((
                replicas,
                format!("{resource} resource"),
                json!({ "averageValue": amount(mean, format) }),
            ));
        }
        let Some(percent) = target.average_utilization else {
            return Err("invalid resource metric source: neither an average utilization target nor an average value (usage) target was set".to_owned());
        };
        let found = match samples().await {
            Ok(samples) => {
                by_utilization(self.pods(), self.tolerance, (resource, container), percent, samples)
            }
            Err(why) => Err(why),
        };
        let (replicas, (used, mean)) =
            found.map_err(|why| format!("failed to get {resource} utilization: {why}"))?;
        let whose = if container.is_empty() { "resource" } else { "container resource" };
        let name = format!("{resource} {whose} utilization (percentage of request)");
        Ok((replicas, name, json!({ "averageUtilization": used, "averageValue": amount(mean, format) })))
    }

    async fn each_pod(&self, spec: &MetricSpec) -> Result<Wish, String> {
        let Some(source) = &spec.pods else { return Err(unknown(spec).why) };
        let (metric, target) = (&source.metric, source.target.average_value.as_ref().map_or(0, milli));
        let of = query(metric.selector.as_ref())?;
        let samples = self.metrics.pods(&metric.name, self.selector, &of).await;
        let samples = samples.map_err(|why| format!("unable to get metric {}: {why}", metric.name))?;
        let (replicas, mean) = by_mean(self.pods(), self.tolerance, "", target, samples)?;
        let current = json!({ "averageValue": amount(mean, Format::DecimalSi) });
        let status = json!({ "type": "Pods", "pods": { "metric": metric, "current": current } });
        Ok(Wish { replicas, name: format!("pods metric {}", metric.name), status })
    }

    async fn object(&self, spec: &MetricSpec) -> Result<Wish, String> {
        let Some(source) = &spec.object else { return Err(unknown(spec).why) };
        let (metric, object) = (&source.metric, &source.described_object);
        let of = query(metric.selector.as_ref())?;
        let usage = async || {
            let usage = self.metrics.object(&metric.name, object, &of, self.inventory).await;
            let (kind, namespace, name) = (&object.kind, self.metrics.namespace, &object.name);
            usage.map_err(|why| {
                format!("unable to get metric {}: {why} on {kind} {namespace}/{name}", metric.name)
            })
        };
        let (replicas, name, current) = match (source.target.type_.as_str(), &source.target) {
            ("Value", MetricTarget { value: Some(value), .. }) => {
                let usage = usage().await?;
                let replicas = by_total(self.pods(), self.tolerance, milli(value), usage)?;
                let name = format!("{} metric {}", object.kind, metric.name);
                (replicas, name, json!({ "value": amount(usage, Format::DecimalSi) }))
            }
            ("AverageValue", MetricTarget { average_value: Some(value), .. }) => {
                let usage = usage()
                    .await
                    .map_err(|why| format!("failed to get {} object metric: {why}", metric.name))?;
                let (replicas, share) = by_share(self.observed, self.tolerance, milli(value), usage);
                let name = format!("external metric {}({})", metric.name, printed(metric.selector.as_ref()));
                (replicas, name, json!({ "averageValue": amount(share, Format::DecimalSi) }))
            }
            _ => {
                return Err("invalid object metric source: neither a value target nor an average value target was set"
                    .to_owned());
            }
        };
        let status = json!({ "describedObject": object, "metric": metric, "current": current });
        Ok(Wish { replicas, name, status: json!({ "type": "Object", "object": status }) })
    }

    async fn external(&self, spec: &MetricSpec) -> Result<Wish, String> {
        let Some(source) = &spec.external else { return Err(unknown(spec).why) };
        let metric = &source.metric;
        let of = query(metric.selector.as_ref())?;
        let usage = async || {
            let usage = self.metrics.external(&metric.name, &of).await;
            let (namespace, selector) = (self.metrics.namespace, printed(metric.selector.as_ref()));
            usage.map_err(|why| {
                format!("unable to get external metric {namespace}/{}/{selector}: {why}", metric.name)
            })
        };
        let (replicas, current) = if let Some(value) = &source.target.average_value {
            let usage = usage()
                .await
                .map_err(|why| format!("failed to get {} external metric: {why}", metric.name))?;
            let (replicas, share) = by_share(self.observed, self.tolerance, milli(value), usage);
            (replicas, json!({ "averageValue": amount(share, Format::DecimalSi) }))
        } else if let Some(value) = &source.target.value {
            let usage = usage()
                .await
                .map_err(|why| format!("failed to get external metric {}: {why}", metric.name))?;
            let replicas = by_total(self.pods(), self.tolerance, milli(value), usage)
                .map_err(|why| format!("failed to get external metric {}: {why}", metric.name))?;
            (replicas, json!({ "value": amount(usage, Format::DecimalSi) }))
        } else {
            return Err(
                "invalid external metric source: neither a value target nor an average value target was set"
                    .to_owned(),
            );
        };
        let name = format!("external metric {}({})", metric.name, printed(metric.selector.as_ref()));
        let status = json!({ "type": "External", "external": { "metric": metric, "current": current } });
        Ok(Wish { replicas, name, status })
    }
}

/// A metric of a type nobody knows, or whose source is not there.
fn unknown(spec: &MetricSpec) -> Failure {
    let why = format!("unknown metric source type \"{}\"", spec.type_);
    Failure { reason: "InvalidMetricSourceType", what: why.clone(), why }
}
