//! Sealing by a KMS plugin, version 2 (upstream: `encrypt/envelope/kmsv2`).
//!
//! The plugin seals one seed, which it is asked for whenever its key changes; each value is sealed by a key of its own, made of the seed and
//! 32 random bytes in front of the text. Seeds that others had sealed are opened by the plugin once, and kept.
//!
//! Woken by the clock: the plugin's status is asked for every minute (every ten seconds while it fails). Without a word from it for three
//! minutes nothing is sealed: its key may have been revoked.

use crate::cipher::Cipher;
use crate::v2::key_management_service_client::KeyManagementServiceClient;
use crate::v2::{DecryptRequest, EncryptRequest, EncryptedObject, StatusRequest};
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use ring::hmac;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use store::encoding::{Decoded, Source, Unreadable};
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};

const LOOK: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// How long a status holds.
const HOLDS: Duration = Duration::from_secs(180);
/// Bytes of a seed, and of what is mixed into it for each value.
const SEED: usize = 32;
/// The sizes of what a plugin may say.
const KEY_ID: usize = 1 << 10;
const SEALED_SEED: usize = 1 << 10;
const ANNOTATIONS: usize = 32 << 10;

/// Seeds that are kept: one for each start of each server since the values were last written.
const KNOWN: usize = 4096;

type Annotations = HashMap<String, Vec<u8>>;
type Seed = [u8; SEED];

/// What makes a key, by how it was sealed.
#[derive(Clone)]
enum Origin {
    /// One key for all.
    Key(Vec<u8>),
    Seed(Seed),
}

struct Current {
    key_id: String,
    sealed_seed: Vec<u8>,
    annotations: Annotations,
    seed: Seed,
    until: Mutex<Instant>,
}

pub(crate) struct Kms {
    pub(crate) name: String,
    /// `k8s:enc:kms:v2:NAME:`.
    prefix: String,
    channel: Channel,
    timeout: Duration,
    current: ArcSwapOption<Current>,
    /// By digest of how they were sealed; at most [`KNOWN`].
    known: Mutex<HashMap<[u8; 32], Origin>>,
    /// What went wrong at the last look.
    failing: Mutex<Option<String>>,
}

impl Kms {
    /// A plugin at `unix:///PATH`; connects when first asked.
    pub(crate) fn new(
        name: String,
        endpoint: &str,
        timeout: Duration,
    ) -> Result<Self, tonic::transport::Error> {
        let channel = Endpoint::from_shared(endpoint.to_owned())?.connect_lazy();
        Ok(Self {
            prefix: format!("k8s:enc:kms:v2:{name}:"),
            name,
            channel,
            timeout,
            current: ArcSwapOption::empty(),
            known: Mutex::default(),
            failing: Mutex::default(),
        })
    }

    /// Asks for the plugin's key, and has a new seed sealed where it is another than before.
    pub(crate) async fn look(&self) -> Result<(), Source> {
        let looked = self.ask_key().await;
        *self.failing.lock() = looked.as_ref().err().map(|why| supervise::chain(&**why));
        looked
    }

    /// # Errors
    /// Why nothing can be sealed, now or soon.
    pub(crate) fn check(&self) -> Result<(), String> {
        if let Some(why) = &*self.failing.lock() {
            return Err(why.clone());
        }
        let current = self.current.load();
        let holds = current.as_ref().is_some_and(|current| Instant::now() < *current.until.lock());
        if holds { Ok(()) } else { Err("the plugin has not answered lately".to_owned()) }
    }

    async fn ask_key(&self) -> Result<(), Source> {
        let status = self.ask(|mut c| async move { c.status(StatusRequest {}).await }).await?;
        if !matches!(status.version.as_str(), "v2" | "v2beta1") {
            return Err(format!("got an invalid version {:?}", status.version).into());
        }
        if status.healthz != "ok" {
            return Err(format!("got a healthz status {:?}", status.healthz).into());
        }
        check_key_id(&status.key_id)?;
        let until = Instant::now() + HOLDS;
        if let Some(current) = self.current.load_full().filter(|c| c.key_id == status.key_id) {
            *current.until.lock() = until;
            return Ok(());
        }
        let mut seed = [0; SEED];
        getrandom::fill(&mut seed).map_err(|e| format!("no random bytes: {e}"))?;
        let request = EncryptRequest { plaintext: seed.to_vec(), uid: uid()? };
        let sealed = self
            .ask(|mut c| {
                let request = request.clone();
                async move { c.encrypt(request).await }
            })
            .await?;
        if sealed.key_id != status.key_id {
            return Err("the plugin's key has changed meanwhile".into());
        }
        let annotated: usize = sealed.annotations.iter().map(|(k, v)| k.len() + v.len()).sum();
        if sealed.ciphertext.is_empty() || sealed.ciphertext.len() > SEALED_SEED || annotated > ANNOTATIONS {
            return Err("the plugin's answer is empty or too large".into());
        }
        let digest = digest(1, &sealed.ciphertext, &sealed.key_id, &sealed.annotations);
        self.keep_known(digest, Origin::Seed(seed));
        self.current.store(Some(Arc::new(Current {
            key_id: sealed.key_id,
            sealed_seed: sealed.ciphertext,
            annotations: sealed.annotations,
            seed,
            until: Mutex::new(until),
        })));
        Ok(())
    }

