//! Private keys: made here, or read from PEM.

use crate::Error;
use rcgen::KeyPair;

pub(crate) fn new_key() -> Result<KeyPair, Error> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(Error::Generate)
}

pub(crate) fn parse_key(what: &str, pem: &str) -> Result<KeyPair, Error> {
    KeyPair::from_pem(pem).map_err(|e| Error::Key { what: what.to_owned(), reason: e.to_string() })
}
