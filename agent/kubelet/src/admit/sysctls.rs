//! Which kernel parameters a pod may set: those that are its own and harm nobody, and those the node's operator allows.

use k8s_openapi::api::core::v1::Pod;

use crate::pod::spec::sysctl;

/// Safe ones, with the kernel version that gave each namespace its own (zero: always).
const SAFE: [(&str, (u32, u32)); 12] = [
    ("kernel.shm_rmid_forced", (0, 0)),
    ("net.ipv4.ip_local_port_range", (0, 0)),
    ("net.ipv4.tcp_syncookies", (0, 0)),
    ("net.ipv4.ping_group_range", (0, 0)),
    ("net.ipv4.ip_unprivileged_port_start", (0, 0)),
    ("net.ipv4.ip_local_reserved_ports", (3, 16)),
    ("net.ipv4.tcp_keepalive_time", (4, 5)),
    ("net.ipv4.tcp_fin_timeout", (4, 6)),
    ("net.ipv4.tcp_keepalive_intvl", (4, 5)),
    ("net.ipv4.tcp_keepalive_probes", (4, 5)),
    ("net.ipv4.tcp_rmem", (4, 15)),
    ("net.ipv4.tcp_wmem", (4, 15)),
];

/// The kind of namespace a parameter belongs to; `None` for those of the whole machine.
fn namespace(name: &str) -> Option<&'static str> {
    match name {
        "kernel.sem"
        | "kernel.shm"
        | "kernel.shmall"
        | "kernel.shmmax"
        | "kernel.shmmni"
        | "kernel.shm_rmid_forced"
        | "kernel.msg"
        | "kernel.msgmax"
        | "kernel.msgmnb"
        | "kernel.msgmni" => Some("IPC"),
        other if other.starts_with("fs.mqueue.") => Some("IPC"),
        other if other.starts_with("net.") => Some("Net"),
        _ => None,
    }
}

/// Why a pod's parameters are not set, in upstream's words; `allowed` are the operator's patterns (`net.core.*`), `kernel`
/// is the running kernel's version.
pub fn refusal(pod: &Pod, allowed: &[String], kernel: (u32, u32)) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let asked = spec.security_context.as_ref()?.sysctls.as_ref()?;
    let host_ipc = spec.host_ipc.unwrap_or(false);
    let host_network = crate::pod::host_network(pod);
    asked.iter().find_map(|sysctl| {
        let name = sysctl::name(&sysctl.name);
        let safe = SAFE.iter().any(|(safe, since)| *safe == name && kernel >= *since);
        let listed = allowed.iter().map(|pattern| sysctl::name(pattern)).find_map(|pattern| {
            match pattern.split_once('*') {
                Some((prefix, _)) => name.starts_with(prefix).then(|| prefix.to_owned()),
                None => (pattern == name).then_some(pattern),
            }
        });
        let Some(found) = safe.then(|| name.clone()).or(listed) else {
            return Some(format!("forbidden sysctl: {name:?} not allowlisted"));
        };
        match namespace(&found) {
            Some(kind @ "IPC") if host_ipc => Some(kind),
            Some(kind @ "Net") if host_network => Some(kind),
            _ => None,
        }
        .map(|kind| format!("forbidden sysctl: {name:?} not allowed with host {kind} enabled"))
    })
}

/// The version of the running kernel.
pub fn kernel() -> (u32, u32) {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut parts = text.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(name: &str, host_network: bool, allowed: &[&str]) -> Option<String> {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [], "hostNetwork": host_network,
            "securityContext": {"sysctls": [{"name": name, "value": "1"}]}}}))
        .unwrap();
        let allowed: Vec<String> = allowed.iter().map(|a| (*a).to_owned()).collect();
        refusal(&pod, &allowed, (4, 5))
    }

    #[test]
    fn safe_and_allowed_ones_are_set() {
        assert_eq!(refused("kernel.shm_rmid_forced", true, &[]), None);
        assert_eq!(refused("net/ipv4/tcp_syncookies", false, &[]), None);
        assert_eq!(
            refused("net.ipv4.tcp_syncookies", true, &[]).as_deref(),
            Some("forbidden sysctl: \"net.ipv4.tcp_syncookies\" not allowed with host Net enabled")
        );
        assert_eq!(
            refused("kernel.msgmax", false, &[]).as_deref(),
            Some("forbidden sysctl: \"kernel.msgmax\" not allowlisted")
        );
        assert_eq!(refused("kernel.msgmax", false, &["kernel.msg*"]), None);
        assert_eq!(refused("net.core.somaxconn", false, &["net.core.somaxconn"]), None);
        assert!(refused("net.ipv4.tcp_rmem", false, &[]).is_some(), "this kernel shares it");
    }
}
