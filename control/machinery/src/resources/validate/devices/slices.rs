//! The devices a driver offers.

use serde_json::Value;

use super::{
    capacity::capacity,
    parts::{binding_conditions, keyed, pool_name, qualified_name},
    taints,
};
use crate::{
    access::{Get as _, same},
    names,
    resources::validate::cursor::Cursor,
};

/// Devices of one slice, and of one whose devices have taints, shared counters or lists.
const DEVICES_MAX: usize = 128;
const ADVANCED_MAX: usize = 64;
const COUNTER_SETS_MAX: usize = 8;
const COUNTERS_MAX: usize = 32;
/// Sets of counters that one device uses up.
const CONSUMED_MAX: usize = 2;
/// Attributes and capacities of one device together, and the attributes' values.
const NAMES_MAX: usize = 32;
const VALUES_MAX: usize = 48;
/// Bytes of an attribute's text.
const TEXT_MAX: usize = 64;
/// Ways to give an attribute's value.
const SCALARS: [&str; 4] = ["bool", "int", "string", "version"];
const LISTS: [&str; 4] = ["bools", "ints", "strings", "versions"];

pub(in super::super) fn slice(slice: Cursor<'_>) {
    let spec = slice.field("spec");
    spec.field("driver").driver_name();
    pool_name(spec.field("pool.name"));
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
    let devices = spec.field("devices");
    let most = if devices.values().iter().any(is_advanced) { ADVANCED_MAX } else { DEVICES_MAX };
    let apart = spec.flag("perDeviceNodeSelection");
    keyed(devices, most, "name", |one| {
        let before = spec.old.items("devices").iter().find(|old| old.text("name") == one.text("name"));
        device(one, before, apart);
    });
    keyed(spec.field("sharedCounters"), COUNTER_SETS_MAX, "name", counter_set);
}

/// Whether fewer devices like this one may be in a slice.
fn is_advanced(device: &Value) -> bool {
    let lists = |attribute: &Value| LISTS.iter().any(|key| attribute.has(key));
    !device.items("taints").is_empty()
        || !device.items("consumesCounters").is_empty()
        || device.fields("attributes").is_some_and(|attributes| attributes.values().any(lists))
}

fn counter_set(set: Cursor<'_>) {
    set.field("name").required_format(names::dns1123_label);
    counters(set.field("counters"));
}

fn consumption(consumption: Cursor<'_>) {
    consumption.field("counterSet").required_format(names::dns1123_label);
    counters(consumption.field("counters"));
}

fn counters(counters: Cursor<'_>) {
    let count = counters.entries().count();
    if count == 0 {
        counters.missing("");
    } else if count > COUNTERS_MAX {
        counters.too_many(count, COUNTERS_MAX);
    } else {
        for (name, _) in counters.entries() {
            counters.format_of(name, names::dns1123_label);
        }
    }
}

/// A device, and what it was before; `apart` where each device says from where it is reached.
fn device(device: Cursor<'_>, before: Option<&Value>, apart: bool) {
    device.field("name").label();
    let (attributes, capacities) = (device.field("attributes"), device.field("capacity"));
    let count = attributes.entries().count() + capacities.entries().count();
    if count > NAMES_MAX {
        let why = format!("the total number of attributes and capacities must not exceed {NAMES_MAX}");
        device.invalid_value(count, why);
    }
    let values: usize = attributes.entries().map(|(_, attribute)| values_of(attribute)).sum();
    if values > VALUES_MAX {
        let why = format!("the total number of attribute values must not exceed {VALUES_MAX}");
        device.invalid_value(values, why);
    }
    for (name, one) in attributes.entries() {
        qualified_name(attributes, name);
        attribute(one);
    }
    for (name, one) in capacities.entries() {
        qualified_name(capacities, name);
        capacity(one, device.flag("allowMultipleAllocations"));
    }
    if before.is_none_or(|old| !same(old.at("taints"), device.at("taints"))) {
        taints::taints(device.field("taints"));
    }
    keyed(device.field("consumesCounters"), CONSUMED_MAX, "counterSet", consumption);
    if apart {
        own_nodes(device);
    } else if ["nodeName", "nodeSelector", "allNodes"].into_iter().any(|key| device.has(key)) {
        device.invalid_value(
            Value::Null,
            "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the \
             ResourceSlice spec",
        );
    }
    binding_conditions(device);
}

