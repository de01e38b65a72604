//! Shuffle sharding: a flow's hash deals it a hand of distinct queues. Upstream: `apiserver/pkg/util/shufflesharding`.

/// `size` distinct numbers below `deck`, determined by `hash`. A hand larger than the deck is the whole deck.
pub(super) fn hand(hash: u64, deck: usize, size: usize) -> Vec<usize> {
    let mut cards: Vec<usize> = Vec::with_capacity(size.min(deck));
    let mut rest = hash;
    for dealt in 0..size.min(deck) {
        let left = u64::try_from(deck - dealt).unwrap_or(1);
        let mut card = usize::try_from(rest % left).unwrap_or_default();
        rest /= left;
        // The card-th of those not dealt yet.
        let mut sorted = cards.clone();
        sorted.sort_unstable();
        for taken in sorted {
            if card >= taken {
                card += 1;
            }
        }
        cards.push(card);
    }
    cards
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_hand_is_distinct_and_from_the_deck(hash: u64, deck in 1usize..200, size in 0usize..20) {
            let mut cards = hand(hash, deck, size);
            prop_assert_eq!(cards.len(), size.min(deck));
            prop_assert!(cards.iter().all(|c| *c < deck));
            cards.sort_unstable();
            cards.dedup();
            prop_assert_eq!(cards.len(), size.min(deck));
        }
    }
}
