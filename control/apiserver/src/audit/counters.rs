//! What is counted of the audit log, under upstream's names (`apiserver/pkg/audit/metrics.go`).

use super::event::Event;
use super::level::Level;
use crate::metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use std::sync::Arc;

/// Lost events that are logged one by one; more are counted.
const SHOWN: usize = 10;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LevelLabel {
    level: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PluginLabel {
    plugin: &'static str,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    events: Counter,
    errors: Family<PluginLabel, Counter>,
    levels: Family<LevelLabel, Counter>,
    rejected: Counter,
}

impl Counters {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let counters = Counters::default();
        metrics.register(|registry| {
            registry.register(
                "apiserver_audit_event",
                "Audit events made and sent to the backends",
                counters.events.clone(),
            );
            registry.register(
                "apiserver_audit_error",
                "Audit events that were lost, by the part that lost them",
                counters.errors.clone(),
            );
            registry.register(
                "apiserver_audit_level",
                "Requests by the level at which they are audited",
                counters.levels.clone(),
            );
            registry.register(
                "apiserver_audit_requests_rejected",
                "Requests refused since their audit event could not be kept",
                counters.rejected.clone(),
            );
        });
        counters
    }

    pub(super) fn event(&self) {
        self.events.inc();
    }

    pub(super) fn level(&self, level: Level) {
        self.levels.get_or_create(&LevelLabel { level: level.name() }).inc();
    }

    pub(super) fn rejected(&self) {
        self.rejected.inc();
    }

    /// Counts and logs events that `plugin` lost, since `why`.
    pub(super) fn lost(&self, plugin: &'static str, why: &str, events: &[Arc<Event>]) {
        let count = u64::try_from(events.len()).unwrap_or(u64::MAX);
        self.errors.get_or_create(&PluginLabel { plugin }).inc_by(count);
        let shown: Vec<String> = events.iter().take(SHOWN).map(|event| event.legacy()).collect();
        tracing::error!(plugin, count, error = why, events = shown.join("\n"), "audit events are lost");
    }
}
