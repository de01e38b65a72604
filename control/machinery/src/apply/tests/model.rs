//! Ownership after any order of writes, held against a model: the entries of a map, and who owns which.

use super::*;
use crate::custom::node::Custom;
use proptest::sample::select;
use std::collections::{BTreeMap, BTreeSet};

type Entries = BTreeMap<String, u8>;
/// A manager's name, and whether it applies.
type Who = (&'static str, bool);

const KEYS: [&str; 4] = ["k", "l", "m", "n"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Update,
    Apply,
    Force,
}

#[derive(Clone, Debug)]
struct Act {
    by: &'static str,
    how: How,
    entries: Entries,
}

#[derive(Debug, Default)]
struct Model {
    entries: Entries,
    owned: BTreeMap<Who, BTreeSet<String>>,
}

impl Model {
    fn lose(&mut self, keys: &BTreeSet<String>, but: Option<Who>) {
        for (_, owned) in self.owned.iter_mut().filter(|(who, _)| Some(**who) != but) {
            owned.retain(|key| !keys.contains(key));
        }
    }

    /// What an act makes of the entries: an update puts its own in their place, an apply keeps what others own and it never had.
    fn next(&self, who: Who, act: &Act) -> Entries {
        let mut next = act.entries.clone();
        if act.how == How::Update {
            return next;
        }
        let owns = |who: &Who, key: &String| self.owned.get(who).is_some_and(|keys| keys.contains(key));
        for (key, value) in &self.entries {
            let is_anothers = self.owned.keys().any(|other| *other != who && owns(other, key));
            if is_anothers || !owns(&who, key) {
                next.entry(key.clone()).or_insert(*value);
            }
        }
        next
    }

    /// False where it conflicts with another owner.
    fn act(&mut self, act: &Act) -> bool {
        let who = (act.by, act.how != How::Update);
        let next = self.next(who, act);
        let changed: BTreeSet<String> = next
            .iter()
            .filter(|(key, value)| self.entries.get(*key) != Some(*value))
            .map(|(key, _)| key.clone())
            .collect();
        let removed: BTreeSet<String> =
            self.entries.keys().filter(|key| !next.contains_key(*key)).cloned().collect();
        let is_anothers = self.owned.iter().any(|(other, keys)| *other != who && !keys.is_disjoint(&changed));
        if act.how == How::Apply && is_anothers {
            return false;
        }
        self.lose(&changed, Some(who));
        self.lose(&removed, None);
        let own = self.owned.entry(who).or_default();
        match act.how {
            How::Update => own.extend(changed),
            How::Apply | How::Force => *own = act.entries.keys().cloned().collect(),
        }
        self.entries = next;
        true
    }

    fn owners(&self) -> BTreeMap<(String, bool), BTreeSet<String>> {
        let some = self.owned.iter().filter(|(_, keys)| !keys.is_empty());
        some.map(|((name, applies), keys)| (((*name).to_owned(), *applies), keys.clone())).collect()
    }
}

/// An object with these entries at a path.
fn whole(path: &[&str], entries: &Entries) -> Value {
    let entries = entries.iter().map(|(key, value)| (key.clone(), Value::from(value.to_string())));
    path.iter().rev().fold(Value::Object(entries.collect()), |inner, name| {
        Value::Object([((*name).to_owned(), inner)].into_iter().collect())
    })
}

/// Who owns which entries at a path.
fn owned(path: &[&str], owners: &Managed) -> BTreeMap<(String, bool), BTreeSet<String>> {
    let of = |entry: &managed::Entry| {
        let has = |key: &str| {
            let elements: Vec<String> = path.iter().chain([&key]).map(|name| format!("f:{name}")).collect();
            entry.fields.has(&elements)
        };
        let keys: BTreeSet<String> =
            KEYS.iter().filter(|key| has(key)).map(|key| (*key).to_owned()).collect();
        ((entry.manager.name.clone(), entry.manager.applies), keys)
    };
    let all = owners.entries().iter().map(of);
    all.filter(|(_, keys)| !keys.is_empty()).collect()
}

fn equals_the_model<S: Structure>(structure: S, path: &[&str], acts: &[Act]) -> Result<(), TestCaseError> {
    let (mut model, mut owners) = (Model::default(), Managed::default());
    let mut object = whole(path, &model.entries);
    for act in acts {
        let manager = Manager { applies: act.how != How::Update, ..applier(act.by) };
        let wanted = whole(path, &act.entries);
        let goes = model.act(act);
        if act.how == How::Update {
            owners = update(structure, &object, &wanted, &owners, &write(&manager));
            object = wanted;
        } else {
            let write = Write { force: act.how == How::Force, ..write(&manager) };
            match apply(structure, &object, &wanted, &owners, &write) {
                Ok(applied) => {
                    prop_assert!(goes, "{act:?} conflicts");
                    let again = apply(structure, &applied.object, &wanted, &applied.managed, &write);
                    prop_assert_eq!(again.map(|again| again.changed), Ok(false), "{:?} again", act);
                    (object, owners) = (applied.object, applied.managed);
                }
                Err(conflict) => prop_assert!(!goes, "{act:?}: {}", conflict.message),
            }
        }
        prop_assert_eq!(&object, &whole(path, &model.entries), "{:?}", act);
        prop_assert_eq!(owned(path, &owners), model.owners(), "{:?}", act);
    }
    Ok(())
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let key = select(KEYS.to_vec()).prop_map(str::to_owned);
    let entries = proptest::collection::btree_map(key, 0..3_u8, 0..4);
    let how = select(vec![How::Update, How::Apply, How::Force]);
    let act = (select(vec!["a", "b", "c"]), how, entries);
    proptest::collection::vec(act.prop_map(|(by, how, entries)| Act { by, how, entries }), 1..12)
}

proptest! {
    #[test]
    fn ownership_in_any_order_must_not_differ_from_the_models(acts in acts()) {
        let maps = Builtin::new(builtin(), builtin().named("v1", "ConfigMap").unwrap());
        equals_the_model(maps, &["data"], &acts)?;
        equals_the_model(deployment(), &["metadata", "labels"], &acts)?;
        equals_the_model(deployment(), &["spec", "template", "metadata", "annotations"], &acts)?;
        equals_the_model(Custom::Object(None), &["spec", "any"], &acts)?;
        equals_the_model(Deduced, &["spec"], &acts)?;
    }
}
