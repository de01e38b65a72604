//! AppArmor profiles that older clients still give as annotations become fields (upstream: `applyAppArmorVersionSkew`).

use serde_json::Value;

use crate::{
    access::{Get, entries, object as object_in, set},
    object,
    resources::annotations::{APP_ARMOR, app_armor_profile, is_valid_profile},
};

const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// What an annotation says of a container that has no profile of its own.
enum Annotated {
    /// A field of its own.
    Field(Value),
    /// What the pod's profile says already.
    AsPod,
    /// Nothing a field could say.
    Odd,
}

fn annotated(pod: &Value, container: &Value) -> Option<(String, Annotated)> {
    if container.has("securityContext.appArmorProfile") {
        return None;
    }
    let key = format!("{APP_ARMOR}{}", container.text("name"));
    let profile = app_armor_profile(object::annotation(pod, &key)?).filter(is_valid_profile);
    let said = match profile {
        None => Annotated::Odd,
        Some(profile) if &profile == pod.at("spec.securityContext.appArmorProfile") => Annotated::AsPod,
        Some(profile) => Annotated::Field(profile),
    };
    Some((key, said))
}

fn is_windows(pod: &Value) -> bool {
    pod.text("spec.os.name") == "windows"
}

/// Copies annotations to the fields of containers that have none.
pub(super) fn copy_annotations(pod: &mut Value) {
    if is_windows(pod) || object::annotations(pod).is_none() {
        return;
    }
    for list in LISTS {
        let said: Vec<Option<(String, Annotated)>> =
            pod.at("spec").items(list).iter().map(|container| annotated(pod, container)).collect();
        let Some(spec) = pod.get_mut("spec") else { return };
        for (container, said) in entries(spec, list).zip(said) {
            if let Some((_, Annotated::Field(profile))) = said
                && let Some(context) = object_in(container, "securityContext")
            {
                set(context, "appArmorProfile", profile);
            }
        }
    }
}

/// What its author ought to know of a new pod that said by annotation what is a field's to say; asked before the copy.
pub(super) fn warnings(pod: &Value) -> Vec<String> {
    if is_windows(pod) {
        return Vec::new();
    }
    let containers = LISTS.iter().flat_map(|list| pod.at("spec").items(list));
    let said = containers.filter_map(|container| annotated(pod, container));
    said.filter(|(_, said)| !matches!(said, Annotated::AsPod))
        .map(|(key, _)| {
            format!(r#"metadata.annotations[{key}]: deprecated since v1.30; use the "appArmorProfile" field instead"#)
        })
        .collect()
}
