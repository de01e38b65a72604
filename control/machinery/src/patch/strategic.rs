//! Strategic merge, `application/strategic-merge-patch+json`: a merge patch that knows which lists merge, and by what.
//!
//! - Maps merge key by key; null deletes. `$patch: replace` in a map puts the patch in its place, `$patch: delete`
//!   empties it. `$retainKeys` drops every key it does not list (unions).
//! - Lists are replaced, but for fields of patch strategy `merge`: scalars are joined without repeats, objects are
//!   matched by the merge key. An item with `$patch: delete` deletes its match, one with `$patch: replace` makes the
//!   patch's other items the list. `$deleteFromPrimitiveList/x` deletes scalars from `x`.
//! - Order: `$setElementOrder/x` (else the patch's own order) rules for the items it names; the others keep their
//!   place relative to those they stood with.

mod order;

use crate::codec;
use crate::goformat::go_value;
use crate::object::Gr;
use crate::patch::merge::GO_MAP;
use crate::schema::{Field, PatchStrategy, Schema, Shape, TypeId};
use crate::status::{Reason, Status};
use serde_json::{Map, Value};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";

/// Patches nested deeper are refused.
const MAX_DEPTH: usize = 128;

/// Why a patch does not apply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a JSON object.
    #[error("invalid JSON document")]
    Document,
    /// `$retainKeys` that is no list of the patch's keys.
    #[error("invalid patch format of retainKeys")]
    RetainKeys,
    /// `$setElementOrder` that is no list, or of a field that is no list.
    #[error("invalid patch format of setElementOrder list")]
    SetElementOrder,
    /// `$deleteFromPrimitiveList` that is no list.
    #[error("invalid patch format of primitive list")]
    PrimitiveList,
    /// A list within a merging list.
    #[error("lists of lists are not supported")]
    ListOfLists,
    /// Scalars and objects in one merging list.
    #[error("list element types are not identical: {0}")]
    MixedList(String),
    /// A `$patch` nobody knows.
    #[error("unknown patch type: {directive} in map: {map}")]
    Directive {
        /// What `$patch` says.
        directive: String,
        /// The map it is in.
        map: String,
    },
    /// An item of a merging list without its key.
    #[error("map: {map} does not contain declared merge key: {key}")]
    NoMergeKey {
        /// The list item, printed as Go prints a map.
        map: String,
        /// The merge key of the field.
        key: String,
    },
    /// `$patch: merge` in a list.
    #[error("merging lists cannot yet be specified in the patch")]
    MergeDirective,
    /// A merging list of objects without a key.
    #[error("cannot merge lists without merge key for {0}")]
    Keyless(String),
    /// A field the type does not have.
    #[error("unable to find api field in struct {owner} for the json field {field:?}")]
    UnknownField {
        /// Name of the Go type.
        owner: &'static str,
        /// JSON name of the field.
        field: String,
    },
    /// The patch's items stand in another order than its `$setElementOrder`.
    #[error("The order in patch list:\n{patch}\n doesn't match $setElementOrder list:\n{order}\n")]
    Order {
        /// Items of the patch, printed as Go prints them.
        patch: String,
        /// Items of `$setElementOrder`, printed as Go prints them.
        order: String,
    },
    /// Deeper than 128 levels.
    #[error("exceeded max depth")]
    Depth,
}

impl Error {
    /// The client's error: 400 for malformed directives, 422 for unsupported lists, 500 for the rest.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Error::Document
            | Error::RetainKeys
            | Error::SetElementOrder
            | Error::PrimitiveList
            | Error::Depth => Status::bad_request(self.to_string()),
            Error::ListOfLists => {
                Status::generic_server_response(422, "", &Gr::default(), "", &self.to_string(), 0, false)
            }
            // Upstream has no status for these; a plain error is answered so.
            _ => Status::failure(500, Reason::Unknown, self.to_string()),
        }
    }
}

/// Applies a patch to an object of type `id`; says which fields it gave twice. `object` is unchanged on failure.
///
/// # Errors
/// 400 for what is no patch; see [`Error::status`].
pub fn apply(schema: &Schema, id: TypeId, object: &mut Value, bytes: &[u8]) -> Result<Vec<String>, Status> {
    let patch = codec::json::decode(bytes).map_err(|e| Status::bad_request(e.to_string()))?;
    let map = match patch.value {
        Value::Object(map) => map,
        Value::Null => Map::new(),
        other => {
            let kind = codec::json::kind_name(&other).unwrap_or_default();
            let why = format!("json: cannot unmarshal {kind} into Go value of type {GO_MAP}");
            return Err(Status::bad_request(why));
        }
    };
    let patched = merge(schema, id, object.clone(), map).map_err(|e| e.status())?;
    *object = patched;
    Ok(patch.duplicates)
}

/// The object with the patch merged into it.
///
/// # Errors
/// For directives that are malformed, and lists that cannot merge.
pub(crate) fn merge(
    schema: &Schema,
    id: TypeId,
    object: Value,
    patch: Map<String, Value>,
) -> Result<Value, Error> {
    let Value::Object(original) = object else { return Err(Error::Document) };
    Merge { schema }.map(original, patch, Within::Struct(id), 0).map(Value::Object)
}

