//! Files under a key that only the operator holds: what a new server must have of the others passes through the API, where administrators of
//! Secrets and backups of the store can see it.
//!
//! AES-256-GCM as kubeadm's `--certificate-key` seals them: 12 random bytes in front, the tag behind.

use crate::Error;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use std::fmt;
use std::str::FromStr;

/// Bytes of a key.
const KEY: usize = 32;

/// The key, 64 hexadecimal digits as text.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificateKey([u8; KEY]);

impl fmt::Debug for CertificateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CertificateKey")
    }
}

impl CertificateKey {
    /// A new random key.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub fn generate() -> Result<Self, Error> {
        let mut key = [0; KEY];
        getrandom::fill(&mut key).map_err(|e| Error::Random(e.to_string()))?;
        Ok(Self(key))
    }

    /// The key as text. Never log it.
    #[must_use]
    pub fn expose(&self) -> String {
        crate::certificate::hex(&self.0)
    }

    /// Seals a file.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, Error> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(|e| Error::Random(e.to_string()))?;
        let mut text = plain.to_vec();
        self.cipher()?
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut text)
            .map_err(|_| Error::Sealed { reason: "it cannot be sealed" })?;
        Ok([nonce.as_slice(), &text].concat())
    }

    /// Opens a sealed file.
    ///
    /// # Errors
    /// It was sealed with another key, or changed since.
    pub fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, Error> {
        let (nonce, text) =
            sealed.split_at_checked(NONCE_LEN).ok_or(Error::Sealed { reason: "it is cut" })?;
        let nonce =
            Nonce::try_assume_unique_for_key(nonce).map_err(|_| Error::Sealed { reason: "it is cut" })?;
        let mut text = text.to_vec();
        let opened = self.cipher()?.open_in_place(nonce, Aad::empty(), &mut text);
        let length = opened.map(|plain| plain.len());
        let length =
            length.map_err(|_| Error::Sealed { reason: "it was sealed with another key, or changed" })?;
        text.truncate(length);
        Ok(text)
    }

    fn cipher(&self) -> Result<LessSafeKey, Error> {
        let key = UnboundKey::new(&AES_256_GCM, &self.0);
        key.map(LessSafeKey::new).map_err(|_| Error::Sealed { reason: "the key is of no use" })
    }
}

impl FromStr for CertificateKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let malformed = || Error::Token { reason: "the certificate key is not 64 hexadecimal digits".into() };
        let text = text.trim();
        if text.len() != 2 * KEY || !text.is_ascii() {
            return Err(malformed());
        }
        let mut key = [0; KEY];
        for (n, byte) in key.iter_mut().enumerate() {
            let digits = text.get(2 * n..2 * n + 2).ok_or_else(malformed)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| malformed())?;
        }
        Ok(Self(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_file_must_not_open_with_another_key_or_after_a_change() {
        let (key, other) = (CertificateKey::generate().unwrap(), CertificateKey::generate().unwrap());
        let sealed = key.seal(b"secret").unwrap();
        assert_eq!(key.open(&sealed).unwrap(), b"secret");
        assert!(other.open(&sealed).is_err());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(key.open(&changed).is_err(), "byte {at}");
        }
        assert_ne!(key.seal(b"secret").unwrap(), sealed, "each time with other bytes in front");
        assert_eq!(key.expose().parse::<CertificateKey>().unwrap(), key);
        assert!(!format!("{key:?}").contains(&key.expose()));
    }

    #[test]
    fn what_kubeadm_sealed_is_opened() {
        // AES-256-GCM, test case 14 of the GCM specification: the key and nonce are zero, 16 zero bytes are sealed.
        let key = CertificateKey([0; KEY]);
        let text = "000000000000000000000000cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919";
        let bytes: Vec<u8> =
            (0..text.len()).step_by(2).map(|n| u8::from_str_radix(&text[n..n + 2], 16).unwrap()).collect();
        assert_eq!(key.open(&bytes).unwrap(), [0; 16]);
    }

    proptest! {
        #[test]
        fn parsing_and_opening_never_panic(text in "\\PC{0,70}", sealed: Vec<u8>) {
            let _ = text.parse::<CertificateKey>();
            let _ = CertificateKey([1; KEY]).open(&sealed);
        }
    }
}
