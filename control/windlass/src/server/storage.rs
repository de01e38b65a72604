//! Where objects are kept: the embedded store, or an etcd that servers share.

use super::Plan;
use crate::cli::StorageFlags;
use anyhow::{Context as _, anyhow, bail, ensure};
use encryption::Encryption;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use store::Backend;
use store::encoding::{Encoding, Layers};
use store::etcd::Etcd;
use store::{embedded, etcd};
use supervise::Task;

/// How often etcd's history is compacted (upstream: `--etcd-compaction-interval`).
const COMPACTION: Duration = Duration::from_secs(300);

/// An open store.
pub(super) struct Storage {
    pub(super) backend: Arc<dyn Backend>,
    /// To run for as long as the store is used.
    pub(super) tasks: Vec<Task>,
}

/// Opens what the flags name.
pub(super) async fn open(plan: &Plan) -> anyhow::Result<Storage> {
    let flags = &plan.flags.storage;
    if !flags.etcd_servers.is_empty() {
        return open_etcd(flags).await;
    }
    // A file may name what flags would have refused.
    ensure!(
        *flags == StorageFlags::default(),
        "the embedded store has none of the settings of etcd and encryption: give --etcd-servers, too"
    );
    let path = plan.dir.join("store.redb");
    // Opening replays and checks: it may take a while.
    let opened =
        tokio::task::spawn_blocking(move || embedded::Store::open(&path, embedded::Options::default()));
    let store = opened.await.context("open the store")??;
    Ok(Storage { backend: Arc::new(store), tasks: Vec::new() })
}

async fn open_etcd(flags: &StorageFlags) -> anyhow::Result<Storage> {
    let prefix = flags.etcd_prefix.clone().unwrap_or_else(|| "/registry".to_owned());
    let mut tasks = Vec::new();
    let encoding: Arc<dyn Encoding> = match &flags.encryption_provider_config {
        None => Arc::new(Layers { outer: encryption::Unsealed, inner: apiserver::etcd::Upstream }),
        Some(path) => {
            let encryption = Encryption::load(path, &prefix, apiserver::etcd::group_resource);
            let encryption =
                Arc::new(encryption.map_err(|e| anyhow!(e)).context("--encryption-provider-config")?);
            encryption.prepare().await;
            tasks.push(encryption.plugins());
            if flags.encryption_provider_config_automatic_reload {
                tasks.push(encryption.reload(path.clone()));
            }
            Arc::new(Layers { outer: encryption, inner: apiserver::etcd::Upstream })
        }
    };
    let options =
        etcd::Options { client: client(flags)?, prefix, compaction_interval: compaction(flags)?, encoding };
    let (store, own) = Etcd::open(options).await.context("open the store in etcd")?;
    tasks.extend(own);
    Ok(Storage { backend: Arc::new(store), tasks })
}

fn client(flags: &StorageFlags) -> anyhow::Result<etcd::Config> {
    let read =
        |path: &Path, flag: &str| std::fs::read(path).with_context(|| format!("{flag} {}", path.display()));
    let authorities = flags.etcd_cafile.as_deref().map(|path| read(path, "--etcd-cafile")).transpose()?;
    let identity = match (&flags.etcd_certfile, &flags.etcd_keyfile) {
        (Some(certificate), Some(key)) => {
            Some((read(certificate, "--etcd-certfile")?, read(key, "--etcd-keyfile")?))
        }
        (None, None) => None,
        _ => bail!("--etcd-certfile and --etcd-keyfile go together"),
    };
    Ok(etcd::Config { endpoints: flags.etcd_servers.clone(), authorities, identity })
}

fn compaction(flags: &StorageFlags) -> anyhow::Result<Duration> {
    let Some(text) = &flags.etcd_compaction_interval else { return Ok(COMPACTION) };
    let nanos =
        machinery::duration::parse(text).map_err(|e| anyhow!(e)).context("--etcd-compaction-interval")?;
    Ok(Duration::from_nanos(u64::try_from(nanos).context("--etcd-compaction-interval is negative")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_written_as_go_writes_them() {
        let interval = |text: &str| {
            compaction(&StorageFlags {
                etcd_compaction_interval: Some(text.to_owned()),
                ..StorageFlags::default()
            })
        };
        assert_eq!(interval("2m30s").unwrap(), Duration::from_secs(150));
        assert_eq!(interval("0").unwrap(), Duration::ZERO);
        assert!(interval("-1s").is_err() && interval("soon").is_err());
        assert_eq!(compaction(&StorageFlags::default()).unwrap(), COMPACTION);
    }

    #[test]
    fn a_certificate_must_not_come_without_its_key() {
        let flags = StorageFlags { etcd_certfile: Some("/x".into()), ..StorageFlags::default() };
        assert!(client(&flags).is_err());
    }
}
