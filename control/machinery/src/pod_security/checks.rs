//! What a pod asks for beyond a level: the checks of `baseline`, then those of `restricted`, each in the order of their
//! names. A check of `restricted` stands in for the looser one of `baseline`. Pure. Upstream:
//! `pod-security-admission/policy`.

use super::policy::{Level, Rule};
use crate::access::Get as _;
use serde_json::Value;
use std::collections::BTreeSet;

/// Why a pod is refused, and what of it.
type Finding = Option<(String, String)>;
type Check = fn(&Rule, &Value) -> Finding;

/// The checks, and since which minor version `restricted` has one in place of them.
const BASELINE: &[(Check, Option<u32>)] = &[
    (app_armor, None),
    (capabilities_baseline, Some(22)),
    (host_namespaces, None),
    (host_paths, Some(0)),
    (host_ports, None),
    (host_probes, None),
    (privileged, None),
    (proc_mount_baseline, Some(35)),
    (selinux, None),
    (seccomp_baseline, Some(19)),
    (sysctls, None),
    (host_process, None),
];

const RESTRICTED: &[Check] = &[
    privilege_escalation,
    capabilities_restricted,
    proc_mount_restricted,
    restricted_volumes,
    non_root,
    root_user,
    seccomp_restricted,
];

/// Everything wrong, as `reason (detail)`.
pub fn violations(rule: &Rule, pod: &Value) -> Vec<String> {
    let join = |(reason, detail): (String, String)| {
        if detail.is_empty() { reason } else { format!("{reason} ({detail})") }
    };
    findings(rule, pod).into_iter().map(join).collect()
}

/// Everything wrong, without details.
pub fn reasons(rule: &Rule, pod: &Value) -> Vec<String> {
    findings(rule, pod).into_iter().map(|(reason, _)| reason).collect()
}

fn findings(rule: &Rule, pod: &Value) -> Vec<(String, String)> {
    let restricted = rule.level == Level::Restricted;
    let baseline = BASELINE
        .iter()
        .filter(|(_, replaced)| {
            rule.level >= Level::Baseline && !(restricted && replaced.is_some_and(|minor| rule.since(minor)))
        })
        .map(|(check, _)| *check);
    let strict = RESTRICTED.iter().copied().filter(|_| restricted);
    baseline.chain(strict).filter_map(|check| check(rule, pod)).collect()
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(|list| pod.at("spec").items(list))
}

/// The names of the containers of which `bad` holds.
fn bad_containers(pod: &Value, mut bad: impl FnMut(&Value) -> bool) -> Vec<String> {
    containers(pod).filter(|c| bad(c)).map(|c| c.text("name").to_owned()).collect()
}

fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

fn quote<S: AsRef<str>>(values: impl IntoIterator<Item = S>) -> String {
    values.into_iter().map(|v| format!("{:?}", v.as_ref())).collect::<Vec<_>>().join(", ")
}

/// `container "a"` or `containers "a", "b"`.
fn named(containers: &[String]) -> String {
    format!("{} {}", plural("container", "containers", containers.len()), quote(containers))
}

/// `pod and containers "a", "b"`: whoever is to blame; none if nobody is.
fn blame(pod: bool, containers: &[String]) -> Option<String> {
    let both = [pod.then(|| "pod".to_owned()), (!containers.is_empty()).then(|| named(containers))];
    let both: Vec<String> = both.into_iter().flatten().collect();
    (!both.is_empty()).then(|| both.join(" and "))
}

fn found(reason: &str, detail: String) -> Finding {
    Some((reason.to_owned(), detail))
}

fn some(value: &Value) -> Option<&Value> {
    (!value.is_null()).then_some(value)
}

fn context<'a>(container: &'a Value, field: &str) -> Option<&'a Value> {
    some(container.at("securityContext").at(field))
}

fn pod_context<'a>(pod: &'a Value, field: &str) -> Option<&'a Value> {
    some(pod.at("spec.securityContext").at(field))
}

fn is(value: Option<&Value>, wanted: bool) -> bool {
    value.and_then(Value::as_bool) == Some(wanted)
}

/// Restricted rules about Linux do not hold for pods that say they are none, since 1.25.
fn is_windows(rule: &Rule, pod: &Value) -> bool {
    rule.since(25) && pod.text("spec.os.name") == "windows"
}

/// Since 1.35 root in a pod's own user namespace is nobody of the node's.
fn is_in_user_namespace(rule: &Rule, pod: &Value) -> bool {
    rule.since(35) && pod.at("spec.hostUsers") == &Value::Bool(false)
}