/// How many values an attribute has: its items, or itself.
fn values_of(attribute: Cursor<'_>) -> usize {
    LISTS.iter().map(|key| attribute.list(key).len()).sum::<usize>().max(1)
}

fn attribute(attribute: Cursor<'_>) {
    let mut given = SCALARS.iter().filter(|key| attribute.has(key)).count();
    if let Some(text) = attribute.field("string").if_set() {
        text.bounded(TEXT_MAX);
    }
    if let Some(version) = attribute.field("version").if_set() {
        self::version(version);
    }
    for list in LISTS.into_iter().filter_map(|key| attribute.field(key).if_set()) {
        given += 1;
        if list.values().is_empty() {
            list.invalid("must not be empty if specified");
        }
    }
    attribute.each("strings").for_each(|text| text.bounded(TEXT_MAX));
    attribute.each("versions").for_each(version);
    match given {
        0 => attribute.invalid_value("", "exactly one value must be specified"),
        1 => {}
        _ => attribute.invalid("exactly one value must be specified"),
    }
}

fn version(version: Cursor<'_>) {
    if !is_semantic_version(version.str()) {
        version.invalid("must be a string compatible with semver.org spec 2.0.0");
    }
    version.bounded(TEXT_MAX);
}

/// `1.2.3`, with `-alpha.1` and `+build.5` behind it or without: numbers have no leading zeros, but in what is built.
fn is_semantic_version(text: &str) -> bool {
    let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
    let (core, release) = text.split_once('-').map_or((text, None), |(core, release)| (core, Some(release)));
    let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let canonical = |part: &str| part == "0" || !part.starts_with('0');
    let core: Vec<&str> = core.split('.').collect();
    core.len() == 3
        && core.iter().all(|part| word(part) && digits(part) && canonical(part))
        && release.is_none_or(|release| {
            release.split('.').all(|part| word(part) && (!digits(part) || canonical(part)))
        })
        && build.is_none_or(|build| build.split('.').all(word))
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
        set.extend(only_true(spec.field(key)).then_some(shown));
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

/// The same of one device, whose slice leaves it to the devices.
fn own_nodes(device: Cursor<'_>) {
    let mut set = Vec::new();
    if let Some(node) = device.field("nodeName").if_set() {
        if node.is_empty() {
            node.invalid("must not be empty");
        } else {
            set.push("`nodeName`");
            node.subdomain();
        }
    }
    if let Some(selector) = device.field("nodeSelector").if_set() {
        set.push("`nodeSelector`");
        selector.node_selector();
    }
    set.extend(only_true(device.field("allNodes")).then_some("`allNodes`"));
    let one = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to \
               true in the ResourceSlice spec";
    match set.len() {
        0 => device.missing(one),
        1 => {}
        _ => device.invalid_value(format!("{{{}}}", set.join(", ")), one),
    }
}

/// Whether a choice is made; one that says no is refused.
fn only_true(choice: Cursor<'_>) -> bool {
    if choice.value == &Value::Bool(false) {
        choice.invalid("must be either unset or set to true");
    }
    choice.value == &Value::Bool(true)
}

#[cfg(test)]
mod tests {
    use super::is_semantic_version;

    #[test]
    fn a_version_that_others_cannot_compare_must_not_be_an_attribute() {
        for fine in ["1.2.3", "0.0.0", "1.2.3-alpha.1", "1.2.3-0a+b.01", "10.20.30+5", "1.0.0--"] {
            assert!(is_semantic_version(fine), "{fine}");
        }
        for odd in ["1.2", "v1.2.3", "1.02.3", "1.2.3-01", "1.2.3-", "1.2.3+", "1.2.3-a..b", "", "1.2.3+a+b"]
        {
            assert!(!is_semantic_version(odd), "{odd}");
        }
    }
}