/// What the map being merged is.
#[derive(Clone, Copy)]
enum Within<'s> {
    Struct(TypeId),
    Values(&'s Shape),
    /// Beyond the schema, as in a `RawExtension`.
    Unknown,
}

/// How one field merges.
#[derive(Clone, Copy)]
struct Plan<'s> {
    strategy: PatchStrategy,
    shape: Option<&'s Shape>,
}

impl<'s> Plan<'s> {
    fn of(field: &'s Field) -> Self {
        Plan { strategy: field.patch, shape: Some(&field.shape) }
    }

    fn child(&self) -> Within<'s> {
        fn within(shape: &Shape) -> Within<'_> {
            match shape {
                Shape::Struct(id) => Within::Struct(*id),
                Shape::Map(inner) => Within::Values(inner),
                Shape::List(inner) => within(inner),
                _ => Within::Unknown,
            }
        }
        self.shape.map_or(Within::Unknown, within)
    }
}

struct Merge<'s> {
    schema: &'s Schema,
}

type Object = Map<String, Value>;

impl<'s> Merge<'s> {
    fn plan(&self, within: Within<'s>, name: &str) -> Result<Plan<'s>, Error> {
        match within {
            Within::Unknown => Ok(Plan { strategy: PatchStrategy::default(), shape: None }),
            Within::Values(shape) => Ok(Plan { strategy: PatchStrategy::default(), shape: Some(shape) }),
            Within::Struct(id) => match self.schema.field(id, name) {
                Some(field) => Ok(Plan::of(field)),
                None => Err(Error::UnknownField { owner: self.schema.get(id).name, field: name.to_owned() }),
            },
        }
    }

    fn map(
        &self,
        mut original: Object,
        mut patch: Object,
        within: Within<'s>,
        depth: usize,
    ) -> Result<Object, Error> {
        if depth > MAX_DEPTH {
            return Err(Error::Depth);
        }
        if let Some(directive) = patch.remove(DIRECTIVE) {
            return match directive.as_str() {
                Some("replace") => Ok(patch),
                Some("delete") => Ok(Map::new()),
                _ => {
                    let shown = go_value(&directive);
                    patch.insert(DIRECTIVE.to_owned(), directive);
                    Err(Error::Directive { directive: shown, map: go_value(&Value::Object(patch)) })
                }
            };
        }
        retain_keys(&mut original, &mut patch)?;
        self.ordered_lists(&mut original, &mut patch, within, depth)?;
        for (name, value) in patch {
            let (name, deletes) = match name.strip_prefix(DELETE_FROM) {
                Some(name) => (name.to_owned(), true),
                None => (name, false),
            };
            if deletes && !value.is_array() {
                return Err(Error::PrimitiveList);
            }
            if value.is_null() {
                original.remove(&name);
                continue;
            }
            let merged = match (original.get_mut(&name).map(Value::take), value) {
                (Some(Value::Object(before)), Value::Object(change)) => {
                    let plan = self.plan(within, &name)?;
                    match plan.strategy.replace {
                        true => Value::Object(change),
                        false => Value::Object(self.map(before, change, plan.child(), depth + 1)?),
                    }
                }
                (Some(Value::Array(before)), Value::Array(change)) => {
                    let plan = self.plan(within, &name)?;
                    Value::Array(self.list(before, change, plan, deletes, depth + 1)?)
                }
                (Some(before), _) if deletes => before,
                (None, _) if deletes => continue,
                (_, mut value) => {
                    clean(&mut value, 0);
                    value
                }
            };
            original.insert(name, merged);
        }
        Ok(original)
    }

    /// Merges the lists a `$setElementOrder` names, and puts them in order.
    fn ordered_lists(
        &self,
        original: &mut Object,
        patch: &mut Object,
        within: Within<'s>,
        depth: usize,
    ) -> Result<(), Error> {
        let names: Vec<String> =
            patch.keys().filter_map(|k| k.strip_prefix(SET_ORDER)).map(str::to_owned).collect();
        for name in names {
            let Some(Value::Array(wanted)) = patch.remove(&format!("{SET_ORDER}{name}")) else {
                return Err(Error::SetElementOrder);
            };
            let list = |value: Option<Value>| match value {
                None => Ok(None),
                Some(Value::Array(list)) => Ok(Some(list)),
                Some(_) => Err(Error::SetElementOrder),
            };
            if patch.get(&name).is_some_and(Value::is_null) {
                // The list is deleted; there is nothing to order.
                continue;
            }
            let before = list(original.get(&name).filter(|v| !v.is_null()).cloned())?;
            let change = list(patch.remove(&name))?;
            let plan = self.plan(within, &name)?;
            let key = plan.strategy.merge_key;
            order::check(change.as_deref().unwrap_or_default(), &wanted, key)?;
            let server = before.clone().unwrap_or_default();
            let merged = match (before, change) {
                (None, None) => continue,
                (Some(before), None) => before,
                (None, Some(change)) => {
                    let mut added = Value::Array(change);
                    clean(&mut added, 0);
                    match added {
                        Value::Array(added) => added,
                        _ => Vec::new(),
                    }
                }
                (Some(before), Some(change)) => self.list(before, change, plan, false, depth + 1)?,
            };
            original.insert(name, Value::Array(order::arrange(merged, &wanted, &server, key)));
        }
        Ok(())
    }

    fn list(
        &self,
        original: Vec<Value>,
        patch: Vec<Value>,
        plan: Plan<'s>,
        deletes: bool,
        depth: usize,
    ) -> Result<Vec<Value>, Error> {
        if !plan.strategy.merge && !deletes {
            return Ok(patch);
        }
        if !holds_objects(original.iter().chain(&patch))? {
            if deletes {
                return Ok(original.into_iter().filter(|v| !patch.contains(v)).collect());
            }
            let mut merged: Vec<Value> = Vec::with_capacity(original.len() + patch.len());
            for item in original.iter().chain(&patch) {
                if !merged.contains(item) {
                    merged.push(item.clone());
                }
            }
            return Ok(order::arrange(merged, &patch, &original, None));
        }
        let key = plan.strategy.merge_key.ok_or_else(|| Error::Keyless(self.type_name(plan)))?;
        let (original, patch) = special_items(original, patch, key)?;
        let mut merged = original.clone();
        for item in &patch {
            let Value::Object(change) = item else { continue };
            let wanted = change.get(key).ok_or_else(|| no_merge_key(item, key))?;
            match merged.iter_mut().find(|m| m.get(key) == Some(wanted)) {
                Some(Value::Object(found)) => {
                    *found = self.map(std::mem::take(found), change.clone(), plan.child(), depth + 1)?;
                }
                _ => {
                    let mut added = item.clone();
                    clean(&mut added, 0);
                    merged.push(added);
                }
            }
        }
        Ok(order::arrange(merged, &patch, &original, Some(key)))
    }

    fn type_name(&self, plan: Plan<'s>) -> String {
        match plan.child() {
            Within::Struct(id) => self.schema.get(id).name.to_owned(),
            _ => "map".to_owned(),
        }
    }
}

fn no_merge_key(item: &Value, key: &str) -> Error {
    Error::NoMergeKey { map: go_value(item), key: key.to_owned() }
}

/// Whether a merging list holds objects; lists in it, or a mixture, are errors.
fn holds_objects<'v>(items: impl Iterator<Item = &'v Value>) -> Result<bool, Error> {
    let name = |v: &Value| match v {
        Value::Object(_) => "map",
        Value::Array(_) => "slice",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(_) => "int64",
        Value::Null => "nil",
    };
    let mut first = None;
    for item in items {
        if item.is_array() {
            return Err(Error::ListOfLists);
        }
        let found = name(item);
        if *first.get_or_insert(found) != found {
            return Err(Error::MixedList(format!("[{} {found}]", first.unwrap_or_default())));
        }
    }
    Ok(first == Some("map"))
}

