//! Objects of requests and answers, as events show them. Upstream: `apiserver/pkg/audit/request.go`.

use super::event::Json;
use machinery::access::Get as _;
use machinery::codec::yaml;
use serde_json::Value;

/// An object; without its `managedFields` if `bare`.
pub(super) fn of(mut object: Value, bare: bool) -> Option<Json> {
    if bare {
        strip(&mut object);
    }
    Json::of(&object)
}

/// An object that is JSON already.
pub(super) fn of_bytes(json: &[u8], bare: bool) -> Option<Json> {
    match bare {
        true => serde_json::from_slice(json).ok().and_then(|object| of(object, true)),
        false => Json::of_bytes(json),
    }
}

/// A patch as it was sent. One in YAML is made JSON, which it must be in an event.
pub(super) fn of_patch(patch: &[u8]) -> Option<Json> {
    Json::of_bytes(patch).or_else(|| yaml::decode(patch).ok().and_then(|patch| Json::of(&patch.value)))
}

/// Takes away who owns which fields: of an object, of each of a list, of each a table shows.
fn strip(object: &mut Value) {
    let own = |object: &mut Value| {
        machinery::access::remove_at(object, "metadata.managedFields");
    };
    own(object);
    if object.text("kind") == "Table" {
        let rows = object.get_mut("rows").and_then(Value::as_array_mut);
        rows.into_iter().flatten().filter_map(|row| row.get_mut("object")).for_each(own);
    } else {
        let items = object.get_mut("items").and_then(Value::as_array_mut);
        items.into_iter().flatten().for_each(own);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn written(json: Option<Json>) -> Value {
        serde_json::to_value(json.unwrap()).unwrap()
    }

    #[test]
    fn managed_fields_are_left_out_wherever_they_stand() {
        let owned = json!({"metadata": {"name": "n", "managedFields": [1]}});
        let bare = json!({"metadata": {"name": "n"}});
        for (shape, expected) in [
            (owned.clone(), bare.clone()),
            (json!({"kind": "L", "items": [owned, {}]}), json!({"kind": "L", "items": [bare, {}]})),
            (
                json!({"kind": "Table", "rows": [{"object": owned}, {}]}),
                json!({"kind": "Table", "rows": [{"object": bare}, {}]}),
            ),
        ] {
            assert_eq!(written(of_bytes(shape.to_string().as_bytes(), true)), expected);
            assert_eq!(written(of(shape.clone(), false)), shape);
        }
    }

    #[test]
    fn a_patch_in_yaml_must_not_cost_the_event() {
        assert_eq!(written(of_patch(b"a:\n  b: 1\n")), json!({"a": {"b": 1}}));
        assert_eq!(written(of_patch(b"[ {\"op\": \"test\"} ]")), json!([{"op": "test"}]));
    }
}
