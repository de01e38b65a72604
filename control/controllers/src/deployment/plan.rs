//! How many replicas each of a deployment's replica sets should have. Pure.
//!
//! The rules are upstream's rolling update and proportional scaling (`pkg/controller/deployment/{rolling,sync}.go`).

use std::collections::BTreeMap;

/// What matters of a replica set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Set {
    pub name: String,
    /// `spec.replicas`.
    pub replicas: i32,
    /// `status.availableReplicas`.
    pub available: i32,
    /// Has the deployment's present template.
    pub new: bool,
    /// The greatest total its deployment had when it was scaled last (annotation `max-replicas`).
    pub max_replicas: Option<i32>,
    /// The deployment's size when the set was scaled last (annotation `desired-replicas`).
    pub desired: Option<i32>,
}

/// What matters of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rollout {
    /// `spec.replicas`.
    pub replicas: i32,
    /// How many more there may be meanwhile.
    pub surge: i32,
    /// How many may be missing meanwhile.
    pub unavailable: i32,
    /// Old pods go before new ones come.
    pub recreate: bool,
    /// `status.replicas`.
    pub shown: i32,
}

impl Rollout {
    /// The most replicas allowed at a time.
    #[must_use]
    pub(crate) fn most(&self) -> i32 {
        self.replicas + if self.recreate { 0 } else { self.surge }
    }
}

/// New sizes by name; sets that stay as they are are absent.
pub(crate) type Sizes = BTreeMap<String, i32>;

/// How large a new set is made.
#[must_use]
pub(crate) fn first_size(wanted: Rollout, sets: &[Set]) -> i32 {
    if wanted.recreate {
        return wanted.replicas;
    }
    let room = wanted.most() - total(sets);
    room.clamp(0, wanted.replicas)
}

fn total(sets: &[Set]) -> i32 {
    sets.iter().map(|s| s.replicas).sum()
}

/// One step of a rolling update: the new set grows as far as the surge allows; when it need not, old sets shrink as far as availability
/// allows, those that do not work first. `sets` are in order of creation.
#[must_use]
pub(crate) fn roll(wanted: Rollout, sets: &[Set]) -> Sizes {
    let mut sizes = Sizes::new();
    if let Some(new) = sets.iter().find(|s| s.new) {
        let size = if new.replicas > wanted.replicas {
            wanted.replicas
        } else {
            let room = (wanted.most() - total(sets)).max(0);
            (new.replicas + room).min(wanted.replicas)
        };
        if size != new.replicas {
            sizes.insert(new.name.clone(), size);
            return sizes;
        }
    }
    shrink_old(wanted, sets)
}

fn shrink_old(wanted: Rollout, sets: &[Set]) -> Sizes {
    let least = wanted.replicas - wanted.unavailable;
    let new_missing = sets.iter().filter(|s| s.new).map(|s| s.replicas - s.available).sum::<i32>();
    let mut may_go = total(sets) - least - new_missing;
    let mut sizes = Sizes::new();
    if may_go <= 0 {
        return sizes;
    }
    let mut old: Vec<Set> = sets.iter().filter(|s| !s.new && s.replicas > 0).cloned().collect();
    for set in &mut old {
        let broken = (set.replicas - set.available).clamp(0, may_go);
        set.replicas -= broken;
        may_go -= broken;
    }
    let available: i32 = sets.iter().map(|s| s.available).sum();
    let mut may_go = (available - least).max(0);
    for set in &mut old {
        let less = set.replicas.min(may_go);
        set.replicas -= less;
        may_go -= less;
    }
    for set in old {
        let before = sets.iter().find(|s| s.name == set.name).map(|s| s.replicas);
        if before != Some(set.replicas) {
            sizes.insert(set.name, set.replicas);
        }
    }
    sizes
}

/// The deployment's size changed, or it is paused: sets keep their proportions. `sets` are in order of creation.
#[must_use]
pub(crate) fn scale(wanted: Rollout, sets: &[Set]) -> Sizes {
    let mut sizes = Sizes::new();
    let active: Vec<&Set> = sets.iter().filter(|s| s.replicas > 0).collect();
    let newest = sets.iter().find(|s| s.new);
    // a single set with pods, or none: it takes the whole size
    if active.len() <= 1 {
        let only = active.first().copied().or(newest).or(sets.last());
        if let Some(set) = only.filter(|s| s.replicas != wanted.replicas) {
            sizes.insert(set.name.clone(), wanted.replicas);
        }
        return sizes;
    }
    // the new set does all the work already: what is left of the old goes
    if newest.is_some_and(|s| [Some(s.replicas), Some(s.available), s.desired] == [Some(wanted.replicas); 3])
    {
        sizes.extend(active.iter().filter(|s| !s.new).map(|s| (s.name.clone(), 0)));
        return sizes;
    }
    if !wanted.recreate {
        proportional(wanted, &active, &mut sizes);
    }
    sizes
}

