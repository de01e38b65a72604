//! A custom resource's schema: one node a value, read from the `JSONSchemaProps` of its definition.
//!
//! The node is what pruning, defaulting, validation, apply and rules walk; what they share with the field table of built-in types is
//! [`crate::schema::node`]. It is made from a definition that was accepted, so what a structural schema may not have is not in it.

use super::expression::Expression;
use crate::access::Get as _;
use crate::re2::Regex;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// What a schema says of entries that are no property.
#[derive(Clone, Debug)]
pub enum Additional {
    /// `additionalProperties: true` or `false`.
    Any(bool),
    /// Every value has this schema.
    Schema(Box<Schema>),
}

/// A regular expression, compiled when it is first asked for.
#[derive(Clone, Debug)]
pub struct Pattern {
    pub text: String,
    regex: OnceLock<Option<Regex>>,
}

impl Pattern {
    /// None where the text is no expression.
    pub(crate) fn regex(&self) -> Option<&Regex> {
        self.regex.get_or_init(|| Regex::new(&self.text).ok()).as_ref()
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    pub value: f64,
    /// The limit itself is refused.
    pub exclusive: bool,
}

/// How items of a list are distinguished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListKind {
    #[default]
    Atomic,
    /// By their values.
    Set,
    /// By the keys.
    Map,
}

/// One `x-kubernetes-validations` entry.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    pub rule: String,
    /// What is said where it is false.
    pub message: String,
    /// A CEL expression that makes the message.
    pub message_expression: String,
    /// `FieldValueInvalid` where empty.
    pub reason: String,
    /// The field blamed, relative to the schema's.
    pub field_path: String,
    /// `oldSelf` is an optional, and the rule holds for new objects too.
    pub optional_old_self: Option<bool>,
    /// The rule's expression.
    pub program: Option<Expression>,
    /// The expression of the message.
    pub message_program: Option<Expression>,
}

