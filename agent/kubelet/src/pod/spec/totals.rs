//! What a whole pod asks for, as its status says it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use machinery::totals::{Amounts, Asks, Resize};

pub use machinery::totals::Side;

/// The pod's total of one side.
pub fn of(pod: &Pod, side: Side) -> BTreeMap<String, Quantity> {
    quantities(Asks::of(pod, side, Resize::Ignored).total())
}

/// The same without the pod's overhead.
pub fn stated(pod: &Pod, side: Side) -> BTreeMap<String, Quantity> {
    quantities(Asks::of(pod, side, Resize::Ignored).stated())
}

fn quantities(sum: Amounts) -> BTreeMap<String, Quantity> {
    sum.into_iter().map(|(name, amount)| (name, Quantity(amount.canonical()))).collect()
}
