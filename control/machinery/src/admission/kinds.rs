//! Kinds as types of expressions (upstream: `cel/common/schemas.go`, over what is published in OpenAPI).

use crate::cel::words::field_name;
use crate::cel::{ObjectType, Type};
use crate::object::Gvk;
use crate::schema::{self, Schema, Shape, Special, TypeId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A built-in kind's type.
#[must_use]
pub fn builtin(gvk: &Gvk) -> Option<Type> {
    let table = schema::builtin();
    let mut fields = fields(table, table.kind(gvk)?, &mut Vec::new());
    fields.extend(["apiVersion", "kind"].map(|name| (name.to_owned(), Type::text())));
    Some(object(fields))
}

/// The type of every kind's `metadata`.
#[must_use]
pub(crate) fn metadata() -> Option<Type> {
    match builtin(&Gvk::new("", "v1", "Namespace"))? {
        Type::Object(namespace) => namespace.fields.get("metadata").cloned(),
        _ => None,
    }
}

fn object(fields: BTreeMap<String, Type>) -> Type {
    Type::Object(Arc::new(ObjectType { name: "object".to_owned(), fields, open: false }))
}

fn fields(table: &Schema, id: TypeId, within: &mut Vec<TypeId>) -> BTreeMap<String, Type> {
    within.push(id);
    let fields = table
        .properties(id)
        .filter_map(|field| Some((field_name(field.name)?, value(table, &field.shape, within))))
        .collect();
    within.pop();
    fields
}

/// `within`: the structures around; one within itself may be anything.
fn value(table: &Schema, shape: &Shape, within: &mut Vec<TypeId>) -> Type {
    match shape {
        Shape::Bool => Type::Bool,
        Shape::Int32 | Shape::Int64 => Type::Int,
        Shape::Float64 => Type::Double,
        Shape::String | Shape::Special(Special::Quantity | Special::Duration) => Type::text(),
        Shape::Bytes => Type::Bytes(crate::cel::types::UNBOUNDED),
        Shape::Special(Special::Time | Special::MicroTime) => Type::time(),
        Shape::Struct(id) if within.contains(id) => Type::Dyn,
        Shape::Struct(id) => object(fields(table, *id, within)),
        Shape::List(item) => Type::list(value(table, item, within)),
        Shape::Items => Type::list(Type::text()),
        Shape::Map(of) => Type::map(value(table, of, within)),
        Shape::Special(_) | Shape::Any => Type::Dyn,
    }
}
