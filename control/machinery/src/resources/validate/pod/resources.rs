//! What a whole pod asks for: as much as its containers together, and no container more than it.

use crate::{
    quantity::Quantity,
    resources::validate::{cursor::Cursor, quantities},
};

pub(super) fn whole_pod(spec: Cursor<'_>) {
    let Some(resources) = spec.field("resources").if_set() else { return };
    if spec.text("os.name") == "windows" {
        return resources.forbidden("may not be set for a windows pod");
    }
    if resources.has("claims") {
        resources.field("claims").forbidden("claims may not be set for Resources at pod-level");
    }
    resources.requirements(Cursor::pod_resource);
    for list in ["requests", "limits"] {
        for (name, amount) in resources.field(list).entries() {
            if list == "limits" && !name.starts_with("hugepages-") {
                continue;
            }
            let (Some(whole), Some(sum)) = (amount.quantity(), aggregate(spec, list, name)) else { continue };
            if sum > whole {
                let sum = sum.canonical();
                let detail = format!("must be greater than or equal to aggregate container {list} of {sum}");
                amount.invalid_value(whole.canonical(), detail);
            }
        }
    }
    for (index, container) in spec.each("containers").enumerate() {
        let place = resources.field("containers").item(index);
        for (name, amount) in container.field("resources.limits").entries() {
            let (Some(own), Some(whole)) =
                (amount.quantity(), resources.field("limits").key(name).quantity())
            else {
                continue;
            };
            if own > whole {
                let detail = format!("must be less than or equal to pod limits of {}", whole.canonical());
                amount.reported_at(place.key(name).field("limits")).invalid_value(own.canonical(), detail);
            }
        }
    }
}

/// What the containers of a pod ask of a resource at most at any one time: those that run together summed, those that run
/// before them one by one, beside the sidecars started until then.
fn aggregate(spec: Cursor<'_>, list: &'static str, name: &str) -> Option<Quantity> {
    let of = |container: Cursor<'_>| quantities::parse(container.at("resources").get(list)?.get(name)?);
    let together = |sum: Option<Quantity>, amount: Option<Quantity>| match (sum, amount) {
        (Some(sum), Some(amount)) => Some(sum.add(&amount)),
        (sum, amount) => sum.or(amount),
    };
    let mut sum = spec.each("containers").map(of).fold(None, together);
    let (mut sidecars, mut most): (Option<Quantity>, Option<Quantity>) = (None, None);
    for container in spec.each("initContainers") {
        let now = if container.text("restartPolicy") == "Always" {
            sum = together(sum, of(container));
            sidecars = together(sidecars, of(container));
            sidecars.clone()
        } else {
            together(sidecars.clone(), of(container))
        };
        most = match (most, now) {
            (Some(most), Some(now)) => Some(if now > most { now } else { most }),
            (most, now) => most.or(now),
        };
    }
    match (sum, most) {
        (Some(sum), Some(most)) => Some(if most > sum { most } else { sum }),
        (sum, most) => sum.or(most),
    }
}
