use super::*;
use pki::{Authority, Leaf};
use serde_json::json;

/// A certificate and its key.
fn pair() -> (String, String) {
    let authority = Authority::generate("kubernetes", jiff::Timestamp::now()).unwrap();
    let leaf = Leaf::server("example.org", vec!["example.org".to_owned()], Vec::new());
    let issued = authority.issue(&leaf, jiff::Timestamp::now()).unwrap();
    (issued.cert_pem, issued.key_pem)
}

fn secret(kind: &str, certificate: &str, key: &str) -> Value {
    let data =
        json!({"tls.crt": BASE64_STANDARD.encode(certificate), "tls.key": BASE64_STANDARD.encode(key)});
    json!({"metadata": {"name": "s"}, "type": kind, "data": data})
}

#[test]
fn a_pair_that_belongs_together_must_not_be_warned_about() {
    let (certificate, key) = pair();
    assert_eq!(warning(&secret("kubernetes.io/tls", &certificate, &key)), None);
    // Go skips what stands around the blocks it looks for.
    let surrounded = format!("notes\n{certificate}{certificate}");
    assert_eq!(warning(&secret("kubernetes.io/tls", &surrounded, &format!("{certificate}{key}"))), None);
    let headed = key.replacen("-----\n", "-----\nProc-Type: 4,X\nName: value\n\n", 1);
    assert_eq!(warning(&secret("kubernetes.io/tls", &certificate, &headed)), None);
}

#[test]
fn a_key_of_another_certificate_must_not_pass_silently() {
    let ((certificate, _), (_, key)) = (pair(), pair());
    let found = warning(&secret("kubernetes.io/tls", &certificate, &key));
    assert_eq!(found.as_deref(), Some("tls: private key does not match public key"));
    assert_eq!(warning(&secret("Opaque", &certificate, &key)), None);
}

#[test]
fn what_is_no_pair_is_named_as_go_names_it() {
    let (certificate, key) = pair();
    let block = |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
    let der = pki::pem::certificates(certificate.as_bytes()).unwrap().remove(0);
    let trailing = pki::pem::encode("CERTIFICATE", &[&*der, b"x"].concat());
    let cases = [
        ("", "", "tls: failed to find any PEM data in certificate input"),
        (
            &*key,
            &*certificate,
            "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched",
        ),
        (&*certificate, "nonsense", "tls: failed to find any PEM data in key input"),
        (
            &*certificate,
            &*certificate,
            "tls: found a certificate rather than a key in the PEM for the private key",
        ),
        (&*certificate, &*block("PRIVATE KEY"), "tls: failed to parse private key"),
        (&*trailing, &*key, "x509: trailing data"),
        (&*block("CERTIFICATE"), &*key, "x509: malformed certificate"),
        (
            &*format!("{}{}", block("A"), block("B")),
            &*key,
            "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the following types: [A B]",
        ),
        (
            &*certificate,
            &*block("PUBLIC KEY"),
            "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM blocks of the following types: [PUBLIC KEY]",
        ),
    ];
    for (certificate, key, text) in cases {
        assert_eq!(problem(certificate.as_bytes(), key.as_bytes()).as_deref(), Some(text));
    }
}
