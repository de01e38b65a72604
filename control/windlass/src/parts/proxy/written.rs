//! `--write-config-to`: a `KubeProxyConfiguration` with every default in it.

use super::{KIND, settings};
use crate::component_config::Document;
use anyhow::Context as _;
use serde_json::{Value, json};
use std::path::Path;

/// Writes the document and what it leaves to defaults, as YAML.
pub(super) fn write(path: &Path, document: &Document) -> anyhow::Result<()> {
    let text = serde_saphyr::to_string(&complete(document)).context("write a configuration")?;
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

/// Upstream's defaults (`pkg/proxy/apis/config/v1alpha1/defaults.go`), and the document over them.
fn complete(document: &Document) -> Value {
    let mut all = json!({
        "apiVersion": KIND.api_version,
        "kind": KIND.kind,
        "bindAddress": "0.0.0.0",
        "bindAddressHardFail": false,
        "clientConnection": {
            "acceptContentTypes": "", "burst": 10, "contentType": "application/vnd.kubernetes.protobuf",
            "kubeconfig": "", "qps": 5,
        },
        "clusterCIDR": "",
        "configSyncPeriod": "15m0s",
        "conntrack": {
            "maxPerCore": 32768, "min": 131_072, "tcpBeLiberal": false, "tcpCloseWaitTimeout": "1h0m0s",
            "tcpEstablishedTimeout": "24h0m0s", "udpStreamTimeout": "0s", "udpTimeout": "0s",
        },
        "detectLocal": {"bridgeInterface": "", "interfaceNamePrefix": ""},
        "detectLocalMode": "ClusterCIDR",
        "enableProfiling": false,
        "featureGates": {},
        "healthzBindAddress": settings::default_address(&document.0, "healthzBindAddress", proxy::HEALTH_PORT),
        "hostnameOverride": "",
        "iptables": {
            "localhostNodePorts": true, "masqueradeAll": false, "masqueradeBit": 14, "minSyncPeriod": "1s",
            "syncPeriod": "30s",
        },
        "ipvs": {
            "excludeCIDRs": null, "minSyncPeriod": "0s", "scheduler": "", "strictARP": false, "syncPeriod": "30s",
            "tcpFinTimeout": "0s", "tcpTimeout": "0s", "udpTimeout": "0s",
        },
        "metricsBindAddress": settings::default_address(&document.0, "metricsBindAddress", proxy::STATUS_PORT),
        "mode": "iptables",
        "nftables": {"masqueradeAll": false, "masqueradeBit": 14, "minSyncPeriod": "1s", "syncPeriod": "30s"},
        "nodePortAddresses": null,
        "oomScoreAdj": settings::OOM_SCORE,
        "portRange": "",
        "showHiddenMetricsForVersion": "",
    });
    lay_over(&mut all, &document.0);
    all
}

fn lay_over(under: &mut Value, over: &Value) {
    match (under, over) {
        (_, Value::Null) => {}
        (Value::Object(under), Value::Object(over)) => {
            for (name, value) in over {
                lay_over(under.entry(name).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::component_config::load;

    #[test]
    fn what_is_written_must_not_be_refused_when_it_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        let given = json!({"mode": "nftables", "conntrack": {"min": 7}, "nodePortAddresses": ["primary"]});
        write(&path, &Document(given)).unwrap();
        let read = load(&path, &KIND).unwrap();
        assert_eq!(
            read.0["conntrack"],
            json!({"maxPerCore": 32768, "min": 7, "tcpBeLiberal": false,
            "tcpCloseWaitTimeout": "1h0m0s", "tcpEstablishedTimeout": "24h0m0s", "udpStreamTimeout": "0s",
            "udpTimeout": "0s"})
        );
        let (settings, _) = settings::read(&read, Some("n")).unwrap();
        assert_eq!((settings.proxy.limits.least, settings.oom_score), (7, -999));
    }
}
