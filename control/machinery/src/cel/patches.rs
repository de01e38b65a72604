//! The types of patches that policies make, without a schema (upstream: `apiserver/pkg/cel/mutation`).

use super::types::{ObjectType, Type};
use super::value::{Struct, Value};
use std::sync::Arc;

/// Operations of JSON patches.
const PATCH: &str = "JSONPatch";
/// Objects, and what is in them: `Object.spec`.
const OBJECT: &str = "Object";
/// The key under which a literal as JSON keeps its type's name. No field is called that.
pub const TYPE_KEY: &str = "@type";

/// The type of a literal.
pub(super) fn resolve(name: &str) -> Option<Type> {
    let open = name == OBJECT || name.strip_prefix(OBJECT).is_some_and(|rest| rest.starts_with('.'));
    let fields = [("op", Type::text()), ("path", Type::text()), ("from", Type::text()), ("value", Type::Dyn)];
    let fields = fields.into_iter().filter(|_| !open).map(|(name, kind)| (name.to_owned(), kind)).collect();
    (open || name == PATCH)
        .then(|| Type::Object(Arc::new(ObjectType { name: name.to_owned(), fields, open })))
}

/// Whether a type is `Object`.
pub(crate) fn is_object(kind: &Type) -> bool {
    matches!(kind, Type::Object(of) if of.name == OBJECT)
}

/// Whether a type is a list of `JSONPatch`.
pub(crate) fn is_patch_list(kind: &Type) -> bool {
    match kind {
        Type::List(item, _) => matches!(&**item, Type::Object(of) if of.name == PATCH),
        _ => false,
    }
}

impl Struct {
    fn is_text(&self, field: &str) -> bool {
        *self.name == *PATCH && field != "value"
    }

    /// A field's value: absent ones are empty or null.
    pub(super) fn get(&self, field: &str) -> Value {
        let absent = || if self.is_text(field) { Value::text_of("") } else { Value::Null };
        self.fields.get(field).cloned().unwrap_or_else(absent)
    }

    pub(super) fn has(&self, field: &str) -> bool {
        self.fields.get(field).is_some_and(|value| !self.is_text(field) || value.size() > 0)
    }

    /// With the name of its type under [`TYPE_KEY`].
    pub(super) fn to_json(&self) -> Option<serde_json::Value> {
        let fields = self.fields.iter().map(|(name, value)| Some((name.clone(), value.to_json()?)));
        let mut fields = fields.collect::<Option<serde_json::Map<_, _>>>()?;
        fields.insert(TYPE_KEY.to_owned(), self.name.to_string().into());
        Some(fields.into())
    }
}
