//! What a field selector compares: the text of a field of an object at rest.

use serde_json::Value;

use super::Resource;
use crate::access::Get;

/// The value of a selectable field, as upstream's storage extracts it; none where the resource has no such field.
///
/// The object is the stored one: an event is the core group's, whichever group the client speaks.
pub fn value(resource: &Resource, object: &Value, field: &str) -> Option<String> {
    if !resource.selects_by(field) {
        return None;
    }
    let text = match (resource.plural, field) {
        ("events", "reportingComponent" | "reportingController") => {
            object.text("reportingComponent").to_owned()
        }
        ("events", "source") => {
            let component = object.text("source.component");
            if component.is_empty() {
                object.text("reportingComponent").to_owned()
            } else {
                component.to_owned()
            }
        }
        ("events", field) if field.starts_with("regarding.") => {
            object.text(&field.replacen("regarding", "involvedObject", 1)).to_owned()
        }
        ("pods", "spec.hostNetwork") | ("nodes", "spec.unschedulable") => object.flag(field).to_string(),
        ("pods", "status.podIPs") => {
            object.items("status.podIPs").iter().map(|ip| ip.text("ip")).collect::<Vec<_>>().join(",")
        }
        (_, "status.replicas") => object.int(field).unwrap_or_default().to_string(),
        ("jobs", "status.successful") => object.int("status.succeeded").unwrap_or_default().to_string(),
        _ => object.text(field).to_owned(),
    };
    Some(text)
}
