//! A custom resource's schema: one node a value, read from the `JSONSchemaProps` of its definition.
//!
//! The node is what pruning, defaulting, validation, apply and rules walk; what they share with the field table of built-in types is
//! [`crate::schema::node`]. It is made from a definition that was accepted, so what a structural schema may not have is not in it. What is
//! below a node is [`Shared`] with all that say the same.

mod shared;

pub(crate) use shared::Shared;
pub use shared::sweep;

use super::expression::Expression;
use crate::access::Get as _;
use crate::re2::Regex;
use serde_json::Value;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::OnceLock;

/// What a schema says of entries that are no property.
#[derive(Clone, Debug, PartialEq)]
pub enum Additional {
    /// `additionalProperties: true` or `false`.
    Any(bool),
    /// Every value has this schema.
    Schema(Shared),
}

/// A regular expression, compiled when it is first asked for.
#[derive(Clone, Debug)]
pub struct Pattern {
    pub text: String,
    regex: OnceLock<Option<Regex>>,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ListKind {
    #[default]
    Atomic,
    /// By their values.
    Set,
    /// By the keys.
    Map,
}

/// One `x-kubernetes-validations` entry.
#[derive(Clone, Debug, Default, PartialEq)]
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

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schema {
    /// `object`, `array`, `string`, `integer`, `number`, `boolean`, or empty.
    pub kind: String,
    /// Null is a value.
    pub nullable: bool,
    /// What stands in for an absent value.
    pub default: Option<Value>,
    pub properties: BTreeMap<String, Shared>,
    pub additional: Option<Additional>,
    /// Items of a list.
    pub items: Option<Shared>,
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
    pub all_of: Vec<Shared>,
    /// One at least must hold.
    pub any_of: Vec<Shared>,
    /// Exactly one must hold.
    pub one_of: Vec<Shared>,
    pub not: Option<Shared>,
    pub rules: Vec<Rule>,
    /// There are rules here or at any depth below.
    pub ruled: bool,
}

/// By all that tells schemas apart.
impl Hash for Schema {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.kind, &self.format, self.nullable, self.preserve, self.embedded, self.int_or_string)
            .hash(state);
        (self.list, self.list_given, &self.list_keys, self.map_atomic, &self.required).hash(state);
        (self.max_length, self.min_length, self.max_items, self.min_items).hash(state);
        (self.max_properties, self.min_properties, self.pattern.as_ref().map(|p| &p.text)).hash(state);
        let bits = |bound: Option<Bound>| bound.map(|bound| (bound.value.to_bits(), bound.exclusive));
        (bits(self.maximum), bits(self.minimum), self.multiple_of.map(f64::to_bits)).hash(state);
        for (name, property) in &self.properties {
            (name, property.address()).hash(state);
        }
        match &self.additional {
            Some(Additional::Schema(schema)) => schema.address().hash(state),
            Some(Additional::Any(any)) => any.hash(state),
            None => {}
        }
        for one in [&self.items, &self.not] {
            one.as_ref().map(Shared::address).hash(state);
        }
        for many in [&self.all_of, &self.any_of, &self.one_of] {
            many.iter().map(Shared::address).collect::<Vec<_>>().hash(state);
        }
        for rule in &self.rules {
            (&rule.rule, &rule.message, &rule.message_expression, &rule.reason).hash(state);
            (&rule.field_path, rule.optional_old_self).hash(state);
        }
        for value in self.default.iter().chain(&self.choices) {
            value.to_string().hash(state);
        }
    }
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

fn all(props: &Value, key: &str) -> Vec<Shared> {
    props.items(key).iter().map(below).collect()
}

fn below(props: &Value) -> Shared {
    Schema::from_props(props).into()
}

fn one(props: &Value, key: &str) -> Option<Shared> {
    Some(props.at(key)).filter(|of| of.is_object()).map(below)
}

impl Schema {
    /// Reads `JSONSchemaProps`; what is absent or of another type reads as its zero value.
    #[must_use]
    pub(crate) fn from_props(props: &Value) -> Self {
        let kind = props.text("type").to_owned();
        let text = props.text("pattern");
        let additional = match props.at("additionalProperties") {
            Value::Bool(is) => Some(Additional::Any(*is)),
            schema @ Value::Object(_) => Some(Additional::Schema(below(schema))),
            _ => None,
        };
        let mut schema = Schema {
            nullable: props.flag("nullable"),
            default: Some(props.at("default").clone()).filter(|v| !v.is_null()),
            properties: props
                .fields("properties")
                .into_iter()
                .flatten()
                .map(|(name, of)| (name.clone(), below(of)))
                .collect(),
            additional,
            items: one(props, "items"),
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
            not: one(props, "not"),
            rules: props.items("x-kubernetes-validations").iter().map(rule).collect(),
            ruled: false,
            kind,
        };
        schema.ruled = !schema.rules.is_empty()
            || schema.properties.values().any(|of| of.ruled)
            || schema.additional_schema().is_some_and(|of| of.ruled)
            || schema.items.as_ref().is_some_and(|of| of.ruled);
        schema
    }

    /// The schema of a field: a property, or what all other fields have.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Schema> {
        self.properties.get(name).map(|property| &**property).or_else(|| self.additional_schema())
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
            let default = |k: &String| self.items.as_ref()?.properties.get(k)?.default.clone();
            let of = |k: &String| item.get(k).cloned().or_else(|| default(k)).unwrap_or_default();
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
