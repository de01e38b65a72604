//! Ownership after create, put, patch and apply in any order, held against a model: the entries of an object's map, and who owns which.

use super::*;
use proptest::prelude::{Just, Strategy};
use proptest::sample::select;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use std::collections::{BTreeMap, BTreeSet};

/// None of a patch takes the entry away.
type Entries = BTreeMap<&'static str, Option<u8>>;
/// A manager's name, and whether it applies.
type Who = (&'static str, bool);

const KEYS: [&str; 4] = ["k", "l", "m", "n"];
/// Orders that are tried, each of so many writes at most.
const ORDERS: usize = 48;
const WRITES: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Put,
    Patch,
    Apply,
    Force,
}

#[derive(Clone, Debug)]
struct Act {
    by: &'static str,
    how: How,
    entries: Entries,
}

impl Act {
    fn who(&self) -> Who {
        (self.by, matches!(self.how, How::Apply | How::Force))
    }

    /// What it writes out; a patch's entries that go are not.
    fn written(&self) -> BTreeMap<&'static str, u8> {
        self.entries.iter().filter_map(|(key, value)| Some((*key, (*value)?))).collect()
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    entries: BTreeMap<&'static str, u8>,
    owned: BTreeMap<Who, BTreeSet<&'static str>>,
}

impl Model {
    fn owns(&self, who: Who, key: &str) -> bool {
        self.owned.get(&who).is_some_and(|keys| keys.contains(key))
    }

    fn next(&self, act: &Act) -> BTreeMap<&'static str, u8> {
        let mut next = act.written();
        let stays = |key: &'static str| match act.how {
            How::Put => false,
            How::Patch => !act.entries.contains_key(key),
            How::Apply | How::Force => {
                let others = self.owned.keys().any(|other| *other != act.who() && self.owns(*other, key));
                others || !self.owns(act.who(), key)
            }
        };
        for (key, value) in self.entries.iter().filter(|(key, _)| stays(key)) {
            next.entry(key).or_insert(*value);
        }
        next
    }

    /// The state after an act; none where it conflicts with another owner.
    fn after(&self, act: &Act) -> Option<Model> {
        let (who, next) = (act.who(), self.next(act));
        let changed: BTreeSet<&str> = next
            .iter()
            .filter(|(key, value)| self.entries.get(*key) != Some(value))
            .map(|(key, _)| *key)
            .collect();
        let is_anothers = self.owned.iter().any(|(other, keys)| *other != who && !keys.is_disjoint(&changed));
        if act.how == How::Apply && is_anothers {
            return None;
        }
        let mut owned = self.owned.clone();
        for (other, keys) in &mut owned {
            keys.retain(|key| next.contains_key(key) && (*other == who || !changed.contains(key)));
        }
        let own = owned.entry(who).or_default();
        match act.how {
            How::Put | How::Patch => own.extend(changed),
            How::Apply | How::Force => *own = act.written().into_keys().collect(),
        }
        owned.retain(|_, keys| !keys.is_empty());
        Some(Model { entries: next, owned })
    }
}

/// Where the map is in a kind of object.
struct Place {
    collection: &'static str,
    api_version: &'static str,
    kind: &'static str,
    path: [&'static str; 2],
}

const PLACES: [Place; 2] = [
    Place { collection: MAPS, api_version: "v1", kind: "ConfigMap", path: ["", "data"] },
    Place {
        collection: "/api/v1/namespaces/default/secrets",
        api_version: "v1",
        kind: "Secret",
        path: ["metadata", "annotations"],
    },
];

impl Place {
    /// An object with these entries, and a label that all agree on: somebody always owns something.
    fn object(&self, name: &str, entries: &Entries) -> Value {
        let metadata = json!({"name": name, "labels": {"all": "agree"}});
        let mut object = json!({"apiVersion": self.api_version, "kind": self.kind, "metadata": metadata});
        let text = |value: &Option<u8>| value.map_or(Value::Null, |value| value.to_string().into());
        let map: Value = entries.iter().map(|(key, value)| ((*key).to_owned(), text(value))).collect();
        // An empty map is owned as one, and not kept: who sends it is taken to add it.
        match self.path {
            _ if entries.is_empty() => {}
            ["", field] => object[field] = map,
            [outer, inner] => object[outer][inner] = map,
        }
        object
    }

