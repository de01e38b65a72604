//! The core group's smaller kinds.

use serde_json::Value;

use super::{cursor::Cursor, meta};
use crate::{
    access::{Fields, Get as _},
    goformat::go_quote,
    names,
};

/// What fits in a config map or secret, all values together.
const SIZE_MAX: usize = 1024 * 1024;
const FROZEN: &str = "field is immutable when `immutable` is set";

/// Bytes of a base64 text once decoded.
fn decoded_len(text: &str) -> usize {
    let padding = text.bytes().rev().take_while(|b| *b == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

pub(super) fn config_map(map: Cursor<'_>) {
    let mut size = 0;
    let binary = map.map("binaryData");
    for (key, value) in map.field("data").entries() {
        value.format_of(key, names::config_map_key);
        if binary.is_some_and(|binary| binary.contains_key(key)) {
            value.invalid_value(key, "duplicate of key present in binaryData");
        }
        size += value.str().len();
    }
    for (key, value) in map.field("binaryData").entries() {
        value.format_of(key, names::config_map_key);
        size += decoded_len(value.str());
    }
    if size > SIZE_MAX {
        // Upstream's path here has an empty name, which prints as brackets.
        map.field("[]").too_long(SIZE_MAX);
    }
}

pub(super) fn config_map_update(map: Cursor<'_>) {
    frozen(map, &["data", "binaryData"]);
}

/// Once an object is declared immutable, neither that nor its data changes back.
fn frozen<'v>(object: Cursor<'v>, keys: &[&'v str]) {
    if !object.old.flag("immutable") {
        return;
    }
    if !object.flag("immutable") {
        object.field("immutable").forbidden(FROZEN);
    }
    keys.iter()
        .map(|key| object.field(key))
        .filter(|field| field.changed())
        .for_each(|f| f.forbidden(FROZEN));
}

pub(super) fn secret(secret: Cursor<'_>) {
    let data = secret.field("data");
    let mut size = 0;
    for (key, value) in data.entries() {
        value.format_of(key, names::config_map_key);
        size += decoded_len(value.str());
    }
    if size > SIZE_MAX {
        data.too_long(SIZE_MAX);
    }
    let needs = |keys: &[&'static str]| {
        keys.iter().map(|key| data.key(key)).filter(|value| !value.is_set()).for_each(|v| v.missing(""));
    };
    match secret.text("type") {
        "kubernetes.io/service-account-token" => {
            secret.field("metadata.annotations").key("kubernetes.io/service-account.name").required();
        }
        "kubernetes.io/dockercfg" => docker(data.key(".dockercfg")),
        "kubernetes.io/dockerconfigjson" => docker(data.key(".dockerconfigjson")),
        "kubernetes.io/basic-auth" if !data.has("username") && !data.has("password") => {
            needs(&["username", "password"]);
        }
        "kubernetes.io/ssh-auth" => {
            data.key("ssh-privatekey").required();
        }
        "kubernetes.io/tls" => needs(&["tls.crt", "tls.key"]),
        _ => {}
    }
}

fn docker(config: Cursor<'_>) {
    use base64::Engine as _;
    if !config.is_set() {
        return config.missing("");
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(config.str()).unwrap_or_default();
    if let Err(error) = serde_json::from_slice::<Fields>(&bytes) {
        config.invalid_value("<secret contents redacted>", error.to_string());
    }
}

pub(super) fn secret_update(secret: Cursor<'_>) {
    frozen(secret, &["data"]);
}

/// Upstream leaves the index out of these paths.
pub(super) fn namespace_create(namespace: Cursor<'_>) {
    let finalizers = namespace.field("spec.finalizers");
    finalizers.items().for_each(|name| meta::finalizer_name(name.reported_at(finalizers)));
}

/// What holds for every node. Upstream has the taints below `metadata`.
pub(super) fn node(node: Cursor<'_>) {
    let place = node.field("metadata.taints");
    let taints = node.field("spec.taints").reported_at(place);
    for (index, taint) in taints.items().enumerate() {
        taint.field("key").qualified();
        taint.field("value").format_at_once(taint.text("value"), names::label_value, ";");
        taint.plain(&["effect"]);
        let id = |taint: &Value| (taint.text("key").to_owned(), taint.text("effect").to_owned());
        if taints.values().iter().take(index).any(|other| id(other) == id(taint.value)) {
            taint.duplicate_value(taint.value.clone(), "taints must be unique by key and effect pair");
        }
    }
    for amounts in [node.field("status.capacity"), node.field("status.allocatable")] {
        for (name, amount) in amounts.entries() {
            amount.reported_at(amounts.field(name)).integral(name);
        }
    }
    declared_features(node.field("status.declaredFeatures"));
}

fn declared_features(features: Cursor<'_>) {
    let names = features.strs();
    for (index, feature) in features.items().enumerate() {
        if let Some(detail) = feature_name(feature.str()) {
            feature.invalid(detail);
        }
        if let Some(next) = names.get(index + 1) {
            let after = features.item(index + 1);
            if *next == feature.str() {
                after.duplicate();
            } else if *next < feature.str() {
                after.invalid("list must be sorted alphabetically");
            }
        }
    }
}

/// What is wrong with a feature's name: `MyFeature` or `MyFeature/mySubFeature`.
fn feature_name(name: &str) -> Option<String> {
    let quoted = go_quote(name);
    if name.len() > 253 {
        return Some(format!("invalid feature name {quoted}: must be no more than 253 characters"));
    }
    let segment = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric());
    let valid = name.starts_with(|c: char| c.is_ascii_uppercase()) && name.split('/').all(segment);
    (!valid).then(|| {
        format!(
            "invalid feature name {quoted}: must start with an UpperCamelCase segment, with subsequent segments \
             separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters \
             and slashes"
        )
    })
}

/// Whether a list of addresses or networks has one of each family at most.
pub(super) fn one_a_family(list: &[&str]) -> bool {
    let sixes = list.iter().filter(|range| range.contains(':')).count();
    list.len() < 2 || (list.len() == 2 && sixes == 1)
}

/// The ranges of a new node's pods: one of each family at most.
pub(super) fn node_create(node: Cursor<'_>) {
    let ranges = node.field("spec.podCIDRs");
    ranges.items().for_each(|range| {
        range.cidr(&[]);
    });
    if !one_a_family(&ranges.strs()) {
        ranges.invalid("may specify no more than one CIDR for each IP family");
    }
}

pub(super) fn node_status(node: Cursor<'_>) {
    self::node(node);
    node_update(node);
}

pub(super) fn node_update(node: Cursor<'_>) {
    let addresses = node.field("status.addresses");
    for (index, address) in addresses.items().enumerate() {
        if addresses.values().iter().take(index).any(|other| other == address.value) {
            address.duplicate();
        }
    }
    let (ranges, before) = (node.field("spec.podCIDRs"), node.old.items("spec.podCIDRs"));
    let detail = "node updates may not change podCIDR except from \"\" to valid";
    if !before.is_empty() && ranges.values().len() != before.len() {
        ranges.forbidden(detail);
    } else {
        ranges.pairs().filter(|(new, old)| new != old).for_each(|_| ranges.forbidden(detail));
    }
    let id = node.field("spec.providerID");
    if id.old.as_str().is_some_and(|before| !before.is_empty() && before != id.str()) {
        id.forbidden("node updates may not change providerID except from \"\" to valid");
    }
    let id = node.field("spec.externalID");
    if id.changed() {
        id.forbidden("may not be updated");
    }
}

/// What a namespace's phase may be is whether it is being deleted.
pub(super) fn namespace_status(namespace: Cursor<'_>) {
    let phase = namespace.field("status.phase");
    let (wanted, detail) = if namespace.has("metadata.deletionTimestamp") {
        ("Terminating", "may only be 'Terminating' if `deletionTimestamp` is not empty")
    } else {
        ("Active", "may only be 'Active' if `deletionTimestamp` is empty")
    };
    if phase.str() != wanted {
        phase.named("status.Phase").invalid(detail);
    }
}

pub(super) fn namespace_finalize(namespace: Cursor<'_>) {
    namespace.each("spec.finalizers").for_each(|name| meta::finalizer_name(name));
}
