//! Security contexts of pods and containers.

use serde_json::{Value, json};

use crate::resources::validate::cursor::Cursor;

/// User and group ids are what the kernel's signed half allows.
const ID_MAX: i64 = i32::MAX as i64;

fn ids<'v>(context: Cursor<'v>, keys: &[&'v str]) {
    keys.iter().for_each(|key| context.field(key).between(0, ID_MAX));
}

pub(super) fn pod(spec: Cursor<'_>) {
    let context = spec.field("securityContext");
    ids(context, &["fsGroup", "runAsUser", "runAsGroup"]);
    context.each("supplementalGroups").for_each(|group| group.between(0, ID_MAX));
    if spec.flag("shareProcessNamespace") && spec.flag("hostPID") {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        context.field("shareProcessNamespace").invalid_value(true, detail);
    }
    sysctls(context.field("sysctls"));
    context.plain(&["fsGroupChangePolicy"]);
    seccomp(context.field("seccompProfile"));
    app_armor(context.field("appArmorProfile"));
    context.plain(&["supplementalGroupsPolicy", "seLinuxChangePolicy"]);
}

fn sysctls(sysctls: Cursor<'_>) {
    let mut seen: Vec<String> = Vec::new();
    for name in sysctls.items().map(|sysctl| sysctl.field("name")) {
        if !name.required() {
            continue;
        }
        let part = |part: &str| {
            let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
            let inner = part.chars().all(|c| edge(c) || c == '-' || c == '_');
            !part.is_empty() && inner && part.starts_with(edge) && part.ends_with(edge)
        };
        let dotted = name.str().replace('/', ".");
        if name.str().len() > 253 || !dotted.split('.').all(part) {
            name.invalid(
                "must have at most 253 characters and match regex \
                 ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*([a-z0-9][-_a-z0-9]*)?[a-z0-9]$",
            );
        } else if seen.contains(&dotted) {
            name.duplicate();
        } else {
            seen.push(dotted);
        }
    }
}

fn seccomp(profile: Cursor<'_>) {
    if !profile.is_set() {
        return;
    }
    let (kind, local) = (profile.field("type"), profile.field("localhostProfile"));
    if kind.required_with("type is required when seccompProfile is set") {
        kind.is_plain();
    }
    match (kind.str() == "Localhost", local.is_set()) {
        (true, true) => local.descending(),
        (true, false) => local.missing("must be set when seccomp type is Localhost"),
        (false, true) => {
            // Upstream prints its internal type, whose fields have Go's names.
            let value = json!({"Type": kind.str(), "LocalhostProfile": local.value});
            local.invalid_value(value, "can only be set when seccomp type is Localhost");
        }
        (false, false) => {}
    }
}

/// One byte less than the longest path.
const APP_ARMOR_MAX: usize = 4095;

fn app_armor(profile: Cursor<'_>) {
    if !profile.is_set() {
        return;
    }
    let (kind, local) = (profile.field("type"), profile.field("localhostProfile"));
    match (kind.str(), local.str()) {
        ("Localhost", "") => local.missing("must be set when AppArmor type is Localhost"),
        ("Localhost", name) => {
            if name.trim() != name {
                local.invalid("must not be padded with whitespace");
            }
            local.bounded(APP_ARMOR_MAX);
        }
        ("RuntimeDefault" | "Unconfined", _) if local.is_set() => {
            local.invalid("can only be set when AppArmor type is Localhost");
        }
        ("", _) => kind.missing("type is required when appArmorProfile is set"),
        _ => kind.enumerated(),
    }
}

/// A container's context; `own_users` says that the pod has users of its own.
pub(super) fn container(context: Cursor<'_>, own_users: bool) {
    if !context.is_set() {
        return;
    }
    ids(context, &["runAsUser", "runAsGroup"]);
    let mount = context.field("procMount");
    mount.is_plain();
    if mount.str() == "Unmasked" && !own_users {
        mount.invalid("`hostUsers` must be false to use `Unmasked`");
    }
    seccomp(context.field("seccompProfile"));
    if context.at("allowPrivilegeEscalation") == &Value::Bool(false) {
        if context.flag("privileged") {
            context.invalid("cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
        }
        if context.list("capabilities.add").iter().any(|capability| capability == "CAP_SYS_ADMIN") {
            let detail =
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            context.invalid(detail);
        }
    }
    app_armor(context.field("appArmorProfile"));
}
