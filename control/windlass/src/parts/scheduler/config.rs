//! KubeSchedulerConfiguration: its file to the scheduler's own settings.

use super::extenders;
use crate::component_config::{self, Document, Kind};
use anyhow::bail;
use client::leader::Settings;
use scheduler::profile::{Change, Profile, Set};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

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
}

impl Default for Loaded {
    fn default() -> Self {
        let leader = Settings::new(super::LEASE);
        Self { scheduler: scheduler::Config::default(), elect: true, leader, kubeconfig: None }
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
        scheduler: scheduler::Config { profiles, extenders: extenders::of(file.items("/extenders"))? },
        elect: file.bool("/leaderElection/leaderElect").unwrap_or(true),
        leader,
        kubeconfig: file.text("/clientConnection/kubeconfig").map(str::to_owned),
    })
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
    for (point, set) in [
        ("multiPoint", Set::MultiPoint),
        ("filter", Set::Filter),
        ("score", Set::Score),
        ("postFilter", Set::PostFilter),
    ] {
        for (list, on) in [("disabled", false), ("enabled", true)] {
            for plugin in item["plugins"][point][list].as_array().into_iter().flatten() {
                let name = plugin["name"].as_str().unwrap_or_default();
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
    for (index, entry) in item["pluginConfig"].as_array().into_iter().flatten().enumerate() {
        let name = entry["name"].as_str().unwrap_or_default();
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
mod tests {
    use super::*;
    use scheduler::Plugin;
    use scheduler::profile::Score;

    fn read(text: &str) -> anyhow::Result<Loaded> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        let head = format!("apiVersion: {}\nkind: {}\n", KIND.api_version, KIND.kind);
        std::fs::write(&path, head + text).unwrap();
        load(&path)
    }

    #[test]
    fn an_empty_file_is_the_default_scheduler() {
        let loaded = read("").unwrap();
        assert_eq!(loaded.scheduler, scheduler::Config::default());
        assert!(loaded.elect);
        assert_eq!(loaded.leader, Settings::new("kube-scheduler"));
    }

    #[test]
    fn profiles_switch_plugins_and_weigh_them() {
        let text = "
leaderElection: {leaderElect: false, leaseDuration: 30s, resourceName: other}
clientConnection: {kubeconfig: /k}
percentageOfNodesToScore: 40
profiles:
- schedulerName: packing
  percentageOfNodesToScore: 70
  plugins:
    multiPoint: {disabled: [{name: TaintToleration}]}
    filter: {disabled: [{name: NodePorts}]}
    score: {disabled: [{name: '*'}], enabled: [{name: NodeResourcesFit, weight: 5}, {name: ImageLocality}]}
    postFilter: {disabled: [{name: DefaultPreemption}]}
  pluginConfig:
  - name: NodeResourcesFit
    args: {scoringStrategy: {type: MostAllocated}}
- {}
";
        let loaded = read(text).unwrap();
        assert!(!loaded.elect);
        assert_eq!((loaded.leader.lease.as_secs(), loaded.leader.name.as_str()), (30, "other"));
        assert_eq!(loaded.kubeconfig.as_deref(), Some("/k"));
        let [packing, default] = &loaded.scheduler.profiles[..] else { panic!("two profiles") };
        assert_eq!((packing.name, packing.percentage), ("packing", 70));
        assert!(!packing.filters(Plugin::NodePorts) && !packing.filters(Plugin::TaintToleration));
        assert!(packing.filters(Plugin::NodeResourcesFit) && !packing.preempts && packing.most_allocated);
        assert_eq!(packing.weight(Score::NodeResourcesFit), 5);
        assert_eq!((packing.weight(Score::ImageLocality), packing.weight(Score::NodeAffinity)), (1, 0));
        assert_eq!((default.name, default.percentage), ("default-scheduler", 40));
    }

    #[test]
    fn a_weight_must_not_be_refused_where_it_means_nothing() {
        let points = ["multiPoint", "filter", "score", "postFilter"];
        for (point, list) in points.iter().flat_map(|point| [(point, "enabled"), (point, "disabled")]) {
            let name = if *point == "postFilter" { "DefaultPreemption" } else { "TaintToleration" };
            let text =
                format!("profiles: [{{plugins: {{{point}: {{{list}: [{{name: {name}, weight: 4}}]}}}}}}]");
            let loaded = read(&text).unwrap_or_else(|error| panic!("{text}: {error:#}"));
            let weight = loaded.scheduler.profiles[0].weight(Score::TaintToleration);
            let expected = match (["multiPoint", "score"].contains(point), list) {
                (true, "enabled") => 4,
                (true, _) => 0,
                (false, _) => 3,
            };
            assert_eq!(weight, expected, "{text}");
        }
    }

    #[test]
    fn what_is_unknown_or_doubled_is_refused_by_name() {
        for (text, word) in [
            ("profiles: [{schedulerNames: x}]", "unknown field \"profiles[0].schedulerNames\""),
            ("profiles: [{plugins: {score: {enabled: [{name: Foo}]}}}]", "\"Foo\""),
            (
                "profiles: [{plugins: {multiPoint: {disabled: [{name: '*'}]}}}]",
                "one queue sort plugin required",
            ),
            ("profiles: [{}, {}]", "Duplicate value: \"default-scheduler\""),
            ("profiles: [{percentageOfNodesToScore: 101}]", "not in valid range [0-100]"),
            ("profiles: [{pluginConfig: [{name: Foo, args: {}}]}]", "\"Foo\""),
            ("leaderElection: {resourceLock: endpoints}", "leases"),
        ] {
            let error = format!("{:#}", read(text).err().expect(text));
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
