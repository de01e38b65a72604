//! Claims, templates of claims, and classes.

use std::collections::BTreeSet;

use super::{
    parts::{distinct, fits, fully_qualified_name, keyed, raw},
    selector::{LIST_MAX, selectors},
    taints,
};
use crate::{
    names,
    resources::validate::{cursor::Cursor, meta, quantities::is_extended},
};

/// Alternatives of one request.
const ALTERNATIVES_MAX: usize = 8;
/// Bytes of what only a driver understands.
pub(super) const PARAMETERS_MAX: usize = 10 * 1024;
/// What a name that is none of a claim's requests is told.
const UNKNOWN: &str =
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

/// Names of a claim's requests, and of their alternatives behind a slash.
pub(super) type Requests = BTreeSet<String>;

pub(in super::super) fn claim(claim: Cursor<'_>) {
    device_claim(claim.field("spec.devices"));
}

pub(in super::super) fn claim_template(template: Cursor<'_>) {
    let metadata = template.field("spec").field("metadata");
    meta::annotations(metadata.field("annotations"));
    metadata.field("labels").labels();
    device_claim(template.field("spec.spec.devices"));
}

/// A claim's wishes are never changed, nor a template's.
pub(in super::super) fn fixed_spec(claim: Cursor<'_>) {
    claim.field("spec").immutable();
}

pub(in super::super) fn class(class: Cursor<'_>) {
    let spec = class.field("spec");
    selectors(spec.field("selectors"));
    let configs = spec.field("config");
    if fits(configs, LIST_MAX) {
        let kept = configs.is_update() && !configs.changed();
        configs.items().for_each(|config| configuration(config, kept));
    }
    if let Some(name) = spec.field("extendedResourceName").if_set()
        && !is_extended(name.str())
    {
        name.invalid("must be a valid extended resource name");
    }
}

/// The requests of `devices`, a claim's wishes.
pub(super) fn requests_of(devices: Cursor<'_>) -> Requests {
    let mut known = Requests::new();
    for request in devices.each("requests") {
        let own = request.text("name");
        known.insert(own.to_owned());
        known.extend(request.each("firstAvailable").map(|sub| format!("{own}/{}", sub.text("name"))));
    }
    known
}

fn device_claim(devices: Cursor<'_>) {
    keyed(devices.field("requests"), LIST_MAX, "name", request);
    let known = requests_of(devices);
    let constraints = devices.field("constraints");
    if fits(constraints, LIST_MAX) {
        constraints.items().for_each(|one| constraint(one, &known));
    }
    let configs = devices.field("config");
    if fits(configs, LIST_MAX) {
        for config in configs.items() {
            references(config.field("requests"), &known);
            configuration(config, false);
        }
    }
}

fn constraint(constraint: Cursor<'_>, known: &Requests) {
    references(constraint.field("requests"), known);
    let attribute = ["matchAttribute", "distinctAttribute"].into_iter().find(|key| constraint.has(key));
    match attribute {
        Some(key) => fully_qualified_name(constraint.field(key)),
        None => constraint.missing(
            "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set",
        ),
    }
}

/// Requests, by name.
pub(super) fn references(list: Cursor<'_>, known: &Requests) {
    distinct(list, LIST_MAX, |name| reference(name, known));
}

pub(super) fn reference(name: Cursor<'_>, known: &Requests) {
    if name.str().split('/').count() <= 2 {
        for part in name.str().split('/') {
            name.format_of(part, names::dns1123_label);
        }
    }
    if !known.contains(name.str()) {
        name.invalid(UNKNOWN);
    }
}

/// Settings for a driver; those that were there before may be of any size.
pub(super) fn configuration(config: Cursor<'_>, stored: bool) {
    let opaque = config.field("opaque");
    if !opaque.is_set() {
        return opaque.missing("");
    }
    opaque.field("driver").driver_name();
    raw(opaque.field("parameters"), PARAMETERS_MAX, stored);
}

fn request(request: Cursor<'_>) {
    request.field("name").label();
    let either = "exactly one of `exactly` or `firstAvailable` is required";
    match (request.has("exactly"), request.list("firstAvailable").is_empty()) {
        (true, true) => wish(request.field("exactly")),
        (false, false) => keyed(request.field("firstAvailable"), ALTERNATIVES_MAX, "name", |sub| {
            sub.field("name").label();
            wish(sub);
        }),
        (true, false) => {
            let why = format!("{either}, but multiple fields are set");
            request.invalid_value(serde_json::Value::Null, why);
        }
        (false, true) => request.missing(either),
    }
}

/// Of which class, and how many.
fn wish(wish: Cursor<'_>) {
    wish.field("deviceClassName").required_format(names::dns1123_subdomain);
    selectors(wish.field("selectors"));
    let (mode, count) = (wish.field("allocationMode"), wish.field("count"));
    match (mode.str(), wish.int("count")) {
        ("All", 0) | ("ExactCount", 1..) => {}
        ("All", number) => {
            count.invalid_value(number, "must not be specified when allocationMode is 'All'");
        }
        ("ExactCount", number) => count.invalid_value(number, "must be greater than zero"),
        _ => mode.unsupported(&["All", "ExactCount"]),
    }
    taints::tolerations(wish.field("tolerations"));
}
