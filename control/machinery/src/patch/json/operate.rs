//! What an operation does to an object, as upstream's library has it (`gopkg.in/evanphx/json-patch.v4`), which is laxer than RFC 6902: an absent
//! key tests equal to null and can be replaced, what is copied from an absent key is null, and indices below zero count from the end. Pure.

use json_patch::PatchOperation;
use json_patch::jsonptr::Pointer;
use serde_json::Value;

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

/// Does the operations in their order; `object` is unchanged on failure.
///
/// # Errors
/// The first operation that does not fit.
pub fn operate(object: &mut Value, operations: &[PatchOperation]) -> Result<(), Misfit> {
    let mut after = object.clone();
    operations.iter().try_for_each(|operation| one(&mut after, operation))?;
    *object = after;
    Ok(())
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

/// Where an operation works: a key of what is there, or all of it.
struct Place<'a> {
    operation: &'static str,
    path: &'a Pointer,
    container: &'a mut Value,
    key: Option<String>,
}

impl<'a> Place<'a> {
    fn of(operation: &'static str, object: &'a mut Value, path: &'a Pointer) -> Result<Self, Misfit> {
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
        match place {
            Some(container) if container.is_object() || container.is_array() => {
                Ok(Self { operation, path, container, key })
            }
            _ => Err(Misfit::Missing { operation, path: path.to_string() }),
        }
    }

    fn missing(&self) -> Misfit {
        Misfit::Missing { operation: self.operation, path: self.path.to_string() }
    }

    fn no_index(&self) -> Misfit {
        let index = self.key.clone().unwrap_or_default();
        Misfit::Index { operation: self.operation, path: self.path.to_string(), index }
    }

    /// What is there; none where a key is absent.
    fn read(self) -> Result<Option<&'a Value>, Misfit> {
        let Some(key) = self.key.as_deref() else { return Ok(Some(self.container)) };
        if let Value::Array(items) = &*self.container {
            let Some(index) = index(key, items.len()) else { return Err(self.no_index()) };
            return Ok(self.container.get(index));
        }
        Ok(self.container.get(key))
    }

    fn add(self, value: Value) -> Result<(), Misfit> {
        let Some(key) = self.key.as_deref() else { return Err(self.missing()) };
        if let Value::Array(items) = &*self.container {
            let length = items.len();
            let at = if key == "-" { Some(length) } else { index(key, length + 1) };
            let Some(at) = at else { return Err(self.no_index()) };
            if let Value::Array(items) = self.container {
                items.insert(at, value);
            }
            return Ok(());
        }
        self.set(value)
    }

    /// Puts a value under a key, whether there was one or not.
    fn set(self, value: Value) -> Result<(), Misfit> {
        if let (Value::Object(fields), Some(key)) = (self.container, self.key) {
            fields.insert(key, value);
        }
        Ok(())
    }

    fn replace(self, value: Value) -> Result<(), Misfit> {
        let Some(key) = self.key.as_deref() else {
            if !value.is_object() && !value.is_array() {
                return Err(self.missing());
            }
            *self.container = value;
            return Ok(());
        };
        if let Value::Array(items) = &*self.container {
            let Some(at) = index(key, items.len()) else { return Err(self.no_index()) };
            self.container[at] = value;
            return Ok(());
        }
        self.set(value)
    }

    fn remove(self) -> Result<Value, Misfit> {
        let Some(key) = self.key.as_deref() else { return Err(self.missing()) };
        if let Value::Array(items) = &*self.container {
            let Some(at) = index(key, items.len()) else { return Err(self.no_index()) };
            return Ok(self.container.as_array_mut().map(|items| items.remove(at)).unwrap_or_default());
        }
        let removed = self.container.as_object_mut().and_then(|fields| fields.remove(key));
        match removed {
            Some(value) => Ok(value),
            None => Err(self.missing()),
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
        let mut after = object.clone();
        let done = operate(&mut after, &operations);
        if done.is_err() {
            assert_eq!(&after, object, "nothing changes on failure");
        }
        done.map(|()| after)
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