const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

fn app_armor(_: &Rule, pod: &Value) -> Finding {
    let mut types = BTreeSet::new();
    let mut bad = |profile: Option<&Value>| {
        let kind = profile.map(|p| p.text("type")).unwrap_or_default();
        let bad = !matches!(kind, "" | "RuntimeDefault" | "Localhost");
        if bad {
            types.insert(kind.to_owned());
        }
        bad
    };
    let pod_is_bad = bad(pod_context(pod, "appArmorProfile"));
    let containers = bad_containers(pod, |c| bad(context(c, "appArmorProfile")));
    let mut details = Vec::new();
    let mut count = types.len();
    if let Some(who) = blame(pod_is_bad, &containers) {
        details.push(format!("{who} must not set AppArmor profile type to {}", quote(&types)));
    }
    let annotations = some(pod.at("metadata.annotations")).and_then(Value::as_object);
    let annotated: Vec<String> = annotations
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key, value.as_str()?)))
        .filter(|(key, value)| {
            key.starts_with(APP_ARMOR)
                && !value.is_empty()
                && *value != "runtime/default"
                && !value.starts_with("localhost/")
        })
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    count += annotated.len();
    if !annotated.is_empty() {
        details.push(format!(
            "{} {}",
            plural("annotation", "annotations", annotated.len()),
            annotated.join(", ")
        ));
    }
    if details.is_empty() {
        return None;
    }
    found(plural("forbidden AppArmor profile", "forbidden AppArmor profiles", count), details.join(", "))
}

const DEFAULT_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// The containers that add capabilities which are not `allowed`, and these.
fn added(pod: &Value, allowed: &[&str]) -> Option<String> {
    let mut extra = BTreeSet::new();
    let containers = bad_containers(pod, |c| {
        let more: Vec<String> = c
            .items("securityContext.capabilities.add")
            .iter()
            .filter_map(Value::as_str)
            .filter(|c| !allowed.contains(c))
            .map(str::to_owned)
            .collect();
        let bad = !more.is_empty();
        extra.extend(more);
        bad
    });
    (!containers.is_empty()).then(|| {
        format!(
            "{} must not include {} in securityContext.capabilities.add",
            named(&containers),
            quote(&extra)
        )
    })
}

fn capabilities_baseline(_: &Rule, pod: &Value) -> Finding {
    found("non-default capabilities", added(pod, &DEFAULT_CAPABILITIES)?)
}

fn host_namespaces(_: &Rule, pod: &Value) -> Finding {
    let shared: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|field| pod.at("spec").flag(field))
        .map(|field| format!("{field}=true"))
        .collect();
    if shared.is_empty() { None } else { found("host namespaces", shared.join(", ")) }
}

fn host_paths(_: &Rule, pod: &Value) -> Finding {
    let volumes = pod.items("spec.volumes").iter().filter(|v| some(v.at("hostPath")).is_some());
    let names: Vec<&str> = volumes.map(|v| v.text("name")).collect();
    if names.is_empty() {
        return None;
    }
    found("hostPath volumes", format!("{} {}", plural("volume", "volumes", names.len()), quote(&names)))
}

fn host_ports(_: &Rule, pod: &Value) -> Finding {
    let mut ports = BTreeSet::new();
    let containers = bad_containers(pod, |c| {
        let used: Vec<i64> = c
            .items("ports")
            .iter()
            .filter_map(|p| some(p.at("hostPort"))?.as_i64())
            .filter(|port| *port != 0)
            .collect();
        let bad = !used.is_empty();
        ports.extend(used.iter().map(ToString::to_string));
        bad
    });
    if containers.is_empty() {
        return None;
    }
    let word = plural("hostPort", "hostPorts", ports.len());
    let uses = plural("uses", "use", containers.len());
    let list: Vec<String> = ports.into_iter().collect();
    found(word, format!("{} {uses} {word} {}", named(&containers), list.join(", ")))
}

const HANDLERS: [&str; 5] =
    ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle.postStart", "lifecycle.preStop"];

