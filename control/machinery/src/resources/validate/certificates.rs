//! Requests for certificates, and bundles of those to trust.

use std::cmp::Ordering;

use serde_json::Value;

use super::{cursor::Cursor, difference, meta};
use crate::{
    access::{Get as _, same},
    goformat::go_quote,
    names,
    schema::Format,
};

/// Whether an entry of a list stands in it before.
fn repeats<T: PartialEq>(list: &[T], index: usize) -> bool {
    list.iter().take(index).any(|other| Some(other) == list.get(index))
}

fn repeats_any<T: PartialEq>(list: &[T]) -> bool {
    (0..list.len()).any(|index| repeats(list, index))
}

/// What holds for every request; what it got away with before it may keep.
pub(super) fn signing_request(request: Cursor<'_>) {
    use base64::Engine as _;
    let spec = request.field("spec");
    let decoded = base64::engine::general_purpose::STANDARD.decode(spec.text("request")).unwrap_or_default();
    if !String::from_utf8_lossy(&decoded).contains("-----BEGIN CERTIFICATE REQUEST-----") {
        spec.field("request").invalid("PEM block type must be CERTIFICATE REQUEST");
    }
    usages(spec.field("usages"));
    let signer = spec.field("signerName");
    if signer.str() == LEGACY_SIGNER && signer.old != LEGACY_SIGNER {
        signer.invalid("the legacy signerName is not allowed via this API version");
    } else {
        signer_name(signer);
    }
    let seconds = spec.field("expirationSeconds");
    if seconds.number().is_some_and(|seconds| seconds < 600) {
        seconds.invalid("may not specify a duration less than 600 seconds (10 minutes)");
    }
    conditions(request.field("status.conditions"));
    let certificate = request.field("status.certificate");
    if certificate.changed()
        && let Some(detail) = bad_certificate(certificate.str())
        && bad_certificate(certificate.old.as_str().unwrap_or_default()).is_none()
    {
        certificate.invalid_value("<certificate data>", detail);
    }
}

fn usages(usages: Cursor<'_>) {
    usages.required();
    let known = usages.enumeration();
    let was_known = usages.old_strs().iter().all(|usage| known.contains(usage));
    if was_known {
        usages.items().for_each(Cursor::enumerated);
    }
    if !repeats_any(&usages.old_strs()) {
        for (index, usage) in usages.items().enumerate() {
            if repeats(usages.values(), index) {
                usage.duplicate();
            }
        }
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
                let kind = go_quote(kind);
                return Some(format!("only CERTIFICATE PEM blocks are allowed, found {kind}"));
            }
            None => {}
        }
    }
    (blocks == 0).then(|| "must contain at least one CERTIFICATE PEM block".to_owned())
}

