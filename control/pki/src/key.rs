//! Private keys: made here, or read from PEM in any of the forms that Go and OpenSSL write.

use crate::Error;
use crate::der::{oid, sequence, tag, tlv, unsigned};
use rcgen::KeyPair;
use rustls_pki_types::PrivateKeyDer;

const RSA_ENCRYPTION: [u64; 7] = [1, 2, 840, 113_549, 1, 1, 1];
const EC_PUBLIC_KEY: [u64; 6] = [1, 2, 840, 10_045, 2, 1];
const P256: [u64; 7] = [1, 2, 840, 10_045, 3, 1, 7];
const P384: [u64; 5] = [1, 3, 132, 0, 34];
const NULL: [u8; 2] = [5, 0];

pub(crate) fn new_key() -> Result<KeyPair, Error> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(Error::Generate)
}

/// Reads a private key (PKCS #8; PKCS #1, as kubeadm writes them; SEC 1): RSA, ECDSA on P-256 or P-384, Ed25519.
pub(crate) fn parse_key(what: &str, pem: &str) -> Result<KeyPair, Error> {
    let fail = |reason: String| Error::Key { what: what.to_owned(), reason };
    let der = crate::pem::private_key(pem.as_bytes()).map_err(|e| fail(e.to_string()))?;
    let key = pkcs8(&der).ok_or_else(|| fail("a key of an unknown form or curve".into()))?;
    KeyPair::try_from(key).map_err(|e| fail(e.to_string()))
}

/// The key as PKCS #8 (RFC 5208) has it, whichever form it is in.
fn pkcs8(key: &PrivateKeyDer<'_>) -> Option<Vec<u8>> {
    let algorithm = match key {
        PrivateKeyDer::Pkcs8(key) => return Some(key.secret_pkcs8_der().to_vec()),
        PrivateKeyDer::Pkcs1(_) => sequence(&[&oid(&RSA_ENCRYPTION), &NULL]),
        PrivateKeyDer::Sec1(key) => {
            // Its curve is named inside (RFC 5915).
            let curve = [oid(&P256), oid(&P384)]
                .into_iter()
                .find(|curve| key.secret_sec1_der().windows(curve.len()).any(|part| part == curve))?;
            sequence(&[&oid(&EC_PUBLIC_KEY), &curve])
        }
        _ => return None,
    };
    Some(sequence(&[&unsigned(&[0]), &algorithm, &tlv(tag::OCTET_STRING, key.secret_der())]))
}
