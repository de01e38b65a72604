//! `/pods`: the pods of this node with their statuses as they are known here.

use super::answer::{self, Answer};
use super::pods::View;
use http::StatusCode;
use serde_json::{Value, json};

/// Answers with a `PodList`.
pub fn serve(views: &[View]) -> Answer {
    let items: Result<Vec<Value>, _> = views.iter().map(item).collect();
    match items {
        Ok(items) => {
            answer::json(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
        }
        Err(error) => answer::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn item(view: &View) -> Result<Value, serde_json::Error> {
    let mut pod = serde_json::to_value(&*view.pod)?;
    if let Value::Object(fields) = &mut pod {
        // The list says what its items are.
        fields.remove("kind");
        fields.remove("apiVersion");
        fields.insert("status".to_owned(), serde_json::to_value(&*view.status)?);
    }
    Ok(pod)
}
