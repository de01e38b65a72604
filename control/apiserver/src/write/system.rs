//! What the server itself writes into objects of some kinds, from who asks for them.

use crate::context::Context;
use crate::registry::kind::Kind;
use crate::registry::metadata::{remove, set};
use serde_json::{Value, json};

/// Fields of a new object that say who made it: a client's own word on them is never taken.
pub(super) fn before_create(kind: &Kind, context: &Context, object: &mut Value) {
    if kind.is("certificates.k8s.io", "certificatesigningrequests") {
        let user = &context.user;
        for own in ["username", "uid", "groups", "extra"] {
            remove(object, &["spec", own]);
        }
        for (field, text) in [("username", &user.name), ("uid", &user.uid)] {
            if !text.is_empty() {
                set(object, &["spec", field], text.clone());
            }
        }
        if !user.groups.is_empty() {
            set(object, &["spec", "groups"], json!(user.groups));
        }
        if !user.extra.is_empty() {
            set(object, &["spec", "extra"], json!(user.extra));
        }
    }
}
