//! PEM text to DER and back. `BEGIN`/`END` labels are checked; a wrong label is an error that names what was looked for.

use crate::Error;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Every certificate in `text`, in order; at least one.
pub fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match found {
        Ok(list) if !list.is_empty() => Ok(list),
        _ => Err(Error::Pem { what: "certificates".into(), kind: "CERTIFICATE" }),
    }
}

/// The first private key in `text` (PKCS#8, PKCS#1 or SEC1).
pub fn private_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(text)
        .map_err(|_| Error::Pem { what: "private key".into(), kind: "PRIVATE KEY" })
}

/// Writes one block, 64 columns wide.
#[must_use]
pub fn encode(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = tail;
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

/// The DER of every block labelled `label`.
#[must_use]
pub(crate) fn blocks(text: &str, label: &str) -> Vec<Vec<u8>> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(&begin) {
        let body = &rest[start + begin.len()..];
        let Some(stop) = body.find(&end) else { break };
        let compact: String = body[..stop].chars().filter(|c| !c.is_ascii_whitespace()).collect();
        if let Ok(der) = STANDARD.decode(compact) {
            found.push(der);
        }
        rest = &body[stop + end.len()..];
    }
    found
}
