//! One `openAPIV3Schema`.

use super::{Errors, Lenience};
use crate::access::Get as _;
use crate::custom::schema::Schema;
use crate::custom::{lists, meta, prune, rules, structural, validate};
use crate::field::{FieldError, Path};
use serde_json::Value;

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
/// What may stand at the root where the status is written apart, as upstream lists it.
const AT_ROOT: [(&str, &str); 22] = [
    ("description", "Description"),
    ("type", "Type"),
    ("format", "Format"),
    ("title", "Title"),
    ("maximum", "Maximum"),
    ("exclusiveMaximum", "ExclusiveMaximum"),
    ("minimum", "Minimum"),
    ("exclusiveMinimum", "ExclusiveMinimum"),
    ("maxLength", "MaxLength"),
    ("minLength", "MinLength"),
    ("pattern", "Pattern"),
    ("maxItems", "MaxItems"),
    ("minItems", "MinItems"),
    ("uniqueItems", "UniqueItems"),
    ("multipleOf", "MultipleOf"),
    ("required", "Required"),
    ("items", "Items"),
    ("properties", "Properties"),
    ("externalDocs", "ExternalDocs"),
    ("example", "Example"),
    ("x-kubernetes-preserve-unknown-fields", "XPreserveUnknownFields"),
    ("x-kubernetes-validations", "XValidations"),
];

/// Where in a schema a node stands.
#[derive(Clone, Default)]
struct Place {
    root: bool,
    in_metadata: bool,
    no_defaults: Option<String>,
    /// The outermost list or map whose items cannot be found again in an old object.
    uncorrelated: Option<Path>,
}

pub(super) fn check(
    props: &Value,
    old: Option<&Value>,
    status: bool,
    lenience: Lenience,
    path: &Path,
    errors: &mut Errors,
) {
    if !props.is_object() {
        return;
    }
    let mut own = Errors::new();
    if status {
        at_root(props, path, &mut own);
    }
    if props.flag("nullable") {
        let path = path.child("openAPIV3Schema.nullable");
        own.push(FieldError::forbidden(&path, "nullable cannot be true at the root"));
    }
    let path = path.child("openAPIV3Schema");
    let mut ruled = false;
    if !lenience.structural {
        let mut found = structural::check(props, &path);
        if found.is_empty() {
            defaults(props, &path, &mut found);
            ruled = found.is_empty();
        }
        own.extend(found);
    }
    let mut rule_errors = Errors::new();
    let place = Place { root: true, ..Place::default() };
    let mut budget = rules::Budget::default();
    node(props, &path, &place, ruled, old == Some(props), &mut budget, &mut own, &mut rule_errors);
    own.extend(rule_errors);
    if ruled {
        own.extend(budget.over(&path));
    }
    errors.extend(own);
}

fn at_root(props: &Value, path: &Path, errors: &mut Errors) {
    if props.text("type") != "object" && !props.text("type").is_empty() {
        let why = "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
        errors.push(FieldError::invalid(&path.child("openAPIV3Schema.type"), props.text("type"), why));
        return;
    }
    let more = |(key, value): (&String, &Value)| {
        !AT_ROOT.iter().any(|(name, _)| name == key) && !value.is_null() && *value != Value::Bool(false)
    };
    if props.as_object().into_iter().flatten().any(more) {
        let names: Vec<&str> = AT_ROOT.iter().map(|(_, name)| *name).collect();
        let why = format!(
            "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
            names.join(" ")
        );
        errors.push(FieldError::invalid(&path.child("openAPIV3Schema"), props.clone(), why));
    }
}

/// Every default must be a value its schema takes.
fn defaults(props: &Value, path: &Path, errors: &mut Errors) {
    let default = props.at("default");
    if !default.is_null() {
        let schema = Schema::from_props(props);
        let path = path.child("default");
        let mut pruned = default.clone();
        prune::prune_value(&schema, &mut pruned);
        if pruned != *default {
            errors.push(FieldError::invalid(&path, default.clone(), "must not have unknown fields"));
        }
        let mut found = Errors::new();
        match meta::coerce(&schema, &mut pruned, &path, false, &mut Vec::new()) {
            Err(error) => found.push(error),
            Ok(()) => meta::check(&schema, default, &path, &mut found),
        }
        if found.is_empty() {
            found = validate::check(&schema, default, None, &path);
        }
        if found.is_empty() {
            lists::check(&schema, default, &path, &mut found);
        }
        if found.is_empty() {
            found = rules::check(&schema, default, Some(default), &path);
        }
        errors.extend(found);
    }
    if props.at("items").is_object() {
        defaults(props.at("items"), &path.child("items"), errors);
    }
    for (name, property) in props.fields("properties").into_iter().flatten() {
        defaults(property, &path.child("properties").key(name), errors);
    }
}

