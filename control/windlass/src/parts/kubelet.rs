//! The kubelet alone, with upstream's flags.

use crate::flags::Flags;
use crate::settings::{parse_label, parse_taint};
use crate::signals::Signals;
use anyhow::{Context as _, bail};
use node::kubelet_alone::{self, Credentials};
use std::net::IpAddr;
use tokio_util::sync::CancellationToken;

/// Runs until a signal.
pub(crate) async fn run(flags: Flags) -> anyhow::Result<()> {
    let signals = Signals::take().context("take over signals")?;
    let (config, credentials) = settings(&flags)?;
    std::fs::create_dir_all(&config.kubelet_root)
        .with_context(|| format!("make {}", config.kubelet_root.display()))?;
    let shutdown = CancellationToken::new();
    let work = async {
        // pods have one owner: a kubelet that is still stopping goes first
        let lock = crate::lock::wait(&config.kubelet_root, "kubelet", &shutdown).await?;
        let Some(_lock) = lock else { return Ok(()) };
        Ok(Box::pin(kubelet_alone::run(config, credentials, shutdown.clone())).await?)
    };
    signals.until_done(&shutdown, Box::pin(work)).await
}

fn settings(flags: &Flags) -> anyhow::Result<(node::Config, Credentials)> {
    let name = super::node_name(flags.text("hostname-override"))?;
    let mut config = node::Config::new(&name, addresses(flags)?);
    config.kubelet_config = flags.text("config").map(Into::into);
    config.runtime_endpoint = flags.text("container-runtime-endpoint").map(str::to_owned);
    config.static_pod_path = flags.text("pod-manifest-path").map(Into::into);
    config.cgroup_root = flags.text("cgroup-root").map(str::to_owned);
    config.cluster_dns = match flags.list("cluster-dns") {
        Some(addresses) => addresses
            .iter()
            .map(|text| text.parse().with_context(|| format!("--cluster-dns: {text:?}")))
            .collect::<anyhow::Result<_>>()?,
        None => Vec::new(),
    };
    config.cluster_domain = flags.text("cluster-domain").unwrap_or_default().to_owned();
    if let Some(path) = flags.text("resolv-conf") {
        config.resolv_conf = path.into();
    }
    if let Some(path) = flags.text("root-dir") {
        config.kubelet_root = path.into();
    }
    let provider = |name: &str| flags.text(name);
    config.credential_providers = match (
        provider("image-credential-provider-config"),
        provider("image-credential-provider-bin-dir"),
    ) {
        (Some(file), Some(programs)) => Some((file.into(), programs.into())),
        (None, None) => None,
        _ => bail!(
            "--image-credential-provider-config and --image-credential-provider-bin-dir must be given together"
        ),
    };
    let list = |name: &str| flags.list(name).unwrap_or_default();
    config.labels = list("node-labels").iter().map(|l| parse_label(l)).collect::<anyhow::Result<_>>()?;
    config.taints =
        list("register-with-taints").iter().map(|t| parse_taint(t)).collect::<anyhow::Result<_>>()?;
    config.register = flags.bool("register-node");
    let credentials = Credentials {
        kubeconfig: flags.text("kubeconfig").map(Into::into),
        bootstrap: flags.text("bootstrap-kubeconfig").map(Into::into),
        certificates: flags.text("cert-dir").unwrap_or("/var/lib/kubelet/pki").into(),
    };
    if credentials.kubeconfig.is_none() && credentials.bootstrap.is_some() {
        bail!("--bootstrap-kubeconfig needs --kubeconfig, which it makes");
    }
    Ok((config, credentials))
}

/// `--node-ip`: one address, one of each family, or `0.0.0.0` and `::` for "of that family".
fn addresses(flags: &Flags) -> anyhow::Result<Vec<IpAddr>> {
    let texts =
        flags.text("node-ip").unwrap_or_default().split(',').map(str::trim).filter(|text| !text.is_empty());
    let given = texts.map(|text| text.parse::<IpAddr>().with_context(|| format!("bad --node-ip {text:?}")));
    let given = given.collect::<anyhow::Result<Vec<IpAddr>>>()?;
    match given.as_slice() {
        [] => Ok(vec![node::address::own(None)?]),
        [only] if only.is_unspecified() => Ok(vec![node::address::own(None)?]),
        [_] => Ok(given),
        [a, b] if a.is_ipv4() != b.is_ipv4() => Ok(given),
        _ => bail!("bad --node-ip: must contain either a single IP or a dual-stack pair of IPs"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::component::Component;

    fn of(line: &str) -> anyhow::Result<(node::Config, Credentials)> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        settings(&Component::named("kubelet").unwrap().table().parse(&arguments)?)
    }

    #[test]
    fn what_a_unit_of_kubeadms_says_is_done() {
        let line = "--bootstrap-kubeconfig=/b --kubeconfig=/k --config=/c --hostname-override=N1 --node-ip=192.0.2.1 \
            --container-runtime-endpoint=unix:///run/x --node-labels=a=b,c= \
            --register-with-taints=node-role.kubernetes.io/control-plane=:NoSchedule";
        let (config, credentials) = of(line).unwrap();
        assert_eq!((config.node_name.as_str(), config.node_ips.len()), ("n1", 1));
        assert_eq!(config.kubelet_config.as_deref(), Some("/c".as_ref()));
        assert_eq!(config.runtime_endpoint.as_deref(), Some("unix:///run/x"));
        assert_eq!((config.labels.len(), config.taints.len()), (2, 1));
        assert_eq!(credentials.kubeconfig.as_deref(), Some("/k".as_ref()));
        assert_eq!(credentials.certificates.as_path(), std::path::Path::new("/var/lib/kubelet/pki"));
        assert!(config.static_pod_path.is_none(), "the file names it");
        assert_eq!(config.register, None, "the file says it");
        let (config, _) = of("--register-node=false --node-ip=192.0.2.1").unwrap();
        assert_eq!(config.register, Some(false));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for line in [
            "--node-ip=192.0.2.1,192.0.2.2",
            "--node-ip=x",
            "--bootstrap-kubeconfig=/b --node-ip=192.0.2.1",
            "--node-ip=192.0.2.1 --register-with-taints=a",
            "--node-ip=192.0.2.1 --node-labels=x",
        ] {
            assert!(of(line).is_err(), "{line}");
        }
    }
}
