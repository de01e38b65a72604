//! The /etc/hosts the kubelet manages for a pod.

use k8s_openapi::api::core::v1::Pod;

use crate::pod::spec::dns;

/// Its text. Pods on the host's network start from the host's own file.
pub fn text(pod: &Pod, pod_ips: &[String], cluster_domain: &str, host_file: &str) -> String {
    let mut text = if crate::pod::host_network(pod) {
        format!("# Kubernetes-managed hosts file (host network).\n{host_file}")
    } else {
        let mut text = "# Kubernetes-managed hosts file.\n\
             127.0.0.1\tlocalhost\n\
             ::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\n\
             fe00::0\tip6-mcastprefix\n\
             fe00::1\tip6-allnodes\n\
             fe00::2\tip6-allrouters\n"
            .to_owned();
        let name = dns::hostname(pod);
        for ip in pod_ips {
            match dns::host_domain(pod, cluster_domain) {
                Some(domain) => text.push_str(&format!("{ip}\t{name}.{domain}\t{name}\n")),
                None => text.push_str(&format!("{ip}\t{name}\n")),
            }
        }
        text
    };
    let aliases = pod.spec.as_ref().and_then(|s| s.host_aliases.as_deref()).unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
            text.push_str(&format!("{}\t{names}\n", alias.ip));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn texts() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {
            "containers": [], "subdomain": "sub", "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}}))
        .unwrap();
        let got = text(&pod, &["10.0.0.2".into()], "cluster.local", "");
        assert!(got.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
        assert!(got.contains("10.0.0.2\tp.sub.n.svc.cluster.local\tp\n"));
        assert!(got.ends_with("\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"));
        let host: Pod =
            serde_json::from_value(json!({"spec": {"containers": [], "hostNetwork": true}})).unwrap();
        assert_eq!(
            text(&host, &[], "c", "1.1.1.1 x\n"),
            "# Kubernetes-managed hosts file (host network).\n1.1.1.1 x\n"
        );
    }
}
