use super::*;

#[test]
fn what_is_switched_at_one_point_must_not_change_another() {
    let mut profile = Profile::default();
    profile.change(Set::Score, "TaintToleration", Change::Off).unwrap();
    assert!(profile.filters(Plugin::TaintToleration) && profile.weight(Score::TaintToleration) == 0);
    profile.change(Set::Filter, "NodeAffinity", Change::Off).unwrap();
    assert!(!profile.filters(Plugin::NodeAffinity) && profile.weight(Score::NodeAffinity) == 2);
    profile.change(Set::Filter, "*", Change::Off).unwrap();
    profile.change(Set::Filter, "NodeName", Change::On { weight: None }).unwrap();
    assert!(profile.filters(Plugin::NodeName) && !profile.filters(Plugin::NodePorts) && profile.preempts);
    profile.change(Set::MultiPoint, "*", Change::Off).unwrap();
    assert!(!profile.preempts && profile.weight(Score::ImageLocality) == 0);
    profile.change(Set::MultiPoint, "TaintToleration", Change::On { weight: None }).unwrap();
    assert!(profile.filters(Plugin::TaintToleration) && profile.weight(Score::TaintToleration) == 1);
}

#[test]
fn all_plugins_off_must_not_leave_any_on() {
    let mut profile = Profile::default();
    profile.change(Set::MultiPoint, "*", Change::Off).unwrap();
    for plugin in [Plugin::VolumeRestrictions, Plugin::VolumeBinding, Plugin::VolumeZone, Plugin::NodePorts] {
        assert!(!profile.filters(plugin), "{plugin:?}");
    }
    assert!(!profile.gates);
    let error = profile.clone().whole().unwrap_err().to_string();
    assert_eq!(
        error,
        "only one queue sort plugin required for profile with scheduler name \"default-scheduler\", but got 0"
    );
    let on = Change::On { weight: None };
    profile.change(Set::MultiPoint, "PrioritySort", on).unwrap();
    assert!(profile.clone().whole().unwrap_err().to_string().starts_with("at least one bind plugin"));
    profile.change(Set::MultiPoint, "DefaultBinder", on).unwrap();
    profile.change(Set::MultiPoint, "VolumeZone", on).unwrap();
    let profile = profile.whole().unwrap();
    assert!(profile.filters(Plugin::VolumeZone) && !profile.filters(Plugin::VolumeBinding));
}

#[test]
fn a_set_of_filters_that_is_off_must_not_take_the_gates_with_it() {
    let mut profile = Profile::default();
    profile.change(Set::Filter, "*", Change::Off).unwrap();
    assert!(profile.gates && !profile.filters(Plugin::VolumeBinding));
    assert!(profile.clone().whole().is_ok());
    profile.change(Set::MultiPoint, "NodeVolumeLimits", Change::Off).unwrap();
    profile.change(Set::MultiPoint, "SchedulingGates", Change::Off).unwrap();
    assert!(!profile.whole().unwrap().gates);
}

#[test]
fn a_plugin_that_is_not_here_must_not_be_switched_in_silence() {
    let mut profile = Profile::default();
    let unknown = profile.change(Set::Score, "Foo", Change::Off).unwrap_err().to_string();
    assert_eq!(unknown, "ScorePlugin \"Foo\" does not exist");
    let mut unbound = profile.clone();
    unbound.change(Set::MultiPoint, "DefaultBinder", Change::Off).unwrap();
    assert_eq!(unbound.clone().whole(), Err(Error::Unbound(NAME)));
    unbound.change(Set::Bind, "DefaultBinder", Change::On { weight: None }).unwrap();
    assert!(unbound.whole().is_ok());
    let unused = profile.configure("InterPodAffinity", &serde_json::json!({"hardPodAffinityWeight": 5}));
    assert_eq!(unused.unwrap(), ["hardPodAffinityWeight"]);
    let wrong = serde_json::json!({"scoringStrategy": {"type": "Fullest"}});
    assert!(profile.configure("NodeResourcesFit", &wrong).is_err());
}

