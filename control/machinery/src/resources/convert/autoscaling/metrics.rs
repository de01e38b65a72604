//! Metrics in the form of v1's types (`MetricSpec`, `MetricStatus` of `autoscaling/v1`, which only annotations hold): flat, where v2
//! groups what identifies a metric and what is aimed at.

use serde_json::{Value, json};

use crate::access::{Get, remove_at, set, set_at};

/// A kind of metric: its `type`, its field, and its parts as v2 and v1 name them.
type Kind = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// What one list of metrics consists of.
pub(super) struct Metrics {
    kinds: [Kind; 5],
    /// Where v2 keeps the values.
    values: &'static str,
    /// Quantities that v1 cannot leave out, by the metric's field.
    never_absent: &'static [(&'static str, &'static str)],
}

/// `spec.metrics`.
pub(super) const SOURCES: Metrics = Metrics {
    kinds: [
        (
            "Object",
            "object",
            &[
                ("describedObject", "target"),
                ("metric.name", "metricName"),
                ("metric.selector", "selector"),
                ("target.value", "targetValue"),
                ("target.averageValue", "averageValue"),
            ],
        ),
        (
            "Pods",
            "pods",
            &[
                ("metric.name", "metricName"),
                ("metric.selector", "selector"),
                ("target.averageValue", "targetAverageValue"),
            ],
        ),
        (
            "Resource",
            "resource",
            &[
                ("name", "name"),
                ("target.averageUtilization", "targetAverageUtilization"),
                ("target.averageValue", "targetAverageValue"),
            ],
        ),
        (
            "ContainerResource",
            "containerResource",
            &[
                ("name", "name"),
                ("container", "container"),
                ("target.averageUtilization", "targetAverageUtilization"),
                ("target.averageValue", "targetAverageValue"),
            ],
        ),
        (
            "External",
            "external",
            &[
                ("metric.name", "metricName"),
                ("metric.selector", "metricSelector"),
                ("target.value", "targetValue"),
                ("target.averageValue", "targetAverageValue"),
            ],
        ),
    ],
    values: "target",
    never_absent: &[("object", "targetValue"), ("pods", "targetAverageValue")],
};

/// `status.currentMetrics`.
pub(super) const STATUSES: Metrics = Metrics {
    kinds: [
        (
            "Object",
            "object",
            &[
                ("describedObject", "target"),
                ("metric.name", "metricName"),
                ("metric.selector", "selector"),
                ("current.value", "currentValue"),
                ("current.averageValue", "averageValue"),
            ],
        ),
        (
            "Pods",
            "pods",
            &[
                ("metric.name", "metricName"),
                ("metric.selector", "selector"),
                ("current.averageValue", "currentAverageValue"),
            ],
        ),
        (
            "Resource",
            "resource",
            &[
                ("name", "name"),
                ("current.averageUtilization", "currentAverageUtilization"),
                ("current.averageValue", "currentAverageValue"),
            ],
        ),
        (
            "ContainerResource",
            "containerResource",
            &[
                ("name", "name"),
                ("container", "container"),
                ("current.averageUtilization", "currentAverageUtilization"),
                ("current.averageValue", "currentAverageValue"),
            ],
        ),
        (
            "External",
            "external",
            &[
                ("metric.name", "metricName"),
                ("metric.selector", "metricSelector"),
                ("current.value", "currentValue"),
                ("current.averageValue", "currentAverageValue"),
            ],
        ),
    ],
    values: "current",
    never_absent: &[
        ("object", "currentValue"),
        ("pods", "currentAverageValue"),
        ("resource", "currentAverageValue"),
        ("containerResource", "currentAverageValue"),
        ("external", "currentValue"),
    ],
};

impl Metrics {
    pub(super) fn to_v1(&self, metrics: &[Value]) -> Value {
        metrics.iter().map(|metric| self.each(metric, Direction::ToV1)).collect()
    }

    pub(super) fn to_v2(&self, metrics: Option<&Value>) -> Vec<Value> {
        let metrics = metrics.and_then(Value::as_array).into_iter().flatten();
        metrics.map(|metric| self.each(metric, Direction::ToV2)).collect()
    }

    /// One metric; what a kind does not know of is left out, as decoding into its type does.
    fn each(&self, metric: &Value, direction: Direction) -> Value {
        let mut out = json!({"type": metric.text("type")});
        for (_, field, parts) in self.kinds.iter().filter(|(_, field, _)| metric.at(field).is_object()) {
            let (from, mut to) = (metric.at(field), json!({}));
            for (v2, v1) in *parts {
                let (source, place) = if direction == Direction::ToV1 { (v2, v1) } else { (v1, v2) };
                let value = from.at(source);
                if !value.is_null() {
                    set_at(&mut to, place, value.clone());
                }
            }
            match direction {
                Direction::ToV1 => self.fill(field, &mut to),
                Direction::ToV2 if self.values == "target" => aim(field, &mut to),
                Direction::ToV2 => {}
            }
            set(&mut out, field, to);
        }
        out
    }

    fn fill(&self, field: &str, v1: &mut Value) {
        for (_, name) in self.never_absent.iter().filter(|(of, _)| *of == field) {
            if v1.at(name).is_null() {
                set(v1, name, "0");
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToV1,
    ToV2,
}

/// What v2 says of how its target is meant, by what is there.
fn aim(field: &str, v2: &mut Value) {
    let has = |name: &str| !v2.at(&format!("target.{name}")).is_null();
    let kind = match field {
        "object" if has("averageValue") => {
            // v1 cannot leave the value out, and "0" is none.
            if v2.text("target.value") == "0" {
                remove_at(v2, "target.value");
            }
            "AverageValue"
        }
        "object" => "Value",
        "external" if has("value") => "Value",
        "resource" | "containerResource" if has("averageUtilization") => "Utilization",
        _ => "AverageValue",
    };
    set_at(v2, "target.type", kind);
}
