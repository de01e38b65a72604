//! The ciphers, with what each puts in front of its text: a nonce, or a first block, drawn for each value.
//!
//! AES-CBC has no tag: who can write to the store can change such values unseen. It is there to read what older clusters wrote.

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit};
use aes::{Aes128, Aes192, Aes256};
use aes_gcm::aead::consts::U12;
use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{AesGcm, Nonce};
use crypto_secretbox::XSalsa20Poly1305;
use store::encoding::Source;

type Gcm<A> = AesGcm<A, U12>;

const GCM_NONCE: usize = 12;
const BOX_NONCE: usize = 24;
const BLOCK: usize = 16;

pub(crate) enum Cipher {
    /// AES-GCM, bound to the key the value lies at.
    Gcm(Box<dyn Bound>),
    /// AES-CBC with PKCS #7 padding; the key.
    Cbc(Vec<u8>),
    /// XSalsa20 and Poly1305.
    Secretbox(Box<XSalsa20Poly1305>),
}

/// AES-GCM with a key of one of three sizes.
pub(crate) trait Bound: Send + Sync {
    fn seal(&self, nonce: &[u8], text: Payload<'_, '_>) -> Result<Vec<u8>, aes_gcm::Error>;
    fn open(&self, nonce: &[u8], text: Payload<'_, '_>) -> Result<Vec<u8>, aes_gcm::Error>;
}

impl<A> Bound for Gcm<A>
where
    Gcm<A>: Aead<NonceSize = U12> + Send + Sync,
{
    fn seal(&self, nonce: &[u8], text: Payload<'_, '_>) -> Result<Vec<u8>, aes_gcm::Error> {
        self.encrypt(Nonce::from_slice(nonce), text)
    }

    fn open(&self, nonce: &[u8], text: Payload<'_, '_>) -> Result<Vec<u8>, aes_gcm::Error> {
        self.decrypt(Nonce::from_slice(nonce), text)
    }
}

impl Cipher {
    /// AES-GCM; `None` for a key that is not of 16, 24 or 32 bytes.
    pub(crate) fn gcm(key: &[u8]) -> Option<Self> {
        Some(Self::Gcm(match key.len() {
            16 => Box::new(Gcm::<Aes128>::new_from_slice(key).ok()?),
            24 => Box::new(Gcm::<Aes192>::new_from_slice(key).ok()?),
            32 => Box::new(Gcm::<Aes256>::new_from_slice(key).ok()?),
            _ => return None,
        }))
    }

    /// AES-CBC; `None` as for [`Cipher::gcm`].
    pub(crate) fn cbc(key: &[u8]) -> Option<Self> {
        matches!(key.len(), 16 | 24 | 32).then(|| Self::Cbc(key.to_vec()))
    }

    /// Secretbox; `None` for a key that is not of 32 bytes.
    pub(crate) fn secretbox(key: &[u8]) -> Option<Self> {
        XSalsa20Poly1305::new_from_slice(key).ok().map(|cipher| Self::Secretbox(Box::new(cipher)))
    }

    /// Appends the sealed value.
    pub(crate) fn seal(&self, value: &[u8], bound: &[u8], out: &mut Vec<u8>) -> Result<(), Source> {
        let failed = |_| Source::from("the value cannot be encrypted");
        match self {
            Self::Gcm(cipher) => {
                let nonce: [u8; GCM_NONCE] = random()?;
                out.extend_from_slice(&nonce);
                out.extend(cipher.seal(&nonce, Payload { msg: value, aad: bound }).map_err(failed)?);
            }
            Self::Cbc(key) => {
                let first: [u8; BLOCK] = random()?;
                out.extend_from_slice(&first);
                out.extend(match key.len() {
                    16 => cbc_seal::<Aes128>(key, &first, value)?,
                    24 => cbc_seal::<Aes192>(key, &first, value)?,
                    _ => cbc_seal::<Aes256>(key, &first, value)?,
                });
            }
            Self::Secretbox(cipher) => {
                let nonce: [u8; BOX_NONCE] = random()?;
                out.extend_from_slice(&nonce);
                out.extend(cipher.encrypt(&nonce.into(), value).map_err(failed)?);
            }
        }
        Ok(())
    }

    pub(crate) fn open(&self, sealed: &[u8], bound: &[u8]) -> Result<Vec<u8>, Source> {
        let short = "the stored data was shorter than the required size";
        let failed = |_| Source::from("cipher: message authentication failed");
        match self {
            Self::Gcm(cipher) => {
                let (nonce, text) = sealed.split_at_checked(GCM_NONCE).ok_or(short)?;
                cipher.open(nonce, Payload { msg: text, aad: bound }).map_err(failed)
            }
            Self::Cbc(key) => {
                let (first, text) = sealed.split_at_checked(BLOCK).ok_or(short)?;
                match key.len() {
                    16 => cbc_open::<Aes128>(key, first, text),
                    24 => cbc_open::<Aes192>(key, first, text),
                    _ => cbc_open::<Aes256>(key, first, text),
                }
            }
            Self::Secretbox(cipher) => {
                let (nonce, text) = sealed.split_first_chunk::<BOX_NONCE>().ok_or(short)?;
                cipher.decrypt(&(*nonce).into(), text).map_err(failed)
            }
        }
    }
}

fn cbc_seal<A>(key: &[u8], first: &[u8], value: &[u8]) -> Result<Vec<u8>, Source>
where
    A: aes::cipher::BlockCipher + BlockEncryptMut + KeyInit,
{
    let cipher = cbc::Encryptor::<A>::new_from_slices(key, first)?;
    Ok(cipher.encrypt_padded_vec_mut::<Pkcs7>(value))
}

fn cbc_open<A>(key: &[u8], first: &[u8], text: &[u8]) -> Result<Vec<u8>, Source>
where
    A: aes::cipher::BlockCipher + BlockDecryptMut + KeyInit,
{
    let cipher = cbc::Decryptor::<A>::new_from_slices(key, first)?;
    cipher
        .decrypt_padded_vec_mut::<Pkcs7>(text)
        .map_err(|_| "invalid PKCS7 data (empty or not padded)".into())
}

fn random<const N: usize>() -> Result<[u8; N], Source> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| format!("no random bytes: {e}"))?;
    Ok(bytes)
}
