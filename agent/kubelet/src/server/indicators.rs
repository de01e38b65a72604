//! `/metrics/slis`: how health checks went. Upstream: `component-base/metrics/prometheus/slis`.

use super::metrics;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use supervise::checks::Check;

/// By check: whether it passed last, how often it passed, and how often it failed.
#[derive(Debug, Default)]
pub(super) struct Indicators(Mutex<BTreeMap<String, (bool, u64, u64)>>);

impl Indicators {
    /// Counts checks that were asked by `/healthz`.
    pub(super) fn observe<'a>(&self, checks: impl Iterator<Item = &'a Check>) {
        let mut all = self.0.lock();
        for check in checks {
            let (last, passed, failed) = all.entry(check.name.to_string()).or_default();
            *last = check.state.is_ok();
            *(if *last { passed } else { failed }) += 1;
        }
    }

    pub(super) fn reset(&self) {
        self.0.lock().clear();
    }

    pub(super) fn page(&self) -> String {
        let all = self.0.lock().clone();
        let labels = |name: &str, status: &str| format!("{{name={name:?}{status},type=\"healthz\"}}");
        let last: Vec<_> =
            all.iter().map(|(name, (last, ..))| (labels(name, ""), f64::from(u8::from(*last)))).collect();
        let counts = all.iter().flat_map(|(name, (_, passed, failed))| {
            [("success", *passed), ("error", *failed)]
                .map(|(status, count)| (labels(name, &format!(",status=\"{status}\"")), count))
        });
        let counts: Vec<_> =
            counts.filter(|(_, count)| *count > 0).map(|(l, count)| (l, count as f64)).collect();
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = metrics::family(
            &mut out,
            "kubernetes_healthcheck",
            "gauge",
            "Whether a health check passed when it was last asked",
            &last,
        );
        let _ = metrics::family(
            &mut out,
            "kubernetes_healthchecks_total",
            "counter",
            "How often health checks passed and failed",
            &counts,
        );
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_counted_until_they_are_reset() {
        let check = |name: &str, state| Check { name: name.into(), state };
        let indicators = Indicators::default();
        assert_eq!(indicators.page(), "");
        indicators.observe([check("ping", Ok(())), check("log", Err("no".to_owned()))].iter());
        indicators.observe([check("ping", Ok(())), check("log", Ok(()))].iter());
        let page = indicators.page();
        for line in [
            "kubernetes_healthcheck{name=\"ping\",type=\"healthz\"} 1",
            "kubernetes_healthcheck{name=\"log\",type=\"healthz\"} 1",
            "kubernetes_healthchecks_total{name=\"ping\",status=\"success\",type=\"healthz\"} 2",
            "kubernetes_healthchecks_total{name=\"log\",status=\"error\",type=\"healthz\"} 1",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} in {page}");
        }
        assert!(!page.contains("name=\"ping\",status=\"error\""), "{page}");
        indicators.reset();
        assert_eq!(indicators.page(), "");
    }
}