    fn at<'v>(&self, value: &'v Value, prefix: &str) -> &'v Value {
        let step =
            |value: &'v Value, name: &str| value.get(format!("{prefix}{name}")).unwrap_or(&Value::Null);
        let path = self.path.iter().filter(|name| !name.is_empty());
        path.fold(value, |value, name| step(value, name))
    }

    fn state(&self, object: &Value) -> Model {
        let keys = |map: &Value, prefix: &str| -> BTreeSet<&'static str> {
            KEYS.into_iter().filter(|key| map.get(format!("{prefix}{key}")).is_some()).collect()
        };
        let entries = self.at(object, "");
        let value = |key: &str| entries[key].as_str().and_then(|text| text.parse().ok()).unwrap_or(u8::MAX);
        let owner = |owner: &Value| {
            let name = ["a", "b", "c"].into_iter().find(|name| owner["manager"] == *name).unwrap_or("?");
            ((name, owner["operation"] == "Apply"), keys(self.at(&owner["fieldsV1"], "f:"), "f:"))
        };
        let owners = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
        let owned = owners.iter().map(owner).filter(|(_, keys)| !keys.is_empty()).collect();
        Model { entries: keys(entries, "").into_iter().map(|key| (key, value(key))).collect(), owned }
    }
}

/// The answer to an act on an object, which an act that does not apply makes where it `is_first`.
async fn sent(s: &Server, place: &Place, name: &str, act: &Act, is_first: bool) -> Received {
    let by = format!("fieldManager={}", act.by);
    let target = format!("{}/{name}?{by}", place.collection);
    let mut entries = act.entries.clone();
    entries.retain(|_, value| value.is_some() || !is_first);
    let object = place.object(name, &entries);
    match act.how {
        How::Put | How::Patch if is_first => {
            s.ask("POST", &format!("{}?{by}", place.collection), object).await
        }
        How::Put => s.ask("PUT", &target, object).await,
        How::Patch => s.patch(&target, "merge-patch+json", object).await,
        How::Apply => s.patch(&target, "apply-patch+yaml", object).await,
        How::Force => s.patch(&format!("{target}&force=true"), "apply-patch+yaml", object).await,
    }
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = |how: How| {
        let value = match how {
            How::Patch => proptest::option::of(0..3_u8).boxed(),
            _ => (0..3_u8).prop_map(Some).boxed(),
        };
        let entries = proptest::collection::btree_map(select(KEYS.to_vec()), value, 0..4);
        (select(vec!["a", "b", "c"]), Just(how), entries)
    };
    let how = select(vec![How::Put, How::Patch, How::Apply, How::Force]);
    let act = how.prop_flat_map(act).prop_map(|(by, how, entries)| Act { by, how, entries });
    proptest::collection::vec(act, 1..WRITES)
}

#[tokio::test]
async fn ownership_in_any_order_of_writes_must_not_differ_from_the_models() {
    let s = Server::start().await;
    let mut runner = TestRunner::deterministic();
    for order in 0..ORDERS {
        let place = &PLACES[order % PLACES.len()];
        let name = format!("o{order}");
        let acts = acts().new_tree(&mut runner).unwrap().current();
        let mut model = Model::default();
        for (at, act) in acts.iter().enumerate() {
            let told = || format!("{name}: {:?}", acts.get(..=at));
            let answer = sent(&s, place, &name, act, at == 0).await;
            let Some(next) = model.after(act) else {
                assert_eq!(answer.code, 409, "{}: {}", told(), answer.body);
                continue;
            };
            assert!(answer.code < 300, "{}: {}", told(), answer.body);
            model = next;
            assert_eq!(place.state(&answer.body), model, "{}", told());
            if act.who().1 {
                let again = sent(&s, place, &name, act, false).await;
                assert_eq!(again.body, answer.body, "{}: the same again was written", told());
            }
        }
    }
}
