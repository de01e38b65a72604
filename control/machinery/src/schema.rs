//! The field table: every built-in type's fields, as one compact description that the codecs, pruning, strict
//! decoding, strategic merge and server-side apply walk.
//!
//! - [`descriptions`]: what published schemas say of types and fields; [`openapi`]: what those schemas have in common.
//! - `constraints`: what the table says values are held to.
//! - `parse`: `data/fields.txt` into the table, once.
//! - [`normalize`]: a JSON value by its type: type check, unknown fields, Go's canonical form.
//! - [`node`]: a value's place in a schema of any source; `prune`: what has no place; `unsaid`: what protobuf does not tell.

mod constraints;
pub mod descriptions;
pub mod node;
pub(crate) mod normalize;
pub mod openapi;
mod parse;
pub(crate) mod prune;
mod unsaid;

use crate::object::Gvk;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::LazyLock;

pub(crate) use constraints::{Constraints, Format};
pub use normalize::{Normalized, TypeError};

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| parse::table(include_str!("../data/fields.txt")));

/// The built-in types, parsed on first use.
#[must_use]
pub fn builtin() -> &'static Schema {
    &SCHEMA
}

/// Names a type of a [`Schema`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeId(u16);

/// What a value looks like.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// `bool`.
    Bool,
    /// `int32`.
    Int32,
    /// `int64`.
    Int64,
    /// `float64`.
    Float64,
    /// `string`, and every type named after it.
    String,
    /// `[]byte`: base64 in JSON.
    Bytes,
    /// A structure with fields.
    Struct(TypeId),
    /// A JSON array of one shape.
    List(Box<Shape>),
    /// A map by string.
    Map(Box<Shape>),
    /// A list of strings that protobuf wraps in a message (`Verbs`, `ExtraValue`).
    Items,
    /// A type with an encoding of its own.
    Special(Special),
    /// Any JSON value, passed through.
    Any,
}

/// Types with an encoding of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// RFC 3339 to the second.
    Time,
    /// RFC 3339 with microseconds.
    MicroTime,
    /// Go's duration text, `1h30m`.
    Duration,
    /// `500m`, `1Gi`; numbers are read too.
    Quantity,
    /// A number or a text.
    IntOrString,
    /// A JSON object with `apiVersion` and `kind`.
    RawExtension,
    /// A set of fields.
    FieldsV1,
    /// Any JSON, kept as bytes in protobuf.
    Json,
    /// A JSON schema or a list of them.
    SchemaOrArray,
    /// A JSON schema or a boolean.
    SchemaOrBool,
    /// A JSON schema or a list of names.
    SchemaOrStrings,
}

/// How a list merges under server-side apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListType {
    /// Replaced as a whole.
    Atomic,
    /// Merged as a set of scalars.
    Set,
    /// By these keys of its items.
    Map(Box<[&'static str]>),
}

/// How a field merges under a strategic merge patch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PatchStrategy {
    /// Lists merge item by item, instead of being replaced.
    pub merge: bool,
    /// `$retainKeys` is understood: unions drop the keys that are not listed.
    pub retain_keys: bool,
    /// Replaced as a whole, even a map.
    pub replace: bool,
    /// The key that identifies the items of a merging list of objects.
    pub merge_key: Option<&'static str>,
}

/// A field of a structure.
#[derive(Clone, Debug)]
pub struct Field {
    /// Name in JSON.
    pub name: &'static str,
    /// Protobuf number; 0 where the type has no protobuf form.
    pub number: u32,
    /// What its value looks like.
    pub shape: Shape,
    /// The Go type as the table has it, for error texts.
    pub go_type: &'static str,
    /// Its fields stand in the parent's JSON, while protobuf nests it.
    pub inline: bool,
    /// Absent and zero differ.
    pub pointer: bool,
    /// Written even when empty.
    pub always: bool,
    /// OpenAPI lists it as required.
    pub required: bool,
    /// Null is a value.
    pub nullable: bool,
    /// List semantics under apply; none given means atomic.
    pub list: Option<ListType>,
    /// A map (or structure) that applies as a whole.
    pub atomic: bool,
    /// How a strategic merge patch treats it.
    pub patch: PatchStrategy,
    /// The default as JSON text.
    pub default: Option<&'static str>,
    /// Constraints on its value, where the table has any.
    pub(crate) constraints: Option<Box<Constraints>>,
}

