//! Where objects are kept: the embedded store, or an etcd that servers share.

use crate::cli::StorageFlags;
use crate::flags::Flags;
use anyhow::{Context as _, anyhow, bail, ensure};
use encryption::Encryption;
use pki::etcd::EtcdPki;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use store::Backend;
use store::encoding::{Encoding, Layers};
use store::etcd::Etcd;
use store::{embedded, etcd};
use supervise::Task;

/// How often etcd's history is compacted (upstream: `--etcd-compaction-interval`).
const COMPACTION: Duration = Duration::from_secs(300);
/// What keys begin with, as upstream's.
pub(crate) const PREFIX: &str = "/registry";

/// Flags of kube-apiserver that say something of etcd.
const OF_ETCD: [&str; 7] = [
    "etcd-cafile",
    "etcd-certfile",
    "etcd-keyfile",
    "etcd-prefix",
    "etcd-compaction-interval",
    "encryption-provider-config",
    "encryption-provider-config-automatic-reload",
];

/// What objects are kept in.
#[derive(Debug, PartialEq)]
pub(crate) enum Settings {
    /// The file of the embedded store.
    Embedded(PathBuf),
    Etcd(Cluster),
}

/// An etcd, and how objects lie in it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cluster {
    servers: Vec<String>,
    /// etcd's id of it, where that is known.
    id: Option<u64>,
    cafile: Option<PathBuf>,
    certfile: Option<PathBuf>,
    keyfile: Option<PathBuf>,
    prefix: String,
    /// Zero: compacted by others.
    compaction: Duration,
    encryption: Option<PathBuf>,
    reload: bool,
    /// Built-in kinds lie there as JSON.
    json: bool,
    tuning: etcd::Tuning,
}

/// An etcd as every API server on it is to use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SharedEtcd {
    /// Its members' client URLs.
    pub(crate) endpoints: Vec<String>,
    /// Its members' certificates are checked against authorities in a file.
    pub(crate) authority: bool,
    /// It knows its clients by their certificates.
    pub(crate) client: bool,
    /// What keys begin with.
    pub(crate) prefix: String,
    /// What is kept in it is encrypted.
    pub(crate) encrypted: bool,
}

impl Settings {
    /// The etcd that others may use as well.
    pub(crate) fn shared(&self) -> Option<SharedEtcd> {
        let Self::Etcd(cluster) = self else { return None };
        Some(SharedEtcd {
            endpoints: cluster.servers.clone(),
            authority: cluster.cafile.is_some(),
            client: cluster.certfile.is_some() && cluster.keyfile.is_some(),
            prefix: etcd::rooted(&cluster.prefix),
            encrypted: cluster.encryption.is_some(),
        })
    }

    /// What flags of `windlass server` name: an etcd, or the embedded store in `file`.
    pub(crate) fn new(flags: &StorageFlags, file: PathBuf) -> anyhow::Result<Self> {
        if flags.etcd_servers.is_empty() {
            // A configuration file may name what flags would have refused.
            ensure!(
                *flags == StorageFlags::default(),
                "the embedded store has none of the settings of etcd and encryption: give --etcd-servers or --cluster-init, too"
            );
            return Ok(Self::Embedded(file));
        }
        Ok(Self::Etcd(Cluster {
            servers: flags.etcd_servers.clone(),
            cafile: flags.etcd_cafile.clone(),
            certfile: flags.etcd_certfile.clone(),
            keyfile: flags.etcd_keyfile.clone(),
            ..Cluster::settings(flags)?
        }))
    }

    /// Whether flags of kube-apiserver say where objects are: one that lost the line would serve an empty cluster with the keys of the one there
    /// is. Pure.
    ///
    /// # Errors
    /// Neither an etcd is named (upstream: `options.EtcdOptions.Validate`) nor the directory of an embedded store.
    pub(super) fn check(flags: &Flags) -> anyhow::Result<()> {
        let etcd = flags.list("etcd-servers").is_some_and(|servers| !servers.is_empty());
        ensure!(
            etcd || flags.text("data-dir").is_some(),
            "--etcd-servers must be specified (or --data-dir, for a store embedded in the program)"
        );
        Ok(())
    }

