//! `data/fields.txt` into the table. The format is described beside its source: `package`, `alias` and `type` lines,
//! and indented field lines `name number goType attribute...`.

use super::{Constraints, Field, ListType, PatchStrategy, Schema, Shape, Special, Type, TypeId};
use std::collections::HashMap;

struct Package {
    name: &'static str,
    api_version: &'static str,
    /// `core.v1`, as other packages refer to it.
    short: &'static str,
    aliases: HashMap<&'static str, &'static str>,
    /// The values of the aliases that are enumerations.
    values: HashMap<&'static str, &'static str>,
    types: Vec<(&'static str, Vec<&'static str>)>,
}

/// Types the table leaves out: one frames other objects, the others have no fields.
const BY_HAND: [(&str, &str, &[&str]); 3] = [
    (
        "meta.v1",
        "WatchEvent",
        &["  type 1 string always required", "  object 2 runtime.RawExtension always required"],
    ),
    ("apiextensions.v1", "CustomResourceSubresourceStatus", &[]),
    ("apiserverinternal.v1alpha1", "StorageVersionSpec", &[]),
];

/// Group versions that share another's types.
const SAME_AS: [(&str, &str); 1] = [("apidiscovery.k8s.io/v2beta1", "apidiscovery.k8s.io/v2")];

/// Structures that have `metadata` but no `apiVersion` and `kind`.
const TEMPLATES: [&str; 4] =
    ["PodTemplateSpec", "JobTemplateSpec", "PersistentVolumeClaimTemplate", "ResourceClaimTemplateSpec"];

/// Objects without `metadata`.
const BARE_OBJECTS: [&str; 6] =
    ["AdmissionReview", "ConversionReview", "RangeAllocation", "SerializedReference", "List", "Status"];

/// Structures that apply as a whole wherever they stand (upstream: `+structType=atomic` on the type).
const ATOMIC: [&str; 25] = [
    "ConfigMapKeySelector",
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

/// Those that do in some versions only.
const ATOMIC_IN: [(&str, &str); 3] = [
    ("admissionregistration.v1", "Variable"),
    ("admissionregistration.v1beta1", "Variable"),
    ("autoscaling.v1", "CrossVersionObjectReference"),
];

pub(super) fn table(text: &'static str) -> Schema {
    let packages = read(text);
    let mut ids: HashMap<(&str, &str), TypeId> = HashMap::new();
    let mut next = 0_u16;
    for package in &packages {
        for (name, _) in &package.types {
            ids.insert((package.short, name), TypeId(next));
            next = next.saturating_add(1);
        }
    }
    let mut schema = Schema {
        schema_props: ids.get(&("apiextensions.v1", "JSONSchemaProps")).copied(),
        ..Schema::default()
    };
    for package in &packages {
        for (name, lines) in &package.types {
            let fields = lines.iter().filter_map(|line| field(line, package, &packages, &ids)).collect();
            if let Some(id) = ids.get(&(package.short, *name)) {
                schema.kinds.insert((package.api_version, name), *id);
            }
            schema.types.push(Type {
                name,
                package: package.name,
                fields,
                properties: Box::default(),
                by_number: Box::default(),
                is_object: false,
                holds_fixed: false,
                is_atomic: ATOMIC.contains(name) || ATOMIC_IN.contains(&(package.short, name)),
            });
        }
        for name in package.aliases.keys() {
            if let Shape::Struct(id) = shape(name, package, &packages, &ids) {
                schema.kinds.insert((package.api_version, name), id);
            }
        }
    }
    for (version, other) in SAME_AS {
        let shared: Vec<_> =
            schema.kinds.iter().filter(|((v, _), _)| *v == other).map(|((_, k), id)| (*k, *id)).collect();
        schema.kinds.extend(shared.into_iter().map(|(kind, id)| ((version, kind), id)));
    }
    index(&mut schema);
    schema
}

fn read(text: &'static str) -> Vec<Package> {
    let mut packages: Vec<Package> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("package ") {
            let (name, api_version) = rest.split_once(' ').unwrap_or((rest, ""));
            let short = name.rmatch_indices('.').nth(1).map_or(name, |(i, _)| &name[i + 1..]);
            packages.push(Package {
                name,
                api_version,
                short,
                aliases: HashMap::new(),
                values: HashMap::new(),
                types: Vec::new(),
            });
            continue;
        }
        let Some(package) = packages.last_mut() else { continue };
        if let Some(rest) = line.strip_prefix("alias ") {
            if let Some((name, target)) = rest.split_once(" = ") {
                let (target, values) = target.split_once(" (").unwrap_or((target, ""));
                package.aliases.insert(name, target);
                if !values.is_empty() {
                    package.values.insert(name, values.trim_end_matches(')'));
                }
            }
        } else if let Some(name) = line.strip_prefix("type ") {
            package.types.push((name.trim(), Vec::new()));
        } else if let (true, Some((_, lines))) = (line.starts_with("  "), package.types.last_mut()) {
            lines.push(line);
        }
    }
    for (short, name, lines) in BY_HAND {
        let home = packages.iter_mut().find(|p| p.short == short);
        if let Some(home) = home.filter(|p| !p.types.iter().any(|(n, _)| *n == name)) {
            home.types.push((name, lines.to_vec()));
        }
    }
    packages
}

