//! Security contexts of pods and containers.

use serde_json::{Value, json};

use super::{container::descending, rules};
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
    seccomp(&path.child("seccompProfile"), context.at("seccompProfile"), errors);
    app_armor(&path.child("appArmorProfile"), context.at("appArmorProfile"), errors);
    for (key, supported) in [
        ("supplementalGroupsPolicy", ["Merge", "Strict"]),
        ("seLinuxChangePolicy", ["MountOption", "Recursive"]),
    ] {
        if let Some(policy) = context.at(key).as_str().filter(|policy| !supported.contains(policy)) {
            errors.push(FieldError::not_supported(&path.child(key), policy, &supported));
        }
    }
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

const PROFILES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];

fn seccomp(path: &Path, profile: &Value, errors: &mut Errors) {
    if profile.is_null() {
        return;
    }
    let (kind, kind_path) = (profile.text("type"), path.child("type"));
    if kind.is_empty() {
        errors.push(FieldError::required(&kind_path, "type is required when seccompProfile is set"));
    } else {
        rules::supported_or_empty(&kind_path, kind, &PROFILES, errors);
    }
    let (local, local_path) = (profile.at("localhostProfile"), path.child("localhostProfile"));
    match local.as_str() {
        None if kind == "Localhost" => {
            errors.push(FieldError::required(&local_path, "must be set when seccomp type is Localhost"));
        }
        Some(file) if kind == "Localhost" => descending(&local_path, file, errors),
        Some(_) => {
            let detail = "can only be set when seccomp type is Localhost";
            // Upstream prints its internal type, whose fields have Go's names.
            let value = json!({"Type": kind, "LocalhostProfile": local});
            errors.push(FieldError::invalid(&local_path, value, detail));
        }
        None => {}
    }
}

/// One byte less than the longest path.
const APP_ARMOR_MAX: usize = 4095;

fn app_armor(path: &Path, profile: &Value, errors: &mut Errors) {
    if profile.is_null() {
        return;
    }
    let (local, local_path) = (profile.at("localhostProfile"), path.child("localhostProfile"));
    match (profile.text("type"), local.as_str()) {
        ("Localhost", None | Some("")) => {
            errors.push(FieldError::required(&local_path, "must be set when AppArmor type is Localhost"));
        }
        ("Localhost", Some(name)) => {
            if name.trim() != name {
                errors.push(FieldError::invalid(&local_path, name, "must not be padded with whitespace"));
            }
            if name.len() > APP_ARMOR_MAX {
                errors.push(FieldError::too_long(&local_path, APP_ARMOR_MAX));
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(name)) => {
            let detail = "can only be set when AppArmor type is Localhost";
            errors.push(FieldError::invalid(&local_path, name, detail));
        }
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("", _) => {
            let detail = "type is required when appArmorProfile is set";
            errors.push(FieldError::required(&path.child("type"), detail));
        }
        (other, _) => errors.push(FieldError::not_supported(&path.child("type"), other, &PROFILES)),
    }
}

/// A container's context; `own_users` says that the pod has users of its own.
pub(super) fn container(path: &Path, context: &Value, own_users: bool, errors: &mut Errors) {
    if context.is_null() {
        return;
    }
    ids(path, context, &["runAsUser", "runAsGroup"], errors);
    let mount = context.text("procMount");
    if !mount.is_empty() && !["Default", "Unmasked"].contains(&mount) {
        errors.push(FieldError::not_supported(&path.child("procMount"), mount, &["Default", "Unmasked"]));
    }
    if mount == "Unmasked" && !own_users {
        let detail = "`hostUsers` must be false to use `Unmasked`";
        errors.push(FieldError::invalid(&path.child("procMount"), mount, detail));
    }
    seccomp(&path.child("seccompProfile"), context.at("seccompProfile"), errors);
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
    app_armor(&path.child("appArmorProfile"), context.at("appArmorProfile"), errors);
}