impl Rule {
    /// The rule as errors repeat it: its message, or itself.
    #[must_use]
    pub fn said(&self) -> &str {
        if self.message.is_empty() { self.rule.trim() } else { self.message.trim() }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// `object`, `array`, `string`, `integer`, `number`, `boolean`, or empty.
    pub kind: String,
    /// Null is a value.
    pub nullable: bool,
    /// What stands in for an absent value.
    pub default: Option<Value>,
    pub properties: BTreeMap<String, Schema>,
    pub additional: Option<Additional>,
    /// Items of a list.
    pub items: Option<Box<Schema>>,
    /// Fields nobody knows are kept.
    pub preserve: bool,
    /// The value is a whole object with metadata.
    pub embedded: bool,
    /// A number or a text.
    pub int_or_string: bool,
    /// How a list merges.
    pub list: ListKind,
    /// `x-kubernetes-list-type` is written.
    pub list_given: bool,
    /// The keys of a list of kind map.
    pub list_keys: Vec<String>,
    /// A map that merges as a whole.
    pub map_atomic: bool,
    /// Only one this server knows; others are ignored.
    pub format: String,
    pub maximum: Option<Bound>,
    pub minimum: Option<Bound>,
    pub multiple_of: Option<f64>,
    /// In characters.
    pub max_length: Option<i64>,
    /// In characters.
    pub min_length: Option<i64>,
    /// What a text must match.
    pub pattern: Option<Pattern>,
    /// Items of a list.
    pub max_items: Option<i64>,
    /// Items of a list.
    pub min_items: Option<i64>,
    /// Entries of an object.
    pub max_properties: Option<i64>,
    /// Entries of an object.
    pub min_properties: Option<i64>,
    /// Fields that must be there.
    pub required: Vec<String>,
    pub choices: Vec<Value>,
    pub all_of: Vec<Schema>,
    /// One at least must hold.
    pub any_of: Vec<Schema>,
    /// Exactly one must hold.
    pub one_of: Vec<Schema>,
    pub not: Option<Box<Schema>>,
    pub rules: Vec<Rule>,
}

fn number(value: &Value, key: &str) -> Option<f64> {
    value.at(key).as_f64()
}

fn bound(props: &Value, key: &str, exclusive: &str) -> Option<Bound> {
    Some(Bound { value: number(props, key)?, exclusive: props.flag(exclusive) })
}

fn texts(props: &Value, key: &str) -> Vec<String> {
    props.items(key).iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

fn all(props: &Value, key: &str) -> Vec<Schema> {
    props.items(key).iter().map(Schema::from_props).collect()
}

impl Schema {
    /// Reads `JSONSchemaProps`; what is absent or of another type reads as its zero value.
    #[must_use]
    pub(crate) fn from_props(props: &Value) -> Self {
        let kind = props.text("type").to_owned();
        let text = props.text("pattern");
        let additional = match props.at("additionalProperties") {
            Value::Bool(is) => Some(Additional::Any(*is)),
            schema @ Value::Object(_) => Some(Additional::Schema(Box::new(Schema::from_props(schema)))),
            _ => None,
        };
        Schema {
            nullable: props.flag("nullable"),
            default: Some(props.at("default").clone()).filter(|v| !v.is_null()),
            properties: props
                .fields("properties")
                .into_iter()
                .flatten()
                .map(|(name, of)| (name.clone(), Schema::from_props(of)))
                .collect(),
            additional,
            items: Some(props.at("items")).filter(|v| v.is_object()).map(|v| Box::new(Schema::from_props(v))),
            preserve: props.flag("x-kubernetes-preserve-unknown-fields"),
            embedded: props.flag("x-kubernetes-embedded-resource"),
            int_or_string: props.flag("x-kubernetes-int-or-string"),
            list: match props.text("x-kubernetes-list-type") {
                "set" => ListKind::Set,
                "map" => ListKind::Map,
                _ => ListKind::Atomic,
            },
            list_given: !props.text("x-kubernetes-list-type").is_empty(),
            list_keys: texts(props, "x-kubernetes-list-map-keys"),
            map_atomic: props.text("x-kubernetes-map-type") == "atomic",
            format: Some(props.text("format"))
                .filter(|f| crate::formats::known(&kind, f))
                .unwrap_or_default()
                .to_owned(),
            maximum: bound(props, "maximum", "exclusiveMaximum"),
            minimum: bound(props, "minimum", "exclusiveMinimum"),
            multiple_of: number(props, "multipleOf"),
            max_length: props.int("maxLength"),
            min_length: props.int("minLength"),
            pattern: (!text.is_empty()).then(|| Pattern { text: text.to_owned(), regex: OnceLock::new() }),
            max_items: props.int("maxItems"),
            min_items: props.int("minItems"),
            max_properties: props.int("maxProperties"),
            min_properties: props.int("minProperties"),
            required: texts(props, "required"),
            choices: props.items("enum").to_vec(),
            all_of: all(props, "allOf"),
            any_of: all(props, "anyOf"),
            one_of: all(props, "oneOf"),
            not: Some(props.at("not")).filter(|v| v.is_object()).map(|v| Box::new(Schema::from_props(v))),
            rules: props.items("x-kubernetes-validations").iter().map(rule).collect(),
            kind,
        }
    }

    /// The schema of a field: a property, or what all other fields have.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Schema> {
        self.properties.get(name).or_else(|| self.additional_schema())
    }

    /// The schema of fields that are no property.
    #[must_use]
    pub(crate) fn additional_schema(&self) -> Option<&Schema> {
        match &self.additional {
            Some(Additional::Schema(schema)) => Some(schema),
            _ => None,
        }
    }

    /// The old item that an item of a list of kind map was before.
    #[must_use]
    pub(crate) fn old_item<'a>(&self, item: &Value, old: &'a Value) -> Option<&'a Value> {
        if self.list != ListKind::Map {
            return None;
        }
        let key = |item: &Value| -> Vec<Value> {
            let of = |k: &String| match (item.get(k), self.items.as_ref().and_then(|i| i.properties.get(k))) {
                (Some(value), _) => value.clone(),
                (None, Some(Schema { default: Some(default), .. })) => default.clone(),
                _ => Value::Null,
            };
            self.list_keys.iter().map(of).collect()
        };
        let wanted = key(item);
        old.as_array()?.iter().find(|candidate| candidate.is_object() && key(candidate) == wanted)
    }
}

fn rule(of: &Value) -> Rule {
    Rule {
        rule: of.text("rule").to_owned(),
        message: of.text("message").to_owned(),
        message_expression: of.text("messageExpression").to_owned(),
        reason: of.text("reason").to_owned(),
        field_path: of.text("fieldPath").to_owned(),
        optional_old_self: of.at("optionalOldSelf").as_bool(),
        program: Expression::of(of.text("rule")),
        message_program: Expression::of(of.text("messageExpression")),
    }
}
