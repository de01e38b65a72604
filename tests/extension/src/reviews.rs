//! The webhooks: admission of anything, and conversion of objects whose size has three forms. Pure.
//!
//! `/mutate` labels what it sees; `/validate` refuses what has the label `forbidden`, and warns; `/convert` knows `v1` (`size: 2x3`), `v2` (`width`,
//! `height`) and `v3` (`box`), and refuses what has the label `stubborn`.

use base64::Engine as _;
use serde_json::{Value, json};

/// The label that mutation sets.
pub const MARK: &str = "example.windlass.dev/seen";

/// The answer to a review sent to a path; none where no webhook is there.
#[must_use]
pub fn answer(path: &str, review: &Value) -> Option<Value> {
    let request = &review["request"];
    let mut response = match path {
        "/mutate" => mutation(request),
        "/validate" => validation(request),
        "/convert" => conversion(request),
        _ => return None,
    };
    response["uid"] = request["uid"].clone();
    Some(json!({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response}))
}

fn mutation(request: &Value) -> Value {
    if !request["object"].is_object() || request["object"]["metadata"]["labels"][MARK].is_string() {
        return json!({"allowed": true});
    }
    // A key's slash is `~1` in a path.
    let key = MARK.replace('/', "~1");
    let patch = match request["object"]["metadata"]["labels"].is_object() {
        true => json!([{"op": "add", "path": format!("/metadata/labels/{key}"), "value": "yes"}]),
        false => json!([{"op": "add", "path": "/metadata/labels", "value": {MARK: "yes"}}]),
    };
    let patch = base64::engine::general_purpose::STANDARD.encode(patch.to_string());
    json!({"allowed": true, "patchType": "JSONPatch", "patch": patch, "auditAnnotations": {"mutated": "true"}})
}

fn validation(request: &Value) -> Value {
    if request["object"]["metadata"]["labels"]["forbidden"].is_string() {
        return json!({"allowed": false, "status": {"code": 403, "reason": "Forbidden", "message": "its label says so"}});
    }
    json!({"allowed": true, "warnings": ["looked at"], "auditAnnotations": {"looked": "true"}})
}

fn conversion(request: &Value) -> Value {
    let to = request["desiredAPIVersion"].as_str().unwrap_or_default();
    let objects = request["objects"].as_array().map(Vec::as_slice).unwrap_or_default();
    if let Some(object) = objects.iter().find(|object| object["metadata"]["labels"]["stubborn"].is_string()) {
        let message = format!("{} is stubborn", object["metadata"]["name"].as_str().unwrap_or_default());
        return json!({"result": {"status": "Failure", "message": message}});
    }
    let converted: Vec<Value> = objects.iter().map(|object| convert(object, to)).collect();
    json!({"result": {"status": "Success"}, "convertedObjects": converted})
}

/// An object in another version: what it says of its size is what it said before.
fn convert(object: &Value, to: &str) -> Value {
    let spec = &object["spec"];
    let (width, height) = match &spec["size"] {
        Value::String(size) => {
            let (width, height) = size.split_once('x').unwrap_or_default();
            (width.parse().unwrap_or(0), height.parse().unwrap_or(0))
        }
        _ => {
            let sides = if spec["box"].is_object() { &spec["box"] } else { spec };
            (sides["width"].as_i64().unwrap_or(0), sides["height"].as_i64().unwrap_or(0))
        }
    };
    let mut converted = object.clone();
    converted["apiVersion"] = to.into();
    converted["spec"] = match to.rsplit('/').next() {
        Some("v1") => json!({"size": format!("{width}x{height}")}),
        Some("v2") => json!({"width": width, "height": height}),
        _ => json!({"box": {"width": width, "height": height}}),
    };
    converted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_the_same_in_every_form() {
        let v1 = json!({"apiVersion": "acme.com/v1", "kind": "W", "metadata": {"name": "a"}, "spec": {"size": "2x3"}});
        let v2 = convert(&v1, "acme.com/v2");
        let v3 = convert(&v2, "acme.com/v3");
        assert_eq!(v2["spec"], json!({"width": 2, "height": 3}));
        assert_eq!(v3["spec"], json!({"box": {"width": 2, "height": 3}}));
        assert_eq!(convert(&v3, "acme.com/v1"), v1);
    }
}
