//! Requests for certificates, and bundles of those to trust.

use serde_json::Value;

use super::{Errors, meta, rules};
use crate::{
    field::{FieldError, Path},
    names,
    resources::access::{Get, same},
};

const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

const CONDITIONS: &str = "status.conditions";

/// What holds for every request; what `old` (null for a new request) got away with it may keep.
pub(super) fn signing_request(request: &Value, old: &Value, errors: &mut Errors) {
    use base64::Engine as _;
    let (path, spec, before) = (Path::new("spec"), request.at("spec"), old.at("spec"));
    let decoded = base64::engine::general_purpose::STANDARD.decode(spec.text("request")).unwrap_or_default();
    let pem = String::from_utf8_lossy(&decoded);
    if !pem.contains("-----BEGIN CERTIFICATE REQUEST-----") {
        let detail = "PEM block type must be CERTIFICATE REQUEST";
        errors.push(FieldError::invalid(&path.child("request"), spec.at("request").clone(), detail));
    }
    let usages = spec.items("usages");
    if usages.is_empty() {
        errors.push(FieldError::required(&path.child("usages"), ""));
    }
    let known = |usage: &Value| usage.as_str().is_some_and(|usage| USAGES.contains(&usage));
    let repeats = |list: &[Value], index: usize| list.iter().take(index).any(|u| Some(u) == list.get(index));
    let was = before.items("usages");
    let (was_unknown, was_repeated) =
        (!was.iter().all(known), (0..was.len()).any(|index| repeats(was, index)));
    for (index, usage) in usages.iter().enumerate().filter(|(_, usage)| !was_unknown && !known(usage)) {
        errors.push(FieldError::not_supported(&path.child("usages").index(index), usage.clone(), USAGES));
    }
    for (index, usage) in
        usages.iter().enumerate().filter(|(index, _)| !was_repeated && repeats(usages, *index))
    {
        errors.push(FieldError::duplicate(&path.child("usages").index(index), usage.clone()));
    }
    let (signer, signer_path) = (spec.text("signerName"), path.child("signerName"));
    if signer == LEGACY_SIGNER && before.text("signerName") != LEGACY_SIGNER {
        let detail = "the legacy signerName is not allowed via this API version";
        errors.push(FieldError::invalid(&signer_path, signer, detail));
    } else {
        signer_name(&signer_path, signer, errors);
    }
    if let Some(seconds) = spec.int("expirationSeconds").filter(|seconds| *seconds < 600) {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.push(FieldError::invalid(&path.child("expirationSeconds"), seconds, detail));
    }
    conditions(request, old, errors);
    let certificate = request.text("status.certificate");
    if certificate != old.text("status.certificate")
        && let Some(detail) = bad_certificate(certificate)
        && bad_certificate(old.text("status.certificate")).is_none()
    {
        let path = Path::from("status.certificate");
        errors.push(FieldError::invalid(&path, "<certificate data>", detail));
    }
}

const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";

/// What is wrong with the certificates a signer wrote, as far as their armour shows it.
fn bad_certificate(encoded: &str) -> Option<String> {
    use base64::Engine as _;
    if encoded.is_empty() {
        return None;
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap_or_default();
    let text = String::from_utf8_lossy(&decoded);
    let mut blocks = 0;
    for line in text.lines() {
        let kind = line.trim_end().strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----"));
        match kind {
            Some("CERTIFICATE") => blocks += 1,
            Some(kind) => {
                let kind = crate::goformat::go_quote(kind);
                return Some(format!("only CERTIFICATE PEM blocks are allowed, found {kind}"));
            }
            None => {}
        }
    }
    (blocks == 0).then(|| "must contain at least one CERTIFICATE PEM block".to_owned())
}

fn conditions(request: &Value, old: &Value, errors: &mut Errors) {
    let (path, list, before) = (Path::from(CONDITIONS), request.items(CONDITIONS), old.items(CONDITIONS));
    let has = |list: &[Value], kind: &str| list.iter().any(|condition| condition.text("type") == kind);
    let repeated = |list: &[Value], index: usize| {
        let kind = list.get(index).map(|condition| condition.text("type")).unwrap_or_default();
        list.iter().take(index).any(|condition| condition.text("type") == kind)
    };
    let was_both = has(before, "Approved") && has(before, "Denied");
    let was_repeated = (0..before.len()).any(|index| repeated(before, index));
    let was_empty = has(before, "");
    for (index, condition) in list.iter().enumerate() {
        let (path_of, kind) = (path.index(index), condition.text("type"));
        if !was_empty {
            rules::required(&path_of.child("type"), kind, errors);
        }
        let decided = matches!(kind, "Approved" | "Denied" | "Failed");
        let allowed: &[&str] = if decided { &["True"] } else { &["False", "True", "Unknown"] };
        match condition.text("status") {
            "" => errors.push(FieldError::required(&path_of.child("status"), "")),
            status if !allowed.contains(&status) => {
                errors.push(FieldError::not_supported(&path_of.child("status"), status, allowed));
            }
            _ => {}
        }
        let earlier = list.get(..index).unwrap_or_default();
        let other = if kind == "Approved" { "Denied" } else { "Approved" };
        if !was_both && matches!(kind, "Approved" | "Denied") && has(earlier, other) {
            let detail = "Approved and Denied conditions are mutually exclusive";
            errors.push(FieldError::invalid(&path, kind, detail));
        }
        if !was_repeated && repeated(list, index) {
            errors.push(FieldError::duplicate(&path_of.child("type"), kind));
        }
    }
}

/// Who may write what of a request: the object itself, its approval, or its status.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Request,
    Approval,
    Status,
}

