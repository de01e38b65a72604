//! Windows pods: what only they may have, and what they may not.

use super::containers;
use crate::{names, resources::validate::cursor::Cursor};

const CONTEXT: &str = "securityContext";
const OPTIONS: &str = "securityContext.windowsOptions";

/// A pod that says it is for Linux has nothing of Windows.
pub(super) fn no_options(spec: Cursor<'_>) {
    for holder in [spec].into_iter().chain(containers(spec)).filter(|holder| holder.has(OPTIONS)) {
        holder.field(OPTIONS).forbidden("windows options cannot be set for a linux pod");
    }
}

/// What a pod of Windows has not, in the order upstream looks; those without a dot stand beside the context.
const POD_LINUX: &[&str] = &[
    "securityContext.appArmorProfile",
    "securityContext.seLinuxOptions",
    "hostUsers",
    "hostPID",
    "hostIPC",
    "securityContext.seccompProfile",
    "securityContext.fsGroup",
    "securityContext.fsGroupChangePolicy",
    "securityContext.sysctls",
    "shareProcessNamespace",
    "securityContext.runAsUser",
    "securityContext.runAsGroup",
    "securityContext.supplementalGroups",
    "securityContext.supplementalGroupsPolicy",
    "securityContext.seLinuxChangePolicy",
];

const CONTAINER_LINUX: &[&str] = &[
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

/// A pod that says it is for Windows has nothing of Linux.
pub(super) fn no_linux(spec: Cursor<'_>) {
    let forbid = |field: Cursor<'_>| {
        // A plain bool that is false is not set.
        let plain = matches!(field.value, serde_json::Value::Bool(false)) && !field.is_pointer();
        let empty_list = field.value.as_array().is_some_and(Vec::is_empty);
        if field.is_set() && !plain && !empty_list {
            field.forbidden("cannot be set for a windows pod");
        }
    };
    POD_LINUX.iter().for_each(|path| forbid(spec.field(path)));
    for context in containers(spec).map(|container| container.field(CONTEXT)) {
        CONTAINER_LINUX.iter().for_each(|path| forbid(context.field(path)));
    }
}

/// Containers that are processes of the host: all of a pod or none, on the host's network.
pub(super) fn host_process(spec: Cursor<'_>) {
    let asked = |holder: Cursor<'_>| holder.at("securityContext.windowsOptions.hostProcess").as_bool();
    let pod = asked(spec);
    let (mut all, mut processes) = (0, 0);
    for container in containers(spec) {
        let own = asked(container);
        all += 1;
        if let (Some(pod), Some(own)) = (pod, own)
            && pod != own
        {
            let why = format!("pod hostProcess value must be identical if both are specified, was {pod}");
            container.field("securityContext.windowsOptions.hostProcess").invalid_value(own, why);
        }
        processes += usize::from(own.or(pod) == Some(true));
    }
    if processes == 0 {
        return;
    }
    if processes != all {
        let why =
            "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        spec.invalid_value("", why);
    }
    if !spec.flag("hostNetwork") {
        let why = "hostNetwork must be true if pod contains any hostProcess containers";
        spec.field("hostNetwork").invalid_value(false, why);
    }
}

/// KiB of a credential specification.
const SPEC_MAX: usize = 64;
/// Characters of a user's domain, which stay below it, and of a user's name, which may reach it.
const DOMAIN_MAX: usize = 256;
const USER_MAX: usize = 104;

/// The options of a pod or a container.
pub(super) fn options(options: Cursor<'_>) {
    let name = options.field("gmsaCredentialSpecName");
    if name.is_set() {
        name.subdomain();
    }
    let spec = options.field("gmsaCredentialSpec");
    match spec.str().len() {
        0 if spec.is_set() => spec.invalid("gmsaCredentialSpec cannot be an empty string"),
        length if length > SPEC_MAX * 1024 => {
            spec.invalid(format!("gmsaCredentialSpec size must be under {SPEC_MAX} KiB"));
        }
        _ => {}
    }
    if let Some(user) = options.field("runAsUserName").if_set() {
        user_name(user);
    }
}

/// `DOMAIN\user`, or a user alone.
fn user_name(name: Cursor<'_>) {
    let text = name.str();
    if text.is_empty() {
        return name.invalid("runAsUserName cannot be an empty string");
    }
    if text.bytes().any(|b| b.is_ascii_control()) {
        return name.invalid("runAsUserName cannot contain control characters");
    }
    if text.matches('\\').count() > 1 {
        return name.invalid("runAsUserName cannot contain more than one backslash");
    }
    let (domain, user) = text.split_once('\\').map_or((None, text), |(domain, user)| (Some(domain), user));
    if domain.is_some_and(|domain| domain.len() >= DOMAIN_MAX) {
        name.invalid(format!("runAsUserName's Domain length must be under {DOMAIN_MAX} characters"));
    }
    if domain.is_some_and(|domain| !is_net_bios(domain) && !is_dns_domain(domain)) {
        name.invalid("runAsUserName's Domain doesn't match the NetBios nor the DNS format");
    }
    match user.len() {
        0 => name.invalid("runAsUserName's User cannot be empty"),
        length if length > USER_MAX => {
            name.invalid(format!(
                "runAsUserName's User length must not be longer than {USER_MAX} characters"
            ));
        }
        _ => {}
    }
    if !user.is_empty() && user.chars().all(|c| c == '.' || c == ' ') {
        name.invalid("runAsUserName's User cannot contain only periods or spaces");
    }
    if user.chars().any(|c| "\"/\\:;|=,+*?<>@[]".contains(c)) {
        name.invalid("runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]");
    }
}

/// One to fifteen characters, none of them special, the first no dot.
fn is_net_bios(domain: &str) -> bool {
    let count = domain.chars().count();
    (1..=15).contains(&count)
        && !domain.starts_with('.')
        && !domain.chars().any(|c| "\\/:*?\"<>|".contains(c))
}

/// Labels of letters of either case; upstream anchors its pattern at both ends.
fn is_dns_domain(domain: &str) -> bool {
    domain.to_lowercase().split('.').all(|label| names::dns1123_label(label).is_empty())
}
