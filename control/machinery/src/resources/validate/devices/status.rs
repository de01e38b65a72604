//! What was given for a claim.

use std::collections::{BTreeSet, HashSet};

use serde_json::Value;

use super::{
    claims::{PARAMETERS_MAX, Requests, configuration, reference, references, requests_of},
    parts::{binding_conditions, distinct, fits, keyed, pool_name, raw, share_id},
};
use crate::{
    access::Get as _,
    address::parse_cidr,
    goformat::go_quote,
    resources::validate::{cursor::Cursor, policy},
};

/// Who may use a claim at once.
const CONSUMERS_MAX: usize = 256;
const RESULTS_MAX: usize = 32;
/// Settings of the claim and of its classes together.
const CONFIG_MAX: usize = 64;
const CONDITIONS_MAX: usize = 8;
const ADDRESSES_MAX: usize = 16;
const INTERFACE_MAX: usize = 256;
const HARDWARE_ADDRESS_MAX: usize = 128;

/// Driver, pool, device and share.
type Id<'v> = [&'v str; 4];

fn id(device: &Value) -> Id<'_> {
    ["driver", "pool", "device", "shareID"].map(|part| device.text(part))
}

fn shown(id: Id<'_>) -> String {
    let [driver, pool, device, share] = id;
    let share = if share.is_empty() { String::new() } else { format!("/{share}") };
    format!("{driver}/{pool}/{device}{share}")
}

pub(in super::super) fn status(claim: Cursor<'_>) {
    let status = claim.field("status");
    let consumers = status.field("reservedFor");
    keyed(consumers, CONSUMERS_MAX, "uid", |consumer| {
        ["resource", "name", "uid"].into_iter().for_each(|key| {
            consumer.field(key).required();
        });
    });
    let allocation = status.field("allocation");
    let given: BTreeSet<Id<'_>> = allocation.list("devices.results").iter().map(id).collect();
    let mut seen = BTreeSet::new();
    status.each("devices").for_each(|device| device_status(device, &given));
    for device in status.each("devices").filter(|device| !seen.insert(id(device.value))) {
        device.duplicate_value(shown(id(device.value)), "");
    }
    if !consumers.values().is_empty() {
        if !allocation.is_set() {
            consumers.forbidden("may not be specified when `allocated` is not set");
        } else if claim.has("metadata.deletionTimestamp") && gains(consumers) {
            consumers.forbidden(
                "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set",
            );
        }
    }
    if allocation.is_set() {
        if allocation.old.is_null() {
            self::allocation(allocation, &requests_of(claim.field("spec.devices")));
        } else {
            allocation.immutable();
        }
    }
}

/// Whether a list has an item it had not before.
fn gains(list: Cursor<'_>) -> bool {
    let before: HashSet<String> =
        list.old.as_array().into_iter().flatten().map(ToString::to_string).collect();
    list.values().iter().any(|item| !before.contains(&item.to_string()))
}

fn allocation(allocation: Cursor<'_>, known: &Requests) {
    let devices = allocation.field("devices");
    let results = devices.field("results");
    if fits(results, RESULTS_MAX) {
        results.items().for_each(|one| result(one, known));
    }
    let configs = devices.field("config");
    if fits(configs, CONFIG_MAX) {
        for config in configs.items() {
            let source = config.field("source");
            if source.required() {
                source.supported(&["FromClaim", "FromClass"]);
            }
            references(config.field("requests"), known);
            configuration(config, false);
        }
    }
    if let Some(selector) = allocation.field("nodeSelector").if_set() {
        selector.node_selector();
    }
}

fn result(result: Cursor<'_>, known: &Requests) {
    reference(result.field("request"), known);
    names(result);
    binding_conditions(result);
    if let Some(share) = result.field("shareID").if_set() {
        share_id(share);
    }
}

/// Which device it is.
fn names(holder: Cursor<'_>) {
    holder.field("driver").driver_name();
    pool_name(holder.field("pool"));
    holder.field("device").label();
}

/// What a driver says of a device, which must be one that was given.
fn device_status(device: Cursor<'_>, given: &BTreeSet<Id<'_>>) {
    names(device);
    if let Some(share) = device.field("shareID").if_set() {
        share_id(share);
    }
    if !given.contains(&id(device.value)) {
        device.invalid_value(shown(id(device.value)), "must be an allocated device in the claim");
    }
    let conditions = device.field("conditions");
    fits(conditions, CONDITIONS_MAX);
    policy::conditions(conditions);
    if let Some(data) = device.field("data").if_set() {
        raw(data, PARAMETERS_MAX, false);
    }
    if let Some(network) = device.field("networkData").if_set() {
        network.field("interfaceName").bounded(INTERFACE_MAX);
        network.field("hardwareAddress").bounded(HARDWARE_ADDRESS_MAX);
        distinct(network.field("ips"), ADDRESSES_MAX, interface_address);
    }
}

/// An address with the length of its network's prefix, in its one canonical spelling.
fn interface_address(address: Cursor<'_>) {
    match parse_cidr(address.str()) {
        None => {
            address.invalid("must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)");
        }
        Some((ip, length)) => {
            let canonical = format!("{ip}/{length}");
            if address.str() != canonical {
                address.invalid(format!("must be in canonical form ({})", go_quote(&canonical)));
            }
        }
    }
}
