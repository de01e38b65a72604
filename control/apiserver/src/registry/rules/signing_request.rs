//! What a CertificateSigningRequest asks a certificate for: bytes that parse, signed by the key they name (upstream: `validateCSR`
//! of `pkg/apis/certificates/validation`).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use machinery::access::Get as _;
use machinery::field::{FieldError, Path};
use serde_json::Value;

/// Why the bytes of an object are no request; that they are no PEM block at all, its own rules have said.
pub(super) fn refused(object: &Value) -> Option<FieldError> {
    let request = object.text("spec.request");
    let text = String::from_utf8(BASE64_STANDARD.decode(request).ok()?).ok()?;
    if !text.contains("-----BEGIN CERTIFICATE REQUEST-----") {
        return None;
    }
    let why = pki::CertificateRequest::from_pem(&text).err()?.to_string();
    // A key of a kind only its signer knows is its signer's to judge.
    let foreign = why.to_lowercase().contains("unsupported");
    let path = Path::new("spec").child("request");
    (!foreign).then(|| FieldError::invalid(&path, request, why))
}

/// Puts it where upstream looks: behind the metadata, before the rest of the spec.
pub(super) fn insert(object: &Value, errors: &mut Vec<FieldError>) {
    if let Some(error) = refused(object) {
        let behind = errors.iter().take_while(|e| e.field.starts_with("metadata")).count();
        errors.insert(behind, error);
    }
}

#[cfg(test)]
#[test]
fn a_request_that_does_not_parse_must_not_wait_for_a_signer_to_say_so() {
    use serde_json::json;
    let request = |pem: &str| json!({"spec": {"request": BASE64_STANDARD.encode(pem)}});
    let broken = request("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n");
    let mut errors = vec![
        FieldError::required(&Path::new("metadata.name"), ""),
        FieldError::required(&Path::new("spec.usages"), ""),
    ];
    insert(&broken, &mut errors);
    let fields: Vec<&str> = errors.iter().map(|e| e.field.as_str()).collect();
    assert_eq!(fields, ["metadata.name", "spec.request", "spec.usages"]);
    assert!(
        errors[1].to_string().starts_with("spec.request: Invalid value: \"LS0tLS1CRUdJTi"),
        "{}",
        errors[1]
    );
    assert_eq!(refused(&request("nothing")), None);
}
