//! ConversionReview: what a conversion webhook is asked, and what of its answer is taken (upstream: `pkg/apiserver/conversion`).

use crate::access::Get as _;
use crate::object::{self, Gvk};
use serde_json::{Value, json};

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

/// The objects of an answer, in the order they were sent, with all metadata but labels and annotations as it was.
///
/// # Errors
/// With what stands behind `conversion webhook for GVK`: ` failed: why`, ` returned ...`.
pub fn answer(review: &Value, answer: &Value, objects: &[Value]) -> Result<Vec<Value>, String> {
    let failed = |why: String| format!(" failed: {why}");
    let (asked, request) = (Gvk::of(review), review.at("request"));
    let found = Gvk::of(answer);
    if found != asked {
        let shown = |g: &Option<Gvk>| g.as_ref().map(ToString::to_string).unwrap_or_default();
        return Err(failed(format!("expected webhook response of {}, got {}", shown(&asked), shown(&found))));
    }
    let response = answer.at("response");
    if !response.is_object() {
        return Err(failed("no response provided".to_owned()));
    }
    if asked.is_some_and(|g| g.version == "v1") && response.text("uid") != request.text("uid") {
        let why = format!("expected response.uid={:?}, got {:?}", request.text("uid"), response.text("uid"));
        return Err(failed(why));
    }
    let result = response.at("result");
    if result.text("status") != "Success" {
        return Err(failed(match result.text("message") {
            "" => format!("response.result.status was '{}', not 'Success'", result.text("status")),
            message => message.to_owned(),
        }));
    }
    let converted = response.items("convertedObjects");
    if converted.len() != objects.len() {
        return Err(format!(" returned {} objects, expected {}", converted.len(), objects.len()));
    }
    let wanted = request.text("desiredAPIVersion");
    let check = |(i, (before, after)): (usize, (&Value, &Value))| {
        let mut after = after.clone();
        let wrong = |why: String| format!(" returned invalid converted object at index {i}: {why}");
        let found = object::api_version(&after);
        if found != wanted {
            return Err(wrong(format!("invalid groupVersion (expected {wanted}, received {found})")));
        }
        for (what, path) in [
            ("kind", "kind"),
            ("name", "metadata.name"),
            ("namespace", "metadata.namespace"),
            ("UID", "metadata.uid"),
        ] {
            let (old, new) = (before.text(path), after.text(path));
            if old != new {
                return Err(wrong(format!("must have the same {what}: {old} != {new}")));
            }
        }
        restore(before, &mut after)
            .map_err(|why| format!(" returned invalid metadata in object at index {i}: {why}"))?;
        Ok(after)
    };
    objects.iter().zip(converted).enumerate().map(check).collect()
}

/// Metadata as it was before, but for labels and annotations.
fn restore(before: &Value, after: &mut Value) -> Result<(), String> {
    if !after.at("metadata").is_object() {
        return Err("missing metadata in converted object".to_owned());
    }
    let mut metadata = before.at("metadata").as_object().cloned().unwrap_or_default();
    for field in ["labels", "annotations"] {
        match after.at("metadata").at(field) {
            Value::Null => {
                metadata.remove(field);
            }
            Value::Object(texts) => {
                if let Some((key, _)) = texts.iter().find(|(_, v)| !v.is_string()) {
                    return Err(format!("metadata.{field}[{key}] must be a string in converted object"));
                }
                metadata.insert(field.to_owned(), Value::Object(texts.clone()));
            }
            _ => return Err(format!("invalid metadata.{field} in converted object")),
        }
    }
    if let Some(fields) = after.as_object_mut() {
        fields.insert("metadata".to_owned(), Value::Object(metadata));
    }
    Ok(())
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
        assert!(
            error(reviewed("1", json!([object("v3", "x")])))
                .ends_with("invalid groupVersion (expected acme.com/v2, received acme.com/v3)")
        );
        let mut renamed = object("v2", "x");
        renamed["metadata"]["name"] = json!("b");
        assert!(error(reviewed("1", json!([renamed]))).ends_with("must have the same name: a != b"));
        let failed = json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1",
            "response": {"uid": "1", "result": {"status": "Failed", "message": "no way"}}});
        assert_eq!(error(failed), " failed: no way");
    }
}
