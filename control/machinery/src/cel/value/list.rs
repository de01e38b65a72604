//! Lists, with what a schema says of their order: those of sets and of maps are equal in any order, and `+` merges them
//! (upstream: `apiserver/pkg/cel/common/valuesunstructured.go`).

use super::{Key, Value};
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

/// How a list's items are distinguished.
#[derive(Clone, Debug, Default)]
pub(crate) enum Identity {
    /// By their place.
    #[default]
    Place,
    /// By themselves (`x-kubernetes-list-type: set`).
    Itself,
    /// By these fields, as expressions name them (`x-kubernetes-list-type: map`).
    Fields(Arc<[String]>),
}

#[derive(Clone, Debug, Default)]
pub struct List {
    items: Vec<Value>,
    identity: Identity,
}

impl From<Vec<Value>> for List {
    fn from(items: Vec<Value>) -> Self {
        List { items, identity: Identity::Place }
    }
}

impl Deref for List {
    type Target = [Value];

    fn deref(&self) -> &[Value] {
        &self.items
    }
}

/// What tells an item from others; an absent field is like an absent one.
type Mark = Vec<Option<Key>>;

fn mark_of(value: &Value) -> Key {
    // Fractions are no keys of maps.
    value.key().unwrap_or_else(|| Key::Text(format!("\0{}", value.text()).into()))
}

impl List {
    /// A list whose items are distinguished in this way.
    #[must_use]
    pub(crate) fn identified(items: Vec<Value>, identity: Identity) -> Self {
        List { items, identity }
    }

    /// None, where items are distinguished by their place.
    fn mark(&self, item: &Value) -> Option<Mark> {
        match &self.identity {
            Identity::Place => None,
            Identity::Itself => Some(vec![Some(mark_of(item))]),
            Identity::Fields(fields) => {
                let field = |name: &String| match item {
                    Value::Map(entries) => entries.get(&Key::Text(name.as_str().into())).map(mark_of),
                    _ => None,
                };
                Some(fields.iter().map(field).collect())
            }
        }
    }

    /// The places of items by their marks; of two with the same, the last's.
    fn places(&self) -> BTreeMap<Mark, usize> {
        self.items.iter().enumerate().filter_map(|(at, item)| Some((self.mark(item)?, at))).collect()
    }

    /// `self + other`: sets are united, of two items with the same keys the other's stays in the first's place.
    #[must_use]
    pub fn concat(&self, other: &List) -> List {
        let mut out = self.clone();
        let mut places = self.places();
        for item in other.iter() {
            let mark = self.mark(item);
            match mark.as_ref().and_then(|mark| places.get(mark)) {
                Some(at) => out.items[*at] = item.clone(),
                None => {
                    // As upstream: items of another list of type map do not replace each other, those of a set do.
                    if let (Identity::Itself, Some(mark)) = (&self.identity, mark) {
                        places.insert(mark, out.items.len());
                    }
                    out.items.push(item.clone());
                }
            }
        }
        out
    }
}

impl PartialEq for List {
    fn eq(&self, other: &Self) -> bool {
        let (own, of) = match (&self.identity, &other.identity) {
            (Identity::Place, Identity::Place) => return self.items == other.items,
            (Identity::Place, _) => (other, self),
            _ => (self, other),
        };
        let places = own.places();
        let at = |item: &Value| own.mark(item).and_then(|mark| places.get(&mark).copied());
        let held = |item: &Value| at(item).is_some_and(|at| own.items[at] == *item);
        own.len() == of.len() && of.iter().all(held)
    }
}