/// A structure of the field table.
#[derive(Clone, Debug)]
pub struct Type {
    /// Its name within the package.
    pub name: &'static str,
    /// `k8s.io.api.core.v1`.
    pub package: &'static str,
    /// Its fields, in the table's order.
    pub fields: Box<[Field]>,
    /// Fields by JSON name, those of inlined structures among them; sorted.
    properties: Box<[(&'static str, TypeId, u16)]>,
    /// Indexes of fields that have a number, by it.
    by_number: Box<[u16]>,
    /// It carries `apiVersion` and `kind`.
    is_object: bool,
    /// A field of it, or of a structure below it, never changes.
    holds_fixed: bool,
    /// It applies as a whole wherever it stands.
    is_atomic: bool,
}

/// All types of the field table.
#[derive(Debug, Default)]
pub struct Schema {
    types: Vec<Type>,
    kinds: HashMap<(&'static str, &'static str), TypeId>,
    schema_props: Option<TypeId>,
}

/// Kinds of `meta.k8s.io/v1` that exist in every group version.
const META_KINDS: [&str; 17] = [
    "APIGroup",
    "APIGroupList",
    "APIResourceList",
    "APIVersions",
    "CreateOptions",
    "DeleteOptions",
    "GetOptions",
    "List",
    "ListOptions",
    "PartialObjectMetadata",
    "PartialObjectMetadataList",
    "PatchOptions",
    "Status",
    "Table",
    "TableOptions",
    "UpdateOptions",
    "WatchEvent",
];

impl Schema {
    /// The type of a kind: an object, its list, or one of the meta kinds every group version has.
    #[must_use]
    pub fn kind(&self, gvk: &Gvk) -> Option<TypeId> {
        self.named(&gvk.api_version(), &gvk.kind)
    }

    /// As [`Schema::kind`], by `apiVersion` and kind.
    #[must_use]
    pub fn named(&self, api_version: &str, kind: &str) -> Option<TypeId> {
        let meta = || {
            let known = META_KINDS.contains(&kind) && !api_version.is_empty();
            known.then(|| self.kinds.get(&("meta.k8s.io/v1", kind))).flatten()
        };
        self.kinds.get(&(api_version, kind)).or_else(meta).copied()
    }

    /// The types of another table than the program's.
    #[cfg(test)]
    pub(crate) fn of_table(text: &'static str) -> Schema {
        parse::table(text)
    }

    /// A type's description.
    ///
    /// # Panics
    /// Never for an id this schema handed out.
    #[must_use]
    pub fn get(&self, id: TypeId) -> &Type {
        &self.types[usize::from(id.0)]
    }

    /// A field by its JSON name, inlined structures' fields included.
    #[must_use]
    pub fn field(&self, id: TypeId, name: &str) -> Option<&Field> {
        let properties = &self.get(id).properties;
        let at = properties.binary_search_by(|(n, ..)| (*n).cmp(name)).ok()?;
        let (_, owner, index) = properties[at];
        self.get(owner).fields.get(usize::from(index))
    }

    /// Every JSON field of a type, inlined structures' fields included, by name.
    pub fn properties(&self, id: TypeId) -> impl Iterator<Item = &Field> {
        self.get(id)
            .properties
            .iter()
            .filter_map(|(_, owner, i)| self.get(*owner).fields.get(usize::from(*i)))
    }

    /// The same in the table's order, each structure's inlined fields in its place.
    pub(crate) fn properties_in_order(&self, id: TypeId) -> impl Iterator<Item = &Field> {
        self.get(id).fields.iter().flat_map(move |field| match (&field.shape, field.inline) {
            (Shape::Struct(inner), true) => self.get(*inner).fields.iter().collect(),
            (_, true) => Vec::new(),
            _ => vec![field],
        })
    }

    /// How many types there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.types.len()
    }

    /// True for a table without types.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.types.is_empty()
    }

    /// Every type, for those who publish them.
    pub fn types(&self) -> impl Iterator<Item = (TypeId, &Type)> {
        self.types.iter().enumerate().map(|(i, t)| (TypeId(i as u16), t))
    }

    /// `JSONSchemaProps`, which three special types refer to.
    pub(crate) fn json_schema_props(&self) -> Option<TypeId> {
        self.schema_props
    }
}

impl Type {
    /// Fields with a protobuf number, in its order, as they are written.
    pub fn numbered(&self) -> impl Iterator<Item = &Field> {
        self.by_number.iter().filter_map(|i| self.fields.get(usize::from(*i)))
    }

    /// A field by its protobuf number.
    #[must_use]
    pub(crate) fn by_number(&self, number: u32) -> Option<&Field> {
        let number_of = |i: &u16| self.fields.get(usize::from(*i)).map_or(0, |f| f.number);
        let at = self.by_number.binary_search_by_key(&number, number_of).ok()?;
        self.fields.get(usize::from(self.by_number[at]))
    }

    /// True where values carry `apiVersion` and `kind`.
    #[must_use]
    pub fn is_object(&self) -> bool {
        self.is_object
    }

    /// Whether a field of it, or of a structure below it that is in no list, never changes.
    pub(crate) fn holds_fixed(&self) -> bool {
        self.holds_fixed
    }

    /// Whether it applies as a whole wherever it stands, unless the field says otherwise.
    pub(crate) fn is_atomic(&self) -> bool {
        self.is_atomic
    }

    /// `v1`, the package as Go code and its error texts name it.
    #[must_use]
    pub fn go_package(&self) -> &'static str {
        self.package.rsplit('.').next().unwrap_or(self.package)
    }
}

impl Field {
    /// The default of a field that has one.
    #[must_use]
    pub fn default_value(&self) -> Option<Value> {
        match self.default? {
            "ref(AzureSharedBlobDisk)" => Some("Shared".into()),
            "ref(AzureDataDiskCachingReadWrite)" => Some("ReadWrite".into()),
            text => serde_json::from_str(text).ok(),
        }
    }

    /// The structure this field holds, or lists, or maps to.
    #[must_use]
    pub(crate) fn struct_type(&self) -> Option<TypeId> {
        self.shape.struct_type()
    }
}

impl Shape {
    /// The structure this is, or lists, or maps to.
    #[must_use]
    pub(crate) fn struct_type(&self) -> Option<TypeId> {
        match self {
            Shape::Struct(id) => Some(*id),
            Shape::List(inner) | Shape::Map(inner) => inner.struct_type(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
