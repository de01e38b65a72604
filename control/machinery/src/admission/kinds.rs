//! Kinds as types of expressions (upstream: `cel/common/schemas.go`, over what is published in OpenAPI).

use crate::cel::words::field_name;
use crate::cel::{ObjectType, Type};
use crate::custom::rules;
use crate::custom::schema::Schema as CustomSchema;
use crate::object::Gvk;
use crate::schema::{self, Schema, Shape, Special, TypeId};
use std::sync::Arc;

/// A built-in kind's type.
#[must_use]
pub fn builtin(gvk: &Gvk) -> Option<Type> {
    let table = schema::builtin();
    table.kind(gvk).map(|id| structure(table, id, &mut Vec::new()))
}

/// A custom kind's type, with all of `metadata`.
#[must_use]
pub fn custom(schema: Option<&CustomSchema>) -> Type {
    let own = rules::object_type(schema);
    // Every built-in object has the same metadata.
    let pod = builtin(&Gvk::new("", "v1", "Pod"));
    match (own, pod) {
        (Type::Object(own), Some(Type::Object(pod))) => {
            let mut own = ObjectType::clone(&own);
            let metadata = pod.fields.get("metadata").cloned();
            own.fields.extend(metadata.map(|metadata| ("metadata".to_owned(), metadata)));
            Type::Object(Arc::new(own))
        }
        (own, _) => own,
    }
}

/// `within`: the structures around; one within itself may be anything.
fn structure(table: &Schema, id: TypeId, within: &mut Vec<TypeId>) -> Type {
    if within.contains(&id) {
        return Type::Dyn;
    }
    within.push(id);
    let fields = table
        .properties(id)
        .filter_map(|field| Some((field_name(field.name)?, value(table, &field.shape, within))))
        .collect();
    within.pop();
    Type::Object(Arc::new(ObjectType { name: "object".to_owned(), fields, open: false }))
}

fn value(table: &Schema, shape: &Shape, within: &mut Vec<TypeId>) -> Type {
    match shape {
        Shape::Bool => Type::Bool,
        Shape::Int32 | Shape::Int64 => Type::Int,
        Shape::Float64 => Type::Double,
        Shape::String | Shape::Special(Special::Quantity | Special::Duration) => Type::text(),
        Shape::Bytes => Type::Bytes(crate::cel::types::UNBOUNDED),
        Shape::Special(Special::Time | Special::MicroTime) => Type::Time,
        Shape::Struct(id) => structure(table, *id, within),
        Shape::List(item) => Type::list(value(table, item, within)),
        Shape::Items => Type::list(Type::text()),
        Shape::Map(of) => Type::map(value(table, of, within)),
        Shape::Special(_) | Shape::Any => Type::Dyn,
    }
}
