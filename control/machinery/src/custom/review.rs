//! ConversionReview: what a conversion webhook is asked, and what of its answer is taken (upstream: `pkg/apiserver/conversion`).

use crate::access::Get as _;
use crate::field::{Path, aggregate};
use crate::goformat::{go_quote, go_type};
use crate::object::{self, Gvk};
use crate::resources::validate;
use serde_json::{Map, Value, json};

const GROUP: &str = "apiextensions.k8s.io";

/// The question: `objects` in another version. The webhook's first version that is known here is spoken; none where it
/// speaks none.
#[must_use]
pub fn ask(webhook: &Value, uid: &str, to: &str, objects: &[Value]) -> Option<Value> {
    let version = webhook
        .items("conversionReviewVersions")
        .iter()
        .filter_map(Value::as_str)
        .find(|v| matches!(*v, "v1" | "v1beta1"))?;
    Some(json!({
        "kind": "ConversionReview",
        "apiVersion": format!("{GROUP}/{version}"),
        "request": {"uid": uid, "desiredAPIVersion": to, "objects": objects},
    }))
}

/// The objects of an answer, in the order they were sent, with all metadata but labels and annotations as it was. Upstream asks for one object
/// at a time: what is wrong with one of many is said as it says it of that one.
///
/// # Errors
/// With what stands behind `conversion webhook for GVK`: ` failed: why`, ` returned ...`.
pub fn answer(review: &Value, answer: &Value, objects: &[Value]) -> Result<Vec<Value>, String> {
    let request = review.at("request");
    let response = succeeded(review, answer).map_err(|why| format!(" failed: {why}"))?;
    let converted = response.items("convertedObjects");
    if converted.len() != objects.len() {
        return Err(format!(" returned {} objects, expected {}", converted.len(), objects.len()));
    }
    let wanted = request.text("desiredAPIVersion");
    let check = |(before, after): (&Value, &Value)| {
        let mut after = after.clone();
        let found = object::api_version(&after);
        if found != wanted {
            let why = format!("invalid groupVersion (expected {wanted}, received {found})");
            return Err(format!(" returned invalid object at index 0: {why}"));
        }
        let (old, new) = (object::kind(before), object::kind(&after));
        if old != new {
            let why = format!("invalid kind (expected {old}, received {new})");
            return Err(format!(" returned invalid object at index 0: {why}"));
        }
        for (what, path) in
            [("name", "metadata.name"), ("namespace", "metadata.namespace"), ("UID", "metadata.uid")]
        {
            let (old, new) = (before.text(path), after.text(path));
            if old != new {
                return Err(format!(" returned invalid object: must have the same {what}: {old} != {new}"));
            }
        }
        restore(before, &mut after).map_err(|why| format!(" returned invalid metadata: {why}"))?;
        Ok(after)
    };
    objects.iter().zip(converted).map(check).collect()
}

/// The response to a review, if it says that all went well. Nothing held answers of `v1beta1` to kind and uid, and nothing does now.
fn succeeded<'a>(review: &Value, answer: &'a Value) -> Result<&'a Value, String> {
    let is_v1 = object::api_version(review) == format!("{GROUP}/v1");
    let (asked, found) = (shown_type(review), shown_type(answer));
    if is_v1 && found != asked {
        return Err(format!("expected webhook response of {asked}, got {found}"));
    }
    let response = answer.at("response");
    if !response.is_object() {
        return Err("no response provided".to_owned());
    }
    let (asked, found) = (review.at("request").text("uid"), response.text("uid"));
    if is_v1 && found != asked {
        return Err(format!("expected response.uid={}, got {}", go_quote(asked), go_quote(found)));
    }
    let result = response.at("result");
    match (result.text("status"), result.text("message")) {
        ("Success", _) => Ok(response),
        (status, "") => Err(format!("response.result.status was '{status}', not 'Success'")),
        (_, message) => Err(message.to_owned()),
    }
}

/// A group version kind as Go prints one, parts that are missing and all.
fn shown_type(value: &Value) -> String {
    Gvk::of(value).map(|gvk| gvk.to_string()).unwrap_or_default()
}

/// Metadata as it was before, but for labels and annotations, which are held to their rules where they changed.
fn restore(before: &Value, after: &mut Value) -> Result<(), String> {
    let Some(answered) = after.get("metadata") else {
        return Err("missing metadata in converted object".to_owned());
    };
    if !answered.is_object() {
        return Err(format!("invalid metadata of type {} in converted object", go_type(answered)));
    }
    let mut metadata = before.at("metadata").as_object().cloned().unwrap_or_default();
    for field in ["labels", "annotations"] {
        let Some(given) = answered.get(field).filter(|given| !given.is_null()) else {
            metadata.remove(field);
            continue;
        };
        let Some(texts) = given.as_object() else {
            return Err(format!("invalid metadata.{field} of type {} in converted object", go_type(given)));
        };
        if let Some((key, value)) = texts.iter().find(|(_, v)| !v.is_string()) {
            return Err(format!(
                "metadata.{field}[{key}] must be a string, but is {} in converted object",
                go_type(value)
            ));
        }
        if metadata.get(field) != Some(given) {
            held_to_rules(field, given)?;
        }
        metadata.insert(field.to_owned(), given.clone());
    }
    if let Some(fields) = after.as_object_mut() {
        fields.insert("metadata".to_owned(), Value::Object(metadata));
    }
    Ok(())
}

