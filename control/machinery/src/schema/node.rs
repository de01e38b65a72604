//! A value's place in a schema, wherever the schema comes from: the field table ([`Builtin`]), a custom resource's definition
//! ([`crate::custom::node`]), or nowhere. Whatever walks values by their schema asks no more than [`Node`] says.

use super::{Field, Schema, Shape, Special, TypeId};
use crate::field::Path;
use serde_json::Value;

/// What a schema says of a member of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member<N> {
    /// A field it names.
    Field(N),
    /// An entry of a map.
    Entry(N),
    /// A field that another schema describes, by which it is brought to its type on its own.
    Elsewhere(N),
    /// It is kept as it is.
    Kept,
    /// It has no place.
    Unknown,
}

impl<N> Member<N> {
    /// The member's own place, where it has one.
    #[must_use]
    pub fn node(self) -> Option<N> {
        match self {
            Member::Field(node) | Member::Entry(node) | Member::Elsewhere(node) => Some(node),
            Member::Kept | Member::Unknown => None,
        }
    }

    /// The same of another source of schemas.
    pub(crate) fn map<M>(self, to: impl FnOnce(N) -> M) -> Member<M> {
        match self {
            Member::Field(node) => Member::Field(to(node)),
            Member::Entry(node) => Member::Entry(to(node)),
            Member::Elsewhere(node) => Member::Elsewhere(to(node)),
            Member::Kept => Member::Kept,
            Member::Unknown => Member::Unknown,
        }
    }
}

/// A place in a schema.
pub trait Node: Copy {
    /// What is said of a member of an object that stands here.
    fn member(&self, name: &str) -> Member<Self>;

    /// The place of the items of a list that stands here; none where nothing is said of them.
    fn item(&self) -> Option<Self>;
}

/// From a value to a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step<'v> {
    Field(&'v str),
    Entry(&'v str),
    Item(usize),
}

impl Step<'_> {
    /// The path of the part of the value at `path`.
    pub(crate) fn below(self, path: &Path) -> Path {
        match self {
            Step::Field(name) => path.child(name),
            Step::Entry(key) => path.key(key),
            Step::Item(index) => path.index(index),
        }
    }
}

fn step<N: Node>(node: N, name: &str) -> Option<(Step<'_>, N)> {
    match node.member(name) {
        Member::Field(inner) => Some((Step::Field(name), inner)),
        Member::Entry(inner) => Some((Step::Entry(name), inner)),
        Member::Elsewhere(_) | Member::Kept | Member::Unknown => None,
    }
}

/// The parts of a value that its own schema describes.
pub(crate) fn parts<N: Node>(node: N, value: &Value) -> impl Iterator<Item = (Step<'_>, N, &Value)> {
    let fields = value.as_object().into_iter().flatten().filter_map(move |(name, value)| {
        let (step, inner) = step(node, name)?;
        Some((step, inner, value))
    });
    let list = value.as_array().and_then(|items| Some((node.item()?, items)));
    let items = list.into_iter().flat_map(|(inner, items)| {
        items.iter().enumerate().map(move |(i, value)| (Step::Item(i), inner, value))
    });
    fields.chain(items)
}

/// As [`parts`], to change them.
pub(crate) fn parts_mut<N: Node>(
    node: N,
    value: &mut Value,
) -> impl Iterator<Item = (Step<'_>, N, &mut Value)> {
    let (fields, list) = match value {
        Value::Object(fields) => (Some(fields), None),
        Value::Array(items) => (None, node.item().map(|inner| (inner, items))),
        _ => (None, None),
    };
    let fields = fields.into_iter().flatten().filter_map(move |(name, value)| {
        let (step, inner) = step(node, name)?;
        Some((step, inner, value))
    });
    let items = list.into_iter().flat_map(|(inner, items)| {
        items.iter_mut().enumerate().map(move |(i, value)| (Step::Item(i), inner, value))
    });
    fields.chain(items)
}

/// A place in the field table.
#[derive(Clone, Copy, Debug)]
pub struct Builtin<'s> {
    pub(crate) schema: &'s Schema,
    pub(crate) of: Of<'s>,
    /// The field whose value this is; none for objects, items and entries.
    pub(crate) held_by: Option<&'s Field>,
}

/// What stands at a place.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Of<'s> {
    /// A structure, which may carry `apiVersion` and `kind`.
    Struct { id: TypeId, typed: bool },
    /// Any other shape.
    Shape(&'s Shape),
    /// Something the table does not know.
    Nothing,
}

impl<'s> Builtin<'s> {
    /// An object of type `id`.
    #[must_use]
    pub fn new(schema: &'s Schema, id: TypeId) -> Self {
        Builtin { schema, of: Of::Struct { id, typed: true }, held_by: None }
    }

    fn at(schema: &'s Schema, shape: &'s Shape, held_by: Option<&'s Field>) -> Self {
        let of = match shape {
            Shape::Struct(id) => Of::Struct { id: *id, typed: schema.get(*id).is_object },
            shape => Of::Shape(shape),
        };
        Builtin { schema, of, held_by }
    }

    /// A JSON schema inside one of the shapes that hold it.
    fn json_schema(&self) -> Option<Self> {
        let id = self.schema.json_schema_props()?;
        Some(Builtin { of: Of::Struct { id, typed: false }, held_by: None, ..*self })
    }
}

impl Node for Builtin<'_> {
    fn member(&self, name: &str) -> Member<Self> {
        match self.of {
            Of::Struct { id, typed } => match self.schema.field(id, name) {
                Some(field) => Member::Field(Self::at(self.schema, &field.shape, Some(field))),
                None if typed && matches!(name, "apiVersion" | "kind") => Member::Kept,
                None => Member::Unknown,
            },
            Of::Shape(Shape::Map(inner)) => Member::Entry(Self::at(self.schema, inner, None)),
            Of::Shape(Shape::Special(
                Special::SchemaOrArray | Special::SchemaOrBool | Special::SchemaOrStrings,
            )) => self.json_schema().map_or(Member::Kept, |inner| inner.member(name)),
            Of::Shape(_) | Of::Nothing => Member::Kept,
        }
    }

    fn item(&self) -> Option<Self> {
        match self.of {
            Of::Shape(Shape::List(inner)) => Some(Self::at(self.schema, inner, None)),
            Of::Shape(Shape::Special(Special::SchemaOrArray)) => self.json_schema(),
            _ => None,
        }
    }
}
