//! Flags of `server` about its store.

use clap::Args;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where a server keeps objects; flags are named as upstream's.
#[derive(Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct StorageFlags {
    /// Members of the etcd to keep objects in, http(s)://HOST:PORT [default: the store embedded in the server]
    #[arg(long, env = "WINDLASS_ETCD_SERVERS", value_delimiter = ',', value_name = "URL")]
    pub(crate) etcd_servers: Vec<String>,
    /// Authorities that the members' certificates are checked against
    #[arg(long, env = "WINDLASS_ETCD_CAFILE", value_name = "FILE", requires = "etcd_servers")]
    pub(crate) etcd_cafile: Option<PathBuf>,
    /// Certificate that etcd knows this server by
    #[arg(long, env = "WINDLASS_ETCD_CERTFILE", value_name = "FILE", requires = "etcd_keyfile")]
    pub(crate) etcd_certfile: Option<PathBuf>,
    /// Its key
    #[arg(long, env = "WINDLASS_ETCD_KEYFILE", value_name = "FILE", requires = "etcd_certfile")]
    pub(crate) etcd_keyfile: Option<PathBuf>,
    /// What keys in etcd begin with [default: /registry]
    #[arg(long, env = "WINDLASS_ETCD_PREFIX", value_name = "PREFIX")]
    pub(crate) etcd_prefix: Option<String>,
    /// How often etcd's history is compacted; 0 leaves it to others [default: 5m0s]
    #[arg(long, env = "WINDLASS_ETCD_COMPACTION_INTERVAL", value_name = "DURATION")]
    pub(crate) etcd_compaction_interval: Option<String>,
    /// EncryptionConfiguration for what is kept in etcd
    #[arg(long, env = "WINDLASS_ENCRYPTION_PROVIDER_CONFIG", value_name = "FILE")]
    pub(crate) encryption_provider_config: Option<PathBuf>,
    /// Reload the EncryptionConfiguration whenever it changes
    #[arg(
        long,
        env = "WINDLASS_ENCRYPTION_PROVIDER_CONFIG_AUTOMATIC_RELOAD",
        requires = "encryption_provider_config"
    )]
    pub(crate) encryption_provider_config_automatic_reload: bool,
}