    /// What flags of kube-apiserver name.
    pub(super) fn alone(flags: &Flags, file: PathBuf) -> anyhow::Result<Self> {
        let json = as_json(flags)?;
        let path = |name: &str| flags.text(name).map(PathBuf::from);
        let Some(servers) = flags.list("etcd-servers").filter(|servers| !servers.is_empty()) else {
            if let Some(other) = OF_ETCD.into_iter().find(|name| flags.text(name).is_some()) {
                bail!("--{other} without --etcd-servers: the embedded store has no such setting");
            }
            return Ok(Self::Embedded(file));
        };
        Ok(Self::Etcd(Cluster {
            servers: servers.to_vec(),
            id: None,
            cafile: path("etcd-cafile"),
            certfile: path("etcd-certfile"),
            keyfile: path("etcd-keyfile"),
            prefix: flags.text("etcd-prefix").unwrap_or(PREFIX).to_owned(),
            compaction: flags.duration("etcd-compaction-interval").unwrap_or(COMPACTION),
            encryption: path("encryption-provider-config"),
            reload: flags.bool("encryption-provider-config-automatic-reload").unwrap_or(false),
            json,
            tuning: tuning(flags),
        }))
    }
}

impl Cluster {
    /// Without the members and how they are spoken to.
    fn settings(flags: &StorageFlags) -> anyhow::Result<Self> {
        Ok(Self {
            servers: Vec::new(),
            id: None,
            cafile: None,
            certfile: None,
            keyfile: None,
            prefix: flags.etcd_prefix.clone().unwrap_or_else(|| PREFIX.to_owned()),
            compaction: compaction(flags.etcd_compaction_interval.as_deref())?,
            encryption: flags.encryption_provider_config.clone(),
            reload: flags.encryption_provider_config_automatic_reload,
            json: false,
            tuning: etcd::Tuning::default(),
        })
    }

    /// The etcd whose member is beside the server; which others there are is found out later.
    pub(crate) fn member(flags: &StorageFlags, pki: &EtcdPki) -> anyhow::Result<Self> {
        let (certfile, keyfile) = pki.client_files();
        Ok(Self {
            cafile: Some(pki.authority_file()),
            certfile: Some(certfile),
            keyfile: Some(keyfile),
            ..Self::settings(flags)?
        })
    }

    /// The same with these members; where `id` is known, answers of other clusters do not count.
    pub(crate) fn at(&self, servers: Vec<String>, id: Option<u64>) -> Self {
        Self { servers, id, ..self.clone() }
    }

    /// What keys begin with.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// How its members are spoken to.
    pub(crate) fn client(&self) -> anyhow::Result<etcd::Config> {
        client(self)
    }

    /// How objects lie in it, and what is to run for as long as that is used.
    pub(crate) async fn encoding(&self) -> anyhow::Result<(Arc<dyn Encoding>, Vec<Task>)> {
        let (encoding, tasks, _) = self.sealed().await?;
        Ok((encoding, tasks))
    }

    /// The same, and what tells of the plugins, where there are any or may be.
    async fn sealed(&self) -> anyhow::Result<(Arc<dyn Encoding>, Vec<Task>, Option<Arc<Encryption>>)> {
        let inner = apiserver::etcd::Form { json: self.json };
        let Some(path) = &self.encryption else {
            let plain = Layers { outer: encryption::Unsealed, inner };
            return Ok((Arc::new(plain), Vec::new(), None));
        };
        let encryption = Encryption::load(path, &self.prefix, apiserver::etcd::group_resource);
        let encryption =
            Arc::new(encryption.map_err(|e| anyhow!(e)).context("--encryption-provider-config")?);
        encryption.prepare().await;
        let mut tasks = vec![encryption.plugins()];
        if self.reload {
            tasks.push(encryption.reload(path.clone()));
        }
        let told = (self.reload || encryption.has_plugins()).then(|| encryption.clone());
        Ok((Arc::new(Layers { outer: encryption, inner }), tasks, told))
    }
}

pub(super) struct Storage {
    pub(super) backend: Arc<dyn Backend>,
    /// The same, where it is the embedded one.
    pub(super) embedded: Option<Arc<embedded::Store>>,
    /// The members, where it is etcd.
    pub(super) etcd: Option<::etcd::Client>,
    /// Tells of KMS plugins, where there are any or may be.
    pub(super) encryption: Option<Arc<Encryption>>,
    /// To run for as long as the store is used.
    pub(super) tasks: Vec<Task>,
}

