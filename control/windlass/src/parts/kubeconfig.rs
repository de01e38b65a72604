//! A part's way to the API server.

use crate::flags::Flags;
use crate::watched::{Directories, REREAD};
use anyhow::Context as _;
use node::ClientSlot;
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use supervise::Task;

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
    let client = client::connect(config).with_context(|| format!("use kubeconfig {}", path.display()));
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

/// The client a part's flags ask for: by `--kubeconfig`, by the pod's own account without; and who gives it another certificate when the
/// files that the kubeconfig names have one (client-go: `transport/cert_rotation.go`).
pub(crate) async fn of_flags(
    flags: &Flags,
    file: Option<&str>,
) -> anyhow::Result<(kube::Client, Option<Task>)> {
    let path = flags.text("kubeconfig").or(file);
    if path.or(flags.text("master")).is_none() {
        tracing::warn!("Neither --kubeconfig nor --master was specified. Using the inClusterConfig");
    }
    let named = path.map(|path| Named::by(Path::new(path), flags.text("master"))).transpose()?;
    let first = client::bounded(client::connect(of(flags, file).await?)?);
    let Some(named) = named.filter(|named| !named.files.is_empty()) else { return Ok((first, None)) };
    let (client, slot) = node::renewable_client(first);
    let named = Arc::new(named);
    let task = Task::endless("kubeconfig-certificates", move || {
        let (named, slot) = (named.clone(), slot.clone());
        async move { named.follow(&slot).await }
    });
    Ok((client, Some(task)))
}

/// The files of certificates and keys that a kubeconfig names.
struct Named {
    kubeconfig: PathBuf,
    server: Option<String>,
    files: Vec<PathBuf>,
    /// What they held when the client was made.
    used: Mutex<Vec<Option<String>>>,
}

impl Named {
    fn by(kubeconfig: &Path, server: Option<&str>) -> anyhow::Result<Self> {
        let parsed = kube::config::Kubeconfig::read_from(kubeconfig)
            .with_context(|| format!("use kubeconfig {}", kubeconfig.display()))?;
        let users = parsed.auth_infos.into_iter().filter_map(|named| named.auth_info);
        let files = users.flat_map(|user| [user.client_certificate, user.client_key]).flatten();
        let files: Vec<PathBuf> = files.map(PathBuf::from).collect();
        let used = Mutex::new(held(&files));
        Ok(Self { kubeconfig: kubeconfig.to_owned(), server: server.map(str::to_owned), files, used })
    }

    async fn follow(&self, slot: &ClientSlot) {
        let mut changes = Directories::of_files(self.files.iter().map(PathBuf::as_path));
        loop {
            if let Some(client) = self.renewed().await {
                slot.replace(client);
            }
            changes.changed(REREAD).await;
        }
    }

    /// A client with what the files hold now, if that is something else and can be used: half of another pair changes nothing.
    async fn renewed(&self) -> Option<kube::Client> {
        let now = held(&self.files);
        if *self.used.lock() == now {
            return None;
        }
        match client(&self.kubeconfig, self.server.as_deref()).await {
            Ok(client) => {
                *self.used.lock() = now;
                tracing::info!(kubeconfig = %self.kubeconfig.display(), "the client's certificate is new");
                Some(client)
            }
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "the client's certificate is not replaced");
                None
            }
        }
    }
}

fn held(files: &[PathBuf]) -> Vec<Option<String>> {
    files.iter().map(|path| std::fs::read_to_string(path).ok()).collect()
}

async fn of(flags: &Flags, file: Option<&str>) -> anyhow::Result<kube::Config> {
    match (flags.text("kubeconfig").or(file), flags.text("master")) {
        (Some(path), server) => config(Path::new(path), server).await,
        (None, Some(server)) => Ok(kube::Config::new(server.parse().context("--master")?)),
        (None, None) => kube::Config::incluster().context("no --kubeconfig, and in no pod"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pki::{Authority, Leaf};

    #[tokio::test]
    async fn a_certificate_that_was_renewed_must_be_used_and_half_of_one_must_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let now = jiff::Timestamp::now();
        let authority = Authority::generate("kubernetes", now).unwrap();
        let pair = || authority.issue(&Leaf::client("system:kube-scheduler", &[]), now).unwrap();
        let put = |name: &str, text: &str| std::fs::write(path(name), text).unwrap();
        let (old, new) = (pair(), pair());
        put("ca.crt", &authority.cert_pem());
        put("c", &old.cert_pem);
        put("k", &old.key_pem);
        put(
            "kubeconfig",
            "apiVersion: v1\nkind: Config\ncurrent-context: x\n\
             clusters: [{name: x, cluster: {server: 'https://127.0.0.1:1', certificate-authority: ca.crt}}]\n\
             users: [{name: x, user: {client-certificate: c, client-key: k}}]\n\
             contexts: [{name: x, context: {cluster: x, user: x}}]\n",
        );
        let named = Named::by(&path("kubeconfig"), None).unwrap();
        assert_eq!(named.files, [path("c"), path("k")]);
        assert!(named.renewed().await.is_none(), "nothing has changed");
        put("c", &new.cert_pem);
        assert!(named.renewed().await.is_none(), "the key is not there yet");
        put("k", &new.key_pem);
        assert!(named.renewed().await.is_some());
        assert!(named.renewed().await.is_none(), "it is used already");
        std::fs::remove_file(path("k")).unwrap();
        assert!(named.renewed().await.is_none(), "what is gone must not end the client there is");
    }
}
