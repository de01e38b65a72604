//! Sets of completion indexes, kept as intervals and written as upstream writes them: `1,3-5,7`. Pure.

/// A set of indexes: disjoint intervals, both ends included, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Indexes(Vec<(i32, i32)>);

impl Indexes {
    /// Reads what a status or a policy says; what is not below `completions`, or no number, is left out.
    #[must_use]
    pub(super) fn parse(text: &str, completions: i32) -> Self {
        let mut set = Self::default();
        for part in text.split(',').filter(|p| !p.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>())
                && first >= 0
                && first < completions
            {
                set.add(first, last.min(completions - 1));
            }
        }
        set
    }

    pub(super) fn add(&mut self, mut first: i32, mut last: i32) {
        if last < first {
            return;
        }
        let from = self.0.partition_point(|(_, l)| l.saturating_add(1) < first);
        let to = self.0.partition_point(|(f, _)| *f <= last.saturating_add(1));
        if from < to {
            first = first.min(self.0[from].0);
            last = last.max(self.0[to - 1].1);
        }
        self.0.splice(from..to, [(first, last)]);
    }

    pub(super) fn insert(&mut self, index: i32) {
        self.add(index, index);
    }

    /// Whether the index is in it.
    #[must_use]
    pub(super) fn has(&self, index: i32) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < index);
        self.0.get(at).is_some_and(|(first, _)| *first <= index)
    }

    /// How many there are.
    #[must_use]
    pub(super) fn total(&self) -> i32 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// How many of another set's are in it.
    #[must_use]
    pub(super) fn shared(&self, other: &Self) -> i32 {
        let overlap = |(a, b): &(i32, i32)| -> i32 {
            self.0.iter().map(|(c, d)| (b.min(d) - a.max(c) + 1).max(0)).sum()
        };
        other.0.iter().map(overlap).sum()
    }

    #[must_use]
    pub(super) fn with(mut self, other: &Self) -> Self {
        other.0.iter().for_each(|(first, last)| self.add(*first, *last));
        self
    }

    /// The lowest `count` indexes below `completions` that are not in it.
    #[must_use]
    pub(super) fn lowest_missing(&self, count: usize, completions: i32) -> Vec<i32> {
        let mut missing = Vec::new();
        let mut next = 0;
        for (first, last) in self.0.iter().copied().chain([(completions, completions)]) {
            while next < first.min(completions) && missing.len() < count {
                missing.push(next);
                next += 1;
            }
            next = last.saturating_add(1);
        }
        missing
    }
}

impl std::fmt::Display for Indexes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, (first, last)) in self.0.iter().enumerate() {
            f.write_str(if at > 0 { "," } else { "" })?;
            match last - first {
                0 => write!(f, "{first}")?,
                1 => write!(f, "{first},{last}")?,
                _ => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn what_upstream_writes() {
        for text in ["", "0", "0,1", "0-2", "1,3-5,7", "3,4,8-10"] {
            assert_eq!(Indexes::parse(text, 20).to_string(), text);
        }
        assert_eq!(Indexes::parse("1,3-9,12", 6).to_string(), "1,3-5");
        assert_eq!(Indexes::parse("x,2,-3", 6).to_string(), "2");
        assert_eq!(Indexes::parse("0-99999", 100_000).total(), 100_000);
    }

    proptest! {
        #[test]
        fn is_a_set(a in proptest::collection::vec(0..40, 0..30), b in proptest::collection::vec(0..40, 0..30), count in 0_usize..50) {
            let of = |v: &[i32]| v.iter().fold(Indexes::default(), |mut s, i| { s.insert(*i); s });
            let (sa, sb) = (a.iter().copied().collect::<BTreeSet<_>>(), b.iter().copied().collect::<BTreeSet<_>>());
            let (ia, ib) = (of(&a), of(&b));
            prop_assert_eq!(ia.total() as usize, sa.len());
            prop_assert_eq!(ia.shared(&ib) as usize, sa.intersection(&sb).count());
            prop_assert!((0..40).all(|i| ia.has(i) == sa.contains(&i)));
            prop_assert_eq!(&Indexes::parse(&ia.to_string(), 40), &ia);
            let missing: Vec<i32> = (0..40).filter(|i| !sa.contains(i)).take(count).collect();
            prop_assert_eq!(ia.lowest_missing(count, 40), missing);
            let both = ia.with(&ib);
            prop_assert!((0..40).all(|i| both.has(i) == (sa.contains(&i) || sb.contains(&i))));
        }
    }
}
