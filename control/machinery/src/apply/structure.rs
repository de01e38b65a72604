//! What merges how under server-side apply.

use crate::schema::node::{Builtin, Member, Node, Of};
use crate::schema::{ListType, Shape, Special};
use serde_json::{Map, Value};

/// How a value merges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// As a whole: scalars, atomic lists, atomic maps.
    Atomic,
    /// Field by field; the fields are known beforehand.
    Struct,
    /// Merged key by key.
    Map,
    /// Item by item, distinguished by these keys.
    ListMap(Vec<String>),
    /// Item by item, distinguished by their values.
    ListSet,
}

/// How a name stands to an object's structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// A field of a structure, which is owned by what is in it.
    Declared,
    /// An entry of a map, or a field nobody describes: it is owned as such.
    Open,
    /// There is no such field, and nobody can own it.
    Undeclared,
}

/// What a place takes, as far as upstream's typed values ask; null is taken anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// A number, whole or not.
    Number,
    /// A text.
    Text,
    /// True or false.
    Flag,
    /// Anything but a list or an object.
    Scalar,
    /// A list.
    List,
    /// An object.
    Object,
    /// Whatever is written.
    Anything,
}

/// A place in a schema that says how values merge: of the field table, of a custom resource, or of nothing.
pub trait Structure: Node {
    /// How a value that stands here merges.
    fn rule(&self, value: &Value) -> Rule;

    /// Where a value stands that has no place.
    fn free(&self) -> Self;

    /// The same place, or a free one where nothing is asked of what is in it.
    #[must_use]
    fn asked(self) -> Self {
        self
    }

    /// What may stand here.
    fn takes(&self) -> Takes {
        Takes::Anything
    }

    /// How a member of an object that stands here is named.
    fn naming(&self, name: &str) -> Naming {
        match self.member(name) {
            Member::Field(_) | Member::Elsewhere(_) => Naming::Declared,
            Member::Kept if matches!(name, "apiVersion" | "kind") => Naming::Declared,
            Member::Entry(_) | Member::Kept => Naming::Open,
            Member::Unknown => Naming::Undeclared,
        }
    }

    /// The structure of a field or map entry.
    #[must_use]
    fn field(&self, name: &str) -> Self {
        self.member(name).node().map_or_else(|| self.free(), Self::asked)
    }

    /// The structure of a list's items.
    #[must_use]
    fn element(&self) -> Self {
        self.item().map_or_else(|| self.free(), Self::asked)
    }

    /// What a missing list key stands for.
    fn key_default(&self, _key: &str) -> Option<Value> {
        None
    }
}

/// A value without a schema: maps merge, lists do not.
#[derive(Clone, Copy, Debug)]
pub struct Deduced;

impl Node for Deduced {
    fn member(&self, _: &str) -> Member<Self> {
        Member::Entry(Deduced)
    }

    fn item(&self) -> Option<Self> {
        Some(Deduced)
    }
}

impl Structure for Deduced {
    fn rule(&self, value: &Value) -> Rule {
        if value.is_object() { Rule::Map } else { Rule::Atomic }
    }

    fn free(&self) -> Self {
        Deduced
    }
}

impl Structure for Builtin<'_> {
    fn rule(&self, value: &Value) -> Rule {
        if self.held_by.is_some_and(|field| field.atomic) {
            return Rule::Atomic;
        }
        match (self.of, value) {
            (Of::Struct { id, .. }, Value::Object(_)) => {
                // The one reference that is marked granular: a volume's claim.
                let granular = || self.held_by.is_some_and(|field| field.name == "claimRef");
                if self.schema.get(id).is_atomic() && !granular() { Rule::Atomic } else { Rule::Struct }
            }
            (Of::Shape(Shape::Map(_)), Value::Object(_)) => Rule::Map,
            (Of::Shape(Shape::List(_)), Value::Array(_)) => {
                match self.held_by.and_then(|field| field.list.as_ref()) {
                    Some(ListType::Set) => Rule::ListSet,
                    Some(ListType::Map(keys)) => {
                        Rule::ListMap(keys.iter().map(|k| (*k).to_owned()).collect())
                    }
                    Some(ListType::Atomic) | None => Rule::Atomic,
                }
            }
            _ => Rule::Atomic,
        }
    }

    fn free(&self) -> Self {
        Builtin { of: Of::Nothing, held_by: None, ..*self }
    }

    /// What is a schema or something else has no type upstream (`JSONSchemaPropsOrArray` and its like).
    fn asked(self) -> Self {
        match self.of {
            Of::Shape(Shape::Special(
                Special::SchemaOrArray | Special::SchemaOrBool | Special::SchemaOrStrings,
            )) => self.free(),
            _ => self,
        }
    }

    fn takes(&self) -> Takes {
        match self.of {
            Of::Struct { .. } | Of::Shape(Shape::Map(_)) => Takes::Object,
            Of::Shape(Shape::List(_) | Shape::Items) => Takes::List,
            Of::Shape(Shape::Bool) => Takes::Flag,
            Of::Shape(Shape::Int32 | Shape::Int64 | Shape::Float64) => Takes::Number,
            Of::Shape(Shape::String | Shape::Bytes | Shape::Special(Special::Duration)) => Takes::Text,
            Of::Shape(Shape::Special(
                Special::Quantity | Special::IntOrString | Special::Time | Special::MicroTime,
            )) => Takes::Scalar,
            Of::Shape(_) | Of::Nothing => Takes::Anything,
        }
    }

    fn key_default(&self, key: &str) -> Option<Value> {
        match self.of {
            Of::Struct { id, .. } => {
                let field = self.schema.field(id, key)?;
                // What Go always writes has its zero value for a default (upstream: `mustEnforceDefault`).
                field.default_value().or_else(|| match field.shape {
                    Shape::String if field.always && !field.pointer => Some("".into()),
                    Shape::Int32 | Shape::Int64 if field.always && !field.pointer => Some(0.into()),
                    _ => None,
                })
            }
            _ => None,
        }
    }
}

/// A list item's path element: `k:{"name":"a"}`. `None` where every key is missing.
pub(super) fn key_element<S: Structure>(item_structure: S, keys: &[String], item: &Value) -> Option<String> {
    let mut element = Map::new();
    for key in keys {
        let given = item.get(key).filter(|v| !v.is_null()).cloned();
        if let Some(value) = given.or_else(|| item_structure.key_default(key)) {
            element.insert(key.clone(), value);
        }
    }
    (!element.is_empty()).then(|| format!("k:{}", Value::Object(element)))
}