/// What is wrong with labels or annotations, as one text.
fn held_to_rules(field: &str, texts: &Value) -> Result<(), String> {
    let mut metadata = Map::new();
    metadata.insert(field.to_owned(), texts.clone());
    let mut errors = Vec::new();
    validate::embedded_metadata(&json!({"metadata": metadata}), &Path::new("metadata"), &mut errors);
    for error in &mut errors {
        // Upstream's path of annotations has no plural here.
        error.field = error.field.replacen("metadata.annotations", "metadata.annotation", 1);
    }
    aggregate(&errors).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(version: &str, label: &str) -> Value {
        json!({"apiVersion": format!("acme.com/{version}"), "kind": "W",
            "metadata": {"name": "a", "uid": "u", "resourceVersion": "7", "labels": {"l": label}}})
    }

    fn reviewed(uid: &str, objects: Value) -> Value {
        json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1",
            "response": {"uid": uid, "result": {"status": "Success"}, "convertedObjects": objects}})
    }

    #[test]
    fn only_labels_and_annotations_are_taken_of_metadata() {
        let webhook = json!({"conversionReviewVersions": ["v7", "v1"]});
        let sent = [object("v1", "old")];
        let review = ask(&webhook, "1", "acme.com/v2", &sent).unwrap();
        assert_eq!(review["apiVersion"], "apiextensions.k8s.io/v1");
        let mut back = object("v2", "new");
        back["metadata"]["resourceVersion"] = json!("9");
        let got = answer(&review, &reviewed("1", json!([back])), &sent).unwrap();
        assert_eq!(
            got[0]["metadata"],
            json!({"name": "a", "uid": "u", "resourceVersion": "7", "labels": {"l": "new"}})
        );
        assert_eq!(ask(&json!({"conversionReviewVersions": ["v7"]}), "1", "x", &[]), None);
    }

    #[test]
    fn wrong_answers_are_refused_in_upstreams_words() {
        let sent = [object("v1", "old")];
        let review = ask(&json!({"conversionReviewVersions": ["v1"]}), "1", "acme.com/v2", &sent).unwrap();
        let error = |given: Value| answer(&review, &given, &sent).unwrap_err();
        assert_eq!(error(reviewed("2", json!([]))), " failed: expected response.uid=\"1\", got \"2\"");
        assert_eq!(error(reviewed("1", json!([]))), " returned 0 objects, expected 1");
        let changed = |path: &str, value: Value| {
            let mut object = object("v2", "x");
            *object.pointer_mut(path).unwrap() = value;
            error(reviewed("1", json!([object])))
        };
        for (path, value, why) in [
            (
                "/apiVersion",
                json!("acme.com/v3"),
                "object at index 0: invalid groupVersion (expected acme.com/v2, received acme.com/v3)",
            ),
            ("/kind", json!("V"), "object at index 0: invalid kind (expected W, received V)"),
            ("/metadata/name", json!("b"), "object: must have the same name: a != b"),
            ("/metadata/uid", json!("v"), "object: must have the same UID: u != v"),
            ("/metadata", json!([]), "object: must have the same name: a != "),
            (
                "/metadata/labels",
                json!([1]),
                "metadata: invalid metadata.labels of type []interface {} in converted object",
            ),
            (
                "/metadata/labels",
                json!({"l": 1}),
                "metadata: metadata.labels[l] must be a string, but is int64 in converted object",
            ),
        ] {
            assert_eq!(changed(path, value), format!(" returned invalid {why}"), "{path}");
        }
        let failed = json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1",
            "response": {"uid": "1", "result": {"status": "Failed", "message": "no way"}}});
        assert_eq!(error(failed), " failed: no way");
        let nothing = json!({"response": {"uid": "1"}});
        let expected =
            "expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got /, Kind=";
        assert_eq!(error(nothing), format!(" failed: {expected}"));
    }

    #[test]
    fn labels_and_annotations_that_a_webhook_changes_must_not_escape_their_rules() {
        let sent = [object("v1", "not a label")];
        let review = ask(&json!({"conversionReviewVersions": ["v1"]}), "1", "acme.com/v2", &sent).unwrap();
        let converted = |metadata: Value| {
            let mut back = object("v2", "not a label");
            for (field, value) in metadata.as_object().unwrap() {
                back["metadata"][field] = value.clone();
            }
            answer(&review, &reviewed("1", json!([back])), &sent)
        };
        assert!(converted(json!({})).is_ok(), "what it leaves alone is as it was stored");
        assert!(converted(json!({"labels": null, "annotations": {"a": "b c"}})).is_ok());
        let wrong = converted(json!({"labels": {"l": "still no label"}})).unwrap_err();
        assert!(wrong.starts_with(" returned invalid metadata: metadata.labels: Invalid value:"), "{wrong}");
        let wrong = converted(json!({"annotations": {"a b": ""}})).unwrap_err();
        assert!(
            wrong.starts_with(" returned invalid metadata: metadata.annotation: Invalid value:"),
            "{wrong}"
        );
    }

    #[test]
    fn an_answer_of_v1beta1_must_not_be_refused_for_what_that_version_never_said() {
        let sent = [object("v1", "x")];
        let review =
            ask(&json!({"conversionReviewVersions": ["v1beta1"]}), "1", "acme.com/v2", &sent).unwrap();
        let said =
            json!({"response": {"result": {"status": "Success"}, "convertedObjects": [object("v2", "y")]}});
        assert_eq!(answer(&review, &said, &sent).unwrap()[0]["metadata"]["labels"], json!({"l": "y"}));
    }
}
