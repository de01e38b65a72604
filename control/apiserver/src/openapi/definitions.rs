//! Types as JSON schemas, from the field table.

use crate::discovery::custom::schema_name;
use crate::discovery::{Catalog, Resource};
use machinery::schema::descriptions::Descriptions;
use machinery::schema::openapi::{self, Dialect, describe};
use machinery::schema::{Field, ListType, PatchStrategy, Shape, Special, Type, TypeId, builtin};
use rustc_hash::FxHashMap;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::LazyLock;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const EXTENSIONS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1";
/// Packages that no served resource is of.
const UNPUBLISHED: [&str; 4] =
    ["api.admission.", "api.apidiscovery.", "k8s.io.metrics.", "api.apiserverinternal."];
/// Meta kinds that clients look up in the core group.
const CORE_META_KINDS: [&str; 5] = ["APIGroup", "APIResourceList", "DeleteOptions", "Status", "WatchEvent"];

/// `io.k8s.api.core.v1.Pod`.
#[must_use]
pub fn name(kind: &Type) -> String {
    let package = kind.package.strip_prefix("k8s.io.").unwrap_or(kind.package).replace('_', "-");
    format!("io.k8s.{package}.{}", kind.name)
}

/// The definition of a kind: its name, if the table has the kind.
#[must_use]
pub fn of_kind(api_version: &str, kind: &str) -> Option<String> {
    builtin().named(api_version, kind).map(|id| name(builtin().get(id)))
}

/// Definitions, each made when it is asked for: a document needs a few of them.
pub struct Definitions<'c> {
    catalog: &'c Catalog,
    dialect: Dialect,
    texts: Descriptions,
    special: FxHashMap<String, Value>,
    /// Of resources that are not built in: the kind behind a name.
    foreign: BTreeMap<String, Foreign>,
}

/// A kind that is not built in.
struct Foreign {
    group: String,
    version: String,
    kind: String,
}

/// The types of the field table by the names of their definitions.
static TYPES: LazyLock<BTreeMap<String, TypeId>> = LazyLock::new(|| {
    let published =
        builtin().types().filter(|(_, kind)| !UNPUBLISHED.iter().any(|p| kind.package.contains(p)));
    published.map(|(id, kind)| (name(kind), id)).collect()
});

impl<'c> Definitions<'c> {
    /// What is built in, and nothing else yet.
    #[must_use]
    pub fn new(catalog: &'c Catalog, dialect: Dialect) -> Self {
        let texts = Descriptions::read();
        let patch = (format!("{META}.Patch"), json!({"type": "object"}));
        let special = special_definitions(dialect).into_iter().chain([patch]).map(|(name, mut schema)| {
            describe(&mut schema, texts.of_type(name.rsplit('.').next().unwrap_or_default()));
            (name, schema)
        });
        Definitions { catalog, dialect, special: special.collect(), foreign: BTreeMap::new(), texts }
    }

    /// Takes in a resource that is not built in: its objects, and its lists where its source describes them. Gives the names.
    pub fn add(&mut self, group: &str, version: &str, resource: &Resource) -> Vec<String> {
        let described = |kind: &str| {
            // A list's schema says little: to ask for it is to learn whether there is one.
            kind == resource.kind || self.catalog.schema(group, version, kind, self.dialect).is_some()
        };
        let kinds = [resource.kind.clone(), resource.lists()];
        let kinds: Vec<String> = kinds.into_iter().filter(|kind| described(kind)).collect();
        let mut names = Vec::new();
        for kind in kinds {
            let name = schema_name(group, version, &kind);
            let of = Foreign { group: group.to_owned(), version: version.to_owned(), kind };
            self.foreign.insert(name.clone(), of);
            names.push(name);
        }
        names
    }

    /// Whether anything is defined by that name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        TYPES.contains_key(name) || self.special.contains_key(name) || self.foreign.contains_key(name)
    }

    /// What is defined by that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Value> {
        if let Some(of) = self.foreign.get(name) {
            let undescribed = || json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
            let schema = self.catalog.schema(&of.group, &of.version, &of.kind, self.dialect);
            let mut schema = schema.filter(Value::is_object).unwrap_or_else(undescribed);
            openapi::of_kind(&mut schema, &of.group, &of.version, &of.kind);
            return Some(schema);
        }
        if let Some(schema) = self.special.get(name) {
            return Some(schema.clone());
        }
        let id = *TYPES.get(name)?;
        Some(definition(id, builtin().get(id), self.dialect, &self.texts))
    }

    /// Every name.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let all = TYPES.keys().chain(self.special.keys().filter(|name| !TYPES.contains_key(*name)));
        all.chain(self.foreign.keys()).map(String::as_str)
    }
}

fn definition(id: TypeId, kind: &Type, dialect: Dialect, texts: &Descriptions) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    if kind.is_object() {
        openapi::type_meta(&mut properties, texts);
    }
    for field in builtin().properties(id) {
        if field.inline {
            continue;
        }
        if field.required {
            required.push(field.name);
        }
        properties
            .insert(field.name.to_owned(), property(field, dialect, texts.of_field(builtin(), id, field)));
    }
    let mut schema = json!({"type": "object"});
    describe(&mut schema, texts.of_type(kind.name));
    if !properties.is_empty() {
        schema["properties"] = properties.into();
    }
    if !required.is_empty() {
        required.sort_unstable();
        schema["required"] = json!(required);
    }
    if let Some((group, version)) = group_version(kind) {
        openapi::of_kind(&mut schema, group, version, kind.name);
    }
    if kind.name.ends_with("Selector")
        && kind.package.ends_with("core.v1")
        && ATOMIC_SELECTORS.contains(&kind.name)
    {
        schema["x-kubernetes-map-type"] = "atomic".into();
    }
    schema
}