#[test]
fn each_point_is_switched_by_itself() {
    type Holds = fn(&Profile) -> bool;
    let table: [(Set, &str, Holds); 9] = [
        (Set::PreEnqueue, "SchedulingGates", |p| p.gates),
        (Set::PreFilter, "NodeAffinity", |p| p.is_on(Set::PreFilter, "NodeAffinity")),
        (Set::Filter, "NodeName", |p| p.filters(Plugin::NodeName)),
        (Set::PostFilter, "DefaultPreemption", |p| p.preempts),
        (Set::PreScore, "NodeAffinity", |p| p.is_on(Set::PreScore, "NodeAffinity")),
        (Set::Score, "ImageLocality", |p| p.weight(Score::ImageLocality) == 1),
        (Set::Reserve, "VolumeBinding", Profile::binds_volumes),
        (Set::PreBind, "VolumeBinding", Profile::binds_volumes),
        (Set::Permit, "GangScheduling", |p| p.is_on(Set::Permit, "GangScheduling")),
    ];
    for (set, name, holds) in table {
        assert!(holds(&Profile::default()), "{set:?} {name}");
        for off in [name, "*"] {
            let mut profile = Profile::default();
            profile.change(set, off, Change::Off).unwrap();
            assert!(!holds(&profile), "{set:?} {off}");
            let others = table.iter().filter(|(other, ..)| *other != set);
            // Volumes are bound only where all three are on.
            let volumes = [Set::Filter, Set::Reserve, Set::PreBind];
            for (other, named, holds) in
                others.filter(|(other, ..)| !volumes.contains(other) || !volumes.contains(&set))
            {
                assert!(holds(&profile), "{set:?} {off} took {other:?} {named} with it");
            }
            profile.change(set, name, Change::On { weight: None }).unwrap();
            assert!(holds(&profile), "{set:?} {name} again");
        }
    }
}

#[test]
fn a_plugin_must_not_be_on_where_it_does_nothing_or_twice() {
    let on = Change::On { weight: None };
    let mut profile = Profile::default();
    let error = profile.change(Set::Score, "NodeName", on).unwrap_err().to_string();
    assert_eq!(error, "plugin \"NodeName\" does not extend ScorePlugin plugin");
    assert_eq!(
        profile.change(Set::PostBind, "DefaultBinder", on).unwrap_err().to_string(),
        "plugin \"DefaultBinder\" does not extend PostBindPlugin plugin"
    );
    assert_eq!(
        profile.change(Set::MultiPoint, "Foo", on).unwrap_err().to_string(),
        "PreFilterPlugin \"Foo\" does not exist"
    );
    profile.change(Set::Score, "NodeName", Change::Off).unwrap();
    let twice = |set, names: &[&str]| {
        Profile::each_once(set, names.iter().copied()).map_err(|error| error.to_string())
    };
    assert_eq!(twice(Set::Filter, &["NodeName", "NodePorts"]), Ok(()));
    assert_eq!(
        twice(Set::Filter, &["NodeName", "NodeName"]).unwrap_err(),
        "plugin \"NodeName\" already registered as \"FilterPlugin\""
    );
    assert_eq!(
        twice(Set::MultiPoint, &["NodePorts", "NodePorts"]).unwrap_err(),
        "plugin \"NodePorts\" already registered as \"PreFilterPlugin\""
    );
}

#[test]
fn a_plugin_must_not_be_left_without_what_it_needs() {
    for (set, name, words) in [
        (
            Set::PreFilter,
            "NodePorts",
            "plugin \"NodePorts\" does nothing as FilterPlugin without its PreFilterPlugin",
        ),
        (
            Set::PreScore,
            "TaintToleration",
            "plugin \"TaintToleration\" does nothing as ScorePlugin without its PreScorePlugin",
        ),
    ] {
        let mut profile = Profile::default();
        profile.change(set, name, Change::Off).unwrap();
        assert!(profile.clone().whole().unwrap_err().to_string().starts_with(words));
        let user = if set == Set::PreFilter { Set::Filter } else { Set::Score };
        profile.change(user, name, Change::Off).unwrap();
        assert!(profile.whole().is_ok(), "nobody needs it");
    }
    let mut fine = Profile::default();
    fine.change(Set::PreFilter, "NodeAffinity", Change::Off).unwrap();
    fine.change(Set::PreScore, "NodeResourcesFit", Change::Off).unwrap();
    assert!(fine.whole().is_ok(), "they can do without");
}
