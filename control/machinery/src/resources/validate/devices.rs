//! Claims of devices, and the devices there are (upstream: `pkg/apis/resource/validation`).
//!
//! Not judged here: expressions of selectors, what a claim's status says, and what a device is beside its name.

use std::collections::BTreeSet;

use crate::{names, resources::validate::cursor::Cursor};

/// Requests, constraints, configurations or selectors of one holder.
const LIST_MAX: usize = 32;
/// Alternatives of one request.
const ALTERNATIVES_MAX: usize = 8;
/// Devices of one slice.
const DEVICES_MAX: usize = 128;
/// Bytes of an expression.
const EXPRESSION_MAX: usize = 10 * 1024;

pub(super) fn claim(claim: Cursor<'_>) {
    device_claim(claim.field("spec.devices"));
}

pub(super) fn claim_template(template: Cursor<'_>) {
    device_claim(template.field("spec.spec.devices"));
}

/// A claim's wishes are never changed, nor a template's.
pub(super) fn fixed_spec(claim: Cursor<'_>) {
    claim.field("spec").immutable();
}

/// False, and said, where there are more items than there may be: they are not looked at then.
fn fits(list: Cursor<'_>, max: usize) -> bool {
    let count = list.values().len();
    if count > max {
        list.too_many(count, max);
    }
    count <= max
}

/// A list whose items have names of their own.
fn named(list: Cursor<'_>, max: usize, check: impl Fn(Cursor<'_>)) {
    if !fits(list, max) {
        return;
    }
    list.items().for_each(check);
    let mut seen = BTreeSet::new();
    for item in list.items().filter(|item| !seen.insert(item.text("name"))) {
        item.duplicate_value(item.text("name"), "");
    }
}

fn device_claim(devices: Cursor<'_>) {
    let requests = devices.field("requests");
    named(requests, LIST_MAX, request);
    let mut known = BTreeSet::new();
    for request in requests.items() {
        let own = request.text("name");
        known.insert(own.to_owned());
        known.extend(request.each("firstAvailable").map(|sub| format!("{own}/{}", sub.text("name"))));
    }
    let constraints = devices.field("constraints");
    if fits(constraints, LIST_MAX) {
        for constraint in constraints.items() {
            references(constraint.field("requests"), &known);
            if !constraint.has("matchAttribute") && !constraint.has("distinctAttribute") {
                constraint.missing(
                    "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set",
                );
            }
        }
    }
    let configs = devices.field("config");
    if fits(configs, LIST_MAX) {
        for config in configs.items() {
            references(config.field("requests"), &known);
            configuration(config);
        }
    }
}

fn references(list: Cursor<'_>, known: &BTreeSet<String>) {
    if !fits(list, LIST_MAX) {
        return;
    }
    let unknown = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    let mut seen = BTreeSet::new();
    for name in list.items() {
        if name.str().split('/').count() <= 2 {
            for part in name.str().split('/') {
                name.format_of(part, names::dns1123_label);
            }
        }
        if !known.contains(name.str()) {
            name.invalid(unknown);
        }
    }
    for name in list.items().filter(|name| !seen.insert(name.str())) {
        name.duplicate();
    }
}

fn configuration(config: Cursor<'_>) {
    let opaque = config.field("opaque");
    if !opaque.is_set() {
        return opaque.missing("");
    }
    opaque.field("driver").driver_name();
}

fn request(request: Cursor<'_>) {
    request.field("name").label();
    let either = "exactly one of `exactly` or `firstAvailable` is required";
    match (request.has("exactly"), request.list("firstAvailable").is_empty()) {
        (true, true) => wish(request.field("exactly")),
        (false, false) => named(request.field("firstAvailable"), ALTERNATIVES_MAX, |sub| {
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
}

fn selectors(selectors: Cursor<'_>) {
    if !fits(selectors, LIST_MAX) {
        return;
    }
    for cel in selectors.items().map(|selector| selector.field("cel")) {
        if cel.is_set() {
            cel.field("expression").bounded(EXPRESSION_MAX);
        } else {
            cel.missing("");
        }
    }
}

pub(super) fn class(class: Cursor<'_>) {
    selectors(class.field("spec.selectors"));
    let configs = class.field("spec.config");
    if fits(configs, LIST_MAX) {
        configs.items().for_each(configuration);
    }
}

pub(super) fn slice(slice: Cursor<'_>) {
    let spec = slice.field("spec");
    spec.field("driver").driver_name();
    let pool = spec.field("pool.name");
    if pool.required() {
        pool.bounded(253);
        for part in pool.str().split('/') {
            pool.format_of(part, names::dns1123_subdomain);
        }
    }
    let count = spec.field("pool.resourceSliceCount");
    if count.number().unwrap_or_default() <= 0 {
        count.invalid("must be greater than zero");
    }
    let generation = spec.field("pool.generation");
    if generation.number().is_some_and(|generation| generation < 0) {
        generation.invalid("must be greater than or equal to zero");
    }
    if spec.is_update() {
        ["pool.name", "driver", "nodeName"].into_iter().for_each(|path| spec.field(path).immutable());
    }
    nodes(spec);
    if spec.has("sharedCounters") && spec.has("devices") {
        spec.invalid_value("", "only one of `sharedCounters` or `devices` is allowed");
    }
    named(spec.field("devices"), DEVICES_MAX, |device| {
        device.field("name").label();
    });
}

/// The nodes a slice's devices can be reached from are said in one way.
fn nodes(spec: Cursor<'_>) {
    let mut set = Vec::new();
    if let Some(node) = spec.field("nodeName").if_set() {
        if node.is_empty() {
            node.invalid("must be either unset or set to a non-empty string");
        } else {
            set.push("`nodeName`");
            node.subdomain();
        }
    }
    if let Some(selector) = spec.field("nodeSelector").if_set() {
        set.push("`nodeSelector`");
        selector.node_selector();
        let terms = selector.field("nodeSelectorTerms");
        if terms.values().len() != 1 {
            terms.invalid("must have exactly one node selector term");
        }
    }
    for (key, shown) in [("allNodes", "`allNodes`"), ("perDeviceNodeSelection", "`perDeviceNodeSelection`")] {
        match spec.field(key).if_set() {
            Some(_) if spec.flag(key) => set.push(shown),
            Some(unset) => unset.invalid("must be either unset or set to true"),
            None => {}
        }
    }
    let one = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match set.len() {
        0 => spec.missing(one),
        1 => {}
        _ => {
            let why = format!("{one}, but multiple fields are set");
            spec.invalid_value(format!("{{{}}}", set.join(", ")), why);
        }
    }
}
