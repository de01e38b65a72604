//! What published schemas say of types and fields: `data/descriptions.txt`.
//!
//! The text stays in the program's file; it is read where a document is made, and nothing of it is kept.

use super::{Field, Schema, TypeId};
use std::collections::HashMap;

const TEXT: &str = include_str!("../../data/descriptions.txt");

/// Types and fields with what is said of them.
#[derive(Debug, Default)]
pub struct Descriptions {
    types: HashMap<&'static str, &'static str>,
    /// By type (empty for what is common) and field.
    fields: HashMap<(&'static str, &'static str), &'static str>,
    /// Types whose other fields are those of another.
    like: HashMap<&'static str, &'static str>,
}

impl Descriptions {
    /// Reads the data file.
    #[must_use]
    pub fn read() -> Self {
        let mut out = Descriptions::default();
        let mut of = "";
        for line in TEXT.lines() {
            if let Some(other) = line.strip_prefix("  = ") {
                out.like.insert(of, other);
            } else if let Some(field) = line.strip_prefix("  ") {
                if let Some((name, text)) = field.split_once(' ') {
                    out.fields.insert((of, name), text);
                }
            } else if let Some(kind) = line.strip_prefix("type ") {
                let (name, text) = kind.split_once(' ').unwrap_or((kind, ""));
                out.types.insert(name, text);
                of = name;
            }
        }
        out
    }

    /// What a type is. Lists need no line of their own.
    #[must_use]
    pub fn of_type(&self, name: &str) -> Option<String> {
        let listed = || name.strip_suffix("List").map(|item| format!("A list of {item}."));
        self.types.get(name).map(|text| (*text).to_owned()).or_else(listed)
    }

    /// What a field is: of its type, of a type that stands inline in it, of every type, or the type of its value.
    #[must_use]
    pub fn of_field(&self, schema: &Schema, id: TypeId, field: &Field) -> Option<String> {
        let own = self.written(schema, id, field.name);
        let value = field.struct_type().map(|id| schema.get(id).name);
        // A list's metadata is not an object's.
        let shared =
            (field.name != "metadata" || value == Some("ObjectMeta")).then(|| self.common(field.name));
        let text = own.or(shared.flatten()).map(str::to_owned);
        text.or_else(|| self.of_type(value?))
    }

    /// What a field of this name is wherever it stands.
    #[must_use]
    pub fn common(&self, field: &str) -> Option<&'static str> {
        self.fields.get(&("", field)).copied()
    }

    fn written(&self, schema: &Schema, id: TypeId, field: &str) -> Option<&'static str> {
        let kind = schema.get(id);
        let inlined = kind.fields.iter().filter(|f| f.inline).filter_map(Field::struct_type);
        let other = || self.fields.get(&(*self.like.get(kind.name)?, field));
        self.fields
            .get(&(kind.name, field))
            .or_else(other)
            .copied()
            .or_else(|| inlined.into_iter().find_map(|id| self.written(schema, id, field)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::builtin;
    use std::collections::HashSet;

    /// Upstream's conformance suite looks for these words in what `kubectl explain` prints.
    #[test]
    fn words_that_clients_look_for_must_not_be_missing() {
        let all = Descriptions::read();
        for (of, field, words) in [
            ("", "apiVersion", "APIVersion defines"),
            ("", "metadata", "Standard object's metadata"),
            ("ObjectMeta", "creationTimestamp", "CreationTimestamp is a timestamp"),
        ] {
            assert!(all.fields[&(of, field)].starts_with(words), "{of} {field}");
        }
    }

    #[test]
    fn every_line_is_of_a_type_and_field_that_exist() {
        let (schema, all) = (builtin(), Descriptions::read());
        let special =
            ["Time", "MicroTime", "Duration", "Quantity", "IntOrString", "RawExtension", "FieldsV1", "Patch"];
        let fields: HashSet<(&str, &str)> =
            schema.types().flat_map(|(_, t)| t.fields.iter().map(|f| (t.name, f.name))).collect();
        let names: HashSet<&str> = schema.types().map(|(_, t)| t.name).chain(special).collect();
        let unknown: Vec<&&str> = all.types.keys().filter(|name| !names.contains(*name)).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
        assert!(all.like.values().all(|name| names.contains(name)), "{:?}", all.like);
        let known: HashSet<&str> =
            fields.iter().map(|(_, field)| *field).chain(["apiVersion", "kind"]).collect();
        let unknown: Vec<_> = all
            .fields
            .keys()
            .filter(
                |(of, field)| {
                    if of.is_empty() { !known.contains(field) } else { !fields.contains(&(*of, *field)) }
                },
            )
            .filter(|(of, field)| !(matches!(*field, "apiVersion" | "kind") && names.contains(of)))
            .collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    /// Packages whose types nobody publishes.
    const UNPUBLISHED: [&str; 4] =
        ["api.admission.", "api.apidiscovery.", "k8s.io.metrics.", "api.apiserverinternal."];

    #[test]
    fn no_type_and_no_field_must_go_without_a_description() {
        let (schema, all) = (builtin(), Descriptions::read());
        let mut missing = Vec::new();
        let published =
            schema.types().filter(|(_, kind)| !UNPUBLISHED.iter().any(|p| kind.package.contains(p)));
        for (id, kind) in published {
            if all.of_type(kind.name).is_none_or(|text| text.is_empty()) {
                missing.push(format!("type {}", kind.name));
            }
            for field in schema.properties(id).filter(|field| !field.inline) {
                if all.of_field(schema, id, field).is_none_or(|text| text.is_empty()) {
                    missing.push(format!("{}.{}", kind.name, field.name));
                }
            }
        }
        assert!(missing.is_empty(), "{}: {missing:?}", missing.len());
    }

    #[test]
    fn a_field_is_described_where_it_stands() {
        let (schema, all) = (builtin(), Descriptions::read());
        let of = |version: &str, kind: &str, field: &str| {
            let id = schema.named(version, kind).unwrap();
            all.of_field(schema, id, schema.field(id, field).unwrap()).unwrap()
        };
        assert_eq!(of("v1", "Pod", "spec"), "What the pod is to run.");
        assert_eq!(of("apps/v1", "Deployment", "spec"), "What its author wants.");
        assert_eq!(of("v1", "PodList", "metadata"), "What every list has.");
        assert_eq!(all.of_type("PodList").as_deref(), Some("A list of Pod."));
    }
}
