//! How much a device has of something, and how a part of it may be asked for.

use std::collections::BTreeSet;

use super::parts::fits;
use crate::{quantity::Quantity, resources::validate::cursor::Cursor};

/// Amounts that one capacity may be had in.
const OPTIONS_MAX: usize = 10;

fn amount(place: Cursor<'_>) -> Option<Quantity> {
    let text = place.if_set()?.value;
    let text = text.as_str().map_or_else(|| text.to_string(), str::to_owned);
    Quantity::parse(&text).ok()
}

/// A capacity of a device; only of one that several claims may share can parts be asked for.
pub(super) fn capacity(capacity: Cursor<'_>, shared: bool) {
    let Some(policy) = capacity.field("requestPolicy").if_set() else { return };
    let (options, range) = (policy.field("validValues"), policy.field("validRange"));
    let most = amount(capacity.field("value")).unwrap_or_else(Quantity::zero);
    let default = policy.field("default");
    match (options.values().is_empty(), range.is_set()) {
        _ if !shared => policy.forbidden("allowMultipleAllocations must be true"),
        (false, true) => policy.forbidden(
            "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time",
        ),
        (true, false) => {}
        (false, false) => match amount(default) {
            Some(default) => one_of(options, &default, &most),
            None => default.missing("required when validValues is defined"),
        },
        (true, true) => match amount(default) {
            Some(default) => between(range, &default, &most),
            None => default.missing("required when validRange is defined"),
        },
    }
}

fn one_of(options: Cursor<'_>, default: &Quantity, most: &Quantity) {
    let amounts: Vec<Option<Quantity>> = options.items().map(amount).collect();
    for (at, pair) in amounts.windows(2).enumerate() {
        if let [Some(before), Some(after)] = pair
            && before > after
        {
            options.item(at + 1).invalid_value(after.to_string(), "values must be sorted in ascending order");
        }
    }
    let mut found = false;
    if fits(options, OPTIONS_MAX) {
        let each = || options.items().zip(&amounts).filter_map(|(at, amount)| Some((at, amount.as_ref()?)));
        for (option, amount) in each() {
            if amount > most {
                let why = format!("option is larger than capacity value: {most}");
                option.invalid_value(amount.to_string(), why);
            }
            found |= amount == default;
        }
        let mut seen = BTreeSet::new();
        for (option, amount) in each().filter(|(_, amount)| !seen.insert(amount.value())) {
            option.duplicate_value(amount.value().to_string(), "");
        }
    }
    if !found {
        options
            .invalid_value(default.to_string(), "default value is not valid according to the requestPolicy");
    }
}

fn between(range: Cursor<'_>, default: &Quantity, most: &Quantity) {
    let [min_at, max_at, step_at] = ["min", "max", "step"].map(|key| range.field(key));
    let Some(min) = amount(min_at) else { return min_at.missing("required when validRange is defined") };
    if min > *most {
        min_at.invalid_value(min.to_string(), format!("min is larger than capacity value: {most}"));
    }
    if *default < min {
        min_at.invalid_value(default.to_string(), format!("default is less than min: {min}"));
    }
    let max = amount(max_at);
    if let Some(max) = &max {
        if min > *max {
            max_at.invalid_value(min.to_string(), format!("min is larger than max: {max}"));
        }
        if max > most {
            max_at.invalid_value(max.to_string(), format!("max is larger than capacity value: {most}"));
        }
        if default > max {
            max_at.invalid_value(default.to_string(), format!("default is more than max: {max}"));
        }
    }
    let Some(step) = amount(step_at) else { return };
    let one = min.add(&step);
    if one > *most {
        let why = format!("one step {one} is larger than capacity value: {most}");
        step_at.invalid_value(step.to_string(), why);
    }
    for value in [Some(default), max.as_ref()].into_iter().flatten() {
        let past = value.value().wrapping_sub(min.value());
        // Upstream divides by nothing, too, and fails; here such a step is met by the least amount alone.
        if past.checked_rem(step.value()).unwrap_or(past) != 0 {
            let why = format!("value is not a multiple of a given step ({step}) from ({min})");
            step_at.invalid_value(value.to_string(), why);
        }
    }
}
