//! Metrics in the form of v1's types (`MetricSpec`, `MetricStatus` of `autoscaling/v1`, which only annotations hold): flat, where v2
//! groups what identifies a metric and its values.

use serde_json::{Value, json};

use super::decoded;
use crate::access::{Get, remove_at, set, set_at};
use crate::quantity::Quantity;

/// Names in v2 and in v1.
type Names = &'static [(&'static str, &'static str)];

/// A kind of metric: its field, what identifies it, and its values as a source has them. A status has `current...` for `target...`.
const KINDS: [(&str, Names, Names); 5] = [
    (
        "object",
        &[("describedObject", "target"), ("metric.name", "metricName"), ("metric.selector", "selector")],
        &[("value", "targetValue"), ("averageValue", "averageValue")],
    ),
    (
        "pods",
        &[("metric.name", "metricName"), ("metric.selector", "selector")],
        &[("averageValue", "targetAverageValue")],
    ),
    (
        "resource",
        &[("name", "name")],
        &[("averageUtilization", "targetAverageUtilization"), ("averageValue", "targetAverageValue")],
    ),
    (
        "containerResource",
        &[("name", "name"), ("container", "container")],
        &[("averageUtilization", "targetAverageUtilization"), ("averageValue", "targetAverageValue")],
    ),
    (
        "external",
        &[("metric.name", "metricName"), ("metric.selector", "metricSelector")],
        &[("value", "targetValue"), ("averageValue", "targetAverageValue")],
    ),
];

/// Which list it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Metrics {
    /// `spec.metrics`.
    Sources,
    /// `status.currentMetrics`.
    Statuses,
}

impl Metrics {
    /// The list as an annotation has it; what v1 cannot leave out is zero.
    pub(super) fn to_v1(self, metrics: &[Value]) -> Value {
        let name = if self == Self::Sources { "MetricSpec" } else { "MetricStatus" };
        let each = |metric: &Value| {
            let flat = self.each(metric, |(v2, v1)| (v2.to_owned(), v1.to_owned()));
            decoded("v1", name, flat.clone()).unwrap_or(flat)
        };
        metrics.iter().map(each).collect()
    }

    /// The list of metrics of v1's types.
    pub(super) fn to_v2(self, metrics: &[Value]) -> Vec<Value> {
        let each = |metric| {
            let mut made = self.each(metric, |(v2, v1)| (v1.to_owned(), v2.to_owned()));
            if self == Self::Sources {
                KINDS.iter().for_each(|(field, ..)| aim(field, &mut made));
            }
            made
        };
        metrics.iter().map(each).collect()
    }

    /// One metric; `from_to` says which of two names, v2's and v1's, a value is read from and which it gets.
    fn each(self, metric: &Value, from_to: impl Fn((&str, &str)) -> (String, String)) -> Value {
        let mut out = json!({"type": metric.text("type")});
        for (field, identity, values) in KINDS.iter().filter(|(field, ..)| metric.at(field).is_object()) {
            let mut to = json!({});
            let values = values.iter().map(|(v2, v1)| match self {
                Self::Sources => (format!("target.{v2}"), (*v1).to_owned()),
                Self::Statuses => (format!("current.{v2}"), v1.replacen("target", "current", 1)),
            });
            let identity = identity.iter().map(|(v2, v1)| ((*v2).to_owned(), (*v1).to_owned()));
            for (v2, v1) in identity.chain(values) {
                let (source, place) = from_to((&v2, &v1));
                if let Some(value) = metric.at(field).present(&source) {
                    set_at(&mut to, &place, value.clone());
                }
            }
            set(&mut out, field, to);
        }
        out
    }
}

/// What v2 says of how a target is meant, by which values it has.
fn aim(field: &str, metric: &mut Value) {
    if !metric.at(field).is_object() {
        return;
    }
    let target = format!("{field}.target");
    let has = |name: &str| metric.present(&format!("{target}.{name}")).is_some();
    let kind = match field {
        "object" if has("averageValue") => "AverageValue",
        "object" => "Value",
        "external" if has("value") => "Value",
        "resource" | "containerResource" if has("averageUtilization") => "Utilization",
        _ => "AverageValue",
    };
    let value = format!("{target}.value");
    // v1 cannot leave an object's value out.
    if field == "object"
        && kind == "AverageValue"
        && metric.text(&value).parse::<Quantity>().is_ok_and(|value| value.is_zero())
    {
        remove_at(metric, &value);
    }
    set_at(metric, &format!("{target}.type"), kind);
}
