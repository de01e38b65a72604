//! The points at which plugins are switched, and which plugin does something at which.

/// The points at which plugins are switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "upstream's extension points, as the configuration names them")]
pub enum Set {
    /// All points.
    MultiPoint,
    PreFilter,
    Filter,
    PostFilter,
    Reserve,
    PreScore,
    Score,
    PreBind,
    Bind,
    PostBind,
    Permit,
    PreEnqueue,
    QueueSort,
}

/// A point, its field of the configuration, and how upstream calls what is switched there. In the order upstream looks at them.
const POINTS: [(Set, &str, &str); 13] = [
    (Set::MultiPoint, "multiPoint", ""),
    (Set::PreFilter, "preFilter", "PreFilterPlugin"),
    (Set::Filter, "filter", "FilterPlugin"),
    (Set::PostFilter, "postFilter", "PostFilterPlugin"),
    (Set::Reserve, "reserve", "ReservePlugin"),
    (Set::PreScore, "preScore", "PreScorePlugin"),
    (Set::Score, "score", "ScorePlugin"),
    (Set::PreBind, "preBind", "PreBindPlugin"),
    (Set::Bind, "bind", "BindPlugin"),
    (Set::PostBind, "postBind", "PostBindPlugin"),
    (Set::Permit, "permit", "PermitPlugin"),
    (Set::PreEnqueue, "preEnqueue", "PreEnqueuePlugin"),
    (Set::QueueSort, "queueSort", "QueueSortPlugin"),
];

impl Set {
    /// All of them, `multiPoint` first, with their fields of the configuration.
    pub fn all() -> impl Iterator<Item = (Self, &'static str)> {
        POINTS.iter().map(|(set, field, _)| (*set, *field))
    }

    /// How upstream calls what is switched here; at all points: at the first it looks at.
    pub(super) fn kind(self) -> &'static str {
        let own = POINTS.iter().find(|(set, ..)| *set == self).map_or("", |(.., kind)| kind);
        if own.is_empty() { "PreFilterPlugin" } else { own }
    }
}

/// A plugin of upstream's, and where it does something.
pub(super) struct Known {
    pub(super) name: &'static str,
    pub(super) points: &'static [Set],
    /// At which point it cannot do without what it found out at which other.
    pub(super) needs: &'static [(Set, Set)],
}

const fn known(name: &'static str, points: &'static [Set]) -> Known {
    Known { name, points, needs: &[] }
}

const fn needy(name: &'static str, points: &'static [Set], needs: &'static [(Set, Set)]) -> Known {
    Known { name, points, needs }
}

const FILTERS: (Set, Set) = (Set::Filter, Set::PreFilter);
const SCORES: (Set, Set) = (Set::Score, Set::PreScore);

/// Upstream's plugins of 1.36 (`pkg/scheduler/framework/plugins`).
static PLUGINS: [Known; 21] = {
    use Set::{
        Bind, Filter, Permit, PostFilter, PreBind, PreEnqueue, PreFilter, PreScore, QueueSort, Reserve, Score,
    };
    [
        known("SchedulingGates", &[PreEnqueue]),
        known("PrioritySort", &[QueueSort]),
        known("NodeUnschedulable", &[Filter]),
        known("NodeName", &[Filter]),
        needy("TaintToleration", &[Filter, PreScore, Score], &[SCORES]),
        known("NodeAffinity", &[PreFilter, Filter, PreScore, Score]),
        needy("NodePorts", &[PreFilter, Filter], &[FILTERS]),
        needy("NodeResourcesFit", &[PreFilter, Filter, PreScore, Score], &[FILTERS]),
        needy("VolumeRestrictions", &[PreFilter, Filter], &[FILTERS]),
        known("NodeVolumeLimits", &[PreFilter, Filter]),
        needy("VolumeBinding", &[PreFilter, Filter, Reserve, PreScore, Score, PreBind], &[FILTERS]),
        known("VolumeZone", &[PreFilter, Filter]),
        needy("PodTopologySpread", &[PreFilter, Filter, PreScore, Score], &[FILTERS, SCORES]),
        needy("InterPodAffinity", &[PreFilter, Filter, PreScore, Score], &[FILTERS, SCORES]),
        known("DynamicResources", &[PreEnqueue, PreFilter, Filter, PostFilter, Score, Reserve, PreBind]),
        known("DefaultPreemption", &[PostFilter, PreEnqueue]),
        known("NodeResourcesBalancedAllocation", &[PreScore, Score]),
        known("ImageLocality", &[Score]),
        known("DefaultBinder", &[Bind]),
        known("GangScheduling", &[PreEnqueue, Permit]),
        known("NodeDeclaredFeatures", &[PreFilter, Filter]),
    ]
};
/// A plugin by its name.
pub(super) fn find(name: &str) -> Option<&'static Known> {
    plugins().find(|plugin| plugin.name == name)
}

/// All of them.
pub(super) fn plugins() -> impl Iterator<Item = &'static Known> {
    PLUGINS.iter()
}