/// Opens what the settings name.
pub(super) async fn open(settings: &Settings) -> anyhow::Result<Storage> {
    let path = match settings {
        Settings::Etcd(cluster) => return open_etcd(cluster).await,
        Settings::Embedded(path) => path.clone(),
    };
    // Opening replays and checks: it may take a while.
    let opened =
        tokio::task::spawn_blocking(move || embedded::Store::open(&path, embedded::Options::default()));
    let store = Arc::new(opened.await.context("open the store")??);
    Ok(Storage {
        backend: store.clone(),
        embedded: Some(store),
        etcd: None,
        encryption: None,
        tasks: Vec::new(),
    })
}

async fn open_etcd(cluster: &Cluster) -> anyhow::Result<Storage> {
    let (encoding, mut tasks, encryption) = cluster.sealed().await?;
    let options = etcd::Options {
        client: client(cluster)?,
        prefix: cluster.prefix.clone(),
        compaction_interval: cluster.compaction,
        encoding,
        tuning: cluster.tuning,
    };
    let (store, own) = Etcd::open(options).await.context("open the store in etcd")?;
    tasks.extend(own);
    let members = store.client();
    Ok(Storage { backend: Arc::new(store), embedded: None, etcd: Some(members), encryption, tasks })
}

fn client(cluster: &Cluster) -> anyhow::Result<etcd::Config> {
    let read =
        |path: &Path, flag: &str| std::fs::read(path).with_context(|| format!("{flag} {}", path.display()));
    let authorities = cluster.cafile.as_deref().map(|path| read(path, "--etcd-cafile")).transpose()?;
    let identity = match (&cluster.certfile, &cluster.keyfile) {
        (Some(certificate), Some(key)) => {
            Some((read(certificate, "--etcd-certfile")?, read(key, "--etcd-keyfile")?))
        }
        (None, None) => None,
        _ => bail!("--etcd-certfile and --etcd-keyfile go together"),
    };
    Ok(etcd::Config { endpoints: cluster.servers.clone(), authorities, identity, cluster: cluster.id })
}

fn tuning(flags: &Flags) -> etcd::Tuning {
    let default = etcd::Tuning::default();
    let seconds =
        flags.int("lease-reuse-duration-seconds").map(|seconds| u64::try_from(seconds).unwrap_or(0));
    etcd::Tuning {
        lease_reuse: seconds.unwrap_or(default.lease_reuse),
        health: flags.duration("etcd-healthcheck-timeout").unwrap_or(default.health),
        ready: flags.duration("etcd-readycheck-timeout").unwrap_or(default.ready),
    }
}

/// Whether `--storage-media-type` asks for JSON.
fn as_json(flags: &Flags) -> anyhow::Result<bool> {
    const TYPES: [&str; 3] = ["application/json", "application/vnd.kubernetes.protobuf", "application/yaml"];
    if let Some(other) = flags.text("storage-backend").filter(|backend| *backend != "etcd3") {
        bail!(
            "--storage-backend={other} invalid, allowed values: etcd3. If not specified, it will default to 'etcd3'"
        );
    }
    match flags.text("storage-media-type") {
        None | Some("application/vnd.kubernetes.protobuf") => Ok(false),
        Some("application/json") => Ok(true),
        Some("application/yaml") => bail!("--storage-media-type=application/yaml is not written here"),
        Some(other) => {
            bail!("--storage-media-type {other:?} invalid, allowed values: {}", TYPES.join(", "))
        }
    }
}

