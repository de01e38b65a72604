//! What a whole pod asks for, over all its containers: upstream's `PodRequests` and `PodLimits` (`component-helpers/resource`).
//!
//! The rule is [`Asks::total`]; what it needs is read from JSON ([`Asks::read`]) or from the typed form ([`Asks::of`]).

mod typed;

use crate::access::Get as _;
use crate::quantity::Quantity;
use serde_json::Value;
use std::collections::BTreeMap;

/// Amounts by resource name.
pub type Amounts = BTreeMap<String, Quantity>;

/// What a container is to its pod's total.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Runs to completion before the next container.
    Init,
    /// An init container that keeps running.
    Sidecar,
    /// One of `spec.containers`.
    Main,
}

impl Part {
    /// What an init container with this `restartPolicy` is.
    fn of_init(policy: Option<&str>) -> Self {
        if policy == Some("Always") { Self::Sidecar } else { Self::Init }
    }
}

/// Which side of the resources is added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// `requests`.
    Requests,
    /// `limits`.
    Limits,
}

impl Side {
    /// Name of the field in `resources`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Side::Requests => "requests",
            Side::Limits => "limits",
        }
    }
}

/// Whether a resize under way counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resize {
    /// What the spec says alone (upstream without `UseStatusResources`).
    Ignored,
    /// The largest of what is asked for, allocated and in force; what cannot be granted (`Infeasible`) does not count.
    Counted,
}

/// What one side of a container's, or the pod's own, resources comes to.
#[derive(Clone, Debug, Default, PartialEq)]
struct Ask {
    spec: Amounts,
    /// What the status says is in force and allocated, where it says so.
    status: Option<[Amounts; 2]>,
}

impl Ask {
    fn effective(&self, side: Side, infeasible: bool) -> Amounts {
        let Some([actual, allocated]) = &self.status else { return self.spec.clone() };
        let mut sum = if infeasible { Amounts::new() } else { self.spec.clone() };
        at_least(&mut sum, actual);
        if side == Side::Requests {
            at_least(&mut sum, allocated);
        }
        sum
    }
}

/// One side of all that a pod says about its resources.
#[derive(Clone, Debug, PartialEq)]
pub struct Asks {
    side: Side,
    /// In the pod's order, init containers first.
    containers: Vec<(Part, Ask)>,
    pod: Ask,
    overhead: Amounts,
    /// The resize that is pending cannot be granted.
    infeasible: bool,
}

impl Asks {
    /// From a pod's JSON.
    #[must_use]
    pub fn read(pod: &Value, side: Side, resize: Resize) -> Self {
        let own = |object: &Value| amounts(object.at("resources").at(side.name()));
        let status = |of: &Value| {
            let [actual, allocated] = [own(of), amounts(of.at("allocatedResources"))];
            (resize == Resize::Counted && of.has("resources")).then_some([actual, allocated])
        };
        let ask = |container: &Value, statuses: &str, part: Part| {
            let same = |s: &&Value| s.text("name") == container.text("name");
            let found = pod.items(statuses).iter().find(same).filter(|_| part != Part::Init);
            (part, Ask { spec: own(container), status: found.and_then(status) })
        };
        let init = pod.items("spec.initContainers").iter().map(|c| {
            let part = Part::of_init(Some(c.text("restartPolicy")));
            ask(c, "status.initContainerStatuses", part)
        });
        let main =
            pod.items("spec.containers").iter().map(|c| ask(c, "status.containerStatuses", Part::Main));
        let pending = pod.items("status.conditions").iter().find(|c| c.text("type") == "PodResizePending");
        Self {
            side,
            containers: init.chain(main).collect(),
            pod: Ask { spec: own(pod.at("spec")), status: status(pod.at("status")) },
            overhead: amounts(pod.at("spec.overhead")),
            infeasible: pending.is_some_and(|c| c.text("reason") == "Infeasible"),
        }
    }

    /// Has every container that does not state a resource of `least` ask for that much of it: what scores assume.
    #[must_use]
    pub fn with_least(mut self, least: &Amounts) -> Self {
        for (_, ask) in &mut self.containers {
            for (name, amount) in least {
                ask.spec.entry(name.clone()).or_insert_with(|| amount.clone());
            }
        }
        self
    }

    /// What the containers come to without what the pod states for itself, nor overhead (upstream: `AggregateContainerRequests`). Regular containers and sidecars add up; every other init container only needs its own room beside
    /// the sidecars before it.
    #[must_use]
    pub(crate) fn of_containers(&self) -> Amounts {
        let (mut total, mut sidecars, mut peak) = (Amounts::new(), Amounts::new(), Amounts::new());
        for (part, ask) in &self.containers {
            let own = ask.effective(self.side, self.infeasible);
            if *part != Part::Init {
                add(&mut total, &own);
            }
            if *part != Part::Main {
                let mut beside = sidecars.clone();
                add(&mut beside, &own);
                if *part == Part::Sidecar {
                    sidecars.clone_from(&beside);
                }
                at_least(&mut peak, &beside);
            }
        }
        at_least(&mut total, &peak);
        total
    }

    /// The total without overhead; what the pod states for itself replaces what its containers come to.
    #[must_use]
    pub fn stated(&self) -> Amounts {
        let mut total = self.of_containers();
        let pod = self.pod.effective(self.side, self.infeasible);
        for name in self.pod.spec.keys().filter(|name| pod_level(name)) {
            total.insert(name.clone(), pod.get(name).cloned().unwrap_or_else(Quantity::zero));
        }
        total
    }

    /// The total. Overhead is added, to limits only where there is one: nothing unlimited becomes limited by it.
    #[must_use]
    pub fn total(&self) -> Amounts {
        let mut total = self.stated();
        let limited = |name: &String| total.get(name).is_some_and(|limit| !limit.is_zero());
        let counts = |name: &String| self.side == Side::Requests || limited(name);
        let overhead: Amounts = self
            .overhead
            .iter()
            .filter(|(name, _)| counts(name))
            .map(|(n, a)| (n.clone(), a.clone()))
            .collect();
        add(&mut total, &overhead);
        total
    }
}

/// The total of one side of a pod.
#[must_use]
pub fn of(pod: &Value, side: Side, resize: Resize) -> Amounts {
    Asks::read(pod, side, resize).total()
}

/// The amounts of a resource list; what does not parse is left out (validation refuses it).
#[must_use]
pub fn amounts(list: &Value) -> Amounts {
    let fields = list.as_object().into_iter().flatten();
    fields.filter_map(|(name, v)| Some((name.clone(), Quantity::parse(v.as_str()?).ok()?))).collect()
}

/// Adds each amount of `other`.
pub fn add(to: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let sum = to.get(name).map_or_else(|| amount.clone(), |present| present.add(amount));
        to.insert(name.clone(), sum);
    }
}

/// Makes each amount at least that of `other`.
fn at_least(to: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        if to.get(name).is_none_or(|present| present < amount) {
            to.insert(name.clone(), amount.clone());
        }
    }
}

/// Whether a pod may state the resource for all its containers together.
#[must_use]
pub fn pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

/// Whether the pod states requests or limits of its own.
#[must_use]
pub(crate) fn states_pod_level(pod: &Value) -> bool {
    let stated = |list: &str| pod.fields(list).is_some_and(|l| l.keys().any(|name| pod_level(name)));
    stated("spec.resources.requests") || stated("spec.resources.limits")
}

#[cfg(test)]
mod tests;
