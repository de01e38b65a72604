//! AdmissionReview: what a webhook is asked, and what its answer means. Pure.
//! Upstream: `webhook/request/admissionreview.go`, `webhook/errors/statuserror.go`.

use super::Attributes;
use crate::registry::kind::Kind;
use base64::Engine as _;
use machinery::access::Get as _;
use machinery::goformat::go_quote;
use machinery::status::{Reason, Status};
use serde_json::{Map, Value, json};

const GROUP: &str = "admission.k8s.io";

/// The object that is sent to a webhook which means the request in the version of `kind`.
pub(super) fn request(
    a: &Attributes<'_>,
    kind: &Kind,
    object: &Value,
    old: &Value,
    version: &str,
    uid: &str,
) -> Value {
    let own = a.request_kind();
    let gvk = |g: &machinery::object::Gvk| json!({"group": g.group, "version": g.version, "kind": g.kind});
    let gvr =
        |k: &Kind| json!({"group": k.resource.group, "version": k.version, "resource": k.resource.plural});
    let mut user = Map::new();
    for (name, value) in [("username", &a.user.name), ("uid", &a.user.uid)] {
        if !value.is_empty() {
            user.insert(name.to_owned(), value.clone().into());
        }
    }
    if !a.user.groups.is_empty() {
        user.insert("groups".to_owned(), json!(a.user.groups));
    }
    if !a.user.extra.is_empty() {
        user.insert("extra".to_owned(), json!(a.user.extra));
    }
    let mut request = json!({
        "uid": uid,
        "kind": gvk(&shown_kind(a, kind)),
        "resource": gvr(kind),
        "requestKind": gvk(&own),
        "requestResource": gvr(&a.kind),
        "operation": a.operation.text(),
        "userInfo": user,
        "object": object,
        "oldObject": old,
        "dryRun": a.dry_run,
        "options": a.options,
    });
    let subresource = a.request_subresource();
    for (name, value) in [
        ("subResource", subresource),
        ("requestSubResource", subresource),
        ("name", a.name.as_str()),
        ("namespace", a.request_namespace()),
    ] {
        if !value.is_empty() {
            request[name] = value.into();
        }
    }
    json!({"kind": "AdmissionReview", "apiVersion": format!("{GROUP}/{version}"), "request": request})
}

/// The kind of the object that is shown.
fn shown_kind(a: &Attributes<'_>, kind: &Kind) -> machinery::object::Gvk {
    let own = a.request_kind();
    if own == a.kind.gvk() { kind.gvk() } else { own }
}

/// What an answer says.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Outcome {
    /// The refusal; its message does not name the webhook yet.
    pub refused: Option<Value>,
    /// A patch, and of which type.
    pub patch: Option<(Vec<u8>, String)>,
    pub warnings: Vec<String>,
    pub annotations: Vec<(String, String)>,
}

/// Reads the answer to the review `uid` of `version`; the error is upstream's reason for `received invalid webhook response`.
pub(super) fn answer(review: &Value, version: &str, uid: &str, mutating: bool) -> Result<Outcome, String> {
    let response = review.present("response").ok_or("webhook response was absent")?;
    let patch = base64::engine::general_purpose::STANDARD
        .decode(response.text("patch"))
        .map_err(|e| format!("illegal base64 data: {e}"))?;
    let patch_type = response.present("patchType").and_then(Value::as_str);
    if version == "v1" {
        let found = response.text("uid");
        if found != uid {
            return Err(format!("expected response.uid={}, got {}", go_quote(uid), go_quote(found)));
        }
        let (group_version, kind) = (review.text("apiVersion"), review.text("kind"));
        if group_version != format!("{GROUP}/v1") || kind != "AdmissionReview" {
            let shown = if group_version.is_empty() { "/" } else { group_version };
            return Err(format!(
                "expected webhook response of {GROUP}/v1, Kind=AdmissionReview, got {shown}, Kind={kind}"
            ));
        }
        check_patch(&patch, patch_type, mutating)?;
    }
    // v1beta1 never said what kind of patch it was.
    let patch_type = if version == "v1" { patch_type.unwrap_or_default() } else { "JSONPatch" };
    let allowed = response.present("allowed").and_then(Value::as_bool).unwrap_or_default();
    let warnings = response.items("warnings");
    let annotations = response.texts("auditAnnotations");
    Ok(Outcome {
        refused: (!allowed).then(|| response.present("status").cloned().unwrap_or_default()),
        patch: (mutating && !patch.is_empty()).then(|| (patch, patch_type.to_owned())),
        warnings: warnings.iter().filter_map(|w| w.as_str().map(str::to_owned)).collect(),
        annotations: annotations.map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
    })
}