fn host_probes(rule: &Rule, pod: &Value) -> Finding {
    if !rule.since(34) {
        return None;
    }
    let mut hosts = BTreeSet::new();
    let mut containers = bad_containers(pod, |c| {
        let handlers = HANDLERS.iter().map(|path| c.at(path));
        let named: Vec<&str> = handlers
            .flat_map(|h| ["httpGet", "tcpSocket"].map(|action| h.at(action).text("host")))
            .filter(|host| !host.is_empty())
            .collect();
        hosts.extend(named.iter().map(|h| (*h).to_owned()));
        !named.is_empty()
    });
    if containers.is_empty() {
        return None;
    }
    containers.sort();
    let uses = plural("uses", "use", containers.len());
    let word = plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len());
    found("probe or lifecycle host", format!("{} {uses} {word} {}", named(&containers), quote(&hosts)))
}

fn privileged(_: &Rule, pod: &Value) -> Finding {
    let containers = bad_containers(pod, |c| is(context(c, "privileged"), true));
    let who = blame(false, &containers)?;
    found("privileged", format!("{who} must not set securityContext.privileged=true"))
}

fn proc_mount_baseline(rule: &Rule, pod: &Value) -> Finding {
    if is_in_user_namespace(rule, pod) { None } else { proc_mount(pod) }
}

/// Unlike the looser level, this one makes no difference between user namespaces.
fn proc_mount_restricted(rule: &Rule, pod: &Value) -> Finding {
    if rule.since(35) { proc_mount(pod) } else { None }
}

fn proc_mount(pod: &Value) -> Finding {
    let mut types = BTreeSet::new();
    let containers = bad_containers(pod, |c| {
        let kind = c.text("securityContext.procMount");
        let bad = !matches!(kind, "" | "Default");
        if bad {
            types.insert(kind.to_owned());
        }
        bad
    });
    let who = blame(false, &containers)?;
    found("procMount", format!("{who} must not set securityContext.procMount to {}", quote(&types)))
}

fn selinux(rule: &Rule, pod: &Value) -> Finding {
    let (mut types, mut user, mut role) = (BTreeSet::new(), false, false);
    let mut bad = |options: Option<&Value>| {
        let Some(options) = options else { return false };
        let kind = options.text("type");
        let known = matches!(kind, "" | "container_t" | "container_init_t" | "container_kvm_t")
            || (rule.since(31) && kind == "container_engine_t");
        if !known {
            types.insert(kind.to_owned());
        }
        let (sets_user, sets_role) = (!options.text("user").is_empty(), !options.text("role").is_empty());
        user |= sets_user;
        role |= sets_role;
        !known || sets_user || sets_role
    };
    let pod_is_bad = bad(pod_context(pod, "seLinuxOptions"));
    let containers = bad_containers(pod, |c| bad(context(c, "seLinuxOptions")));
    let who = blame(pod_is_bad, &containers)?;
    let what: Vec<String> = [
        (!types.is_empty()).then(|| format!("{} {}", plural("type", "types", types.len()), quote(&types))),
        user.then(|| "user may not be set".to_owned()),
        role.then(|| "role may not be set".to_owned()),
    ]
    .into_iter()
    .flatten()
    .collect();
    found(
        "seLinuxOptions",
        format!("{who} set forbidden securityContext.seLinuxOptions: {}", what.join("; ")),
    )
}

/// Who sets a seccomp profile that is none of the two good ones.
fn bad_seccomp(pod: &Value) -> Finding {
    let mut types = BTreeSet::new();
    let mut bad = |profile: Option<&Value>| {
        let kind = profile.map(|p| p.text("type"));
        let bad = kind.is_some_and(|k| !matches!(k, "RuntimeDefault" | "Localhost"));
        types.extend(kind.filter(|_| bad).map(str::to_owned));
        bad
    };
    let pod_is_bad = bad(pod_context(pod, "seccompProfile"));
    let containers = bad_containers(pod, |c| bad(context(c, "seccompProfile")));
    let who = blame(pod_is_bad, &containers)?;
    found(
        "seccompProfile",
        format!("{who} must not set securityContext.seccompProfile.type to {}", quote(&types)),
    )
}

fn seccomp_baseline(rule: &Rule, pod: &Value) -> Finding {
    if rule.since(19) { bad_seccomp(pod) } else { None }
}

/// Safe sysctls, and the minor version that found them so.
const SYSCTLS: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

fn sysctls(rule: &Rule, pod: &Value) -> Finding {
    let safe = |name: &str| SYSCTLS.iter().any(|(known, minor)| *known == name && rule.since(*minor));
    let names = pod.items("spec.securityContext.sysctls").iter().map(|s| s.text("name"));
    let unsafe_ones: Vec<&str> = names.filter(|name| !safe(name)).collect();
    if unsafe_ones.is_empty() { None } else { found("forbidden sysctls", unsafe_ones.join(", ")) }
}