fn special(package: &str, name: &str) -> Option<Shape> {
    Some(match (package, name) {
        ("meta.v1", "Time") => Shape::Special(Special::Time),
        ("meta.v1", "MicroTime") => Shape::Special(Special::MicroTime),
        ("meta.v1", "Duration") => Shape::Special(Special::Duration),
        ("meta.v1", "FieldsV1") => Shape::Special(Special::FieldsV1),
        ("resource", "Quantity") => Shape::Special(Special::Quantity),
        ("intstr", "IntOrString") => Shape::Special(Special::IntOrString),
        ("runtime", "RawExtension") => Shape::Special(Special::RawExtension),
        ("types", _) => Shape::String,
        ("apiextensions.v1", "JSON") => Shape::Special(Special::Json),
        ("apiextensions.v1", "JSONSchemaPropsOrArray") => Shape::Special(Special::SchemaOrArray),
        ("apiextensions.v1", "JSONSchemaPropsOrBool") => Shape::Special(Special::SchemaOrBool),
        ("apiextensions.v1", "JSONSchemaPropsOrStringArray") => Shape::Special(Special::SchemaOrStrings),
        _ => return None,
    })
}

fn shape(go: &str, package: &Package, packages: &[Package], ids: &HashMap<(&str, &str), TypeId>) -> Shape {
    let inner = |go: &str| shape(go, package, packages, ids);
    match go {
        "bool" => return Shape::Bool,
        "int32" => return Shape::Int32,
        "int64" => return Shape::Int64,
        "float64" => return Shape::Float64,
        "string" => return Shape::String,
        "[]byte" => return Shape::Bytes,
        "interface{}" => return Shape::Any,
        "ValidationRules" => return Shape::List(Box::new(inner("ValidationRule"))),
        _ => {}
    }
    if let Some(element) = go.strip_prefix("[]") {
        return Shape::List(Box::new(inner(element)));
    }
    if let Some(value) = go.strip_prefix("map[").and_then(|rest| rest.split_once(']')) {
        return Shape::Map(Box::new(inner(value.1)));
    }
    let (home, name) = match go.rsplit_once('.') {
        Some((short, name)) => (short, name),
        None => (package.short, go),
    };
    if let Some(special) = special(home, name) {
        return special;
    }
    let Some(home) = packages.iter().find(|p| p.short == home) else { return Shape::Any };
    if let Some(target) = home.aliases.get(name) {
        return match *target {
            "[]string" => Shape::Items,
            target => shape(target, home, packages, ids),
        };
    }
    ids.get(&(home.short, name)).map_or(Shape::Any, |id| Shape::Struct(*id))
}

/// The values a field's type enumerates, or those of a list or map of it; empty where it does not.
fn values(go: &str, package: &Package, packages: &[Package]) -> &'static str {
    let go =
        go.strip_prefix("[]").or_else(|| Some(go.strip_prefix("map[")?.split_once(']')?.1)).unwrap_or(go);
    let (home, name) = match go.rsplit_once('.') {
        Some((short, name)) => (packages.iter().find(|p| p.short == short), name),
        None => (Some(package), go),
    };
    let Some(home) = home else { return "" };
    match (home.values.get(name), home.aliases.get(name)) {
        (Some(values), _) => values,
        // A type of another package by the same name.
        (None, Some(target)) if target.contains('.') => values(target, home, packages),
        _ => "",
    }
}