fn check_patch(patch: &[u8], patch_type: Option<&str>, mutating: bool) -> Result<(), String> {
    let why = match (mutating, patch.is_empty(), patch_type) {
        (true, false, None) => "webhook returned response.patch but not response.patchType",
        (true, true, Some(_)) => "webhook returned response.patchType but not response.patch",
        (true, false, Some("")) => "webhook returned invalid response.patchType of \"\"",
        (false, false, _) => "validating webhook may not return response.patch",
        (false, true, Some(_)) => "validating webhook may not return response.patchType",
        _ => return Ok(()),
    };
    Err(why.to_owned())
}

/// The status a client gets when `webhook` refuses with `result`.
pub(super) fn refusal(webhook: &str, result: &Value) -> Status {
    let mut status = Status {
        code: result.present("code").and_then(Value::as_u64).and_then(|c| u16::try_from(c).ok()).unwrap_or(0),
        message: result.text("message").to_owned(),
        reason: result
            .present("reason")
            .and_then(|r| serde_json::from_value(r.clone()).ok())
            .unwrap_or(Reason::Unknown),
        other_reason: result.text("reason").to_owned(),
        details: result.present("details").and_then(|d| serde_json::from_value(d.clone()).ok()),
        status: "Failure".to_owned(),
        ..Status::default()
    };
    if status.code < 400 {
        status.code = 400;
    }
    let denied = format!("admission webhook {} denied the request", go_quote(webhook));
    let reason = result.text("reason");
    status.message = match (status.message.as_str(), reason) {
        ("", "") => format!("{denied} without explanation"),
        ("", reason) => format!("{denied}: {reason}"),
        (message, _) => format!("{denied}: {message}"),
    };
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review(response: Value) -> Value {
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
    }

    #[test]
    fn an_answer_must_be_the_one_asked_for() {
        for (given, why) in [
            (json!({}), "webhook response was absent"),
            (review(json!({"uid": "other"})), r#"expected response.uid="u", got "other""#),
            (
                json!({"response": {"uid": "u"}}),
                "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got /, Kind=",
            ),
            (
                review(json!({"uid": "u", "patch": "W10="})),
                "webhook returned response.patch but not response.patchType",
            ),
            (
                review(json!({"uid": "u", "patchType": "JSONPatch"})),
                "webhook returned response.patchType but not response.patch",
            ),
        ] {
            assert_eq!(answer(&given, "v1", "u", true).unwrap_err(), why, "{given}");
        }
        let patched = review(json!({"uid": "u", "allowed": true, "patch": "W10=", "patchType": "JSONPatch"}));
        assert_eq!(
            answer(&patched, "v1", "u", true).unwrap().patch,
            Some((b"[]".to_vec(), "JSONPatch".to_owned()))
        );
        assert_eq!(
            answer(&patched, "v1", "u", false).unwrap_err(),
            "validating webhook may not return response.patch"
        );
    }

    #[test]
    fn refusals_are_worded_as_upstream() {
        for (result, code, message) in [
            (json!({}), 400, r#"admission webhook "w" denied the request without explanation"#),
            (json!({"message": "no", "code": 403}), 403, r#"admission webhook "w" denied the request: no"#),
            (
                json!({"reason": "because", "code": 200}),
                400,
                r#"admission webhook "w" denied the request: because"#,
            ),
        ] {
            let status = refusal("w", &result);
            assert_eq!((status.code, status.message.as_str()), (code, message));
            assert_eq!(status.status, "Failure");
        }
    }
}
