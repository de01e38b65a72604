//! One provider's keys, and the envelope by which a value names the key it was sealed with.

use crate::cipher::Cipher;
use crate::kms::Kms;
use bytes::Bytes;
use std::sync::Arc;
use store::encoding::{Decoded, Source, Unreadable};

/// What every sealed value begins with.
const SEALED: &[u8] = b"k8s:enc:";

/// How values are sealed, or that they are not.
pub(crate) enum Provider {
    /// `identity`: stored as it is.
    Identity,
    /// By keys of one kind, of which the first seals.
    Keys {
        /// `k8s:enc:aesgcm:v1:`.
        prefix: &'static str,
        /// By name, at least one.
        keys: Vec<(String, Cipher)>,
    },
    /// By a plugin's keys.
    Kms(Arc<Kms>),
}

impl Provider {
    /// The envelope of a value bound to `bound`.
    pub(crate) fn seal(&self, value: &Bytes, bound: &[u8]) -> Result<Bytes, Source> {
        match self {
            Self::Identity => Ok(value.clone()),
            Self::Kms(kms) => kms.seal(value, bound),
            Self::Keys { prefix, keys } => {
                let (name, cipher) = keys.first().ok_or("a provider without a key")?;
                let mut sealed = format!("{prefix}{name}:").into_bytes();
                cipher.seal(value, bound, &mut sealed)?;
                Ok(sealed.into())
            }
        }
    }

    /// The value, and whether the key that sealed it is the one that would; `None` where the envelope is not of this provider.
    fn open(&self, stored: &Bytes, bound: &[u8]) -> Option<Result<Decoded, Unreadable>> {
        match self {
            Self::Kms(kms) => kms.open(stored, bound),
            Self::Identity => {
                plain(stored).ok().map(|()| Ok(Decoded { value: stored.clone(), stale: false }))
            }
            Self::Keys { prefix, keys } => {
                let rest = stored.strip_prefix(prefix.as_bytes())?;
                let named = keys.iter().enumerate().filter_map(|(n, (name, cipher))| {
                    let sealed = rest.strip_prefix(name.as_bytes())?.strip_prefix(b":")?;
                    Some((n, cipher, sealed))
                });
                let mut why: Source = "no matching key was found for the provided transformer".into();
                for (n, cipher, sealed) in named {
                    match cipher.open(sealed, bound) {
                        Ok(value) => return Some(Ok(Decoded { value: value.into(), stale: n > 0 })),
                        Err(error) => why = error,
                    }
                }
                Some(Err(Unreadable::Damaged(why)))
            }
        }
    }
}

/// Refuses what was sealed: without a key it must not pass for a value.
pub(crate) fn plain(stored: &[u8]) -> Result<(), Source> {
    match stored.starts_with(SEALED) {
        true => Err("identity transformer tried to read encrypted data".into()),
        false => Ok(()),
    }
}

/// Opens a value by whichever provider sealed it. Two may have the same envelope and different keys, during a rotation.
pub(crate) fn open(providers: &[Provider], stored: Bytes, bound: &[u8]) -> Result<Decoded, Unreadable> {
    let mut why: Source = "no matching prefix found".into();
    for (n, provider) in providers.iter().enumerate() {
        match provider.open(&stored, bound) {
            None => {}
            Some(Ok(opened)) => return Ok(Decoded { stale: opened.stale || n > 0, ..opened }),
            Some(Err(Unreadable::Damaged(error))) => why = error,
            Some(Err(yet)) => return Err(yet),
        }
    }
    Err(Unreadable::Damaged(why))
}
