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
        let text = format!("profiles: [{{plugins: {{{point}: {{{list}: [{{name: {name}, weight: 4}}]}}}}}}]");
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
fn every_field_of_its_own_counts() {
    let usual = read("").unwrap();
    let waits = |text: &str| read(text).unwrap().scheduler.waits;
    let seconds = Duration::from_secs;
    assert_eq!(waits("podInitialBackoffSeconds: 3"), Waits { first: seconds(3), ..usual.scheduler.waits });
    assert_eq!(waits(&format!("podMaxBackoffSeconds: {}", i64::MAX)).longest, LONGEST_WAIT);
    assert_eq!(waits("podMaxBackoffSeconds: 70"), Waits { longest: seconds(70), ..usual.scheduler.waits });
    let limit = |text: &str| read(&format!("clientConnection: {{{text}}}")).unwrap().limit;
    assert_eq!(usual.limit, None);
    assert_eq!(limit("qps: 7"), Some(Limit { qps: 7.0, burst: 100 }));
    assert_eq!(limit("burst: 7"), Some(Limit { qps: 50.0, burst: 7 }));
    assert_eq!((limit("qps: -1"), limit("qps: 0, burst: 0")), (None, None));
}

#[test]
fn a_plugin_is_switched_at_each_point_by_itself() {
    let one = |plugins: &str| {
        let loaded = read(&format!("profiles: [{{plugins: {{{plugins}}}}}]")).unwrap();
        (*loaded.scheduler.profiles[0]).clone()
    };
    assert!(!one("preEnqueue: {disabled: [{name: SchedulingGates}]}").gates);
    assert!(!one("reserve: {disabled: [{name: '*'}]}").binds_volumes());
    assert!(!one("preBind: {disabled: [{name: VolumeBinding}]}").binds_volumes());
    let narrow = one("preFilter: {disabled: [{name: NodeAffinity}]}");
    assert!(!narrow.is_on(Set::PreFilter, "NodeAffinity") && narrow.filters(Plugin::NodeAffinity));
    let own = one(
        "multiPoint: {disabled: [{name: DefaultBinder}, {name: PrioritySort}]}, bind: {enabled: [{name: DefaultBinder}]}, queueSort: {enabled: [{name: PrioritySort}]}",
    );
    assert!(own.is_on(Set::Bind, "DefaultBinder"), "off at all points, on at its own");
    for point in ["preScore", "permit", "postBind", "placementScore"] {
        assert_eq!(one(&format!("{point}: {{}}")), Profile::default(), "{point}");
    }
}

#[test]
fn what_is_unknown_or_doubled_is_refused_by_name() {
    for (text, word) in [
        ("profiles: [{schedulerNames: x}]", "unknown field \"profiles[0].schedulerNames\""),
        ("profiles: [{plugins: {score: {enabled: [{name: Foo}]}}}]", "\"Foo\""),
        ("profiles: [{plugins: {multiPoint: {disabled: [{name: '*'}]}}}]", "one queue sort plugin required"),
        ("profiles: [{}, {}]", "Duplicate value: \"default-scheduler\""),
        ("profiles: [{percentageOfNodesToScore: 101}]", "not in valid range [0-100]"),
        ("profiles: [{pluginConfig: [{name: Foo, args: {}}]}]", "\"Foo\""),
        ("leaderElection: {resourceLock: endpoints}", "leases"),
        ("parallelism: 0", "parallelism: Invalid value: 0: should be an integer value greater than zero"),
        ("podInitialBackoffSeconds: 0", "podInitialBackoffSeconds: Invalid value: 0: must be greater than 0"),
        (
            "podInitialBackoffSeconds: 11",
            "podMaxBackoffSeconds: Invalid value: 10: must be greater than or equal to PodInitialBackoffSeconds",
        ),
        ("clientConnection: {burst: -1}", "clientConnection.burst: Invalid value: -1: must be non-negative"),
        (
            "profiles: [{plugins: {score: {enabled: [{name: NodeName}]}}}]",
            "plugin \"NodeName\" does not extend ScorePlugin plugin",
        ),
        (
            "profiles: [{plugins: {filter: {enabled: [{name: NodePorts}, {name: NodePorts}]}}}]",
            "plugin \"NodePorts\" already registered as \"FilterPlugin\"",
        ),
        (
            "profiles: [{plugins: {filter: {enabled: [{name: EBSLimits}]}}}]",
            "plugins.filter.enabled[0]: Invalid value: \"EBSLimits\": was invalid in version \"kubescheduler.config.k8s.io/v1\" (KubeSchedulerConfiguration is version \"kubescheduler.config.k8s.io/v1\")",
        ),
        (
            "profiles: [{plugins: {bind: {disabled: [{name: '*'}]}}}]",
            "at least one bind plugin is needed for profile with scheduler name \"default-scheduler\"",
        ),
        (
            "profiles: [{plugins: {queueSort: {disabled: [{name: '*'}]}}}]",
            "only one queue sort plugin required for profile with scheduler name \"default-scheduler\", but got 0",
        ),
        (
            "profiles: [{plugins: {queueSort: {enabled: [{name: PrioritySort}, {name: Other}]}}}]",
            "only one queue sort plugin can be enabled",
        ),
        (
            "profiles: [{schedulerName: a}, {schedulerName: b, plugins: {queueSort: {enabled: [{name: PrioritySort}]}}}]",
            "must be the same for all profiles",
        ),
        (
            "profiles: [{pluginConfig: [{name: NodeName, args: {}}, {name: NodeName, args: {}}]}]",
            "pluginConfig[1]: Duplicate value: \"NodeName\"",
        ),
    ] {
        let error = format!("{:#}", read(text).err().expect(text));
        assert!(error.contains(word), "{text}: {error}");
    }
}