#[allow(clippy::too_many_arguments, reason = "one walk, with what it gathers")]
fn node(
    s: &Value,
    path: &Path,
    place: &Place,
    ruled: bool,
    unchanged: bool,
    budget: &mut rules::Budget,
    errors: &mut Errors,
    rule_errors: &mut Errors,
) {
    let before = errors.len();
    allowed(s, place, path, errors);
    let mut child = |of: &Value, path: &Path, place: &Place, ruled: bool, scope: Option<rules::Step>| {
        if of.is_object() {
            budget.enter(scope);
            let place = Place { root: false, ..place.clone() };
            node(of, path, &place, ruled, unchanged, budget, errors, rule_errors);
            budget.leave(scope.is_some());
        }
    };
    let additional = s.at("additionalProperties");
    let properties = s.fields("properties");
    let mut exclusive = false;
    if s.has("additionalProperties") {
        exclusive = properties.is_some_and(|p| !p.is_empty()) && *additional != Value::Bool(true);
        let mut inner = place.clone();
        if place.in_metadata {
            inner.no_defaults = Some("inside additionalProperties applying to object metadata".to_owned());
        }
        let step = rules::Step::Map(s.int("maxProperties"));
        child(additional, &path.child("additionalProperties"), &inner, ruled, Some(step));
    }
    for (name, of) in properties.into_iter().flatten() {
        let mut inner = place.clone();
        let of_object = matches!(name.as_str(), "metadata" | "kind" | "apiVersion");
        if of_object && (place.root || s.flag("x-kubernetes-embedded-resource")) {
            inner.in_metadata = true;
            if place.root {
                inner.no_defaults = Some(format!("in top-level {name}"));
            }
        }
        child(of, &path.child("properties").key(name), &inner, ruled, Some(rules::Step::Field));
    }
    child(s.at("not"), &path.child("not"), place, false, None);
    for key in ["allOf", "oneOf", "anyOf"] {
        for (i, of) in s.items(key).iter().enumerate() {
            child(of, &path.child(key).index(i), place, false, None);
        }
    }
    for (name, of) in s.fields("definitions").into_iter().flatten() {
        child(of, &path.child("definitions").key(name), place, false, None);
    }
    if s.has("items") {
        let mut inner = place.clone();
        if s.text("x-kubernetes-list-type") != "map" {
            inner.uncorrelated.get_or_insert_with(|| path.clone());
        }
        let step = rules::Step::List(s.int("maxItems"));
        child(s.at("items"), &path.child("items"), &inner, ruled, Some(step));
        for (i, of) in s.items("items").iter().enumerate() {
            child(of, &path.child("items").index(i), &inner, ruled, Some(step));
        }
    }
    if exclusive {
        let why = "additionalProperties and properties are mutual exclusive";
        errors.push(FieldError::forbidden(&path.child("additionalProperties"), why));
    }
    if *s.at("x-kubernetes-preserve-unknown-fields") == Value::Bool(false) {
        let path = path.child("x-kubernetes-preserve-unknown-fields");
        errors.push(FieldError::invalid(&path, false, "must be true or undefined"));
    }
    list_and_map(s, path, errors);
    let texts = rules::declared(s, path);
    errors.extend(texts);
    if ruled && errors.len() == before && !s.items("x-kubernetes-validations").is_empty() {
        let found = rules::compile_all(s, place.root, path, place.uncorrelated.as_ref(), unchanged, budget);
        rule_errors.extend(found);
    }
}

/// What no schema may have.
fn allowed(s: &Value, place: &Place, path: &Path, errors: &mut Errors) {
    let kind = s.text("type");
    if !kind.is_empty() && !TYPES.contains(&kind) {
        errors.push(FieldError::not_supported(&path.child("type"), kind, &TYPES));
    }
    if let Some(reason) = place.no_defaults.as_ref().filter(|_| s.has("default")) {
        errors.push(FieldError::forbidden(&path.child("default"), format!("must not be set {reason}")));
    }
    for name in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
        let empty = match s.at(name) {
            Value::Null => true,
            Value::String(text) => text.is_empty() && name == "id",
            Value::Object(of) => of.is_empty() && name != "additionalItems" && name != "dependencies",
            _ => false,
        };
        if !empty {
            errors.push(FieldError::forbidden(&path.child(name), format!("{name} is not supported")));
        }
    }
    if kind == "null" {
        let why = "type cannot be set to null, use nullable as an alternative";
        errors.push(FieldError::forbidden(&path.child("type"), why));
    }
    if s.at("items").is_array() {
        let why = "items must be a schema object and not an array";
        errors.push(FieldError::forbidden(&path.child("items"), why));
    }
    if place.in_metadata && s.flag("x-kubernetes-embedded-resource") {
        let path = path.child("x-kubernetes-embedded-resource");
        errors.push(FieldError::forbidden(&path, "must not be used inside of resource meta"));
    }
    if s.flag("uniqueItems") {
        let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(FieldError::forbidden(&path.child("uniqueItems"), why));
    }
}

