//! What extends the server: aggregated APIs.

use super::cursor::Cursor;
use crate::names;

/// Upstream: `kube-aggregator/pkg/apis/apiregistration/validation`.
pub(super) fn api_service(service: Cursor<'_>) {
    let (spec, name) = (service.field("spec"), service.field("metadata.name"));
    let wanted = format!("{}.{}", spec.text("version"), spec.text("group"));
    if name.str() != wanted {
        name.invalid(format!("must be `spec.version+\".\"+spec.group`: \"{wanted}\""));
    }
    let (group, version) = (spec.field("group"), spec.field("version"));
    if group.is_empty() && version.str() != "v1" {
        group.missing("only v1 may have an empty group and it better be legacy kube");
    } else if !group.is_empty() {
        group.subdomain();
    }
    version.format(names::dns1035_label);
    for (key, max) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        if !(1..=max).contains(&spec.int(key)) {
            spec.field(key).invalid(format!("must be positive and less than {max}"));
        }
    }
    let (bundle, insecure) = (spec.field("caBundle"), spec.field("insecureSkipTLSVerify"));
    if !spec.has("service") {
        if !bundle.is_empty() {
            let bytes = format!("{} bytes", decoded_length(bundle.str()));
            bundle.invalid_value(bytes, "local APIServices may not have a caBundle");
        }
        if spec.flag("insecureSkipTLSVerify") {
            insecure.invalid("local APIServices may not have insecureSkipTLSVerify");
        }
        return;
    }
    spec.field("service.namespace").required();
    spec.field("service.name").required();
    let port = spec.field("service.port");
    let wrong = names::port_number(port.number().unwrap_or_default());
    if !wrong.is_empty() {
        port.invalid(format!("port is not valid: {}", wrong.join(", ")));
    }
    if spec.flag("insecureSkipTLSVerify") && !bundle.is_empty() {
        insecure.invalid("may not be true if caBundle is present");
    }
}

/// How many bytes a text in base 64 stands for.
fn decoded_length(base64: &str) -> usize {
    base64.trim_end_matches('=').len() * 3 / 4
}

pub(super) fn api_service_status(service: Cursor<'_>) {
    for status in service.each("status.conditions").map(|condition| condition.field("status")) {
        if !["True", "False", "Unknown"].contains(&status.str()) {
            status.unsupported_as_listed(&["True", "False", "Unknown"]);
        }
    }
}