/// Carries out the items that are directives: what is left of the original, and the patch's ordinary items.
fn special_items(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), Error> {
    let (mut ordinary, mut replaces) = (Vec::with_capacity(patch.len()), false);
    for item in patch {
        match item.get(DIRECTIVE) {
            None => ordinary.push(item),
            Some(directive) => match directive.as_str() {
                Some("delete") => {
                    let wanted = item.get(key).ok_or_else(|| no_merge_key(&item, key))?;
                    original.retain(|o| o.get(key) != Some(wanted));
                }
                Some("replace") => replaces = true,
                Some("merge") => return Err(Error::MergeDirective),
                _ => {
                    return Err(Error::Directive { directive: go_value(directive), map: go_value(&item) });
                }
            },
        }
    }
    Ok(if replaces { (ordinary, Vec::new()) } else { (original, ordinary) })
}

fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), Error> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(keys) = keys else { return Err(Error::RetainKeys) };
    if !keys.iter().all(Value::is_string) {
        return Err(Error::RetainKeys);
    }
    let listed = |name: &str| keys.iter().any(|k| k.as_str() == Some(name));
    let stray = |(name, value): (&String, &Value)| {
        !value.is_null() && !name.starts_with(DELETE_FROM) && !name.starts_with(SET_ORDER) && !listed(name)
    };
    if patch.iter().any(stray) {
        return Err(Error::RetainKeys);
    }
    original.retain(|name, _| listed(name));
    Ok(())
}

/// A value that is taken over as it stands loses its nulls and directives.
fn clean(value: &mut Value, depth: usize) {
    if depth > MAX_DEPTH {
        *value = Value::Null;
        return;
    }
    match value {
        Value::Object(map) => {
            map.remove(DIRECTIVE);
            map.retain(|name, v| {
                let directive =
                    name == RETAIN_KEYS || name.starts_with(DELETE_FROM) || name.starts_with(SET_ORDER);
                !v.is_null() && !directive
            });
            map.values_mut().for_each(|v| clean(v, depth + 1));
        }
        Value::Array(items) => {
            items.retain(|item| item.get(DIRECTIVE).is_none());
            items.iter_mut().for_each(|v| clean(v, depth + 1));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
