//! Reasons of refusals.

use std::collections::BTreeSet;

/// A refusal's reason, as an event holds one. Reasons are few, and kept: upstream's words, and one a resource of the node
/// (`OutOfhugepages-2Mi`).
pub(super) fn kept(reason: &str) -> &'static str {
    static KEPT: parking_lot::Mutex<BTreeSet<&'static str>> = parking_lot::Mutex::new(BTreeSet::new());
    let mut all = KEPT.lock();
    let known = all.get(reason).copied();
    known.unwrap_or_else(|| {
        let reason: &'static str = Box::leak(reason.to_owned().into_boxed_str());
        all.insert(reason);
        reason
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_of_a_refusal_must_not_hide_its_reason() {
        for reason in ["OutOfcpu", "OutOfhugepages-2Mi", "OutOfexample.org/device"] {
            assert_eq!(kept(reason), reason);
            assert!(std::ptr::eq(kept(reason), kept(reason)), "kept once");
        }
    }
}
