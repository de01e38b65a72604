//! Formats in the schemas of custom resources that nobody checks (upstream: `getUnrecognizedFormatsInCRD`).

use serde_json::Value;

use super::write::Write;
use crate::{access::Get, formats::known, goformat::go_quote};

/// Each format that is new here and unknown, as often as it stands.
pub(super) fn unknown(write: &Write<'_>, found: &mut Vec<String>) {
    let old = write.old.map(of_definition).unwrap_or_default();
    let new = of_definition(write.object).into_iter().filter(|format| !old.contains(format));
    found.extend(new.map(|format| format!("unrecognized format {}", go_quote(format))));
}

fn of_definition(definition: &Value) -> Vec<&str> {
    let mut found = Vec::new();
    for version in definition.items("spec.versions") {
        of_schema(version.at("schema.openAPIV3Schema"), &mut found);
    }
    found
}

fn of_schema<'v>(schema: &'v Value, found: &mut Vec<&'v str>) {
    if !schema.is_object() {
        return;
    }
    let format = schema.text("format");
    if !format.is_empty() && !known(schema.text("type"), format) {
        found.push(format);
    }
    for key in ["additionalItems", "additionalProperties", "items", "not"] {
        of_schema(schema.at(key), found);
    }
    for key in ["allOf", "anyOf", "items", "oneOf"] {
        schema.items(key).iter().for_each(|schema| of_schema(schema, found));
    }
    for key in ["definitions", "dependencies", "patternProperties", "properties"] {
        schema.fields(key).into_iter().flatten().for_each(|(_, schema)| of_schema(schema, found));
    }
}