fn field(
    line: &'static str,
    package: &Package,
    packages: &[Package],
    ids: &HashMap<(&str, &str), TypeId>,
) -> Option<Field> {
    let mut words = line.split_whitespace();
    let name = words.next()?;
    let number = words.next()?.parse().unwrap_or(0);
    let go_type = words.next()?;
    let mut field = Field {
        name,
        number,
        shape: shape(go_type, package, packages, ids),
        go_type,
        inline: false,
        pointer: false,
        always: false,
        required: false,
        nullable: false,
        list: None,
        atomic: false,
        patch: PatchStrategy::default(),
        default: None,
        constraints: Constraints::read(words.clone(), values(go_type, package, packages)),
    };
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("inline", _) => field.inline = true,
            ("pointer", _) => field.pointer = true,
            ("always", _) => field.always = true,
            ("required", _) => field.required = true,
            ("nullable", _) => field.nullable = true,
            ("list", kind) => field.list = list_type(kind),
            ("map" | "struct", kind) => field.atomic = kind == "atomic",
            ("patch", strategy) => field.patch = patch_strategy(strategy),
            ("default", value) => field.default = Some(value),
            _ => {}
        }
    }
    Some(field)
}

fn arguments(text: &'static str) -> (&'static str, &'static str) {
    let (head, rest) = text.split_once('(').unwrap_or((text, ""));
    (head, rest.trim_end_matches(')'))
}

fn list_type(text: &'static str) -> Option<ListType> {
    match arguments(text) {
        ("atomic", _) => Some(ListType::Atomic),
        ("set", _) => Some(ListType::Set),
        ("map", keys) => Some(ListType::Map(keys.split(',').collect())),
        _ => None,
    }
}

fn patch_strategy(text: &'static str) -> PatchStrategy {
    let (strategies, key) = arguments(text);
    let has = |name| strategies.split(',').any(|s| s == name);
    PatchStrategy {
        merge: has("merge"),
        retain_keys: has("retainKeys"),
        replace: has("replace"),
        merge_key: (!key.is_empty()).then_some(key),
    }
}

fn index(schema: &mut Schema) {
    for i in 0..schema.types.len() {
        let mut properties = Vec::new();
        collect_properties(schema, TypeId(i as u16), &mut properties, 0);
        properties.sort_unstable_by_key(|(name, ..)| *name);
        let kind = &mut schema.types[i];
        let mut by_number: Vec<u16> =
            (0..kind.fields.len() as u16).filter(|f| kind.fields[usize::from(*f)].number > 0).collect();
        by_number.sort_unstable_by_key(|f| kind.fields[usize::from(*f)].number);
        let has_metadata = kind.fields.iter().any(|f| f.name == "metadata");
        kind.is_object =
            (has_metadata && !TEMPLATES.contains(&kind.name)) || BARE_OBJECTS.contains(&kind.name);
        kind.properties = properties.into();
        kind.by_number = by_number.into();
    }
    while mark_fixed(schema) {}
}

/// Marks the types with a field that never changes, and those that hold such a type; false once all are marked.
fn mark_fixed(schema: &mut Schema) -> bool {
    let below = |field: &Field| match field.shape {
        Shape::Struct(id) => schema.get(id).holds_fixed,
        _ => false,
    };
    let fixed = |field: &Field| field.constraints.as_ref().is_some_and(|c| c.fixed.is_some()) || below(field);
    let found = schema.types.iter().position(|kind| !kind.holds_fixed && kind.fields.iter().any(fixed));
    match found {
        Some(index) => schema.types[index].holds_fixed = true,
        None => return false,
    }
    true
}

fn collect_properties(schema: &Schema, id: TypeId, out: &mut Vec<(&'static str, TypeId, u16)>, depth: u8) {
    for (i, field) in schema.get(id).fields.iter().enumerate() {
        match (&field.shape, field.inline) {
            (Shape::Struct(inner), true) if depth < 8 => collect_properties(schema, *inner, out, depth + 1),
            (_, true) => {}
            _ => out.push((field.name, id, i as u16)),
        }
    }
}
