//! A part's way to the API server.

use crate::flags::Flags;
use anyhow::Context as _;
use std::path::Path;

/// How to reach the API server by a kubeconfig; `server` is another address of it.
pub(super) async fn config(path: &Path, server: Option<&str>) -> anyhow::Result<kube::Config> {
    let what = || format!("use kubeconfig {}", path.display());
    let mut parsed = kube::config::Kubeconfig::read_from(path).with_context(what)?;
    if let Some(server) = server {
        for named in &mut parsed.clusters {
            if let Some(cluster) = &mut named.cluster {
                cluster.server = Some(server.to_owned());
            }
        }
    }
    let options = kube::config::KubeConfigOptions::default();
    kube::Config::from_custom_kubeconfig(parsed, &options).await.with_context(what)
}

/// A client by a kubeconfig; `server` is another address of the API server.
pub(crate) async fn client(path: &Path, server: Option<&str>) -> anyhow::Result<kube::Client> {
    let config = config(path, server).await?;
    let client = kube::Client::try_from(config).with_context(|| format!("use kubeconfig {}", path.display()));
    client.map(client::bounded)
}

/// The authority of the API server by `--kubeconfig`, by the pod's own account without.
pub(crate) fn authority(flags: &Flags) -> Option<String> {
    const IN_POD: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
    match flags.text("kubeconfig") {
        Some(path) => pki::Kubeconfig::read(Path::new(path)).ok()?.cluster().ok()?.authority_pem().ok(),
        None => std::fs::read_to_string(IN_POD).ok(),
    }
}

/// A client of the same API server without any credentials.
pub(crate) async fn bare(flags: &Flags) -> anyhow::Result<kube::Client> {
    let mut config = of(flags, None).await?;
    config.auth_info = kube::config::AuthInfo::default();
    Ok(kube::Client::try_from(config)?)
}

/// The client a part's flags ask for: by `--kubeconfig`, by the pod's own account without.
pub(crate) async fn of_flags(flags: &Flags, file: Option<&str>) -> anyhow::Result<kube::Client> {
    if flags.text("kubeconfig").or(file).or(flags.text("master")).is_none() {
        tracing::warn!("Neither --kubeconfig nor --master was specified. Using the inClusterConfig");
    }
    Ok(client::bounded(kube::Client::try_from(of(flags, file).await?)?))
}

async fn of(flags: &Flags, file: Option<&str>) -> anyhow::Result<kube::Config> {
    match (flags.text("kubeconfig").or(file), flags.text("master")) {
        (Some(path), server) => config(Path::new(path), server).await,
        (None, Some(server)) => Ok(kube::Config::new(server.parse().context("--master")?)),
        (None, None) => kube::Config::incluster().context("no --kubeconfig, and in no pod"),
    }
}
