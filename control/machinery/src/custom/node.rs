//! Places in a custom resource's schema: of a value alone (a [`Schema`]), and of objects, whose `apiVersion`, `kind` and `metadata` have a
//! type though the schema says nothing of it ([`Custom`]).

use super::schema::{Additional, Schema};
use crate::object::Gvk;
use crate::schema::node::{Builtin, Member, Node};
use crate::schema::{self, TypeId};
use std::sync::LazyLock;

static CONFIG_MAP: LazyLock<Option<TypeId>> =
    LazyLock::new(|| schema::builtin().kind(&Gvk::new("", "v1", "ConfigMap")));

/// `metadata`, as any built-in object has it.
pub(crate) fn metadata() -> Option<Builtin<'static>> {
    let object = Builtin::new(schema::builtin(), (*CONFIG_MAP)?);
    object.member("metadata").node()
}

impl Node for &Schema {
    fn member(&self, name: &str) -> Member<Self> {
        match (self.properties.get(name), self.additional_schema()) {
            (Some(property), _) => Member::Field(property),
            (None, Some(inner)) => Member::Entry(inner),
            (None, None) => Member::Kept,
        }
    }

    fn item(&self) -> Option<Self> {
        self.items.as_deref()
    }
}

/// A value of a custom resource.
#[derive(Clone, Copy, Debug)]
pub enum Custom<'s> {
    /// The object.
    Object(Option<&'s Schema>),
    /// A value or an object in it.
    Value {
        /// What it is to be.
        schema: &'s Schema,
        /// Fields nobody knows are kept, whatever the schema says: so do the items of a list that keeps them.
        keeps: bool,
    },
    /// A value no schema describes.
    Free,
    /// `metadata`.
    Metadata(Builtin<'s>),
}

impl<'s> Custom<'s> {
    pub(super) fn of(schema: &'s Schema) -> Self {
        Custom::Value { schema, keeps: false }
    }
}

impl Node for Custom<'_> {
    fn member(&self, name: &str) -> Member<Self> {
        let (schema, is_object, keeps) = match *self {
            Custom::Metadata(builtin) => return builtin.member(name).map(Custom::Metadata),
            Custom::Free => return Member::Unknown,
            Custom::Object(schema) => (schema, true, schema.is_some_and(|schema| schema.preserve)),
            Custom::Value { schema, keeps } => (Some(schema), schema.embedded, keeps || schema.preserve),
        };
        match name {
            "apiVersion" | "kind" if is_object => return Member::Kept,
            "metadata" if is_object => {
                return metadata().map_or(Member::Kept, |of| Member::Elsewhere(Custom::Metadata(of)));
            }
            _ => {}
        }
        let Some(schema) = schema else { return Member::Unknown };
        match (schema.properties.get(name), &schema.additional) {
            (Some(property), _) => Member::Field(Custom::of(property)),
            (None, Some(Additional::Schema(inner))) => Member::Entry(Custom::of(inner)),
            (None, Some(Additional::Any(_))) => Member::Entry(Custom::Free),
            (None, None) if keeps => Member::Kept,
            (None, None) => Member::Unknown,
        }
    }

    fn item(&self) -> Option<Self> {
        let (schema, keeps) = match *self {
            Custom::Metadata(builtin) => return builtin.item().map(Custom::Metadata),
            Custom::Free | Custom::Object(None) => return Some(Custom::Free),
            Custom::Object(Some(schema)) => (schema, schema.preserve),
            Custom::Value { schema, keeps } => (schema, keeps || schema.preserve),
        };
        match schema.items.as_deref() {
            Some(schema) => Some(Custom::Value { schema, keeps }),
            None if keeps => None,
            None => Some(Custom::Free),
        }
    }
}