pub(super) fn signing_request_update(new: &Value, old: &Value, errors: &mut Errors) {
    changed(new, old, Part::Request, errors);
}

pub(super) fn signing_request_approval(new: &Value, old: &Value, errors: &mut Errors) {
    signing_request(new, old, errors);
    changed(new, old, Part::Approval, errors);
}

pub(super) fn signing_request_status(new: &Value, old: &Value, errors: &mut Errors) {
    signing_request(new, old, errors);
    changed(new, old, Part::Status, errors);
}

/// A decision is not taken back, and only its own subresource takes it.
fn changed(new: &Value, old: &Value, part: Part, errors: &mut Errors) {
    let path = Path::from(CONDITIONS);
    let of = |request: &Value, kind: &str| -> Vec<Value> {
        let list = request.items(CONDITIONS).iter();
        list.filter(|condition| condition.text("type") == kind).cloned().collect()
    };
    for kind in ["Approved", "Denied", "Failed"] {
        if of(new, kind).len() < of(old, kind).len() {
            let detail = format!("updates may not remove a condition of type \"{kind}\"");
            errors.push(FieldError::forbidden(&path, detail));
        }
    }
    for kind in ["Approved", "Denied"].into_iter().filter(|_| part != Part::Approval) {
        let (now, before) = (of(new, kind), of(old, kind));
        let detail = match now.len().cmp(&before.len()) {
            std::cmp::Ordering::Greater => format!("updates may not add a condition of type \"{kind}\""),
            std::cmp::Ordering::Equal if !same(&now.clone().into(), &before.clone().into()) => {
                let lines = super::pod::changed(&now.into(), &before.into());
                format!("updates may not modify a condition of type \"{kind}\"\n{lines}")
            }
            _ => continue,
        };
        errors.push(FieldError::forbidden(&path, detail));
    }
    let certificate = old.text("status.certificate");
    if new.text("status.certificate") != certificate {
        let path = Path::from("status.certificate");
        if part != Part::Status {
            errors.push(FieldError::forbidden(&path, "updates may not set certificate content"));
        } else if !certificate.is_empty() {
            errors.push(FieldError::forbidden(&path, "updates may not modify existing certificate content"));
        }
    }
}

/// Longest name of a signer: a domain, a slash, and room for a label and a subdomain.
const SIGNER_MAX: usize = 253 + 1 + 63 + 1 + 253;

fn signer_name(path: &Path, name: &str, errors: &mut Errors) {
    if !rules::required(path, name, errors) {
        return;
    }
    let Some((domain, rest)) = name.split_once('/').filter(|(_, rest)| !rest.contains('/')) else {
        let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        errors.push(FieldError::invalid(path, name, detail));
        return;
    };
    if domain.len() > 253 {
        errors.push(FieldError::too_long(path, 253));
    }
    type Rule = fn(&str) -> Vec<String>;
    let mut labels = |part: &str, rule: Rule| {
        let bad = part.split('.').map(|label| (label, rule(label))).find(|(_, found)| !found.is_empty());
        for (label, message) in bad.iter().flat_map(|(label, found)| found.iter().map(move |m| (label, m))) {
            let detail = format!("validating label {}: {message}", crate::goformat::go_quote(label));
            errors.push(FieldError::invalid(path, part, detail));
        }
    };
    labels(domain, names::dns1123_label);
    labels(rest, names::dns1123_subdomain);
    if !domain.contains('.') {
        let detail = "should be a domain with at least two segments separated by dots";
        errors.push(FieldError::invalid(path, domain, detail));
    }
    if name.len() > SIGNER_MAX {
        errors.push(FieldError::too_long(path, SIGNER_MAX));
    }
}

/// Most bytes of a bundle.
const BUNDLE_MAX: usize = 1024 * 1024;

