//! What of the metrics is shown: not those that are disabled, and of some labels the values that are allowed only. Upstream:
//! `component-base/metrics/options.go`.

use std::collections::{BTreeMap, BTreeSet};

/// What stands behind the name of a metric in the names of its samples.
const PARTS: [&str; 5] = ["", "_total", "_bucket", "_sum", "_count"];
/// In place of a value that is not allowed.
const UNEXPECTED: &str = "unexpected";

/// What is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Names of metrics that are not.
    pub disabled: Vec<String>,
    /// Values of labels that are, by metric and label; others are one value together.
    pub allowed: BTreeMap<(String, String), BTreeSet<String>>,
}

/// Whether a sample of this name is one of the metric's.
fn is_of(metric: &str, sample: &str) -> bool {
    sample.strip_prefix(metric).is_some_and(|part| PARTS.contains(&part))
}

impl Shown {
    /// The part of the exposition that is shown.
    pub(super) fn of(&self, text: String) -> String {
        if self.disabled.is_empty() && self.allowed.is_empty() {
            return text;
        }
        let (mut out, mut series) = (String::new(), Series::default());
        for line in text.lines().filter(|line| !self.is_disabled(line)) {
            match self.narrowed(line) {
                Some((name, value)) => series.add(name, value),
                None => {
                    series.write(&mut out);
                    out.push_str(line);
                    out.push('\n');
                }
            }
        }
        series.write(&mut out);
        out
    }

    fn is_disabled(&self, line: &str) -> bool {
        let told = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE "));
        let name = told.unwrap_or(line);
        let name = &name[..name.find([' ', '{']).unwrap_or(name.len())];
        self.disabled.iter().any(|metric| {
            let described = told.is_some() && metric.strip_suffix("_total") == Some(name);
            described || is_of(metric, name)
        })
    }

    /// A sample of a metric whose labels are looked at: its name with labels, and its value.
    fn narrowed<'l>(&self, line: &'l str) -> Option<(String, &'l str)> {
        let (name, rest) = line.split_once('{')?;
        let mut looked_at = self.allowed.keys().filter(|(metric, _)| is_of(metric, name)).peekable();
        looked_at.peek()?;
        let metrics: BTreeSet<&str> = looked_at.map(|(metric, _)| metric.as_str()).collect();
        let (labels, value) = labels(rest)?;
        let allows = |label: &str, value: &str| {
            metrics.iter().all(|metric| {
                let values = self.allowed.get(&((*metric).to_owned(), label.to_owned()));
                values.is_none_or(|values| values.contains(value))
            })
        };
        let labels: Vec<String> = labels
            .into_iter()
            .map(|(label, value)| {
                let value = if allows(label, value) { value } else { UNEXPECTED };
                format!("{label}=\"{value}\"")
            })
            .collect();
        Some((format!("{name}{{{}}}", labels.join(",")), value))
    }
}

/// The labels up to the closing brace, their values as they are written, and what comes after.
fn labels(mut rest: &str) -> Option<(Vec<(&str, &str)>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.strip_prefix(',').unwrap_or(rest);
        if let Some(value) = rest.strip_prefix('}') {
            return Some((labels, value.trim()));
        }
        let (label, quoted) = rest.split_once("=\"")?;
        let mut escaped = false;
        let end = quoted.char_indices().find(|(_, c)| {
            let ends = *c == '"' && !escaped;
            escaped = *c == '\\' && !escaped;
            ends
        })?;
        labels.push((label, &quoted[..end.0]));
        rest = &quoted[end.0 + 1..];
    }
}

/// Samples that follow one another; those of the same labels are one.
#[derive(Default)]
struct Series(Vec<(String, f64)>);

impl Series {
    fn add(&mut self, name: String, value: &str) {
        let value: f64 = value.parse().unwrap_or_default();
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += value,
            None => self.0.push((name, value)),
        }
    }

    fn write(&mut self, out: &mut String) {
        for (name, value) in self.0.drain(..) {
            out.push_str(&format!("{name} {value}\n"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP a_requests Requests.\n# TYPE a_requests counter\na_requests_total{x=\"y z\",v=\"get\"} 1\n\
        a_requests_total{x=\"q\",v=\"get\"} 2\na_requests_total{x=\"\\\"\",v=\"put\"} 4\n# TYPE a_seconds histogram\n\
        a_seconds_bucket{le=\"1\"} 1\na_seconds_sum 1.5\na_seconds_count 1\n# TYPE a_seconds_more gauge\na_seconds_more 1\n# EOF\n";

    #[test]
    fn a_metric_that_is_disabled_must_not_be_shown() {
        let names = |disabled: &[&str]| {
            let disabled = disabled.iter().map(|d| (*d).to_owned()).collect();
            let left = Shown { disabled, ..Shown::default() }.of(TEXT.to_owned());
            let has = |name: &str| left.contains(name);
            (
                has("a_requests"),
                has("a_seconds_sum") || has("a_seconds_bucket"),
                has("a_seconds_more"),
                has("# EOF"),
            )
        };
        assert_eq!(names(&[]), (true, true, true, true));
        assert_eq!(names(&["a_requests_total"]), (false, true, true, true));
        assert_eq!(names(&["a_seconds", "other"]), (true, false, true, true));
    }

    #[test]
    fn values_that_are_not_allowed_are_one_and_lose_no_count() {
        let of = |label: &str, values: &[&str]| {
            let key = ("a_requests_total".to_owned(), label.to_owned());
            let values = values.iter().map(|v| (*v).to_owned()).collect();
            Shown { allowed: BTreeMap::from([(key, values)]), ..Shown::default() }.of(TEXT.to_owned())
        };
        let narrowed = of("x", &["q"]);
        assert!(narrowed.contains("a_requests_total{x=\"unexpected\",v=\"get\"} 1\n"), "{narrowed}");
        assert!(narrowed.contains("a_requests_total{x=\"q\",v=\"get\"} 2\n"), "{narrowed}");
        assert!(narrowed.contains("a_requests_total{x=\"unexpected\",v=\"put\"} 4\n"), "{narrowed}");
        let none = of("x", &[]);
        assert!(none.contains("a_requests_total{x=\"unexpected\",v=\"get\"} 3\n"), "{none}");
        assert!(none.contains("a_seconds_sum 1.5\n") && none.ends_with("# EOF\n"), "{none}");
        assert_eq!(of("other", &[]), TEXT, "no such label");
    }
}
