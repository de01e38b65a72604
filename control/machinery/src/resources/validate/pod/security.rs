//! Security contexts of pods and containers.

use serde_json::Value;

use super::rules;
use crate::{
    field::{FieldError, Path},
    resources::{access::Get, validate::Errors},
};

/// User and group ids are what the kernel's signed half allows.
const ID_MAX: i64 = i32::MAX as i64;

fn ids(path: &Path, context: &Value, keys: &[&str], errors: &mut Errors) {
    for key in keys {
        rules::between(&path.child(key), context.at(key), 0, ID_MAX, errors);
    }
}

pub(super) fn pod(path: &Path, spec: &Value, errors: &mut Errors) {
    let context = spec.at("securityContext");
    ids(path, context, &["fsGroup", "runAsUser", "runAsGroup"], errors);
    for (index, group) in context.items("supplementalGroups").iter().enumerate() {
        rules::between(&path.child("supplementalGroups").index(index), group, 0, ID_MAX, errors);
    }
    if spec.flag("shareProcessNamespace") && spec.flag("hostPID") {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(FieldError::invalid(&path.child("shareProcessNamespace"), true, detail));
    }
    sysctls(&path.child("sysctls"), context, errors);
    let policy = context.text("fsGroupChangePolicy");
    let policies = ["Always", "OnRootMismatch"];
    rules::supported_or_empty(&path.child("fsGroupChangePolicy"), policy, &policies, errors);
    profile(&path.child("seccompProfile"), context.at("seccompProfile"), errors);
    profile(&path.child("appArmorProfile"), context.at("appArmorProfile"), errors);
    let policy = context.text("supplementalGroupsPolicy");
    rules::supported_or_empty(&path.child("supplementalGroupsPolicy"), policy, &["Merge", "Strict"], errors);
}

fn sysctls(path: &Path, context: &Value, errors: &mut Errors) {
    let mut seen: Vec<String> = Vec::new();
    for (index, sysctl) in context.items("sysctls").iter().enumerate() {
        let name = sysctl.text("name");
        let path = path.index(index).child("name");
        if !rules::required(&path, name, errors) {
            continue;
        }
        let part = |part: &str| {
            let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
            let inner = part.chars().all(|c| edge(c) || c == '-' || c == '_');
            !part.is_empty() && inner && part.starts_with(edge) && part.ends_with(edge)
        };
        if name.len() > 253 || !name.split(['.', '/']).all(part) {
            let detail = "must have at most 253 characters and match regex \
                          ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*([a-z0-9][-_a-z0-9]*)?[a-z0-9]$";
            errors.push(FieldError::invalid(&path, name, detail));
        } else if seen.contains(&name.replace('/', ".")) {
            errors.push(FieldError::duplicate(&path, name));
        } else {
            seen.push(name.replace('/', "."));
        }
    }
}

/// Seccomp and AppArmor profiles look alike: a type, and a name for those on the node.
fn profile(path: &Path, profile: &Value, errors: &mut Errors) {
    if profile.is_null() {
        return;
    }
    let kind = profile.text("type");
    let local = profile.at("localhostProfile");
    if kind == "Localhost" {
        match local.as_str() {
            None | Some("") => {
                let detail = "must be set when seccomp type is Localhost ";
                errors.push(FieldError::required(&path.child("localhostProfile"), detail));
            }
            Some(text) if text.starts_with('/') => {
                errors.push(FieldError::invalid(
                    &path.child("localhostProfile"),
                    text,
                    "must be a relative path",
                ));
            }
            Some(text) if text.split('/').any(|part| part == "..") => {
                errors.push(FieldError::invalid(
                    &path.child("localhostProfile"),
                    text,
                    "must not contain '..'",
                ));
            }
            Some(_) => {}
        }
    } else if !local.is_null() {
        let detail = "can only be set when seccomp type is Localhost";
        errors.push(FieldError::invalid(&path.child("localhostProfile"), local.clone(), detail));
    }
    if kind.is_empty() {
        errors.push(FieldError::required(&path.child("type"), "type is required when seccompProfile is set"));
    } else {
        let kinds = ["Localhost", "RuntimeDefault", "Unconfined"];
        rules::supported_or_empty(&path.child("type"), kind, &kinds, errors);
    }
}

pub(super) fn container(path: &Path, context: &Value, errors: &mut Errors) {
    if context.is_null() {
        return;
    }
    ids(path, context, &["runAsUser", "runAsGroup"], errors);
    let mount = context.text("procMount");
    if !mount.is_empty() && !["Default", "Unmasked"].contains(&mount) {
        errors.push(FieldError::not_supported(&path.child("procMount"), mount, &["Default", "Unmasked"]));
    }
    profile(&path.child("seccompProfile"), context.at("seccompProfile"), errors);
    if context.at("allowPrivilegeEscalation") == &Value::Bool(false) {
        if context.flag("privileged") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(FieldError::invalid(path, context.clone(), detail));
        }
        if context.items("capabilities.add").iter().any(|capability| capability == "CAP_SYS_ADMIN") {
            let detail =
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(FieldError::invalid(path, context.clone(), detail));
        }
    }
    profile(&path.child("appArmorProfile"), context.at("appArmorProfile"), errors);
}