    /// Looks forever.
    pub(crate) async fn keep(&self) {
        loop {
            let pause = match self.look().await {
                Ok(()) => LOOK,
                Err(why) => {
                    tracing::error!(
                        plugin = self.name,
                        error = supervise::chain(&*why),
                        "encryption: the KMS plugin fails"
                    );
                    LOOK_AGAIN
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Seals a value bound to `bound`.
    pub(crate) fn seal(&self, value: &[u8], bound: &[u8]) -> Result<Bytes, Source> {
        let current = self.current.load_full();
        let current = current.filter(|c| Instant::now() < *c.until.lock());
        let current =
            current.ok_or_else(|| format!("the KMS plugin {} has not answered lately", self.name))?;
        let mut info = [0; SEED];
        getrandom::fill(&mut info).map_err(|e| format!("no random bytes: {e}"))?;
        let mut text = info.to_vec();
        cipher(&derive(&current.seed, &info))?.seal(value, bound, &mut text)?;
        let object = EncryptedObject {
            encrypted_data: text,
            key_id: current.key_id.clone(),
            encrypted_dek_source: current.sealed_seed.clone(),
            annotations: current.annotations.clone(),
            encrypted_dek_source_type: 1,
        };
        let mut sealed = self.prefix.clone().into_bytes();
        object.encode(&mut sealed)?;
        Ok(sealed.into())
    }

    /// Opens a value; `None` where another sealed it.
    pub(crate) fn open(
        self: &Arc<Self>,
        stored: &Bytes,
        bound: &[u8],
    ) -> Option<Result<Decoded, Unreadable>> {
        let rest = stored.strip_prefix(self.prefix.as_bytes())?;
        Some(self.open_object(rest, bound))
    }

    fn open_object(self: &Arc<Self>, bytes: &[u8], bound: &[u8]) -> Result<Decoded, Unreadable> {
        let object = EncryptedObject::decode(bytes)?;
        let EncryptedObject {
            encrypted_data: text, key_id, encrypted_dek_source: sealed, annotations, ..
        } = object;
        let kind = object.encrypted_dek_source_type;
        let digest = digest(kind, &sealed, &key_id, &annotations);
        let Some(origin) = self.known.lock().get(&digest).cloned() else {
            return Err(Unreadable::Yet(Box::pin(self.clone().learn(
                digest,
                kind,
                sealed,
                key_id,
                annotations,
            ))));
        };
        let value = match &origin {
            Origin::Key(key) => cipher(key)?.open(&text, bound)?,
            Origin::Seed(seed) => {
                let short = "the stored data was shorter than the required size";
                let (info, text) = text.split_first_chunk::<SEED>().ok_or(short)?;
                cipher(&derive(seed, info))?.open(text, bound)?
            }
        };
        let current = self.current.load();
        let stale = kind != 1 || current.as_ref().is_some_and(|c| c.key_id != key_id);
        Ok(Decoded { value: value.into(), stale })
    }

    /// Has the plugin open a seed.
    async fn learn(
        self: Arc<Self>,
        digest: [u8; 32],
        kind: i32,
        ciphertext: Vec<u8>,
        key_id: String,
        annotations: Annotations,
    ) -> Result<(), Source> {
        let request = DecryptRequest { ciphertext, uid: uid()?, key_id, annotations };
        let opened = self
            .ask(|mut c| {
                let request = request.clone();
                async move { c.decrypt(request).await }
            })
            .await?;
        let origin = match kind {
            0 => Origin::Key(opened.plaintext),
            1 => Origin::Seed(
                opened.plaintext.try_into().map_err(|_| "the plugin opened a seed of another size")?,
            ),
            _ => return Err(format!("unknown kind {kind} of a sealed key").into()),
        };
        self.keep_known(digest, origin);
        Ok(())
    }

    fn keep_known(&self, digest: [u8; 32], origin: Origin) {
        let mut known = self.known.lock();
        // Any of them: the plugin opens it again when it is needed.
        if let Some(other) = known.keys().next().copied().filter(|_| known.len() >= KNOWN) {
            known.remove(&other);
        }
        known.insert(digest, origin);
    }

    async fn ask<T, F>(
        &self,
        call: impl FnOnce(KeyManagementServiceClient<Channel>) -> F,
    ) -> Result<T, Source>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let answer =
            tokio::time::timeout(self.timeout, call(KeyManagementServiceClient::new(self.channel.clone())))
                .await;
        match answer {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(status.into()),
            Err(_) => Err(format!("no answer within {:?}", self.timeout).into()),
        }
    }
}

fn check_key_id(key_id: &str) -> Result<(), Source> {
    match key_id.len() {
        0 => Err("keyID is empty".into()),
        n if n > KEY_ID => Err("keyID is too long".into()),
        _ => Ok(()),
    }
}

fn cipher(key: &[u8]) -> Result<Cipher, Source> {
    Cipher::gcm(key).ok_or_else(|| "the plugin opened a key of another size".into())
}

/// The key of one value: HKDF-Expand with SHA-256, whose first block is all of it.
fn derive(seed: &Seed, info: &[u8]) -> Vec<u8> {
    let mut block = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, seed));
    block.update(info);
    block.update(&[1]);
    block.sign().as_ref().to_vec()
}

/// What tells one sealed seed from another.
fn digest(kind: i32, sealed: &[u8], key_id: &str, annotations: &Annotations) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    part(&kind.to_le_bytes());
    part(sealed);
    part(key_id.as_bytes());
    for (name, value) in annotations.iter().collect::<BTreeMap<_, _>>() {
        part(name.as_bytes());
        part(value);
    }
    hash.finalize().into()
}

/// A name for one request, for the plugin's log.
fn uid() -> Result<String, Source> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| format!("no random bytes: {e}"))?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

#[cfg(test)]
mod tests;
