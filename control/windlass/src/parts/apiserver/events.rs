//! What the API server's own tasks say is wrong with an object: events.

use apiserver::registry::Record;
use client::recorder::{Note, Recorder, Severity};
use k8s_openapi::api::core::v1::ObjectReference;
use machinery::object;
use serde_json::Value;

pub(super) struct Events(pub(super) Recorder);

impl Record for Events {
    fn warn(
        &self,
        component: &'static str,
        about: &Value,
        reason: &'static str,
        action: &'static str,
        note: String,
    ) {
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let about = ObjectReference {
            api_version: text(object::api_version(about)),
            kind: text(object::kind(about)),
            namespace: text(object::namespace(about)),
            name: text(object::name(about)),
            uid: text(object::uid(about)),
            resource_version: text(object::resource_version(about)),
            field_path: None,
        };
        let action = (!action.is_empty()).then_some((action, None));
        self.0.note(Note {
            component,
            about,
            severity: Severity::Warning,
            reason: reason.into(),
            message: note,
            action,
        });
    }
}
