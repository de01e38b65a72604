//! What a Secret of type `kubernetes.io/tls` is warned about: a certificate and key that do not belong together, worded as Go's
//! `tls.X509KeyPair` words it (upstream: `pkg/registry/core/secret`, `warningsForSecret`).

mod key;

use self::key::Key;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use machinery::access::Get as _;
use serde_json::Value;
use std::io::Cursor;
use x509_parser::pem::Pem;

/// Blocks of one text that are looked at.
const MOST_BLOCKS: usize = 64;

pub(super) fn warning(secret: &Value) -> Option<String> {
    if secret.text("type") != "kubernetes.io/tls" {
        return None;
    }
    let data = |key: &str| {
        let text = secret.fields("data").and_then(|data| data.get(key)?.as_str()).unwrap_or_default();
        BASE64_STANDARD.decode(text).unwrap_or_default()
    };
    problem(&data("tls.crt"), &data("tls.key"))
}

fn problem(certificate: &[u8], key: &[u8]) -> Option<String> {
    let certificate = match block(certificate, |label| label == "CERTIFICATE") {
        Ok(der) => der,
        Err(skipped) => return Some(no_certificate(&skipped)),
    };
    let key = match block(key, |label| label == "PRIVATE KEY" || label.ends_with(" PRIVATE KEY")) {
        Ok(der) => der,
        Err(skipped) => return Some(no_key(&skipped)),
    };
    pair(&certificate, &key).err().map(str::to_owned)
}

/// Judges what is in the two blocks.
fn pair(certificate: &[u8], key: &[u8]) -> Result<(), &'static str> {
    let (rest, certificate) =
        x509_parser::parse_x509_certificate(certificate).map_err(|_| "x509: malformed certificate")?;
    if !rest.is_empty() {
        return Err("x509: trailing data");
    }
    let public = Key::public(&certificate.tbs_certificate.subject_pki)?;
    let private = Key::private(key)?;
    match public {
        None => Err("tls: unknown public key algorithm"),
        Some(public) => private.mismatch(&public).map_or(Ok(()), Err),
    }
}

/// The content of the first block whose label `fits`; the labels of all blocks, where none does.
fn block(text: &[u8], fits: impl Fn(&str) -> bool) -> Result<Vec<u8>, Vec<String>> {
    let mut skipped = Vec::new();
    let text = without_headers(&String::from_utf8_lossy(text));
    for pem in Pem::iter_from_reader(Cursor::new(text)).take(MOST_BLOCKS).filter_map(Result::ok) {
        if fits(&pem.label) {
            return Ok(pem.contents);
        }
        skipped.push(pem.label);
    }
    Err(skipped)
}

/// Blocks without the lines `Name: value` that older programs put before their content (RFC 1421, 4.4), which Go skips.
fn without_headers(text: &str) -> String {
    let mut above = false;
    let kept = text.lines().filter(|line| {
        let begins = line.starts_with("-----BEGIN ");
        above = begins || above && line.contains(':');
        begins || !above
    });
    kept.flat_map(|line| [line, "\n"]).collect()
}

fn no_certificate(skipped: &[String]) -> String {
    match skipped {
        [] => "tls: failed to find any PEM data in certificate input".to_owned(),
        [only] if only.ends_with("PRIVATE KEY") => {
            "tls: failed to find certificate PEM data in certificate input, but did find a private key; \
             PEM inputs may have been switched"
                .to_owned()
        }
        _ => format!(
            "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the following \
             types: [{}]",
            skipped.join(" ")
        ),
    }
}

fn no_key(skipped: &[String]) -> String {
    match skipped {
        [] => "tls: failed to find any PEM data in key input".to_owned(),
        [only] if only == "CERTIFICATE" => {
            "tls: found a certificate rather than a key in the PEM for the private key".to_owned()
        }
        _ => format!(
            "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM blocks of the \
             following types: [{}]",
            skipped.join(" ")
        ),
    }
}

#[cfg(test)]
mod tests;
