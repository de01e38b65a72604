//! `stringData` spares a client the encoding: it is folded into `data` and never stored.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::access::{object, remove, set};

pub(super) fn fold_string_data(secret: &mut Value) {
    let Some(Value::Object(texts)) = remove(secret, "stringData") else { return };
    if texts.is_empty() {
        return;
    }
    if let Some(data) = object(secret, "data") {
        for (key, text) in texts {
            set(data, &key, STANDARD.encode(text.as_str().unwrap_or_default()));
        }
    }
}