fn must_be(kind: &str, wanted: &str, extension: &str, path: &Path, errors: &mut Errors) {
    let why = format!("must be {wanted} if {extension} is specified");
    let path = path.child("type");
    errors.push(match kind {
        "" => FieldError::required(&path, why),
        kind => FieldError::invalid(&path, kind, why),
    });
}

fn list_and_map(s: &Value, path: &Path, errors: &mut Errors) {
    const MAP: &str = "x-kubernetes-map-type";
    const LIST: &str = "x-kubernetes-list-type";
    const KEYS: &str = "x-kubernetes-list-map-keys";
    let (kind, map, list) = (s.text("type"), s.text(MAP), s.text(LIST));
    let (items, keys) = (s.at("items"), s.items(KEYS));
    if !map.is_empty() && kind != "object" {
        must_be(kind, "object", MAP, path, errors);
    }
    if !map.is_empty() && map != "atomic" && map != "granular" {
        errors.push(FieldError::not_supported(&path.child(MAP), map, &["atomic", "granular"]));
    }
    if !list.is_empty() && kind != "array" {
        must_be(kind, "array", LIST, path, errors);
    } else if list == "set" {
        let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
        let inner = items.text(LIST);
        if items.text("type") == "array" && !inner.is_empty() && inner != "atomic" {
            errors.push(FieldError::invalid(&path.child("items").child(LIST), inner, why));
        }
        if items.text("type") == "object" && items.text(MAP) != "atomic" {
            errors.push(FieldError::invalid(&path.child("items").child(MAP), items.at(LIST).clone(), why));
        }
    }
    if !matches!(list, "" | "atomic" | "set" | "map") {
        errors.push(FieldError::not_supported_as_listed(&path.child(LIST), list, &["atomic", "set", "map"]));
    }
    if !keys.is_empty() && list != "map" {
        let why = "must be map if x-kubernetes-list-map-keys is non-empty";
        errors.push(match list {
            "" => FieldError::required(&path.child(LIST), why),
            list => FieldError::invalid(&path.child(LIST), list, why),
        });
    }
    if list == "map" {
        map_keys(s, items, keys, path, errors);
    }
    if matches!(list, "set" | "map") && items.flag("nullable") {
        let why = format!("cannot be nullable when x-kubernetes-list-type is {list}");
        errors.push(FieldError::forbidden(&path.child("items").child("nullable"), why));
    }
    if list == "map" {
        let required = items.items("required");
        for key in keys.iter().filter_map(Value::as_str) {
            let Some(of) = items.fields("properties").and_then(|p| p.get(key)) else { continue };
            let path = path.child("items").child("properties").key(key);
            if !required.iter().any(|r| r == key) && !of.has("default") {
                let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
                errors.push(FieldError::required(&path.child("default"), why));
            }
            if of.flag("nullable") {
                let why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
                errors.push(FieldError::forbidden(&path.child("nullable"), why));
            }
        }
    }
}

fn map_keys(s: &Value, items: &Value, keys: &[Value], path: &Path, errors: &mut Errors) {
    const KEYS: &str = "x-kubernetes-list-map-keys";
    let all = || s.at(KEYS).clone();
    if keys.is_empty() {
        let why = "must not be empty if x-kubernetes-list-type is map";
        errors.push(FieldError::required(&path.child(KEYS), why));
    }
    match items {
        Value::Null => {
            let why = "must have a schema if x-kubernetes-list-type is map";
            errors.push(FieldError::required(&path.child("items"), why));
        }
        Value::Array(_) => {
            let why = "must only have a single schema if x-kubernetes-list-type is map";
            errors.push(FieldError::invalid(&path.child("items"), items.clone(), why));
        }
        items if items.text("type") != "object" => {
            let why = "must be object if parent array's x-kubernetes-list-type is map";
            errors.push(FieldError::invalid(&path.child("items").child("type"), items.text("type"), why));
        }
        items => {
            for (i, key) in keys.iter().enumerate() {
                let name = key.as_str().unwrap_or_default();
                match items.fields("properties").and_then(|p| p.get(name)) {
                    Some(of) if matches!(of.text("type"), "array" | "object") => {
                        let path = path.child("items").child("properties").key(name).child("type");
                        let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                        errors.push(FieldError::invalid(&path, items.text("type"), why));
                    }
                    Some(_) => {}
                    None => {
                        let why = "entries must all be names of item properties";
                        errors.push(FieldError::invalid(&path.child(KEYS), all(), why));
                    }
                }
                if keys[..i].contains(key) {
                    let why = "must not contain duplicate entries";
                    errors.push(FieldError::invalid(&path.child(KEYS), all(), why));
                }
            }
        }
    }
}