fn compaction(text: Option<&str>) -> anyhow::Result<Duration> {
    let Some(text) = text else { return Ok(COMPACTION) };
    let nanos =
        machinery::duration::parse(text).map_err(|e| anyhow!(e)).context("--etcd-compaction-interval")?;
    Ok(Duration::from_nanos(u64::try_from(nanos).context("--etcd-compaction-interval is negative")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::component::Component;

    #[test]
    fn intervals_are_written_as_go_writes_them() {
        assert_eq!(compaction(Some("2m30s")).unwrap(), Duration::from_secs(150));
        assert_eq!(compaction(Some("0")).unwrap(), Duration::ZERO);
        assert!(compaction(Some("-1s")).is_err() && compaction(Some("soon")).is_err());
        assert_eq!(compaction(None).unwrap(), COMPACTION);
    }

    #[test]
    fn how_objects_lie_in_etcd_is_settled_by_flags() {
        let of = |line: &str| {
            let line: Vec<String> =
                format!("--etcd-servers=http://e {line}").split_whitespace().map(str::to_owned).collect();
            let table = Component::named("kube-apiserver").unwrap().table();
            match Settings::alone(&table.parse(&line).unwrap(), "/s".into()) {
                Ok(Settings::Etcd(cluster)) => Ok((cluster.json, cluster.tuning)),
                Ok(Settings::Embedded(_)) => panic!("the embedded store"),
                Err(error) => Err(error.to_string()),
            }
        };
        let (default, seven) = (etcd::Tuning::default(), Duration::from_secs(7));
        for (line, expected) in [
            ("--etcd-healthcheck-timeout=7s", (false, etcd::Tuning { health: seven, ..default })),
            ("--etcd-readycheck-timeout=7s", (false, etcd::Tuning { ready: seven, ..default })),
            ("", (false, default)),
            (
                "--storage-media-type=application/vnd.kubernetes.protobuf --storage-backend=etcd3",
                (false, default),
            ),
            ("--storage-media-type=application/json", (true, default)),
            ("--lease-reuse-duration-seconds=10", (false, etcd::Tuning { lease_reuse: 10, ..default })),
        ] {
            assert_eq!(of(line), Ok(expected), "{line}");
        }
        for (line, why) in [
            ("--storage-media-type=application/yaml", "is not written here"),
            ("--storage-media-type=text/plain", "invalid, allowed values: application/json"),
            ("--storage-backend=etcd2", "allowed values: etcd3"),
        ] {
            assert!(of(line).unwrap_err().contains(why), "{line}");
        }
    }

    #[test]
    fn a_certificate_must_not_come_without_its_key() {
        let flags = StorageFlags {
            etcd_servers: vec!["https://192.0.2.1:2379".into()],
            etcd_certfile: Some("/x".into()),
            ..StorageFlags::default()
        };
        let Settings::Etcd(cluster) = Settings::new(&flags, "/s".into()).unwrap() else {
            panic!("the embedded store")
        };
        assert!(client(&cluster).is_err());
    }

    #[test]
    fn a_kube_apiserver_that_lost_its_etcd_must_not_serve_an_empty_cluster() {
        let flags = |line: &[&str]| {
            let line: Vec<String> = line.iter().map(|word| (*word).to_owned()).collect();
            Component::named("kube-apiserver").unwrap().table().parse(&line).unwrap()
        };
        for lost in [&[][..], &["--etcd-servers="], &["--secure-port=6443"], &["--data-dir="]] {
            let error = Settings::check(&flags(lost)).unwrap_err().to_string();
            assert!(error.starts_with("--etcd-servers must be specified"), "{lost:?}: {error}");
        }
        Settings::check(&flags(&["--data-dir=/d"])).unwrap();
        Settings::check(&flags(&["--etcd-servers=http://e:2379"])).unwrap();
        for (name, value) in OF_ETCD.into_iter().zip(["/x", "/x", "/x", "/x", "1m", "/x", "true"]) {
            let (flag, etcd) = (format!("--{name}={value}"), "--etcd-servers=http://e:2379");
            let error = Settings::alone(&flags(&["--data-dir=/d", &flag]), "/s".into()).unwrap_err();
            assert!(error.to_string().contains(&format!("--{name} without")), "{error}");
            Settings::alone(&flags(&[etcd, &flag]), "/s".into()).unwrap();
        }
    }

    #[test]
    fn settings_of_etcd_must_not_be_ignored_by_the_embedded_store() {
        let flags = StorageFlags { etcd_prefix: Some("/x".into()), ..StorageFlags::default() };
        assert!(Settings::new(&flags, "/s".into()).is_err());
        assert_eq!(
            Settings::new(&StorageFlags::default(), "/s".into()).unwrap(),
            Settings::Embedded("/s".into())
        );
    }
}
