//! What published schemas have in common, whichever kind they are of: how they refer to each other in either version of OpenAPI, the fields
//! every object has, and the kind they describe.

use super::descriptions::Descriptions;
use serde_json::{Map, Value, json};

/// Upstream's name of what `metadata` is.
pub const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
/// The same of lists.
pub const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// The version of OpenAPI a schema is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAPI 2.
    V2,
    /// OpenAPI 3.
    V3,
}

impl Dialect {
    /// A reference to a definition.
    #[must_use]
    pub fn reference(self, name: &str) -> Value {
        match self {
            Dialect::V2 => json!({"$ref": format!("#/definitions/{name}")}),
            Dialect::V3 => json!({"$ref": format!("#/components/schemas/{name}")}),
        }
    }

    /// A reference whose value is never absent: OpenAPI 3 says so by a default.
    #[must_use]
    pub(crate) fn present(self, name: &str) -> Value {
        let mut schema = self.reference(name);
        if self == Dialect::V3 {
            schema["default"] = json!({});
        }
        self.settle(&mut schema);
        schema
    }

    /// Makes what stands beside a reference count: OpenAPI 3 ignores it otherwise.
    pub fn settle(self, schema: &mut Value) {
        if self == Dialect::V3
            && let Some(object) = schema.as_object_mut()
            && object.len() > 1
            && let Some(reference) = object.remove("$ref")
        {
            object.insert("allOf".into(), json!([{"$ref": reference}]));
        }
    }
}

/// Says what a schema is about.
pub fn describe(schema: &mut Value, text: Option<String>) {
    if let Some(text) = text {
        schema["description"] = text.into();
    }
}

/// `apiVersion` and `kind`, which every object and list has.
pub fn type_meta(properties: &mut Map<String, Value>, texts: &Descriptions) {
    for name in ["apiVersion", "kind"] {
        let mut schema = json!({"type": "string"});
        describe(&mut schema, texts.common(name).map(str::to_owned));
        properties.insert(name.into(), schema);
    }
}

/// Names the kind that a schema describes.
pub fn of_kind(schema: &mut Value, group: &str, version: &str, kind: &str) {
    schema["x-kubernetes-group-version-kind"] = json!([{"group": group, "version": version, "kind": kind}]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_beside_a_reference_must_not_be_ignored() {
        for (dialect, wanted) in [
            (Dialect::V2, json!({"$ref": "#/definitions/A", "description": "d"})),
            (Dialect::V3, json!({"allOf": [{"$ref": "#/components/schemas/A"}], "description": "d"})),
        ] {
            let mut schema = dialect.reference("A");
            let alone = schema.clone();
            dialect.settle(&mut schema);
            assert_eq!(schema, alone);
            describe(&mut schema, Some("d".to_owned()));
            dialect.settle(&mut schema);
            assert_eq!(schema, wanted);
        }
    }
}
