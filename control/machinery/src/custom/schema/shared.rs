//! Schemas that say the same are one in memory: those of a definition's versions, and what definitions copied of other kinds (a pod's
//! template, conditions, label selectors). Of the 120,000 nodes in 303 definitions of public projects, 4,500 differ.
//!
//! A node is compared by what it says itself and by which nodes are below it, as those are shared already. Nothing is kept alive here:
//! what no definition uses is given back, and [`sweep`] forgets that it was.

use super::Schema;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::ops::Deref;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};

/// A schema that all who say the same have.
#[derive(Clone, Debug)]
pub struct Shared(Arc<Schema>);

impl Deref for Shared {
    type Target = Schema;

    fn deref(&self) -> &Schema {
        &self.0
    }
}

/// Whether it is the same in memory: equal ones are, but for two whose hashes are equal and who are not.
impl PartialEq for Shared {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl From<Schema> for Shared {
    fn from(schema: Schema) -> Self {
        // Keyed by chance anew in each process: nobody can write schemas whose hashes are equal.
        let hash = HASHER.hash_one(&schema);
        let mut known = known();
        match known.by_hash.get(&hash).and_then(Weak::upgrade) {
            Some(same) if *same == schema => return Shared(same),
            Some(_) => return Shared(Arc::new(schema)),
            None => {}
        }
        let shared = Arc::new(schema);
        known.by_hash.insert(hash, Arc::downgrade(&shared));
        if known.by_hash.len() > known.bound {
            known.sweep();
        }
        Shared(shared)
    }
}

impl Shared {
    /// Where it is, to tell it from others while it is there.
    pub(super) fn address(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }
}

/// How many entries there may be at least before those that nobody uses are looked for.
const LEAST: usize = 1024;

struct Known {
    by_hash: HashMap<u64, Weak<Schema>>,
    /// How many entries there may be until the next sweep.
    bound: usize,
}

impl Known {
    fn sweep(&mut self) {
        self.by_hash.retain(|_, schema| schema.strong_count() > 0);
        self.by_hash.shrink_to(LEAST);
        self.bound = LEAST.max(2 * self.by_hash.len());
    }
}

static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);
static KNOWN: LazyLock<Mutex<Known>> =
    LazyLock::new(|| Mutex::new(Known { by_hash: HashMap::new(), bound: LEAST }));

fn known() -> MutexGuard<'static, Known> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Forgets what nobody uses any more.
pub fn sweep() {
    known().sweep();
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn schema(props: &Value) -> Shared {
        Schema::from_props(props).into()
    }

    fn pod(name: &str) -> Value {
        let inner = json!({"type": "object", "required": ["name"], "properties": {
            "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 63},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port"],
                "items": {"type": "object", "properties": {"port": {"type": "integer", "default": 80}}}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}}},
            "x-kubernetes-validations": [{"rule": "self.name != ''"}]});
        json!({"type": "object", "properties": {name: inner}})
    }

    #[test]
    fn what_says_the_same_must_not_be_kept_twice() {
        let (one, two) = (schema(&pod("a")), schema(&pod("b")));
        assert!(one != two, "their fields have other names");
        assert!(one.properties["a"] == two.properties["b"]);
        let mut described = pod("a");
        described["properties"]["a"]["description"] = "What it is.".into();
        assert!(schema(&described) == one, "nobody reads a description here");
        let versions = [schema(&pod("a")), schema(&pod("a"))];
        assert!(versions.iter().all(|version| *version == one));
    }

    #[test]
    fn what_says_anything_else_must_not_be_shared() {
        let text = json!({"type": "string"});
        for other in [
            json!({"type": "string", "nullable": true}),
            json!({"type": "string", "default": "a"}),
            json!({"type": "string", "pattern": "a"}),
            json!({"type": "string", "maxLength": 1}),
            json!({"type": "string", "minLength": 1}),
            json!({"type": "string", "enum": ["a"]}),
            json!({"type": "string", "format": "date"}),
            json!({"type": "string", "allOf": [{"minLength": 1}]}),
            json!({"type": "string", "not": {"enum": ["a"]}}),
            json!({"type": "string", "x-kubernetes-validations": [{"rule": "true"}]}),
            json!({"type": "integer", "maximum": 1}),
            json!({"type": "integer", "maximum": 1, "exclusiveMaximum": true}),
            json!({"type": "object", "additionalProperties": text}),
            json!({"type": "object", "properties": {"a": text}}),
            json!({"type": "array", "items": text}),
            json!({"x-kubernetes-preserve-unknown-fields": true}),
            json!({"x-kubernetes-int-or-string": true}),
        ] {
            assert!(schema(&other) != schema(&text), "{other}");
            assert!(schema(&other) == schema(&other), "{other}");
        }
        let rule = |key: &str, value: Value| {
            let mut rule = json!({"rule": "self == 1"});
            rule[key] = value;
            schema(&json!({"type": "integer", "x-kubernetes-validations": [rule]}))
        };
        let rules = [
            rule("message", "m".into()),
            rule("messageExpression", "'m'".into()),
            rule("reason", "FieldValueRequired".into()),
            rule("fieldPath", ".x".into()),
            rule("optionalOldSelf", true.into()),
            rule("rule", "self == 2".into()),
        ];
        for (at, one) in rules.iter().enumerate() {
            assert!(rules.iter().skip(at + 1).all(|other| other != one), "{at}");
        }
    }

    #[test]
    fn what_nobody_uses_must_not_be_kept() {
        let schema = schema(&json!({"type": "string", "pattern": "only-here-and-nowhere-else"}));
        let kept = Arc::downgrade(&schema.0);
        let hash = HASHER.hash_one(&*schema);
        sweep();
        assert!(known().by_hash.contains_key(&hash), "it is used");
        drop(schema);
        sweep();
        assert!(kept.upgrade().is_none() && !known().by_hash.contains_key(&hash));
    }
}
