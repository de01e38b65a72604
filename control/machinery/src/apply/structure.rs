//! What merges how under server-side apply.

use crate::schema::{ListType, Schema, Shape, TypeId};
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

/// The structure of a value, wherever it comes from: the field table, a custom resource's schema, or nothing.
pub trait Structure: Copy {
    /// How a value of this structure merges.
    fn rule(&self, value: &Value) -> Rule;
    /// The structure of a field or map entry.
    fn field(&self, name: &str) -> Self;
    /// The structure of a list's items.
    fn item(&self) -> Self;
    /// What a missing list key stands for.
    fn key_default(&self, _key: &str) -> Option<Value> {
        None
    }
}

/// A value without a schema: maps merge, lists do not.
#[derive(Clone, Copy, Debug)]
pub struct Deduced;

impl Structure for Deduced {
    fn rule(&self, value: &Value) -> Rule {
        if value.is_object() { Rule::Map } else { Rule::Atomic }
    }

    fn field(&self, _: &str) -> Self {
        Deduced
    }

    fn item(&self) -> Self {
        Deduced
    }
}

/// A value of the field table.
#[derive(Clone, Copy, Debug)]
pub struct Builtin<'s> {
    schema: &'s Schema,
    node: Node<'s>,
}

#[derive(Clone, Copy, Debug)]
enum Node<'s> {
    Struct(TypeId),
    Shape { shape: &'s Shape, list: Option<&'s ListType> },
    Atomic,
}

/// Structures that apply as a whole wherever they stand (upstream: `+structType=atomic` on the type).
const ATOMIC: [&str; 26] = [
    "ConfigMapKeySelector",
    "CrossVersionObjectReference",
    "EndpointAddress",
    "EndpointPort",
    "FileKeySelector",
    "LabelSelector",
    "LocalObjectReference",
    "MatchResources",
    "NamedRuleWithOperations",
    "NodeSelector",
    "NodeSelectorTerm",
    "ObjectFieldSelector",
    "ObjectReference",
    "OwnerReference",
    "ParamKind",
    "ParamRef",
    "ResourceFieldSelector",
    "RoleRef",
    "ScopeSelector",
    "ScopedResourceSelectorRequirement",
    "SecretKeySelector",
    "SecretReference",
    "ServiceBackendPort",
    "Subject",
    "TopologySelectorTerm",
    "TypedLocalObjectReference",
];

impl<'s> Builtin<'s> {
    /// An object of type `id`.
    #[must_use]
    pub fn new(schema: &'s Schema, id: TypeId) -> Self {
        Builtin { schema, node: Node::Struct(id) }
    }

    fn of(schema: &'s Schema, shape: &'s Shape, list: Option<&'s ListType>, granular: bool) -> Self {
        let node = match shape {
            Shape::Struct(id) if !granular && ATOMIC.contains(&schema.get(*id).name) => Node::Atomic,
            Shape::Struct(id) => Node::Struct(*id),
            shape => Node::Shape { shape, list },
        };
        Builtin { schema, node }
    }
}

impl Structure for Builtin<'_> {
    fn rule(&self, value: &Value) -> Rule {
        match (self.node, value) {
            (Node::Struct(_), Value::Object(_)) => Rule::Struct,
            (Node::Shape { shape: Shape::Map(_), .. }, Value::Object(_)) => Rule::Map,
            (Node::Shape { shape: Shape::List(_), list: Some(list) }, Value::Array(_)) => match list {
                ListType::Atomic => Rule::Atomic,
                ListType::Set => Rule::ListSet,
                ListType::Map(keys) => Rule::ListMap(keys.iter().map(|k| (*k).to_owned()).collect()),
            },
            _ => Rule::Atomic,
        }
    }

    fn field(&self, name: &str) -> Self {
        let atomic = Builtin { schema: self.schema, node: Node::Atomic };
        match self.node {
            Node::Struct(id) => match self.schema.field(id, name) {
                Some(field) if field.atomic => atomic,
                // The one reference that is marked granular: a volume's claim.
                Some(field) => {
                    Self::of(self.schema, &field.shape, field.list.as_ref(), field.name == "claimRef")
                }
                None => atomic,
            },
            Node::Shape { shape: Shape::Map(inner), .. } => Self::of(self.schema, inner, None, false),
            _ => atomic,
        }
    }

    fn item(&self) -> Self {
        match self.node {
            Node::Shape { shape: Shape::List(inner), .. } => Self::of(self.schema, inner, None, false),
            _ => Builtin { schema: self.schema, node: Node::Atomic },
        }
    }

    fn key_default(&self, key: &str) -> Option<Value> {
        match self.node {
            Node::Struct(id) => self.schema.field(id, key)?.default_value(),
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
