//! What keeps claims away from devices, and who puts up with it.

use super::parts::{fits, pool_name};
use crate::{
    names,
    resources::validate::{cursor::Cursor, policy},
};

const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];
const TAINTS_MAX: usize = 16;
const TOLERATIONS_MAX: usize = 16;
/// Conditions of a rule's status.
const CONDITIONS_MAX: usize = 8;

pub(super) fn taints(taints: Cursor<'_>) {
    if fits(taints, TAINTS_MAX) {
        taints.items().for_each(taint);
    }
}

/// A taint; an effect that was there before stays.
fn taint(taint: Cursor<'_>) {
    taint.field("key").qualified();
    let (value, effect) = (taint.field("value"), taint.field("effect"));
    if !value.is_empty() {
        value.format(names::label_value);
    }
    if (taint.old.is_null() || effect.changed()) && effect.required() {
        effect.supported(&EFFECTS);
    }
}

pub(super) fn tolerations(tolerations: Cursor<'_>) {
    if fits(tolerations, TOLERATIONS_MAX) {
        tolerations.items().for_each(toleration);
    }
}

fn toleration(toleration: Cursor<'_>) {
    let (key, value) = (toleration.field("key"), toleration.field("value"));
    let (operator, effect) = (toleration.field("operator"), toleration.field("effect"));
    if !key.is_empty() {
        key.qualified();
    }
    match operator.str() {
        "Exists" if !value.is_empty() => value.invalid("must be empty for operator `Exists`"),
        "Exists" => {}
        "Equal" => {
            value.format(names::label_value);
        }
        "" => operator.missing(""),
        _ => operator.unsupported(&["Equal", "Exists"]),
    }
    effect.one_of(&EFFECTS);
}

pub(in super::super) fn rule(rule: Cursor<'_>) {
    let spec = rule.field("spec");
    let selector = spec.field("deviceSelector");
    if let Some(driver) = selector.field("driver").if_set() {
        driver.driver_name();
    }
    if let Some(pool) = selector.field("pool").if_set() {
        pool_name(pool);
    }
    if let Some(device) = selector.field("device").if_set() {
        device.label();
    }
    taint(spec.field("taint"));
}

pub(in super::super) fn rule_status(rule: Cursor<'_>) {
    let conditions = rule.field("status.conditions");
    policy::conditions(conditions);
    fits(conditions, CONDITIONS_MAX);
}
