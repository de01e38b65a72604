//! What protobuf does not say: it knows no difference between an empty list and none, so what was stored in it is read back with neither,
//! and Go writes null where a field is written whatever it is.

use super::{Schema, Shape, TypeId};
use serde_json::{Map, Value};

impl Schema {
    /// Makes empty lists and maps null where they are always written, as reading an object from protobuf does; others are left out of an
    /// object in its canonical form already.
    pub fn unsay_empty(&self, id: TypeId, value: &mut Value) {
        if let Value::Object(members) = value {
            self.unsay_members(id, members);
        }
    }

    fn unsay_members(&self, id: TypeId, members: &mut Map<String, Value>) {
        for field in &self.get(id).fields {
            if let (true, Shape::Struct(inner)) = (field.inline, &field.shape) {
                self.unsay_members(*inner, members);
            } else if let Some(value) = members.get_mut(field.name) {
                if field.always && is_empty(&field.shape, value) {
                    *value = Value::Null;
                } else {
                    self.unsay_inside(&field.shape, value);
                }
            }
        }
    }

    fn unsay_inside(&self, shape: &Shape, value: &mut Value) {
        match (shape, value) {
            (Shape::Struct(id), value) => self.unsay_empty(*id, value),
            (Shape::List(inner), Value::Array(items)) => {
                items.iter_mut().for_each(|item| self.unsay_inside(inner, item));
            }
            (Shape::Map(inner), Value::Object(entries)) => {
                entries.values_mut().for_each(|entry| self.unsay_inside(inner, entry));
            }
            _ => {}
        }
    }
}

fn is_empty(shape: &Shape, value: &Value) -> bool {
    match (shape, value) {
        (Shape::List(_), Value::Array(items)) => items.is_empty(),
        (Shape::Map(_), Value::Object(entries)) => entries.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use crate::schema::builtin;
    use serde_json::{Value, json};

    fn read_back(api_version: &str, kind: &str, mut object: Value) -> Value {
        builtin().unsay_empty(builtin().named(api_version, kind).unwrap(), &mut object);
        object
    }

    #[test]
    fn an_empty_list_must_not_come_back_as_one_where_go_writes_it_always() {
        let role = |rules: Value| read_back("rbac.authorization.k8s.io/v1", "Role", json!({"rules": rules}));
        assert_eq!(role(json!([])), json!({"rules": null}));
        assert_eq!(role(json!([{"verbs": []}])), json!({"rules": [{"verbs": null}]}));
        assert_eq!(role(json!([{"verbs": ["get"]}])), json!({"rules": [{"verbs": ["get"]}]}));
        let slice = json!({"endpoints": [], "ports": []});
        let slice = read_back("discovery.k8s.io/v1", "EndpointSlice", slice);
        assert_eq!(slice, json!({"endpoints": null, "ports": null}));
        let pod =
            json!({"spec": {"volumes": [{"name": "v", "projected": {"sources": []}}], "nodeSelector": {}}});
        let read = read_back("v1", "Pod", pod);
        assert_eq!(
            read["spec"],
            json!({"volumes": [{"name": "v", "projected": {"sources": null}}], "nodeSelector": {}})
        );
    }

    #[test]
    fn what_nobody_describes_must_not_lose_its_lists() {
        let revision = json!({"data": {"rules": [], "items": {}}, "revision": 0});
        assert_eq!(read_back("apps/v1", "ControllerRevision", revision.clone()), revision);
    }
}