fn conditions(conditions: Cursor<'_>) {
    let kinds: Vec<&str> = conditions.items().map(|condition| condition.text("type")).collect();
    let old: Vec<&str> = conditions.old.items("").iter().map(|condition| condition.text("type")).collect();
    let was_both = old.contains(&"Approved") && old.contains(&"Denied");
    let was_repeated = repeats_any(&old);
    for (index, condition) in conditions.items().enumerate() {
        let (kind, status) = (condition.field("type"), condition.field("status"));
        if !old.contains(&"") {
            kind.required();
        }
        if status.required() {
            match kind.str() {
                "Approved" | "Denied" | "Failed" => status.one_of(&["True"]),
                _ => status.enumerated(),
            }
        }
        let other = if kind.str() == "Approved" { "Denied" } else { "Approved" };
        let decided = matches!(kind.str(), "Approved" | "Denied");
        if !was_both && decided && kinds.iter().take(index).any(|kind| *kind == other) {
            let detail = "Approved and Denied conditions are mutually exclusive";
            conditions.invalid_value(kind.str(), detail);
        }
        if !was_repeated && repeats(&kinds, index) {
            kind.duplicate();
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

pub(super) fn signing_request_update(request: Cursor<'_>) {
    changed(request, Part::Request);
}

pub(super) fn signing_request_approval(request: Cursor<'_>) {
    signing_request(request);
    changed(request, Part::Approval);
}

pub(super) fn signing_request_status(request: Cursor<'_>) {
    signing_request(request);
    changed(request, Part::Status);
}

/// A decision is not taken back, and only its own subresource takes it.
fn changed(request: Cursor<'_>, part: Part) {
    let conditions = request.field("status.conditions");
    let of = |list: &Value, kind: &str| -> Vec<Value> {
        list.items("").iter().filter(|condition| condition.text("type") == kind).cloned().collect()
    };
    for kind in ["Approved", "Denied", "Failed"] {
        if of(conditions.value, kind).len() < of(conditions.old, kind).len() {
            conditions.forbidden(format!("updates may not remove a condition of type \"{kind}\""));
        }
    }
    for kind in ["Approved", "Denied"].into_iter().filter(|_| part != Part::Approval) {
        let (now, before) = (of(conditions.value, kind), of(conditions.old, kind));
        match now.len().cmp(&before.len()) {
            Ordering::Greater => {
                conditions.forbidden(format!("updates may not add a condition of type \"{kind}\""));
            }
            Ordering::Equal if !same(&now.clone().into(), &before.clone().into()) => {
                let lines = difference::changed(&now.into(), &before.into());
                conditions
                    .forbidden(format!("updates may not modify a condition of type \"{kind}\"\n{lines}"));
            }
            _ => {}
        }
    }
    let certificate = request.field("status.certificate");
    if certificate.changed() {
        if part != Part::Status {
            certificate.forbidden("updates may not set certificate content");
        } else if certificate.old.as_str().is_some_and(|before| !before.is_empty()) {
            certificate.forbidden("updates may not modify existing certificate content");
        }
    }
}

/// Longest name of a signer: a domain, a slash, and room for a label and a subdomain.
const SIGNER_MAX: usize = 253 + 1 + 63 + 1 + 253;

fn signer_name(name: Cursor<'_>) {
    if !name.required() {
        return;
    }
    let Some((domain, rest)) = name.str().split_once('/').filter(|(_, rest)| !rest.contains('/')) else {
        let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return name.invalid(detail);
    };
    if domain.len() > 253 {
        name.too_long(253);
    }
    let parts: [(&str, Format); 2] = [(domain, names::dns1123_label), (rest, names::dns1123_subdomain)];
    for (part, rule) in parts {
        let bad = part.split('.').map(|label| (label, rule(label))).find(|(_, found)| !found.is_empty());
        for (label, message) in bad.iter().flat_map(|(label, found)| found.iter().map(move |m| (label, m))) {
            name.invalid_value(part, format!("validating label {}: {message}", go_quote(label)));
        }
    }
    if !domain.contains('.') {
        name.invalid_value(domain, "should be a domain with at least two segments separated by dots");
    }
    name.bounded(SIGNER_MAX);
}

/// Most bytes of a bundle.
const BUNDLE_MAX: usize = 1024 * 1024;

/// Certificates to trust; those a bundle had before are not judged again.
pub(super) fn trust_bundle(bundle: Cursor<'_>) {
    let (signer, name) = (bundle.field("spec.signerName"), bundle.field("metadata.name"));
    for message in bundle_name(signer.str(), name.str()) {
        name.invalid(message);
    }
    if !signer.is_empty() {
        signer_name(signer);
    }
    let anchors = bundle.field("spec.trustBundle");
    if bundle.is_update() && !anchors.changed() {
        return;
    }
    if anchors.str().len() > BUNDLE_MAX {
        return anchors.too_long(BUNDLE_MAX);
    }
    let lines = anchors.str().lines();
    let kinds: Vec<&str> =
        lines.filter_map(|line| line.trim_end().strip_prefix("-----BEGIN ")?.strip_suffix("-----")).collect();
    for (index, kind) in kinds.iter().enumerate().filter(|(_, kind)| **kind != "CERTIFICATE") {
        anchors.invalid_value("<value omitted>", format!("entry {index} has bad block type: {kind}"));
    }
    if kinds.is_empty() {
        anchors.invalid_value("<value omitted>", "at least one trust anchor must be provided");
    }
}

/// The name of a signer's bundle begins with the signer's.
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

/// Lives of pods' certificates, in seconds: the shortest, Kubernetes' own signers' longest, everybody's longest.
const LIFE_MIN: i64 = 3600;
const LIFE_MAX_KUBERNETES: i64 = 24 * 3600;
const LIFE_MAX: i64 = 91 * 24 * 3600;

pub(super) fn pod_certificate_request(request: Cursor<'_>) {
    let spec = request.field("spec");
    let signer = spec.field("signerName");
    signer_name(signer);
    let annotations = spec.field("unverifiedUserAnnotations");
    for (key, _) in annotations.entries() {
        domain_key(annotations, key);
    }
    meta::annotations_size(annotations);
    for (name, uid) in
        [("podName", "podUID"), ("serviceAccountName", "serviceAccountUID"), ("nodeName", "nodeUID")]
    {
        spec.field(name).subdomain();
        let uid = spec.field(uid);
        if uid.is_empty() {
            uid.invalid("must not be empty");
        }
        uid.bounded(128);
    }
    let life = spec.field("maxExpirationSeconds");
    let Some(seconds) = life.number() else { return life.missing("must be set") };
    let domain = signer.str().split('/').next().unwrap_or_default();
    let kubernetes = domain == "kubernetes.io" || domain.ends_with(".kubernetes.io");
    let longest = if kubernetes { LIFE_MAX_KUBERNETES } else { LIFE_MAX };
    if !(LIFE_MIN..=longest).contains(&seconds) {
        life.invalid(format!("must be in the range [{LIFE_MIN}, {longest}]"));
    }
    let given =
        ["stubPKCS10Request", "pkixPublicKey", "proofOfPossession"].map(|key| !spec.field(key).is_empty());
    if !matches!(given, [true, false, false] | [false, true, true]) {
        let detail = "exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set";
        spec.invalid_unshown(detail);
    }
}

/// A key below a domain, as `example.com/key`.
fn domain_key(map: Cursor<'_>, key: &str) {
    if key.is_empty() {
        map.missing("");
    } else if map.format_of(key, names::qualified_name) && key.split('/').count() != 2 {
        map.invalid_value(key, "must be a domain-prefixed key (such as \"acme.io/foo\")");
    }
}
