//! What an operation does to an object, as upstream's library has it (`gopkg.in/evanphx/json-patch.v4`), which is laxer than RFC 6902: an absent
//! key tests equal to null and can be replaced, what is copied from an absent key is null, and indices below zero count from the end. Pure.

use json_patch::PatchOperation;
use json_patch::jsonptr::Pointer;
use serde_json::{Map, Value};

/// Why a patch does not fit, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// A `test` found something else at this path.
    #[error("testing value {0} failed: test failed")]
    Tested(String),
    /// There is nothing where the operation needs something.
    #[error("{operation} operation does not apply: doc is missing path: {path}: missing value")]
    Missing {
        /// `add`, `remove` and so on.
        operation: &'static str,
        /// The pointer it has.
        path: String,
    },
    /// A list has no such place.
    #[error(
        "error in {operation} for path: '{path}': Unable to access invalid index: {index}: invalid index referenced"
    )]
    Index {
        /// `add`, `remove` and so on.
        operation: &'static str,
        /// The pointer it has.
        path: String,
        /// The place, as written.
        index: String,
    },
}

/// What the operations make of an object, done in their order.
///
/// # Errors
/// The first operation that does not fit.
pub fn operate(object: &Value, operations: &[PatchOperation]) -> Result<Value, Misfit> {
    let mut after = object.clone();
    operations.iter().try_for_each(|operation| one(&mut after, operation))?;
    Ok(after)
}

fn one(object: &mut Value, operation: &PatchOperation) -> Result<(), Misfit> {
    match operation {
        PatchOperation::Test(op) => {
            let found = Place::of("test", object, &op.path)?.read()?;
            if found.unwrap_or(&Value::Null) == &op.value {
                Ok(())
            } else {
                Err(Misfit::Tested(op.path.to_string()))
            }
        }
        PatchOperation::Add(op) => Place::of("add", object, &op.path)?.add(op.value.clone()),
        PatchOperation::Replace(op) => Place::of("replace", object, &op.path)?.replace(op.value.clone()),
        PatchOperation::Remove(op) => Place::of("remove", object, &op.path)?.remove().map(drop),
        PatchOperation::Move(op) => {
            let value = Place::of("move", object, &op.from)?.remove()?;
            Place::of("move", object, &op.path)?.add(value)
        }
        PatchOperation::Copy(op) => {
            let value = Place::of("copy", object, &op.from)?.read()?.cloned().unwrap_or_default();
            Place::of("copy", object, &op.path)?.add(value)
        }
    }
}

/// An operation's name and pointer, for what is said of it.
#[derive(Clone, Copy)]
struct Named<'a> {
    operation: &'static str,
    path: &'a Pointer,
}

impl Named<'_> {
    fn missing(self) -> Misfit {
        Misfit::Missing { operation: self.operation, path: self.path.to_string() }
    }

    /// The place of a list that is written so, one of so many.
    fn index(self, key: &str, places: usize) -> Result<usize, Misfit> {
        let Self { operation, path } = self;
        let refused = || Misfit::Index { operation, path: path.to_string(), index: key.to_owned() };
        index(key, places).ok_or_else(refused)
    }
}

/// Where an operation works.
enum Place<'a> {
    /// All of the object.
    Whole(Named<'a>, &'a mut Value),
    Member(Named<'a>, &'a mut Map<String, Value>, String),
    Item(Named<'a>, &'a mut Vec<Value>, String),
}

impl<'a> Place<'a> {
    fn of(operation: &'static str, object: &'a mut Value, path: &'a Pointer) -> Result<Self, Misfit> {
        let named = Named { operation, path };
        let mut keys: Vec<String> = path.tokens().map(|token| token.decoded().into_owned()).collect();
        let key = keys.pop();
        let mut place = Some(object);
        for key in keys {
            place = match place {
                Some(Value::Object(fields)) => fields.get_mut(&key),
                Some(Value::Array(items)) => index(&key, items.len()).and_then(move |at| items.get_mut(at)),
                _ => None,
            };
        }
        match (place, key) {
            (Some(whole), None) if whole.is_object() || whole.is_array() => Ok(Place::Whole(named, whole)),
            (Some(Value::Object(fields)), Some(key)) => Ok(Place::Member(named, fields, key)),
            (Some(Value::Array(items)), Some(key)) => Ok(Place::Item(named, items, key)),
            _ => Err(named.missing()),
        }
    }

