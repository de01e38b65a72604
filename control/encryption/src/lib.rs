//! Encryption at rest: what an EncryptionConfiguration says, as a layer of the store's encoding.
//!
//! - `config`: the file, checked
//! - `provider`: a value sealed and opened by one provider's keys, in upstream's envelope (`k8s:enc:PROVIDER:v1:KEY:`)
//! - `kms`: a plugin that keeps the keys
//! - `cipher`: AES-GCM, AES-CBC, secretbox
//! - [`Encryption`]: the layer; it reads its file again when that changes
//!
//! A value is sealed by the first key of the first provider that the configuration has for its resource, and opened by whichever it names.
//! One that another key sealed is stale: the next write of its object stores it again, although nothing else changes. That is how keys are
//! rotated: add the new key behind the old one everywhere, then put it first, then write every object once.

#![warn(unreachable_pub)]

mod cipher;
mod config;
mod kms;
mod provider;

/// Generated from `proto/kms-v2.proto`.
#[allow(
    missing_docs,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::pedantic,
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    unused_qualifications,
    reason = "generated code"
)]
mod v2 {
    tonic::include_proto!("v2");
}

pub use config::Invalid;

use arc_swap::ArcSwap;
use bytes::Bytes;
use config::Rules;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use store::encoding::{Decoded, Encoding, Source, Unreadable};
use supervise::Task;
use tokio::sync::Notify;

/// How often the file is looked at (upstream: every minute; keys are swapped by hand, and whoever does wants to see it).
const LOOK: Duration = Duration::from_secs(10);

/// Group and plural of the resource whose object lies at a key.
pub type ResourceOf = fn(&str) -> Option<(&str, &str)>;

/// The layer. Keys it is given begin with `/registry/`; values are bound to the key they lie at in the store.
pub struct Encryption {
    rules: ArcSwap<Rules>,
    /// The rules were replaced.
    replaced: Notify,
    resource_of: ResourceOf,
    prefix: String,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("read {path}")]
    Read {
        /// `--encryption-provider-config`.
        path: PathBuf,
        /// Error of the system call.
        #[source]
        source: std::io::Error,
    },
    /// It is no EncryptionConfiguration.
    #[error("{path}")]
    Invalid {
        /// `--encryption-provider-config`.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Invalid,
    },
}

impl Encryption {
    /// What the file says. `prefix` is where keys lie in the store (`--etcd-prefix`).
    ///
    /// # Errors
    /// For a file that cannot be read or says what cannot be done.
    pub fn load(path: &Path, prefix: &str, resource_of: ResourceOf) -> Result<Self, Error> {
        let rules = read(path)?;
        Ok(Self {
            rules: ArcSwap::from_pointee(rules),
            replaced: Notify::new(),
            resource_of,
            prefix: store::etcd::rooted(prefix),
        })
    }

    /// Asks every plugin for its key, once: what they seal cannot be written before.
    pub async fn prepare(&self) {
        all_answer(&self.rules.load_full()).await;
    }

    /// Whether every plugin gives its key, as far as was seen.
    ///
    /// # Errors
    /// Which do not, and why (upstream: the check `kms-providers`).
    pub fn check(&self) -> Result<(), String> {
        let rules = self.rules.load();
        let failing = rules.plugins().enumerate().filter_map(|(n, kms)| {
            let why = kms.check().err()?;
            Some(format!("kms-provider-{n}: {why}"))
        });
        let failing: Vec<String> = failing.collect();
        if failing.is_empty() { Ok(()) } else { Err(failing.join(", ")) }
    }

    /// Whether any plugin is asked for keys.
    #[must_use]
    pub fn has_plugins(&self) -> bool {
        self.rules.load().plugins().next().is_some()
    }

    /// Keeps up with the plugins' keys.
    pub fn plugins(self: &Arc<Self>) -> Task {
        let encryption = self.clone();
        Task::endless("encryption/plugins", move || {
            let encryption = encryption.clone();
            async move {
                loop {
                    let plugins: Vec<_> = encryption.rules.load().plugins().collect();
                    tokio::select! {
                        _ = futures::future::join_all(plugins.iter().map(|kms| kms.keep())), if !plugins.is_empty() => {}
                        () = encryption.replaced.notified() => {}
                    }
                }
            }
        })
    }

    /// Reads the file again whenever it has changed. One that is wrong, or has a plugin that does not answer, is not used, and is tried again.
    pub fn reload(self: &Arc<Self>, path: PathBuf) -> Task {
        let encryption = self.clone();
        Task::endless("encryption/reload", move || {
            let (encryption, path) = (encryption.clone(), path.clone());
            async move {
                let mut known = tokio::fs::read(&path).await.ok();
                loop {
                    tokio::time::sleep(LOOK).await;
                    let now = tokio::fs::read(&path).await.ok();
                    if now.is_none() || now == known {
                        continue;
                    }
                    match read(&path) {
                        // Its plugins' errors have been logged.
                        Ok(rules) if !all_answer(&rules).await => {}
                        Ok(rules) => {
                            known = now;
                            encryption.rules.store(Arc::new(rules));
                            encryption.replaced.notify_one();
                            tracing::info!(path = %path.display(), "encryption: the configuration has changed");
                        }
                        Err(error) => {
                            let error = supervise::chain(&error);
                            tracing::error!(error, "encryption: the changed configuration is not used");
                        }
                    }
                }
            }
        })
    }

    /// What a value is bound to, so that it cannot be moved to another key: its key in the store.
    fn bound(&self, key: &str) -> String {
        match key.strip_prefix("/registry") {
            Some(rest) => [self.prefix.as_str(), rest].concat(),
            None => key.to_owned(),
        }
    }
}

/// Asks every plugin for its key; whether all gave one.
async fn all_answer(rules: &Rules) -> bool {
    let mut all = true;
    for kms in rules.plugins().collect::<Vec<_>>() {
        if let Err(why) = kms.look().await {
            all = false;
            tracing::error!(
                plugin = kms.name,
                error = supervise::chain(&*why),
                "encryption: the KMS plugin fails"
            );
        }
    }
    all
}

fn read(path: &Path) -> Result<Rules, Error> {
    let text =
        std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    config::parse(&text).map_err(|source| Error::Invalid { path: path.to_owned(), source })
}

impl Encoding for Encryption {
    fn encode(&self, key: &str, value: Bytes) -> Result<Bytes, Source> {
        let rules = self.rules.load();
        let provider =
            (self.resource_of)(key).and_then(|(group, plural)| rules.providers(group, plural).first());
        match provider {
            None => Ok(value),
            Some(provider) => provider.seal(&value, self.bound(key).as_bytes()),
        }
    }

    fn decode(&self, key: &str, stored: Bytes) -> Result<Decoded, Unreadable> {
        let rules = self.rules.load();
        let providers = (self.resource_of)(key).map(|(group, plural)| rules.providers(group, plural));
        let providers = providers.unwrap_or_default();
        if providers.is_empty() {
            provider::plain(&stored)?;
            return Ok(Decoded { value: stored, stale: false });
        }
        provider::open(providers, stored, self.bound(key).as_bytes())
    }
}

/// No configuration: nothing is sealed, and what was sealed is refused.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unsealed;

impl Encoding for Unsealed {
    fn encode(&self, _key: &str, value: Bytes) -> Result<Bytes, Source> {
        Ok(value)
    }

    fn decode(&self, _key: &str, stored: Bytes) -> Result<Decoded, Unreadable> {
        provider::plain(&stored)?;
        Ok(Decoded { value: stored, stale: false })
    }
}

#[cfg(test)]
mod tests;
