//! What the server itself writes into objects of some kinds, from who asks for them.

use crate::context::Context;
use crate::registry::kind::Kind;
use machinery::access::{object_at, set_at};
use serde_json::{Value, json};

/// Fields of a new object that say who made it: a client's own word on them is never taken.
pub(super) fn before_create(kind: &Kind, context: &Context, object: &mut Value) {
    if kind.is("certificates.k8s.io", "certificatesigningrequests") {
        let user = &context.user;
        for own in ["username", "uid", "groups", "extra"] {
            object_at(object, "spec").remove(own);
        }
        for (field, text) in [("username", &user.name), ("uid", &user.uid)] {
            if !text.is_empty() {
                object_at(object, "spec").insert(field.to_owned(), text.clone().into());
            }
        }
        if !user.groups.is_empty() {
            set_at(object, "spec.groups", json!(user.groups));
        }
        if !user.extra.is_empty() {
            set_at(object, "spec.extra", json!(user.extra));
        }
    }
}
