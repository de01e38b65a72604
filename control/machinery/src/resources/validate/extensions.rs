//! What extends the server: aggregated APIs.

use serde_json::Value;

use super::{Errors, rules};
use crate::{
    field::{FieldError, Path},
    resources::access::Get,
};

pub(super) fn api_service(service: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::new("spec"), service.at("spec"));
    let wanted = format!("{}.{}", spec.text("version"), spec.text("group"));
    let name = service.text("metadata.name");
    if name != wanted {
        let detail = format!("must be `spec.version+\".\"+spec.group`: \"{wanted}\"");
        errors.push(FieldError::invalid(&Path::from("metadata.name"), name, detail));
    }
    for (key, max) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        let value = spec.int(key).unwrap_or_default();
        if value <= 0 || value > max {
            let detail = format!("must be positive and less than {max}");
            errors.push(FieldError::invalid(&path.child(key), value, detail));
        }
    }
    if spec.has("service") {
        let path = path.child("service");
        rules::required(&path.child("namespace"), spec.text("service.namespace"), errors);
        rules::required(&path.child("name"), spec.text("service.name"), errors);
    }
}