    /// What is there; none where a key is absent.
    fn read(self) -> Result<Option<&'a Value>, Misfit> {
        Ok(match self {
            Place::Whole(_, whole) => Some(whole),
            Place::Member(_, fields, key) => fields.get(&key),
            Place::Item(named, items, key) => {
                let at = named.index(&key, items.len())?;
                items.get(at)
            }
        })
    }

    fn add(self, value: Value) -> Result<(), Misfit> {
        match self {
            Place::Whole(named, _) => return Err(named.missing()),
            Place::Member(_, fields, key) => drop(fields.insert(key, value)),
            Place::Item(_, items, key) if key == "-" => items.push(value),
            Place::Item(named, items, key) => items.insert(named.index(&key, items.len() + 1)?, value),
        }
        Ok(())
    }

    fn replace(self, value: Value) -> Result<(), Misfit> {
        match self {
            Place::Whole(_, whole) if value.is_object() || value.is_array() => *whole = value,
            Place::Whole(named, _) => return Err(named.missing()),
            Place::Member(_, fields, key) => drop(fields.insert(key, value)),
            Place::Item(named, items, key) => {
                let at = named.index(&key, items.len())?;
                items[at] = value;
            }
        }
        Ok(())
    }

    fn remove(self) -> Result<Value, Misfit> {
        match self {
            Place::Whole(named, _) => Err(named.missing()),
            Place::Member(named, fields, key) => fields.remove(&key).ok_or_else(|| named.missing()),
            Place::Item(named, items, key) => Ok(items.remove(named.index(&key, items.len())?)),
        }
    }
}

/// One of so many places in a list; below zero it counts from the end.
fn index(key: &str, places: usize) -> Option<usize> {
    let written: i64 = key.parse().ok()?;
    let index = if written < 0 { written.checked_add(i64::try_from(places).ok()?)? } else { written };
    usize::try_from(index).ok().filter(|index| *index < places)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn operated(object: &Value, operations: Value) -> Result<Value, Misfit> {
        let operations: Vec<PatchOperation> = serde_json::from_value(operations).unwrap();
        operate(object, &operations)
    }

    #[test]
    fn the_first_finalizer_of_an_object_must_not_be_refused() {
        // what kube-rs sends: nobody else may have set one meanwhile
        let first = json!([
            {"op": "test", "path": "/metadata/finalizers", "value": null},
            {"op": "add", "path": "/metadata/finalizers", "value": ["a"]},
        ]);
        let done = json!({"metadata": {"finalizers": ["a"]}});
        assert_eq!(operated(&json!({"metadata": {}}), first.clone()).unwrap(), done);
        assert_eq!(operated(&json!({"metadata": {"finalizers": null}}), first.clone()).unwrap(), done);
        let another = json!({"metadata": {"finalizers": ["b"]}});
        assert_eq!(operated(&another, first.clone()), Err(Misfit::Tested("/metadata/finalizers".into())));
        let missing = Misfit::Missing { operation: "test", path: "/metadata/finalizers".into() };
        assert_eq!(operated(&json!({"metadata": null}), first.clone()), Err(missing.clone()));
        assert_eq!(operated(&json!({}), first), Err(missing));
    }

    #[test]
    fn an_absent_key_can_be_replaced_and_copied_but_not_removed_or_moved() {
        let object = json!({"a": {"b": 1}});
        for (operation, after) in [
            (json!({"op": "replace", "path": "/a/c", "value": 2}), json!({"a": {"b": 1, "c": 2}})),
            (json!({"op": "replace", "path": "/c", "value": null}), json!({"a": {"b": 1}, "c": null})),
            (json!({"op": "copy", "from": "/a/x", "path": "/c"}), json!({"a": {"b": 1}, "c": null})),
        ] {
            assert_eq!(operated(&object, json!([operation])).unwrap(), after);
        }
        for operation in [
            json!({"op": "remove", "path": "/a/c"}),
            json!({"op": "move", "from": "/a/c", "path": "/c"}),
            json!({"op": "replace", "path": "/x/y", "value": 1}),
            json!({"op": "add", "path": "/a/b/c", "value": 1}),
            json!({"op": "add", "path": "", "value": {}}),
            json!({"op": "remove", "path": ""}),
        ] {
            assert!(
                matches!(operated(&object, json!([operation.clone()])), Err(Misfit::Missing { .. })),
                "{operation}"
            );
        }
    }

    #[test]
    fn indices_count_from_the_end_where_they_are_below_zero() {
        let object = json!({"l": [1, 2, 3]});
        for (operation, after) in [
            (json!({"op": "remove", "path": "/l/-1"}), json!([1, 2])),
            (json!({"op": "replace", "path": "/l/-3", "value": 0}), json!([0, 2, 3])),
            (json!({"op": "add", "path": "/l/-1", "value": 4}), json!([1, 2, 3, 4])),
            (json!({"op": "add", "path": "/l/-4", "value": 0}), json!([0, 1, 2, 3])),
            (json!({"op": "add", "path": "/l/3", "value": 4}), json!([1, 2, 3, 4])),
            (json!({"op": "add", "path": "/l/-", "value": 4}), json!([1, 2, 3, 4])),
            (json!({"op": "test", "path": "/l/-2", "value": 2}), json!([1, 2, 3])),
        ] {
            assert_eq!(operated(&object, json!([operation])).unwrap()["l"], after);
        }
        for operation in [
            json!({"op": "add", "path": "/l/4", "value": 4}),
            json!({"op": "add", "path": "/l/-5", "value": 4}),
            json!({"op": "replace", "path": "/l/3", "value": 4}),
            json!({"op": "remove", "path": "/l/-"}),
            json!({"op": "test", "path": "/l/9", "value": null}),
            json!({"op": "test", "path": "/l/x", "value": null}),
        ] {
            assert!(
                matches!(operated(&object, json!([operation.clone()])), Err(Misfit::Index { .. })),
                "{operation}"
            );
        }
    }
}
