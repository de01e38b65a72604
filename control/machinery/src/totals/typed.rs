//! The typed form read for [`Asks`].

use super::{Amounts, Ask, Asks, Part, Resize, Side};
use crate::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use std::collections::BTreeMap;

type List = BTreeMap<String, Text>;

fn parsed(list: Option<&List>) -> Amounts {
    let entries = list.into_iter().flatten();
    entries.filter_map(|(name, text)| Some((name.clone(), Quantity::parse(&text.0).ok()?))).collect()
}

fn own(resources: Option<&ResourceRequirements>, side: Side) -> Amounts {
    parsed(resources.and_then(|resources| match side {
        Side::Requests => resources.requests.as_ref(),
        Side::Limits => resources.limits.as_ref(),
    }))
}

impl Asks {
    /// From a pod's typed form.
    #[must_use]
    pub fn of(pod: &Pod, side: Side, resize: Resize) -> Self {
        let status = pod.status.as_ref().filter(|_| resize == Resize::Counted);
        let in_force = |resources: Option<&ResourceRequirements>, allocated: Option<&List>| {
            resources.map(|resources| [own(Some(resources), side), parsed(allocated)])
        };
        let ask = |container: &Container, statuses: Option<&Vec<ContainerStatus>>, part: Part| {
            let same = |s: &&ContainerStatus| s.name == container.name;
            let found = statuses.into_iter().flatten().find(same).filter(|_| part != Part::Init);
            let status = found.and_then(|s| in_force(s.resources.as_ref(), s.allocated_resources.as_ref()));
            (part, Ask { spec: own(container.resources.as_ref(), side), status })
        };
        let spec = pod.spec.as_ref();
        let init = spec.and_then(|s| s.init_containers.as_ref()).into_iter().flatten().map(|c| {
            let part = Part::of_init(c.restart_policy.as_deref());
            ask(c, status.and_then(|s| s.init_container_statuses.as_ref()), part)
        });
        let main = spec.into_iter().flat_map(|s| &s.containers);
        let main = main.map(|c| ask(c, status.and_then(|s| s.container_statuses.as_ref()), Part::Main));
        let conditions = status.and_then(|s| s.conditions.as_ref()).into_iter().flatten();
        let pending = conditions.into_iter().find(|c| c.type_ == "PodResizePending");
        let level = status.and_then(|s| in_force(s.resources.as_ref(), s.allocated_resources.as_ref()));
        Self {
            side,
            containers: init.chain(main).collect(),
            pod: Ask { spec: own(spec.and_then(|s| s.resources.as_ref()), side), status: level },
            overhead: parsed(spec.and_then(|s| s.overhead.as_ref())),
            infeasible: pending.is_some_and(|c| c.reason.as_deref() == Some("Infeasible")),
        }
    }
}
