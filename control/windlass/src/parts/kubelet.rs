//! The kubelet alone, with upstream's flags.

use crate::flags::Flags;
use crate::settings::{parse_label, parse_taint};
use crate::signals::Signals;
use anyhow::{Context as _, bail};
use node::kubelet_alone::{self, Credentials};
use std::net::IpAddr;
use std::path::PathBuf;
use tokio_util::sync::CancellationToken;

/// Runs until a signal.
pub(crate) async fn run(flags: Flags) -> anyhow::Result<()> {
    let signals = Signals::take().context("take over signals")?;
    let (config, credentials) = settings(&flags)?;
    std::fs::create_dir_all(&config.kubelet_root)
        .with_context(|| format!("make {}", config.kubelet_root.display()))?;
    let shutdown = CancellationToken::new();
    let lock_file = flags.text("lock-file").map(PathBuf::from);
    let watched = lock_file.clone().filter(|_| flags.bool("exit-on-lock-contention") == Some(true));
    let work = async {
        // pods have one owner: a kubelet that is still stopping goes first
        let lock = crate::lock::wait(&config.kubelet_root, "kubelet", &shutdown).await?;
        let Some(_lock) = lock else { return Ok(()) };
        let file = match &lock_file {
            Some(path) => match crate::lock::wait_for_file(path, &shutdown).await? {
                Some(lock) => Some(lock),
                None => return Ok(()),
            },
            None => None,
        };
        let running = Box::pin(kubelet_alone::run(config, credentials, shutdown.clone()));
        tokio::pin!(running);
        let ended = tokio::select! {
            ended = &mut running => ended,
            () = contention(watched) => {
                tracing::info!("another process wants the lock file: ending");
                shutdown.cancel();
                running.await
            }
        };
        drop(file);
        Ok(ended?)
    };
    signals.until_done(&shutdown, Box::pin(work)).await
}

/// Comes true when somebody else opens the lock file, where the kubelet is to end then (`--exit-on-lock-contention`).
async fn contention(file: Option<PathBuf>) {
    match file {
        Some(file) => crate::lock::opened(&file).await,
        None => std::future::pending().await,
    }
}

fn settings(flags: &Flags) -> anyhow::Result<(node::Config, Credentials)> {
    let name = super::node_name(flags.text("hostname-override"))?;
    let mut config = node::Config::new(&name, addresses(flags)?);
    config.node_ips_given = given_addresses(flags)?.iter().any(|ip| !ip.is_unspecified());
    config.kubelet_config = flags.text("config").map(Into::into);
    config.kubelet_drop_ins = flags.text("config-dir").map(Into::into);
    config.kubelet_flags = flags.document();
    config.runtime_endpoint = flags.text("container-runtime-endpoint").map(str::to_owned);
    // What neither files nor flags say is upstream's default, not that of an agent of ours.
    config.static_pod_path = None;
    config.tune_kernel = true;
    config.cluster_dns = Vec::new();
    config.cluster_domain = String::new();
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
    let files = |name: &str| {
        let texts = flags.text(name).unwrap_or_default().split(',').filter(|text| !text.is_empty());
        texts.map(Into::into).collect()
    };
    config.machine_id_files = files("machine-id-file");
    config.boot_id_files = files("boot-id-file");
    config.ignore_eviction = flags.bool("experimental-allocatable-ignore-eviction") == Some(true);
    config.cloud_external = match flags.text("cloud-provider") {
        None => false,
        Some("external") => true,
        Some(other) => bail!(
            "cloud provider {other:?} was specified, but built-in cloud providers are disabled. Please set --cloud-provider=external and migrate to an external cloud provider"
        ),
    };
    let credentials = Credentials {
        kubeconfig: flags.text("kubeconfig").map(Into::into),
        bootstrap: flags.text("bootstrap-kubeconfig").map(Into::into),
        certificates: flags.text("cert-dir").unwrap_or("/var/lib/kubelet/pki").into(),
    };
    if credentials.kubeconfig.is_none() && credentials.bootstrap.is_some() {
        bail!("--bootstrap-kubeconfig needs --kubeconfig, which it makes");
    }
    if flags.bool("exit-on-lock-contention") == Some(true) && flags.text("lock-file").is_none() {
        bail!("cannot exit on lock file contention: no lock file specified");
    }
    Ok((config, credentials))
}

fn given_addresses(flags: &Flags) -> anyhow::Result<Vec<IpAddr>> {
    let texts =
        flags.text("node-ip").unwrap_or_default().split(',').map(str::trim).filter(|text| !text.is_empty());
    texts.map(|text| text.parse().with_context(|| format!("bad --node-ip {text:?}"))).collect()
}

/// `--node-ip`: one address, one of each family, or `0.0.0.0` and `::` for "of that family".
fn addresses(flags: &Flags) -> anyhow::Result<Vec<IpAddr>> {
    let given = given_addresses(flags)?;
    match given.as_slice() {
        [] => Ok(vec![node::address::own(None)?]),
        [only] if only.is_unspecified() => Ok(vec![node::address::of_family(only.is_ipv6())?]),
        [_] => Ok(given),
        [a, b] if a.is_ipv4() != b.is_ipv4() => Ok(given),
        _ => bail!("bad --node-ip: must contain either a single IP or a dual-stack pair of IPs"),
    }
}

#[cfg(test)]
mod tests;