/// Structures that apply as a whole wherever they stand.
const ATOMIC_SELECTORS: [&str; 6] = [
    "ConfigMapKeySelector",
    "FileKeySelector",
    "NodeSelector",
    "ObjectFieldSelector",
    "ResourceFieldSelector",
    "SecretKeySelector",
];

/// Group and version of an object type.
fn group_version(kind: &Type) -> Option<(&'static str, &'static str)> {
    if !kind.is_object() {
        return None;
    }
    if kind.package.ends_with("apis.meta.v1") {
        return CORE_META_KINDS.contains(&kind.name).then_some(("", "v1"));
    }
    published_group(kind)
}

/// The group a package's objects are served in.
fn published_group(kind: &Type) -> Option<(&'static str, &'static str)> {
    let version = kind.go_package();
    let groups = machinery::resources::groups();
    groups.iter().filter(|g| g.versions.contains(&version)).find_map(|g| {
        let api_version = machinery::object::format_api_version(g.name, version);
        let id = builtin().named(&api_version, kind.name)?;
        let found = builtin().get(id);
        (found.package == kind.package).then_some((g.name, version))
    })
}

fn property(field: &Field, dialect: Dialect, text: Option<String>) -> Value {
    let mut schema = shape(&field.shape, dialect);
    describe(&mut schema, text);
    if let Some(default) = field.default_value() {
        schema["default"] = default;
    }
    let mut extend = |name: &str, value: Value| {
        schema[format!("x-kubernetes-{name}")] = value;
    };
    match &field.list {
        Some(ListType::Atomic) => extend("list-type", "atomic".into()),
        Some(ListType::Set) => extend("list-type", "set".into()),
        Some(ListType::Map(keys)) => {
            extend("list-type", "map".into());
            extend("list-map-keys", json!(keys));
        }
        None => {}
    }
    if field.atomic {
        extend("map-type", "atomic".into());
    }
    if let Some(strategy) = strategy(&field.patch) {
        extend("patch-strategy", strategy.into());
    }
    if let Some(key) = field.patch.merge_key {
        extend("patch-merge-key", key.into());
    }
    dialect.settle(&mut schema);
    schema
}

fn strategy(patch: &PatchStrategy) -> Option<String> {
    let parts: Vec<&str> =
        [(patch.merge, "merge"), (patch.retain_keys, "retainKeys"), (patch.replace, "replace")]
            .into_iter()
            .filter_map(|(is, name)| is.then_some(name))
            .collect();
    (!parts.is_empty()).then(|| parts.join(","))
}

fn shape(of: &Shape, dialect: Dialect) -> Value {
    match of {
        Shape::Bool => json!({"type": "boolean"}),
        Shape::Int32 => json!({"type": "integer", "format": "int32"}),
        Shape::Int64 => json!({"type": "integer", "format": "int64"}),
        Shape::Float64 => json!({"type": "number", "format": "double"}),
        Shape::String => json!({"type": "string"}),
        Shape::Bytes => json!({"type": "string", "format": "byte"}),
        Shape::Struct(id) => dialect.reference(&name(builtin().get(*id))),
        Shape::List(inner) => json!({"type": "array", "items": shape(inner, dialect)}),
        Shape::Map(inner) => json!({"type": "object", "additionalProperties": shape(inner, dialect)}),
        Shape::Items => json!({"type": "array", "items": {"type": "string"}}),
        Shape::Special(special) => dialect.reference(&special_name(*special)),
        Shape::Any => json!({"type": "object"}),
    }
}

fn special_name(special: Special) -> String {
    match special {
        Special::Time => format!("{META}.Time"),
        Special::MicroTime => format!("{META}.MicroTime"),
        Special::Duration => format!("{META}.Duration"),
        Special::FieldsV1 => format!("{META}.FieldsV1"),
        Special::Quantity => "io.k8s.apimachinery.pkg.api.resource.Quantity".into(),
        Special::IntOrString => "io.k8s.apimachinery.pkg.util.intstr.IntOrString".into(),
        Special::RawExtension => "io.k8s.apimachinery.pkg.runtime.RawExtension".into(),
        Special::Json => format!("{EXTENSIONS}.JSON"),
        Special::SchemaOrArray => format!("{EXTENSIONS}.JSONSchemaPropsOrArray"),
        Special::SchemaOrBool => format!("{EXTENSIONS}.JSONSchemaPropsOrBool"),
        Special::SchemaOrStrings => format!("{EXTENSIONS}.JSONSchemaPropsOrStringArray"),
    }
}

fn special_definitions(dialect: Dialect) -> Vec<(String, Value)> {
    // OpenAPI 2 cannot say that a number will do as well; OpenAPI 3 can.
    let number_too = |v2: Value| match dialect {
        Dialect::V2 => v2,
        Dialect::V3 => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
    };
    let either = match dialect {
        Dialect::V2 => json!({"type": "string", "format": "int-or-string"}),
        Dialect::V3 => json!({"oneOf": [{"type": "integer"}, {"type": "string"}], "format": "int-or-string"}),
    };
    [
        (Special::Time, json!({"type": "string", "format": "date-time"})),
        (Special::MicroTime, json!({"type": "string", "format": "date-time"})),
        (Special::Duration, json!({"type": "string"})),
        (Special::FieldsV1, json!({"type": "object"})),
        (Special::Quantity, number_too(json!({"type": "string"}))),
        (Special::IntOrString, either),
        (Special::RawExtension, json!({"type": "object"})),
        (Special::Json, json!({})),
        (Special::SchemaOrArray, json!({})),
        (Special::SchemaOrBool, json!({})),
        (Special::SchemaOrStrings, json!({})),
    ]
    .into_iter()
    .map(|(special, schema)| (special_name(special), schema))
    .collect()
}
