//! KubeSchedulerConfiguration: its file to the scheduler's own settings.

use super::extenders;
use crate::component_config::{self, Document, Kind, text};
use crate::parts::throttle::Limit;
use anyhow::bail;
use client::leader::Settings;
use scheduler::Waits;
use scheduler::profile::{Change, Profile, Set};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The kind of the file.
const KIND: Kind = Kind {
    api_version: "kubescheduler.config.k8s.io/v1",
    kind: "KubeSchedulerConfiguration",
    fields: include_str!("../../../data/config/KubeSchedulerConfiguration.txt"),
};

/// What the file says.
pub(crate) struct Loaded {
    pub(crate) scheduler: scheduler::Config,
    pub(crate) elect: bool,
    pub(crate) leader: Settings,
    pub(crate) kubeconfig: Option<String>,
    /// How often the API server is asked; without one as often as there is something to ask.
    pub(crate) limit: Option<Limit>,
}

impl Default for Loaded {
    fn default() -> Self {
        let leader = Settings::new(super::LEASE);
        Self { scheduler: scheduler::Config::default(), elect: true, leader, kubeconfig: None, limit: None }
    }
}

pub(crate) fn load(path: &Path) -> anyhow::Result<Loaded> {
    of(&component_config::load(path, &KIND)?)
}

fn of(file: &Document) -> anyhow::Result<Loaded> {
    let default = Loaded::default();
    let mut leader = default.leader;
    if let Some(lock) = file.text("/leaderElection/resourceLock").filter(|lock| *lock != "leases") {
        bail!("leaderElection.resourceLock: Invalid value: {lock:?}: resourceLock value must be \"leases\"");
    }
    for (pointer, field) in [("resourceName", &mut leader.name), ("resourceNamespace", &mut leader.namespace)]
    {
        if let Some(text) = file.text(&format!("/leaderElection/{pointer}")) {
            text.clone_into(field);
        }
    }
    for (pointer, field) in [
        ("leaseDuration", &mut leader.lease),
        ("renewDeadline", &mut leader.renew_deadline),
        ("retryPeriod", &mut leader.retry),
    ] {
        if let Some(span) = file.duration(&format!("/leaderElection/{pointer}")) {
            *field = span;
        }
    }
    let percentage = file.0.get("percentageOfNodesToScore").and_then(Value::as_i64);
    if let Some(wrong) = file.0.get("parallelism").and_then(Value::as_i64).filter(|given| *given <= 0) {
        bail!("parallelism: Invalid value: {wrong}: should be an integer value greater than zero");
    }
    queue_sort(file.items("/profiles"))?;
    let mut profiles: Vec<Arc<Profile>> = Vec::new();
    for (index, item) in file.items("/profiles").iter().enumerate() {
        let made = profile(item, percentage).map_err(|e| e.context(format!("profiles[{index}]")))?;
        if profiles.iter().any(|profile| profile.name == made.name) {
            bail!("profiles[{index}].schedulerName: Duplicate value: {:?}", made.name);
        }
        profiles.push(Arc::new(made));
    }
    if profiles.is_empty() {
        profiles.push(Arc::new(profile(&Value::Null, percentage)?));
    }
    Ok(Loaded {
        scheduler: scheduler::Config {
            profiles,
            extenders: extenders::of(file.items("/extenders"))?,
            waits: waits(file)?,
        },
        limit: limit(file)?,
        elect: file.bool("/leaderElection/leaderElect").unwrap_or(true),
        leader,
        kubeconfig: file.text("/clientConnection/kubeconfig").map(str::to_owned),
    })
}

/// The one queue is sorted in one way.
fn queue_sort(profiles: &[Value]) -> anyhow::Result<()> {
    let set = |profile: &Value| {
        let sort = &profile["plugins"]["queueSort"];
        json!({"enabled": sort.get("enabled").cloned().unwrap_or_default(), "disabled": sort.get("disabled").cloned().unwrap_or_default()})
    };
    let Some((first, rest)) = profiles.split_first() else { return Ok(()) };
    let enabled = first["plugins"]["queueSort"]["enabled"].as_array().map_or(0, Vec::len);
    if enabled > 1 {
        bail!(
            "profiles[0].plugins.queueSort.Enabled: Invalid value: {enabled}: only one queue sort plugin can be enabled"
        );
    }
    match rest.iter().position(|profile| set(profile) != set(first)) {
        None => Ok(()),
        Some(index) => {
            let (at, value) = (index + 1, set(&rest[index]));
            bail!(
                "profiles[{at}].plugins.queueSort: Invalid value: {value}: must be the same for all profiles"
            )
        }
    }
}

