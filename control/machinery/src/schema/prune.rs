//! What a schema has no place for is dropped and named; the rest is left as it is written, types unchecked.

use super::node::{Builtin, Member, Node};
use super::normalize::{MAX_STRICT_ERRORS, push_name};
use super::{Schema, TypeId};
use crate::goformat::go_quote;
use serde_json::Value;

impl Schema {
    /// Drops what the type does not know and says what that was: `unknown field "spec.foo"`, at most [`MAX_STRICT_ERRORS`].
    pub fn prune(&self, id: TypeId, value: &mut Value) -> Vec<String> {
        let gone = prune(Builtin::new(self, id), value);
        gone.iter().map(|path| format!("unknown field {}", go_quote(path))).collect()
    }
}

/// Drops what has no place. Gives the paths of what went, in the order of the value: `spec.list[0].x`; the first [`MAX_STRICT_ERRORS`], since
/// a path may be as long as the value.
pub(crate) fn prune<N: Node>(node: N, value: &mut Value) -> Vec<String> {
    let mut walk = Walk { path: String::new(), gone: Vec::new() };
    walk.visit(node, value);
    walk.gone
}

struct Walk {
    path: String,
    gone: Vec<String>,
}

impl Walk {
    fn visit<N: Node>(&mut self, node: N, value: &mut Value) {
        let length = self.path.len();
        match value {
            Value::Object(members) => members.retain(|name, value| {
                let known = match node.member(name) {
                    Member::Field(inner) | Member::Entry(inner) => {
                        if is_container(value) {
                            push_name(&mut self.path, name);
                            self.visit(inner, value);
                        }
                        true
                    }
                    Member::Elsewhere(_) | Member::Kept => true,
                    Member::Unknown => {
                        if self.gone.len() < MAX_STRICT_ERRORS {
                            push_name(&mut self.path, name);
                            self.gone.push(self.path.clone());
                        }
                        false
                    }
                };
                self.path.truncate(length);
                known
            }),
            Value::Array(items) => {
                let Some(inner) = node.item() else { return };
                for (i, item) in items.iter_mut().enumerate().filter(|(_, item)| is_container(item)) {
                    self.path.push_str(&format!("[{i}]"));
                    self.visit(inner, item);
                    self.path.truncate(length);
                }
            }
            _ => {}
        }
    }
}

fn is_container(value: &Value) -> bool {
    value.is_object() || value.is_array()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::builtin;
    use serde_json::json;

    #[track_caller]
    fn pruned(api_version: &str, kind: &str, mut object: Value, gone: &[&str], left: &Value) {
        let id = builtin().named(api_version, kind).unwrap();
        assert_eq!(prune(Builtin::new(builtin(), id), &mut object), gone);
        assert_eq!(object, *left);
    }

    #[test]
    fn what_applies_as_a_whole_must_not_keep_unknown_fields() {
        pruned(
            "apps/v1",
            "Deployment",
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "x": 1,
                "spec": {"selector": {"matchLabels": {"a": "b"}, "matchLabel": {}}, "template": {"kind": "Pod"}}}),
            &["spec.selector.matchLabel", "spec.template.kind", "x"],
            &json!({"apiVersion": "apps/v1", "kind": "Deployment",
                "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {}}}),
        );
    }

    #[test]
    fn what_nobody_describes_must_not_be_touched() {
        let revision = json!({"data": {"any": [{"thing": 1}]}, "metadata": {"managedFields": [{"fieldsV1": {"f:x": {}}}]}});
        pruned("apps/v1", "ControllerRevision", revision.clone(), &[], &revision);
    }

    #[test]
    fn schemas_in_schemas_are_looked_into() {
        let of = |schema: Value| json!({"spec": {"versions": [{"schema": {"openAPIV3Schema": schema}}]}});
        let left = json!({"properties": {"a": {"items": {"type": "string"}, "additionalProperties": true}},
            "dependencies": {"b": ["c"]}, "default": {"free": 1}});
        let mut given = left.clone();
        given["properties"]["a"]["items"]["typ"] = json!(1);
        pruned(
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
            of(given),
            &["spec.versions[0].schema.openAPIV3Schema.properties.a.items.typ"],
            &of(left),
        );
    }

    #[test]
    fn the_list_of_what_went_must_not_grow_without_bound() {
        let id = builtin().named("v1", "ConfigMap").unwrap();
        let many: serde_json::Map<String, Value> = (0..500).map(|i| (format!("x{i}"), Value::Null)).collect();
        let mut many = Value::Object(many);
        let mut walk = Walk { path: String::new(), gone: Vec::new() };
        walk.visit(Builtin::new(builtin(), id), &mut many);
        assert_eq!(
            (walk.gone.len(), many),
            (MAX_STRICT_ERRORS, json!({})),
            "what is not said goes all the same"
        );
    }
}
