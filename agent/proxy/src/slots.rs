//! Which endpoint holds which slot. A front with n endpoints has slots 0..n, each endpoint exactly one, so shares are even;
//! a change moves as few endpoints as possible, so that it costs as few map elements as possible.

use std::collections::BTreeSet;

/// The new slots: survivors keep theirs, newcomers fill holes, then the last ones move down into what holes are left.
#[must_use]
pub(crate) fn assign<T: Ord + Clone>(old: &[T], wanted: &BTreeSet<T>) -> Vec<T> {
    let mut seen = BTreeSet::new();
    let mut slots: Vec<Option<T>> =
        old.iter().map(|e| (wanted.contains(e) && seen.insert(e.clone())).then(|| e.clone())).collect();
    let mut newcomers = wanted.difference(&seen);
    for slot in &mut slots {
        if slot.is_none() {
            *slot = newcomers.next().cloned();
        }
    }
    slots.extend(newcomers.cloned().map(Some));
    let mut at = 0;
    while at < slots.len() {
        if slots[at].is_none() {
            slots.swap_remove(at);
        } else {
            at += 1;
        }
    }
    slots.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_endpoint_has_one_slot_and_few_move(old in proptest::collection::btree_set(0u8..40, 0..20), new in proptest::collection::btree_set(0u8..40, 0..20)) {
            let before = assign(&[], &old);
            let after = assign(&before, &new);
            prop_assert_eq!(after.len(), new.len());
            prop_assert_eq!(&after.iter().copied().collect::<BTreeSet<_>>(), &new);
            let touched = (0..before.len().max(after.len())).filter(|i| before.get(*i) != after.get(*i)).count();
            let added = new.difference(&old).count();
            let removed = old.difference(&new).count();
            // each removal costs at most its slot and the slot of the one that moves in
            prop_assert!(touched <= added + 2 * removed, "touched {touched}, added {added}, removed {removed}");
            prop_assert_eq!(assign(&after, &new), after);
        }
    }
}