fn proportional(wanted: Rollout, active: &[&Set], sizes: &mut Sizes) {
    let allowed = if wanted.replicas > 0 { wanted.most() } else { 0 };
    let mut left = allowed - active.iter().map(|s| s.replicas).sum::<i32>();
    if left == 0 {
        return;
    }
    let growing = left > 0;
    // the largest first; of equals the newest when growing, the oldest when shrinking
    let mut order: Vec<(usize, &Set)> = active.iter().copied().enumerate().collect();
    order.sort_by_key(|(age, s)| {
        (
            -s.replicas,
            if growing { -i64::try_from(*age).unwrap_or(0) } else { i64::try_from(*age).unwrap_or(0) },
        )
    });
    let mut result: Vec<(&Set, i32)> = Vec::new();
    for (_, set) in &order {
        let share = if left == 0 { 0 } else { fraction(set, wanted, allowed) };
        let share = if growing { share.clamp(0, left) } else { share.clamp(left, 0) };
        result.push((set, set.replicas + share));
        left -= share;
    }
    // what rounding left over goes to the largest
    if let Some((_, size)) = result.first_mut() {
        *size = (*size + left).max(0);
    }
    sizes.extend(
        result.into_iter().filter(|(s, size)| s.replicas != *size).map(|(s, size)| (s.name.clone(), size)),
    );
}

/// How much a set grows so that its part of the whole stays what it was.
fn fraction(set: &Set, wanted: Rollout, allowed: i32) -> i32 {
    if wanted.replicas == 0 {
        return -set.replicas;
    }
    let before = set.max_replicas.filter(|m| *m != 0).unwrap_or(wanted.shown);
    if before == 0 {
        return 0;
    }
    let exact = f64::from(set.replicas) * f64::from(allowed) / f64::from(before);
    #[allow(clippy::cast_possible_truncation, reason = "sizes are far below 2^31")]
    let rounded = exact.round() as i32;
    rounded - set.replicas
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(name: &str, replicas: i32, available: i32, new: bool) -> Set {
        Set { name: name.into(), replicas, available, new, max_replicas: None, desired: None }
    }

    fn wanted(replicas: i32, surge: i32, unavailable: i32) -> Rollout {
        Rollout { replicas, surge, unavailable, recreate: false, shown: 0 }
    }

    #[test]
    fn a_rollout_grows_then_shrinks() {
        let old = set("old", 10, 10, false);
        assert_eq!(first_size(wanted(10, 3, 2), std::slice::from_ref(&old)), 3);
        let sets = [old, set("new", 3, 0, true)];
        assert_eq!(roll(wanted(10, 3, 2), &sets), Sizes::from([("old".into(), 8)]));
        let sets = [set("old", 8, 8, false), set("new", 3, 0, true)];
        assert_eq!(roll(wanted(10, 3, 2), &sets), Sizes::from([("new".into(), 5)]));
    }

    #[test]
    fn broken_old_pods_go_first() {
        let sets = [set("broken", 3, 0, false), set("works", 8, 8, false), set("new", 2, 2, true)];
        let sizes = roll(wanted(10, 3, 0), &sets);
        assert_eq!(sizes, Sizes::from([("broken".into(), 0)]));
    }

    #[test]
    fn scaling_in_the_middle_of_a_rollout_keeps_proportions() {
        let with_max = |mut s: Set| {
            s.max_replicas = Some(13);
            s
        };
        let sets = [with_max(set("old", 8, 8, false)), with_max(set("new", 5, 2, true))];
        let sizes = scale(wanted(15, 3, 2), &sets);
        assert_eq!(sizes, Sizes::from([("old".into(), 11), ("new".into(), 7)]));
    }

    #[test]
    fn a_new_set_that_was_sized_for_another_deployment_size_must_not_end_the_old_ones() {
        let full = Set { desired: Some(5), ..set("new", 5, 5, true) };
        let old = set("old", 3, 3, false);
        assert_eq!(scale(wanted(5, 3, 0), &[old.clone(), full.clone()]), Sizes::from([("old".into(), 0)]));
        let stale = Set { desired: Some(8), ..full };
        assert_ne!(scale(wanted(5, 3, 0), &[old, stale]), Sizes::from([("old".into(), 0)]));
    }

    #[test]
    fn without_its_annotation_a_sets_share_is_of_what_the_status_shows() {
        let shared = |shown| fraction(&set("s", 4, 4, false), Rollout { shown, ..wanted(10, 0, 1) }, 10);
        assert_eq!(shared(8), 1);
        assert_eq!(shared(0), 0, "nothing to go by: no change");
    }

    proptest! {
        /// Whatever the start, stepping with pods that become available converges to the new set alone, never leaves the bounds.
        #[test]
        fn a_rollout_converges_within_its_bounds(replicas in 0i32..30, surge in 0i32..10, unavailable in 0i32..10, start in 0i32..40) {
            let unavailable = if surge == 0 { unavailable.max(1) } else { unavailable };
            let wanted = wanted(replicas, surge, unavailable);
            let mut sets = vec![set("old", start, start, false)];
            let size = first_size(wanted, &sets);
            sets.push(set("new", size, 0, true));
            for step in 0..500 {
                for s in &mut sets {
                    s.available = s.replicas;
                }
                let before = sets.clone();
                for (name, size) in roll(wanted, &sets) {
                    let s = sets.iter_mut().find(|s| s.name == name).unwrap();
                    prop_assert!(size >= 0);
                    s.available = s.available.min(size);
                    s.replicas = size;
                }
                let (total_before, total_now) = (total(&before), total(&sets));
                prop_assert!(total_now <= total_before.max(wanted.most()), "surge");
                let available: i32 = sets.iter().map(|s| s.available).sum();
                let available_before: i32 = before.iter().map(|s| s.available).sum();
                prop_assert!(available >= available_before.min(replicas - unavailable), "availability");
                if before == sets {
                    break;
                }
                prop_assert!(step < 499, "does not converge");
            }
            prop_assert_eq!(sets[1].replicas, replicas);
            prop_assert_eq!(sets[0].replicas, 0);
        }
    }
}
