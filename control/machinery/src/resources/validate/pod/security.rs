//! Security contexts of pods and containers.

use serde_json::{Value, json};

use super::windows;
use crate::{access::Get as _, resources::validate::cursor::Cursor};

/// User and group ids are what the kernel's signed half allows.
const ID_MAX: i64 = i32::MAX as i64;

fn ids<'v>(context: Cursor<'v>, keys: &[&'v str]) {
    keys.iter().for_each(|key| context.field(key).between(0, ID_MAX));
}

/// As whom a container runs, as its kubelet found.
pub(super) fn linux_user(user: Cursor<'_>) {
    ids(user, &["uid", "gid"]);
    user.each("supplementalGroups").for_each(|group| group.between(0, ID_MAX));
}

pub(super) fn pod(spec: Cursor<'_>) {
    let context = spec.field("securityContext");
    ids(context, &["fsGroup", "runAsUser", "runAsGroup"]);
    context.each("supplementalGroups").for_each(|group| group.between(0, ID_MAX));
    if spec.flag("shareProcessNamespace") && spec.flag("hostPID") {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        context.field("shareProcessNamespace").invalid_value(true, detail);
    }
    sysctls(context.field("sysctls"), spec);
    context.plain(&["fsGroupChangePolicy"]);
    seccomp(context.field("seccompProfile"));
    windows::options(context.field("windowsOptions"));
    app_armor(context.field("appArmorProfile"));
    context.plain(&["supplementalGroupsPolicy"]);
    selinux_change_policy(context.field("seLinuxChangePolicy"));
}

/// `MountOption` belongs to a feature that is off (SELinuxMount), unless the pod named a policy before.
fn selinux_change_policy(policy: Cursor<'_>) {
    let off = policy.old.is_null();
    if policy.is_set() && off && policy.str() != "Recursive" {
        return policy.unsupported(&["Recursive"]);
    }
    policy.is_plain();
}

/// Why a pod that shares this namespace of its host may not set this sysctl, which would be the host's.
fn of_the_host(sysctl: &str, spec: &Value) -> Option<&'static str> {
    const IPC: [&str; 10] = [
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
        "kernel.shm",
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.msg",
    ];
    let name = dotted(sysctl);
    let name = name.split('*').next().unwrap_or_default();
    if spec.flag("hostNetwork") && name.starts_with("net.") {
        return Some("may not be specified when 'hostNetwork' is true");
    }
    let ipc = IPC.contains(&name) || name.starts_with("fs.mqueue.");
    (spec.flag("hostIPC") && ipc).then_some("may not be specified when 'hostIPC' is true")
}

/// A sysctl's name with dots between its parts: the first separator says how it is written.
fn dotted(sysctl: &str) -> String {
    match sysctl.find(['.', '/']) {
        Some(at) if sysctl[at..].starts_with('/') => {
            let other = |c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            };
            sysctl.chars().map(other).collect()
        }
        _ => sysctl.to_owned(),
    }
}

/// How an annotation says what a profile's field says.
pub(super) struct Annotated {
    what: &'static str,
    defaults: &'static [&'static str],
}

pub(super) const SECCOMP: Annotated =
    Annotated { what: "seccomp", defaults: &["runtime/default", "docker/default"] };
pub(super) const APP_ARMOR: Annotated = Annotated { what: "apparmor", defaults: &["runtime/default"] };

/// Whether an annotation says the same.
pub(super) fn matches(profile: Cursor<'_>, annotation: &str, how: &Annotated) {
    let local = annotation.strip_prefix("localhost/");
    let same = match profile.text("type") {
        "Unconfined" => annotation == "unconfined",
        "RuntimeDefault" => how.defaults.contains(&annotation),
        "Localhost" => local.is_some(),
        _ => true,
    };
    if !same {
        let why = format!("{} type in annotation and field must match", how.what);
        profile.field("type").forbidden(why);
    } else if profile.text("type") == "Localhost" && local != profile.at("localhostProfile").as_str() {
        let why = format!("{} profile in annotation and field must match", how.what);
        profile.field("localhostProfile").forbidden(why);
    }
}

fn sysctls(sysctls: Cursor<'_>, spec: Cursor<'_>) {
    let mut seen: Vec<&str> = Vec::new();
    // What an older server let through may still be changed.
    let old = spec.old;
    let was_odd =
        old.items("securityContext.sysctls").iter().any(|s| of_the_host(s.text("name"), old).is_some());
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
        } else if seen.contains(&name.str()) {
            name.duplicate();
        }
        if let Some(why) = of_the_host(name.str(), spec.value).filter(|_| !was_odd) {
            name.invalid(why);
        }
        seen.push(name.str());
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
    windows::options(context.field("windowsOptions"));
    app_armor(context.field("appArmorProfile"));
}