fn host_process(_: &Rule, pod: &Value) -> Finding {
    let host = |options: Option<&Value>| options.is_some_and(|o| is(some(o.at("hostProcess")), true));
    let containers = bad_containers(pod, |c| host(context(c, "windowsOptions")));
    let who = blame(host(pod_context(pod, "windowsOptions")), &containers)?;
    found("hostProcess", format!("{who} must not set securityContext.windowsOptions.hostProcess=true"))
}

fn privilege_escalation(rule: &Rule, pod: &Value) -> Finding {
    if !rule.since(8) || is_windows(rule, pod) {
        return None;
    }
    let containers = bad_containers(pod, |c| !is(context(c, "allowPrivilegeEscalation"), false));
    let who = blame(false, &containers)?;
    found(
        "allowPrivilegeEscalation != false",
        format!("{who} must set securityContext.allowPrivilegeEscalation=false"),
    )
}

fn capabilities_restricted(rule: &Rule, pod: &Value) -> Finding {
    if !rule.since(22) || is_windows(rule, pod) {
        return None;
    }
    let keeping =
        bad_containers(pod, |c| !c.items("securityContext.capabilities.drop").iter().any(|c| c == "ALL"));
    let details: Vec<String> = [
        (!keeping.is_empty())
            .then(|| format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", named(&keeping))),
        added(pod, &["NET_BIND_SERVICE"]),
    ]
    .into_iter()
    .flatten()
    .collect();
    if details.is_empty() { None } else { found("unrestricted capabilities", details.join("; ")) }
}

const VOLUMES: [&str; 10] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
    "name",
];

fn restricted_volumes(_: &Rule, pod: &Value) -> Finding {
    let (mut names, mut types) = (Vec::new(), BTreeSet::new());
    for volume in pod.items("spec.volumes") {
        let bad = volume
            .as_object()
            .into_iter()
            .flatten()
            .find(|(k, v)| !VOLUMES.contains(&k.as_str()) && !v.is_null());
        if let Some((kind, _)) = bad {
            names.push(volume.text("name"));
            types.insert(kind.as_str());
        }
    }
    if names.is_empty() {
        return None;
    }
    let detail = format!(
        "{} {} {} {} {}",
        plural("volume", "volumes", names.len()),
        quote(&names),
        plural("uses", "use", names.len()),
        plural("restricted volume type", "restricted volume types", types.len()),
        quote(&types)
    );
    found("restricted volume types", detail)
}

fn non_root(rule: &Rule, pod: &Value) -> Finding {
    if is_in_user_namespace(rule, pod) {
        return None;
    }
    let set = pod_context(pod, "runAsNonRoot");
    let explicit = bad_containers(pod, |c| is(context(c, "runAsNonRoot"), false));
    if let Some(who) = blame(is(set, false), &explicit) {
        return found(
            "runAsNonRoot != true",
            format!("{who} must not set securityContext.runAsNonRoot=false"),
        );
    }
    let implicit = bad_containers(pod, |c| !is(set, true) && context(c, "runAsNonRoot").is_none());
    let who = blame(false, &implicit)?;
    found("runAsNonRoot != true", format!("pod or {who} must set securityContext.runAsNonRoot=true"))
}

fn root_user(rule: &Rule, pod: &Value) -> Finding {
    let root = |user: Option<&Value>| user.and_then(Value::as_i64) == Some(0);
    if !rule.since(23) || is_in_user_namespace(rule, pod) {
        return None;
    }
    let containers = bad_containers(pod, |c| root(context(c, "runAsUser")));
    let who = blame(root(pod_context(pod, "runAsUser")), &containers)?;
    found("runAsUser=0", format!("{who} must not set runAsUser=0"))
}

fn seccomp_restricted(rule: &Rule, pod: &Value) -> Finding {
    if !rule.since(19) || is_windows(rule, pod) {
        return None;
    }
    if let Some(bad) = bad_seccomp(pod) {
        return Some(bad);
    }
    let set = pod_context(pod, "seccompProfile").is_some();
    let implicit = bad_containers(pod, |c| !set && context(c, "seccompProfile").is_none());
    let who = blame(false, &implicit)?;
    found(
        "seccompProfile",
        format!(
            "pod or {who} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\""
        ),
    )
}

#[cfg(test)]
mod tests;
