//! A part's way to the API server.

use crate::flags::Flags;
use anyhow::Context as _;
use std::path::Path;

/// A client by a kubeconfig; `server` is another address of the API server.
pub(crate) async fn client(path: &Path, server: Option<&str>) -> anyhow::Result<kube::Client> {
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
    let config = kube::Config::from_custom_kubeconfig(parsed, &options).await.with_context(what)?;
    kube::Client::try_from(config).with_context(what)
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
    let mut config = match flags.text("kubeconfig") {
        Some(path) => {
            let parsed = kube::config::Kubeconfig::read_from(path).context("--kubeconfig")?;
            let options = kube::config::KubeConfigOptions::default();
            kube::Config::from_custom_kubeconfig(parsed, &options).await.context("--kubeconfig")?
        }
        None => kube::Config::incluster().context("no --kubeconfig, and in no pod")?,
    };
    config.auth_info = kube::config::AuthInfo::default();
    Ok(kube::Client::try_from(config)?)
}

/// The client a part's flags ask for: by `--kubeconfig`, by the pod's own account without.
pub(crate) async fn of_flags(flags: &Flags, file: Option<&str>) -> anyhow::Result<kube::Client> {
    let path = flags.text("kubeconfig").or(file);
    match (path, flags.text("master")) {
        (Some(path), server) => client(Path::new(path), server).await,
        (None, Some(server)) => {
            let address = server.parse().context("--master")?;
            Ok(kube::Client::try_from(kube::Config::new(address))?)
        }
        (None, None) => {
            tracing::warn!("Neither --kubeconfig nor --master was specified. Using the inClusterConfig");
            let config = kube::Config::incluster().context("no --kubeconfig, and in no pod")?;
            Ok(kube::Client::try_from(config)?)
        }
    }
}
