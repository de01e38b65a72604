//! Annotations that mean something to a pod: whose mirror it is, what it costs to delete, and the profiles that were
//! annotations before they were fields.

use super::{containers, scheduling, security};
use crate::resources::{
    annotations,
    validate::cursor::{Cursor, look_at},
};
use serde_json::Value;

const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const TOLERATIONS: &str = "scheduler.alpha.kubernetes.io/tolerations";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";

/// The annotations (at `at`) of a pod or template of this spec.
pub(super) fn specific(at: Cursor<'_>, spec: Cursor<'_>) {
    let text = |key: &str| at.value.get(key).and_then(Value::as_str);
    if let Some(value) = text(MIRROR)
        && spec.text("nodeName").is_empty()
    {
        at.key(MIRROR).invalid_value(value, "must set spec.nodeName if mirror pod annotation is set");
    }
    if let Some(json) = text(TOLERATIONS).filter(|json| !json.is_empty()) {
        tolerations(at, json);
    }
    // What an older server let through stays.
    let was = at.old.get(DELETION_COST).and_then(Value::as_str);
    if let Some(cost) = text(DELETION_COST)
        && !is_cost(cost)
        && was.is_none_or(is_cost)
    {
        at.key(DELETION_COST).invalid_value(cost, "must be a 32bit integer");
    }
    for (key, entry) in at.entries() {
        if key == SECCOMP_POD || key.starts_with(SECCOMP_CONTAINER) {
            seccomp(at.field_named(key), entry.str());
        }
    }
    for (key, entry) in at.entries() {
        let Some(name) = key.strip_prefix(annotations::APP_ARMOR) else { continue };
        if !containers(spec).any(|container| container.text("name") == name) {
            entry.invalid_value(name, "container not found");
        }
        if !annotations::is_app_armor(entry.str()) {
            entry.invalid(format!(
                "invalid AppArmor profile name: {}",
                crate::goformat::go_quote(entry.str())
            ));
        }
    }
}

/// A number that begins with no plus, and with a zero only if it is zero.
fn is_cost(text: &str) -> bool {
    let begins = text == "0" || text.starts_with(|c: char| c == '-' || ('1'..='9').contains(&c));
    begins && text.parse::<i32>().is_ok()
}

fn tolerations(at: Cursor<'_>, json: &str) {
    match serde_json::from_str::<Value>(json) {
        Ok(list) => {
            let mut errors = Vec::new();
            let path = at.path().child(TOLERATIONS);
            look_at(&path, &list, &mut errors, scheduling::tolerations);
            at.add(errors);
        }
        Err(error) => at.invalid_value(TOLERATIONS, error.to_string()),
    }
}

fn seccomp(at: Cursor<'_>, profile: &str) {
    match profile.strip_prefix("localhost/") {
        Some(path) => at.over(&Value::from(path), |path| path.descending()),
        None if matches!(profile, "runtime/default" | "docker/default" | "unconfined") => {}
        None => at.invalid_value(profile, "must be a valid seccomp profile"),
    }
}

/// Where a profile is said twice, in an annotation and in a field, both must say the same.
pub(super) fn match_fields(at: Cursor<'_>, spec: Cursor<'_>) {
    let text = |key: &str| at.value.get(key).and_then(Value::as_str);
    let pod = spec.field("securityContext");
    if let (Some(annotation), Some(profile)) = (text(SECCOMP_POD), pod.field("seccompProfile").if_set()) {
        security::matches(profile, annotation, &security::SECCOMP);
    }
    for container in containers(spec) {
        let profile = container.field("securityContext.seccompProfile");
        let annotation = text(&format!("{SECCOMP_CONTAINER}{}", container.text("name")));
        if let (Some(annotation), Some(profile)) = (annotation, profile.if_set()) {
            security::matches(profile, annotation, &security::SECCOMP);
        }
    }
    if spec.text("os.name") == "windows" {
        return;
    }
    for container in containers(spec) {
        let own = container.field("securityContext.appArmorProfile");
        let profile = own.if_set().unwrap_or_else(|| pod.field("appArmorProfile").reported_at(own));
        let annotation = text(&format!("{}{}", annotations::APP_ARMOR, container.text("name")));
        if let (Some(annotation), Some(profile)) = (annotation, profile.if_set()) {
            security::matches(profile, annotation, &security::APP_ARMOR);
        }
    }
}

/// What may not be added to a pod that exists, nor taken from it.
pub(super) fn kept(at: Cursor<'_>) {
    let fixed = |key: &str| match key {
        MIRROR => Some("mirror pod annotation"),
        _ => key.starts_with(annotations::APP_ARMOR).then_some("AppArmor annotations"),
    };
    let known = |key: &str| at.old.get(key).is_some();
    let before = at.old.as_object().into_iter().flatten();
    for (key, _) in before.filter(|(key, value)| at.value.get(key.as_str()) != Some(*value)) {
        if let Some(what) = fixed(key) {
            at.key_named(key).forbidden(format!("may not remove or update {what}"));
        }
    }
    for (key, entry) in at.entries().filter(|(key, _)| !known(key)) {
        if let Some(what) = fixed(key) {
            entry.forbidden(format!("may not add {what}"));
        }
    }
}

/// Is this pod's manifest a file on its node?
pub(super) fn was_mirror(pod: Cursor<'_>) -> bool {
    crate::object::annotation(pod.old, MIRROR).is_some()
}
