//! The order of a list merged item by item (upstream: structured-merge-diff's `mergingWalker.visitListItems`).

use std::collections::HashSet;

/// Where the next item of a merged list comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Take {
    /// The item of the live list at this place, which the configuration does not name.
    Live(usize),
    /// The item of the configuration at this place, merged with the live one where there is one.
    Config(usize),
}

/// The configuration's items keep its order; a live item it does not name stays behind the last one that stood before
/// it, and in front of every item that is new.
pub(super) fn merged(live: &[&str], config: &[&str]) -> Vec<Take> {
    let wanted: HashSet<&str> = config.iter().copied().collect();
    let known: HashSet<&str> = live.iter().copied().collect();
    let mut shared = config.iter().copied().filter(|item| known.contains(item)).peekable();
    let mut done: HashSet<&str> = HashSet::new();
    let mut out = Vec::with_capacity(live.len() + config.len());
    let (mut l, mut c) = (0, 0);
    loop {
        match (live.get(l), config.get(c)) {
            (None, None) => return out,
            (Some(old), _) if !wanted.contains(old) => {
                out.push(Take::Live(l));
                l += 1;
            }
            (Some(old), Some(new)) if old == new => {
                out.push(Take::Config(c));
                done.insert(new);
                shared.next();
                l += 1;
                c += 1;
            }
            // It is named too, but another one comes first.
            (Some(old), Some(_)) if shared.peek().is_some_and(|next| next != old) => l += 1,
            (old, Some(new)) => {
                l += usize::from(old.is_some_and(|old| done.contains(old)));
                out.push(Take::Config(c));
                done.insert(new);
                shared.next_if_eq(new);
                c += 1;
            }
            (Some(_), None) => l += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letters(text: &str) -> Vec<&str> {
        text.split("").filter(|letter| !letter.is_empty()).collect()
    }

    fn order(live: &str, config: &str) -> String {
        let (live, config): (Vec<&str>, Vec<&str>) = (letters(live), letters(config));
        merged(&live, &config)
            .into_iter()
            .map(|take| match take {
                Take::Live(i) => live[i],
                Take::Config(i) => config[i],
            })
            .collect()
    }

    #[test]
    fn items_the_configuration_does_not_name_stay_where_they_are() {
        for (live, config, want) in [
            ("xby", "bn", "xbyn"),
            ("", "ab", "ab"),
            ("ab", "", "ab"),
            ("ab", "c", "abc"),
            ("abc", "ca", "bca"),
            ("abc", "cab", "cab"),
            ("axbyc", "cba", "xycba"),
            ("abcd", "ea", "eabcd"),
        ] {
            assert_eq!(order(live, config), want, "{live} with {config}");
        }
    }
}
