//! What the audit log says of webhooks beside what they say themselves. Upstream: `webhookAnnotator` in
//! `webhook/mutating/dispatcher.go`. `place` is the round and which of the webhooks.

use super::hook::Hook;
use crate::audit::{Level, Trail};
use serde::Serialize;

pub(super) const MUTATION: &str = "mutation.webhook.admission.k8s.io/";
pub(super) const VALIDATION: &str = "validating.webhook.admission.k8s.io/";
const PATCH: &str = "patch.webhook.admission.k8s.io/";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Mutation<'a> {
    configuration: &'a str,
    webhook: &'a str,
    mutated: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Patch<'a> {
    configuration: &'a str,
    webhook: &'a str,
    patch: &'a json_patch::Patch,
    patch_type: &'static str,
}

/// Whether a webhook changed the object.
pub(super) fn mutated(audit: &Trail, hook: &Hook, place: &str, mutated: bool) {
    audit.annotate_admission(Level::Metadata, || {
        let value = Mutation { configuration: &hook.configuration, webhook: &hook.name, mutated };
        (format!("{MUTATION}{place}"), serde_json::to_string(&value).unwrap_or_default())
    });
}

/// How; that may be as secret as the object.
pub(super) fn patched(audit: &Trail, hook: &Hook, place: &str, patch: &json_patch::Patch) {
    audit.annotate_admission(Level::Request, || {
        let (configuration, webhook) = (&hook.configuration, &hook.name);
        let value = Patch { configuration, webhook, patch, patch_type: "JSONPatch" };
        (format!("{PATCH}{place}"), serde_json::to_string(&value).unwrap_or_default())
    });
}

/// That a webhook could not be asked and let the request through.
pub(super) fn failed_open(audit: &Trail, hook: &Hook, prefix: &str, place: &str) {
    audit.annotate_admission(Level::Metadata, || (format!("failed-open.{prefix}{place}"), hook.name.clone()));
}