/// Plugins that are no more (upstream's `invalidPluginsByVersion`).
const REMOVED: [&str; 4] = ["AzureDiskLimits", "CinderLimits", "EBSLimits", "GCEPDLimits"];

fn removed() -> String {
    let version = KIND.api_version;
    format!("was invalid in version {version:?} (KubeSchedulerConfiguration is version {version:?})")
}

/// No pod waits longer, whatever is said: nobody lives to see it, and clocks end somewhere.
const LONGEST_WAIT: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// How long pods wait that could not be scheduled.
fn waits(file: &Document) -> anyhow::Result<Waits> {
    let mut waits = Waits::default();
    let seconds = |name: &str| file.0.get(name).and_then(Value::as_i64);
    for (name, span) in
        [("podInitialBackoffSeconds", &mut waits.first), ("podMaxBackoffSeconds", &mut waits.longest)]
    {
        if let Some(given) = seconds(name) {
            *span = Duration::from_secs(u64::try_from(given).unwrap_or(0)).min(LONGEST_WAIT);
        }
    }
    if waits.first.is_zero() {
        let given = seconds("podInitialBackoffSeconds").unwrap_or_default();
        bail!("podInitialBackoffSeconds: Invalid value: {given}: must be greater than 0");
    }
    if waits.longest < waits.first {
        let usual = || waits.longest.as_secs().to_string();
        let given = seconds("podMaxBackoffSeconds").map_or_else(usual, |given| given.to_string());
        bail!(
            "podMaxBackoffSeconds: Invalid value: {given}: must be greater than or equal to PodInitialBackoffSeconds"
        );
    }
    Ok(waits)
}

/// How often the API server is asked.
fn limit(file: &Document) -> anyhow::Result<Option<Limit>> {
    let connection = file.0.get("clientConnection");
    let given = |name: &str| connection.and_then(|connection| connection.get(name));
    let burst = given("burst").and_then(Value::as_i64);
    if let Some(burst) = burst.filter(|burst| *burst < 0) {
        bail!("clientConnection.burst: Invalid value: {burst}: must be non-negative");
    }
    // Nothing stands for the default.
    let (qps, burst) =
        (given("qps").and_then(Value::as_f64).filter(|qps| *qps != 0.0), burst.filter(|burst| *burst != 0));
    Ok(Limit::given(qps, burst, super::LIMIT))
}

fn profile(item: &Value, percentage: Option<i64>) -> anyhow::Result<Profile> {
    let mut profile = Profile::default();
    if let Some(name) = item["schedulerName"].as_str().filter(|name| !name.is_empty()) {
        // Names of schedulers are few, and live as long as the program.
        profile.name = Box::leak(name.to_owned().into_boxed_str());
    }
    let own = item["percentageOfNodesToScore"].as_i64().or(percentage).unwrap_or_default();
    if !(0..=100).contains(&own) {
        bail!("percentageOfNodesToScore: Invalid value: {own}: not in valid range [0-100]");
    }
    profile.percentage = own;
    for (set, point) in Set::all() {
        let enabled = item["plugins"][point]["enabled"].as_array().into_iter().flatten();
        Profile::each_once(set, enabled.map(|plugin| text(plugin, "name")))
            .map_err(|e| anyhow::anyhow!("plugins.{point}.enabled: {e}"))?;
        for (list, on) in [("disabled", false), ("enabled", true)] {
            for (index, plugin) in item["plugins"][point][list].as_array().into_iter().flatten().enumerate() {
                let name = text(plugin, "name");
                if on && set != Set::MultiPoint && REMOVED.contains(&name) {
                    bail!("plugins.{point}.enabled[{index}]: Invalid value: {name:?}: {}", removed());
                }
                let change = match on {
                    true => Change::On { weight: plugin["weight"].as_i64().filter(|weight| *weight != 0) },
                    false => Change::Off,
                };
                profile
                    .change(set, name, change)
                    .map_err(|e| anyhow::anyhow!("plugins.{point}.{list}: {e}"))?;
            }
        }
    }
    let mut configured = BTreeSet::new();
    for (index, entry) in item["pluginConfig"].as_array().into_iter().flatten().enumerate() {
        let name = text(entry, "name");
        if !configured.insert(name) {
            bail!("pluginConfig[{index}]: Duplicate value: {name:?}");
        }
        if REMOVED.contains(&name) {
            bail!("pluginConfig[{index}]: Invalid value: {name:?}: {}", removed());
        }
        let unused = profile
            .configure(name, &entry["args"])
            .map_err(|e| anyhow::anyhow!("pluginConfig[{index}]: {e}"))?;
        for field in unused {
            tracing::warn!(plugin = name, "argument {field} has no effect here");
        }
    }
    Ok(profile.whole()?)
}

#[cfg(test)]
mod tests;
