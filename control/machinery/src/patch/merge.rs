//! RFC 7386, `application/merge-patch+json`.

use crate::codec;
use crate::status::Status;
use serde_json::Value;

/// What a patch is decoded into, as errors name it.
pub(super) const GO_MAP: &str = "map[string]interface {}";

/// Applies a merge patch and says which fields it gave twice (`duplicate field "spec.x"`).
///
/// # Errors
/// 400 for what is no JSON.
pub fn apply(object: &mut Value, bytes: &[u8]) -> Result<Vec<String>, Status> {
    let decoding = |e: &dyn std::fmt::Display| Status::bad_request(format!("error decoding patch: {e}"));
    let patch = codec::json::decode(bytes).map_err(|e| decoding(&e))?;
    if let Some(kind) = codec::json::kind_name(&patch.value).filter(|kind| *kind != "object") {
        return Err(decoding(&format_args!("json: cannot unmarshal {kind} into Go value of type {GO_MAP}")));
    }
    json_patch::merge(object, &patch.value);
    Ok(patch.duplicates)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nulls_delete_lists_replace_and_duplicates_are_told() {
        let mut object = json!({"a": {"b": 1, "c": [1, 2]}, "d": 1});
        let duplicates =
            apply(&mut object, br#"{"a":{"b":null,"c":[3],"n":{"x":null,"y":1}},"d":2,"d":3}"#).unwrap();
        assert_eq!(object, json!({"a": {"c": [3], "n": {"y": 1}}, "d": 3}));
        assert_eq!(duplicates, ["duplicate field \"d\""]);
        assert_eq!(apply(&mut object, b"{").unwrap_err().code, 400);
    }
}
