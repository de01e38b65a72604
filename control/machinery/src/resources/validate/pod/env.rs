//! Environment variables, and the references to a pod's own fields that volumes share with them.

use super::containers;
use crate::{names, resources::validate::cursor::Cursor};

const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// What a volume's file may show: what changes with the pod, not with its place.
pub(super) const VOLUME_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

const RESOURCE_FIELDS: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

const ENV_SOURCES: [&str; 5] =
    ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];

pub(super) fn variables(variables: Cursor<'_>) {
    for variable in variables.items() {
        variable.plain(&["name"]);
        let Some(from) = variable.field("valueFrom").if_set() else { continue };
        let mut count = 0;
        for (kind, source) in ENV_SOURCES.iter().map(|kind| (*kind, from.field(kind))) {
            if !source.is_set() {
                continue;
            }
            count += 1;
            match kind {
                "fieldRef" => field_ref(source, ENV_FIELDS),
                "resourceFieldRef" => resource_field_ref(source, false),
                "fileKeyRef" => {
                    source.field("key").required_format(names::env_var_name);
                    source.field("volumeName").required_format(names::dns1123_label);
                    if source.field("path").required() {
                        source.field("path").no_backsteps();
                    }
                }
                _ => {
                    source.field("name").subdomain();
                    source.field("key").required_format(names::config_map_key);
                }
            }
        }
        let detail = if count == 0 {
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        } else if !variable.text("value").is_empty() {
            "may not be specified when `value` is not empty"
        } else if count > 1 {
            "may not have more than one field specified at a time"
        } else {
            continue;
        };
        from.invalid_value("", detail);
    }
}

/// The files variables come from are in volumes of the pod that are its own.
pub(super) fn file_keys(spec: Cursor<'_>) {
    for container in containers(spec) {
        let keys = container.each("env").map(|variable| variable.field("valueFrom.fileKeyRef"));
        for name in keys.filter(|key| key.is_set()).map(|key| key.field("volumeName")) {
            match spec.each("volumes").rfind(|volume| volume.text("name") == name.str()) {
                None => name.not_found(),
                Some(volume) if !volume.has("emptyDir") => {
                    name.invalid("referenced volume must be of type emptyDir");
                }
                Some(_) => {}
            }
        }
    }
}

pub(super) fn field_ref(reference: Cursor<'_>, allowed: &[&str]) {
    let field = reference.field("fieldPath");
    if !reference.field("apiVersion").required() || !field.required() {
        return;
    }
    if let Some((parent, subscript)) = field.str().strip_suffix("']").and_then(|f| f.split_once("['")) {
        match parent {
            "metadata.annotations" => {
                reference.format_of(&subscript.to_lowercase(), names::qualified_name);
            }
            "metadata.labels" => {
                reference.format_of(subscript, names::qualified_name);
            }
            _ => reference.invalid_value(parent, "does not support subscript"),
        }
    } else if !ENV_FIELDS.contains(&field.str()) && !VOLUME_FIELDS.contains(&field.str()) {
        field.invalid(format!("error converting fieldPath: field label not supported: {}", field.str()));
    } else {
        field.one_of(allowed);
    }
}

const MEMORY_DIVISORS: &[&str] =
    &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

pub(super) fn resource_field_ref(reference: Cursor<'_>, in_volume: bool) {
    let resource = reference.field("resource");
    let huge = ["requests.hugepages-", "limits.hugepages-"];
    let huge = huge.iter().any(|prefix| resource.str().starts_with(prefix));
    if in_volume && reference.text("containerName").is_empty() {
        reference.field("containerName").missing("");
    } else if resource.required() && !huge {
        resource.one_of(RESOURCE_FIELDS);
    }
    let divisor = reference.field("divisor");
    let Some(amount) = divisor.quantity().filter(|amount| !amount.is_zero()) else { return };
    let amount = amount.canonical();
    let what = match resource.str() {
        "limits.cpu" | "requests.cpu" => {
            if !["1m", "1"].contains(&amount.as_str()) {
                let detail = "only divisor's values 1m and 1 are supported with the cpu resource";
                divisor.invalid_value(resource.str(), detail);
            }
            return;
        }
        "limits.memory" | "requests.memory" => "memory",
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => "local ephemeral storage",
        _ if huge => "hugepages",
        _ => return,
    };
    if !MEMORY_DIVISORS.contains(&amount.as_str()) {
        let amounts = MEMORY_DIVISORS.join(", ");
        let detail = format!("only divisor's values {amounts} are supported with the {what} resource");
        divisor.invalid_value(resource.str(), detail);
    }
}

/// Upstream leaves the index out of the last of these paths.
pub(super) fn sources(sources: Cursor<'_>) {
    for source in sources.items() {
        source.plain(&["prefix"]);
        let mut count = 0;
        for reference in
            ["configMapRef", "secretRef"].into_iter().filter_map(|key| source.field(key).if_set())
        {
            count += 1;
            let name = reference.field("name");
            if name.required() {
                for message in names::dns1123_subdomain(&names::mask_trailing_dash(name.str())) {
                    name.invalid(message);
                }
            }
        }
        match count {
            0 => sources.invalid_value("", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => sources.invalid_value("", "may not have more than one field specified at a time"),
        }
    }
}
