//! What extends the server: aggregated APIs.

use super::cursor::Cursor;

pub(super) fn api_service(service: Cursor<'_>) {
    let (spec, name) = (service.field("spec"), service.field("metadata.name"));
    let wanted = format!("{}.{}", spec.text("version"), spec.text("group"));
    if name.str() != wanted {
        name.invalid(format!("must be `spec.version+\".\"+spec.group`: \"{wanted}\""));
    }
    for (key, max) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        if !(1..=max).contains(&spec.int(key)) {
            spec.field(key).invalid(format!("must be positive and less than {max}"));
        }
    }
    if spec.has("service") {
        spec.field("service.namespace").required();
        spec.field("service.name").required();
    }
}