/// Certificates to trust; those `old` (null for a new bundle) has are not judged again.
pub(super) fn trust_bundle(bundle: &Value, old: &Value, errors: &mut Errors) {
    let (signer, name) = (bundle.text("spec.signerName"), bundle.text("metadata.name"));
    rules::text(&Path::from("metadata.name"), name, bundle_name(signer, name), errors);
    if !signer.is_empty() {
        signer_name(&Path::from("spec.signerName"), signer, errors);
    }
    let (text, path) = (bundle.text("spec.trustBundle"), Path::from("spec.trustBundle"));
    if !old.is_null() && text == old.text("spec.trustBundle") {
        return;
    }
    if text.len() > BUNDLE_MAX {
        errors.push(FieldError::too_long(&path, BUNDLE_MAX));
        return;
    }
    let kinds =
        text.lines().filter_map(|line| line.trim_end().strip_prefix("-----BEGIN ")?.strip_suffix("-----"));
    let mut entries = 0;
    let before = errors.len();
    for (index, kind) in kinds.enumerate() {
        entries += 1;
        if kind != "CERTIFICATE" {
            let detail = format!("entry {index} has bad block type: {kind}");
            errors.push(FieldError::invalid(&path, "<value omitted>", detail));
        }
    }
    if entries == 0 && errors.len() == before {
        let detail = "at least one trust anchor must be provided";
        errors.push(FieldError::invalid(&path, "<value omitted>", detail));
    }
}

/// A signer's bundle bears its name in front.
fn bundle_name(signer: &str, name: &str) -> Vec<String> {
    if signer.is_empty() {
        if name.contains(':') {
            return vec!["ClusterTrustBundle without signer name must not have \":\" in its name".to_owned()];
        }
        return names::dns1123_subdomain(name);
    }
    let prefix = format!("{}:", signer.replace('/', ":"));
    match name.strip_prefix(prefix.as_str()) {
        None => {
            vec![format!("ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}")]
        }
        Some(rest) => names::dns1123_subdomain(rest),
    }
}

pub(super) fn trust_bundle_update(new: &Value, old: &Value, errors: &mut Errors) {
    let key = "spec.signerName";
    rules::immutable(&Path::from(key), new.at(key), old.at(key), errors);
}

/// Lives of pods' certificates, in seconds: the shortest, Kubernetes' own signers' longest, everybody's longest.
const LIFE_MIN: i64 = 3600;
const LIFE_MAX_KUBERNETES: i64 = 24 * 3600;
const LIFE_MAX: i64 = 91 * 24 * 3600;

pub(super) fn pod_certificate_request(request: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::new("spec"), request.at("spec"));
    let signer = spec.text("signerName");
    signer_name(&path.child("signerName"), signer, errors);
    if let Some(given) = spec.fields("unverifiedUserAnnotations") {
        let path = path.child("unverifiedUserAnnotations");
        for key in given.keys() {
            rules::domain_key(&path, key, errors);
        }
        meta::annotations_size(&path, spec.at("unverifiedUserAnnotations"), errors);
    }
    for (name, uid) in
        [("podName", "podUID"), ("serviceAccountName", "serviceAccountUID"), ("nodeName", "nodeUID")]
    {
        rules::subdomain(&path.child(name), spec.text(name), errors);
        let value = spec.text(uid);
        if value.is_empty() {
            errors.push(FieldError::invalid(&path.child(uid), value, "must not be empty"));
        }
        if value.len() > 128 {
            errors.push(FieldError::too_long(&path.child(uid), 128));
        }
    }
    let life_path = path.child("maxExpirationSeconds");
    let Some(life) = spec.int("maxExpirationSeconds") else {
        errors.push(FieldError::required(&life_path, "must be set"));
        return;
    };
    let kubernetes = signer
        .split('/')
        .next()
        .is_some_and(|domain| domain == "kubernetes.io" || domain.ends_with(".kubernetes.io"));
    let longest = if kubernetes { LIFE_MAX_KUBERNETES } else { LIFE_MAX };
    if !(LIFE_MIN..=longest).contains(&life) {
        let detail = format!("must be in the range [{LIFE_MIN}, {longest}]");
        errors.push(FieldError::invalid(&life_path, life, detail));
    }
    let given = |key: &str| !spec.text(key).is_empty();
    let stub = given("stubPKCS10Request") && !given("pkixPublicKey") && !given("proofOfPossession");
    let key = !given("stubPKCS10Request") && given("pkixPublicKey") && given("proofOfPossession");
    if !stub && !key {
        let detail = "exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set";
        errors.push(FieldError { bad_value: None, ..FieldError::invalid(&path, Value::Null, detail) });
    }
}

pub(super) fn pod_certificate_request_update(new: &Value, old: &Value, errors: &mut Errors) {
    rules::immutable(&Path::new("spec"), new.at("spec"), old.at("spec"), errors);
}
