//! What flags say of metrics. Upstream: `component-base/metrics/api/v1/config.go`.

use super::csv;
use crate::flags::Flags;
use anyhow::{Context as _, anyhow, bail};
use apiserver::metrics::Shown;
use machinery::field::{FieldError, Path as Field};
use machinery::release::{MAJOR, MINOR};
use std::collections::BTreeMap;
use std::path::Path;

const LABEL: &str = "[a-zA-Z_][a-zA-Z0-9_]*";
const METRIC: &str = "[a-zA-Z_:][a-zA-Z0-9_:]*";

/// What is shown.
pub(super) fn of_flags(flags: &Flags) -> anyhow::Result<Shown> {
    let root = Field::new("metrics");
    // There is none here of an older release that is hidden.
    let before = format!("{MAJOR}.{}", MINOR.parse::<u32>()? - 1);
    if let Some(version) = flags.text("show-hidden-metrics-for-version").filter(|version| *version != before)
    {
        let why = format!(
            "must be omitted or have the value '{before}'; only the previous minor version is allowed"
        );
        bail!(FieldError::invalid(&root.child("showHiddenMetricsForVersion"), version, why).to_string());
    }
    let disabled = flags.list("disabled-metrics").map(<[String]>::to_vec).unwrap_or_default();
    if let Some(name) = disabled.iter().find(|name| !is_metric(name)) {
        let why = format!("must be fully qualified metric names matching \"^{METRIC}$\", got {name:?}");
        bail!(FieldError::invalid(&root.child("disabledMetrics"), name.as_str(), why).to_string());
    }
    let (given, path) = (flags.list("allow-metric-labels"), flags.text("allow-metric-labels-manifest"));
    let mapping = match (given, path) {
        (Some(_), Some(_)) => {
            bail!("metrics: cannot specify both allowListMapping and allowListMappingManifest")
        }
        (Some(given), None) => pairs(given).context("--allow-metric-labels")?,
        (None, Some(path)) => {
            let text = pki::files::read(Path::new(path)).context("failed to read allow list manifest")?;
            serde_saphyr::from_str(&text)
                .map_err(|e| anyhow!("failed to parse allow list manifest: {}", e.to_string().trim()))?
        }
        (None, None) => BTreeMap::new(),
    };
    let mut allowed = BTreeMap::new();
    for (key, values) in mapping {
        let Some((metric, label)) =
            key.split_once(',').filter(|(metric, label)| is_metric(metric) && is_label(label))
        else {
            let why = format!(
                "must have keys with format `metricName,labelName` where metricName matches {METRIC:?} and labelName matches {LABEL:?}"
            );
            bail!(FieldError::invalid(&root.child("allowListMapping"), key.as_str(), why).to_string());
        };
        let values = values.split(',').map(str::to_owned).collect();
        allowed.insert((metric.to_owned(), label.to_owned()), values);
    }
    Ok(Shown { disabled, allowed })
}

/// `metric,label=value,value`: one a flag, or several of them quoted as in a table.
fn pairs(given: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for text in given {
        let parts = match text.matches('=').count() {
            0 => bail!("{text} must be formatted as key=value"),
            1 => vec![text.trim_matches('"').to_owned()],
            _ => csv::records(text)?.into_iter().next().unwrap_or_default(),
        };
        for part in parts {
            let (key, values) =
                part.split_once('=').with_context(|| format!("{part} must be formatted as key=value"))?;
            all.insert(key.to_owned(), values.to_owned());
        }
    }
    Ok(all)
}

fn is_label(text: &str) -> bool {
    is_metric(text) && !text.contains(':')
}

fn is_metric(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    text.chars().all(fits) && text.starts_with(|c: char| !c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::component::Component;

    fn of(line: &[&str]) -> anyhow::Result<Shown> {
        let arguments: Vec<String> = line.iter().map(|word| (*word).to_owned()).collect();
        of_flags(&Component::named("kube-apiserver").unwrap().table().parse(&arguments)?)
    }

    #[test]
    fn what_is_shown_is_settled_by_flags() {
        assert_eq!(of(&[]).unwrap(), Shown::default());
        assert_eq!(of(&["--disabled-metrics=a,b"]).unwrap().disabled, ["a", "b"]);
        let allowed = |line: &[&str]| {
            let allowed = of(line).unwrap().allowed;
            let values = |(key, values): (&(String, String), &std::collections::BTreeSet<String>)| {
                (format!("{},{}", key.0, key.1), values.iter().cloned().collect::<Vec<_>>().join(" "))
            };
            allowed.iter().map(values).collect::<Vec<_>>()
        };
        let one = [("m,l".to_owned(), "v1 v2".to_owned())];
        assert_eq!(allowed(&["--allow-metric-labels=m,l=v1,v2"]), one);
        let two = [("m,l".to_owned(), "v1 v2".to_owned()), ("n,l".to_owned(), "w".to_owned())];
        assert_eq!(allowed(&["--allow-metric-labels=m,l=v1,v2", "--allow-metric-labels=n,l=w"]), two);
        assert_eq!(allowed(&["--allow-metric-labels=\"m,l=v1,v2\",\"n,l=w\""]), two);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("labels.yaml");
        std::fs::write(&path, "\"m,l\": \"v1,v2\"\n").unwrap();
        assert_eq!(allowed(&[&format!("--allow-metric-labels-manifest={}", path.display())]), one);
    }

    #[test]
    fn what_names_no_metric_is_refused_in_upstreams_words() {
        for (word, why) in [
            (
                "--show-hidden-metrics-for-version=1.30",
                "metrics.showHiddenMetricsForVersion: Invalid value: \"1.30\": must be omitted or have the value '1.35'; only the previous minor version is allowed",
            ),
            (
                "--disabled-metrics=1a",
                "metrics.disabledMetrics: Invalid value: \"1a\": must be fully qualified metric names matching \"^[a-zA-Z_:][a-zA-Z0-9_:]*$\", got \"1a\"",
            ),
            ("--allow-metric-labels=m", "--allow-metric-labels"),
            (
                "--allow-metric-labels=m=v",
                "metrics.allowListMapping: Invalid value: \"m\": must have keys with format `metricName,labelName` where metricName matches \"[a-zA-Z_:][a-zA-Z0-9_:]*\" and labelName matches \"[a-zA-Z_][a-zA-Z0-9_]*\"",
            ),
        ] {
            assert_eq!(of(&[word]).unwrap_err().to_string(), why, "{word}");
        }
        assert!(of(&["--show-hidden-metrics-for-version=1.35"]).is_ok());
    }
}
