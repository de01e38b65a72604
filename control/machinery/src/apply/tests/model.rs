//! Ownership after any order of writes through either of two versions, held against a model: the entries of a map, and who owns which.
//! What is `k` in v1 is `K` in v2.

use super::*;
use crate::custom::node::Custom;
use proptest::sample::select;
use std::collections::{BTreeMap, BTreeSet};

type Entries = BTreeMap<String, u8>;
/// A manager's name, whether it applies, and else the version it writes through.
type Who = (&'static str, bool, &'static str);

const KEYS: [&str; 4] = ["k", "l", "m", "n"];
static VERSIONS: [&str; 2] = ["apps/v1", "apps/v2"];

fn spelt(key: &str, version: &str) -> String {
    if version == VERSIONS[0] { key.to_lowercase() } else { key.to_uppercase() }
}

/// An object with its entries at a path, as they are spelt in a version.
fn respelt(object: &Value, path: &[&str], version: &str) -> Value {
    let mut object = object.clone();
    let entries = path.iter().try_fold(&mut object, |inner, name| inner.get_mut(name));
    if let Some(Value::Object(entries)) = entries {
        *entries = entries.iter().map(|(key, value)| (spelt(key, version), value.clone())).collect();
    }
    object
}

/// Both versions merge alike.
struct Both<'a, S> {
    structure: S,
    path: &'a [&'a str],
}

impl<S: Structure> Versions<S> for Both<'_, S> {
    fn structure(&self, version: &str) -> Option<S> {
        VERSIONS.contains(&version).then_some(self.structure)
    }

    fn objects(&self, objects: &[&Value], version: &str) -> Result<Vec<Value>, Halt> {
        Ok(objects.iter().map(|object| respelt(object, self.path, version)).collect())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Update,
    Apply,
    Force,
}

#[derive(Clone, Debug)]
struct Act {
    by: &'static str,
    through: &'static str,
    how: How,
    entries: Entries,
}

impl Act {
    fn who(&self) -> Who {
        match self.how {
            How::Update => (self.by, false, self.through),
            How::Apply | How::Force => (self.by, true, ""),
        }
    }
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
        let who = act.who();
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

    fn owners(&self) -> BTreeMap<Who, BTreeSet<String>> {
        self.owned
            .iter()
            .filter(|(_, keys)| !keys.is_empty())
            .map(|(who, keys)| (*who, keys.clone()))
            .collect()
    }
}

/// An object with these entries at a path.
fn whole(path: &[&str], entries: &Entries) -> Value {
    let entries = entries.iter().map(|(key, value)| (key.clone(), Value::from(value.to_string())));
    path.iter().rev().fold(Value::Object(entries.collect()), |inner, name| {
        Value::Object([((*name).to_owned(), inner)].into_iter().collect())
    })
}

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Who owns which entries at a path.
fn owned(path: &[&str], owners: &Managed) -> BTreeMap<Who, BTreeSet<String>> {
    let of = |entry: &managed::Entry| {
        let manager = &entry.manager;
        let has = |key: &str| {
            let key = spelt(key, &manager.api_version);
            let elements: Vec<String> =
                path.iter().chain([&key.as_str()]).map(|name| format!("f:{name}")).collect();
            entry.fields.has(&elements)
        };
        let one_of = |all: &[&'static str], name: &str| all.iter().find(|known| **known == name).copied();
        let through = one_of(&VERSIONS, &manager.api_version).filter(|_| !manager.applies);
        let name = one_of(&NAMES, &manager.name).unwrap_or_default();
        let keys: BTreeSet<String> =
            KEYS.iter().filter(|key| has(key)).map(|key| (*key).to_owned()).collect();
        ((name, manager.applies, through.unwrap_or_default()), keys)
    };
    let all = owners.entries().iter().map(of);
    all.filter(|(_, keys)| !keys.is_empty()).collect()
}

fn equals_the_model<S: Structure>(structure: S, path: &[&str], acts: &[Act]) -> Result<(), TestCaseError> {
    let (mut model, mut owners) = (Model::default(), Managed::default());
    let mut object = whole(path, &model.entries);
    let versions = Both { structure, path };
    for act in acts {
        let api_version = act.through.to_owned();
        let manager = Manager { applies: act.how != How::Update, api_version, ..applier(act.by) };
        let wanted = respelt(&whole(path, &act.entries), path, act.through);
        let live = respelt(&object, path, act.through);
        let goes = model.act(act);
        if act.how == How::Update {
            owners = super::super::update(structure, &live, &wanted, &owners, &write(&manager), &versions)
                .map_err(|halt| TestCaseError::fail(refusal(halt).message))?;
            object = respelt(&wanted, path, VERSIONS[0]);
        } else {
            let write = Write { force: act.how == How::Force, ..write(&manager) };
            let apply = |live: &Value, owners: &Managed| {
                super::super::apply(structure, live, &wanted, owners, &write, &versions).map_err(refusal)
            };
            match apply(&live, &owners) {
                Ok(applied) => {
                    prop_assert!(goes, "{act:?} conflicts");
                    let again = apply(&applied.object, &applied.managed);
                    prop_assert_eq!(again.map(|again| again.changed), Ok(false), "{:?} again", act);
                    (object, owners) = (respelt(&applied.object, path, VERSIONS[0]), applied.managed);
                }
                Err(conflict) => prop_assert!(!goes, "{act:?}: {}", conflict.message),
            }
        }
        prop_assert_eq!(&object, &whole(path, &model.entries), "{:?}", act);
        prop_assert_eq!(owned(path, &owners), model.owners(), "{:?}", act);
    }
    Ok(())
}

fn acts(versions: &'static [&'static str]) -> impl Strategy<Value = Vec<Act>> {
    let key = select(KEYS.to_vec()).prop_map(str::to_owned);
    let entries = proptest::collection::btree_map(key, 0..3_u8, 0..4);
    let how = select(vec![How::Update, How::Apply, How::Force]);
    let act = (select(NAMES.to_vec()), select(versions), how, entries);
    let act = act.prop_map(|(by, through, how, entries)| Act { by, through, how, entries });
    proptest::collection::vec(act, 1..12)
}

proptest! {
    #[test]
    fn ownership_in_any_order_must_not_differ_from_the_models(acts in acts(&VERSIONS[..1])) {
        let maps = Builtin::new(builtin(), builtin().named("v1", "ConfigMap").unwrap());
        equals_the_model(maps, &["data"], &acts)?;
        equals_the_model(deployment(), &["metadata", "labels"], &acts)?;
        equals_the_model(deployment(), &["spec", "template", "metadata", "annotations"], &acts)?;
        equals_the_model(Custom::Object(None), &["spec", "any"], &acts)?;
        equals_the_model(Deduced, &["spec"], &acts)?;
    }

    #[test]
    fn ownership_through_two_versions_must_not_differ_from_the_models(acts in acts(&VERSIONS)) {
        equals_the_model(deployment(), &["metadata", "labels"], &acts)?;
        equals_the_model(Custom::Object(None), &["spec", "any"], &acts)?;
    }
}
