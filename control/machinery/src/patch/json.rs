//! RFC 6902, `application/json-patch+json`.

mod operate;

pub use operate::{Misfit, operate};

use crate::codec;
use crate::object::Gr;
use crate::status::Status;
use json_patch::{Patch, PatchOperation};
use serde_json::Value;

/// Upstream's bound on the operations of one patch.
pub(crate) const MAX_OPERATIONS: usize = 10_000;

/// Reads a patch.
///
/// # Errors
/// 400 for what is no patch, 413 for too many operations.
pub fn parse(bytes: &[u8]) -> Result<Vec<PatchOperation>, Status> {
    let decoding = |e: &dyn std::fmt::Display| Status::bad_request(format!("error decoding patch: {e}"));
    let value = codec::json::decode(bytes).map_err(|e| decoding(&e))?.value;
    if let Some(kind) = codec::json::kind_name(&value).filter(|kind| *kind != "array") {
        return Err(decoding(&format_args!(
            "json: cannot unmarshal {kind} into Go value of type []handlers.jsonPatchOp"
        )));
    }
    let count = value.as_array().map_or(0, Vec::len);
    if count > MAX_OPERATIONS {
        return Err(Status::request_entity_too_large(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {count}"
        )));
    }
    // What decodes as a list of operations and is none is found out by applying it, upstream.
    let patch: Patch = serde_json::from_value(value).map_err(|e| unfit(&e))?;
    Ok(patch.0)
}

/// Applies a patch; `object` is unchanged on failure.
///
/// # Errors
/// As [`parse`]; 422 for a patch that does not fit the object, a failed `test` among them.
pub fn apply(object: &mut Value, bytes: &[u8]) -> Result<(), Status> {
    let operations = parse(bytes)?;
    *object = operate(object, &operations).map_err(|e| unfit(&e))?;
    Ok(())
}

/// 422: the patch does not fit.
fn unfit(error: &dyn std::fmt::Display) -> Status {
    Status::generic_server_response(422, "", &Gr::default(), "", &error.to_string(), 0, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn patched(object: Value, patch: &Value) -> Result<Value, Status> {
        let mut out = object;
        apply(&mut out, patch.to_string().as_bytes()).map(|()| out)
    }

    #[test]
    fn operations_apply_in_order() {
        let patch = json!([
            {"op": "test", "path": "/a", "value": 1},
            {"op": "add", "path": "/list/-", "value": 3},
            {"op": "add", "path": "/m~1x", "value": "y"},
            {"op": "remove", "path": "/a"},
            {"op": "replace", "path": "/list/0", "value": 0},
            {"op": "copy", "from": "/list", "path": "/copy"},
        ]);
        assert_eq!(
            patched(json!({"a": 1, "list": [1, 2]}), &patch).unwrap(),
            json!({"list": [0, 2, 3], "copy": [0, 2, 3], "m/x": "y"})
        );
    }

    #[test]
    fn a_failed_test_is_422_and_changes_nothing() {
        let mut object = json!({"a": 1});
        let patch = br#"[{"op":"add","path":"/b","value":1},{"op":"test","path":"/a","value":2}]"#;
        let status = apply(&mut object, patch).unwrap_err();
        assert_eq!(
            (status.code, status.message.as_str()),
            (422, "the server rejected our request due to an error in our request")
        );
        assert_eq!(object, json!({"a": 1}));
        assert_eq!(patched(json!({}), &json!([{"op": "remove", "path": "/x"}])).unwrap_err().code, 422);
    }

    #[test]
    fn bad_and_oversized_patches_are_refused() {
        assert_eq!(patched(json!({}), &json!({"a": 1})).unwrap_err().code, 400);
        assert_eq!(
            apply(&mut json!({}), b"[").unwrap_err().message,
            "error decoding patch: unexpected end of JSON input"
        );
        let unknown = json!([{"op": "x", "path": "/a"}]);
        assert_eq!(patched(json!({}), &unknown).unwrap_err().code, 422);
        let many: Value =
            (0..=MAX_OPERATIONS).map(|_| json!({"op": "test", "path": "", "value": {}})).collect();
        let status = patched(json!({}), &many).unwrap_err();
        assert_eq!(status.code, 413);
        assert_eq!(
            status.message,
            "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001"
        );
    }
}
