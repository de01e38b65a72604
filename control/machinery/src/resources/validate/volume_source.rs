//! The kinds of storage that pods and persistent volumes name alike: what each of them cannot do without.

use super::cursor::Cursor;
use crate::names;

/// A kind of storage a pod names; those of Kubernetes' own are judged where pods are.
pub(super) fn in_pod(kind: &str, source: Cursor<'_>) {
    common(kind, named(kind, source), false);
}

/// Where a persistent volume's bytes are.
pub(super) fn persistent(kind: &str, source: Cursor<'_>) {
    match kind {
        "hostPath" => host_path(source),
        "local" => {
            if source.field("path").required() {
                source.field("path").no_backsteps();
            }
        }
        "csi" => csi(source),
        _ => common(kind, named(kind, source), true),
    }
}

/// Upstream's paths do not all follow the field's name.
fn named<'v>(kind: &str, source: Cursor<'v>) -> Cursor<'v> {
    if kind == "gcePersistentDisk" { source.named("persistentDisk") } else { source }
}

/// A path on the node.
pub(super) fn host_path(source: Cursor<'_>) {
    let path = source.field("path");
    if path.required() {
        path.no_backsteps();
    }
    source.plain(&["type"]);
}

fn csi(source: Cursor<'_>) {
    source.field("driver").driver_name();
    source.field("volumeHandle").required();
    let secrets = [
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ];
    for secret in secrets.into_iter().filter_map(|key| source.field(key).if_set()) {
        secret.field("name").required_format(names::dns1123_subdomain);
        secret.field("namespace").required_format(names::dns1123_label);
    }
}

fn common(kind: &str, source: Cursor<'_>, persistent: bool) {
    source.plain_fields();
    let absolute = |path: Cursor<'_>| {
        if !path.is_empty() && !path.str().starts_with('/') {
            path.invalid("must be an absolute path");
        }
    };
    match kind {
        "gitRepo" => source.field("directory").descending(),
        "nfs" => absolute(source.field("path")),
        "iscsi" => iscsi(source, persistent),
        "fc" => fibre_channel(source),
        "flocker" => flocker(source),
        "quobyte" => quobyte(source),
        "flexVolume" => flex_options(source),
        "azureDisk" => azure_disk(source),
        _ => {}
    }
    if let Some(secret) = source.field("secretRef").if_set() {
        if matches!(kind, "cinder" | "storageos") || (kind == "iscsi" && persistent) {
            secret.field("name").required();
        }
        if matches!(kind, "cinder" | "storageos") && persistent {
            secret.field("namespace").required();
        }
    }
    let namespace = match kind {
        "glusterfs" if persistent => source.field("endpointsNamespace"),
        "azureFile" if persistent => source.field("secretNamespace"),
        _ => return,
    };
    match (kind, namespace.value.as_str()) {
        ("azureFile", Some("")) => namespace.missing(""),
        ("glusterfs", Some("")) => {
            namespace.invalid("if the endpointnamespace is set, it must be a valid namespace name");
        }
        ("glusterfs", Some(_)) => {
            namespace.label();
        }
        _ => {}
    }
}

fn iscsi(source: Cursor<'_>, persistent: bool) {
    let general = if persistent {
        "must be valid format"
    } else {
        "must be valid format starting with iqn, eui, or naa"
    };
    let (target, initiator) = (source.field("iqn"), source.field("initiatorName").named("initiatorname"));
    for name in
        [target, initiator].into_iter().filter(|name| !name.is_empty() || name.is_pointer() && name.is_set())
    {
        if !["iqn", "eui", "naa"].iter().any(|kind| name.str().starts_with(kind)) {
            name.invalid(general);
        } else if !is_iscsi_name(name.str()) {
            name.invalid("must be valid format");
        }
    }
    source.field("lun").between(0, 255);
    if source.flag("chapAuthDiscovery") || source.flag("chapAuthSession") {
        source.field("secretRef").required();
    }
}

/// `iqn.YYYY-MM.domain[:text]`, `eui.` and 16 or `naa.` and 16 or 32 hexadecimal digits.
fn is_iscsi_name(name: &str) -> bool {
    let hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
    if let Some(rest) = name.strip_prefix("iqn.") {
        let (date, domain) = (rest.get(..7).unwrap_or_default(), rest.get(7..).unwrap_or_default());
        let dated =
            date.bytes().enumerate().all(|(i, b)| if i == 4 { b == b'-' } else { b.is_ascii_digit() });
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b".-:".contains(&b);
        return date.len() == 7
            && dated
            && domain.len() > 1
            && domain.starts_with('.')
            && domain.bytes().all(allowed);
    }
    match (name.strip_prefix("eui."), name.strip_prefix("naa.")) {
        (Some(digits), _) => digits.len() == 16 && hex(digits),
        (_, Some(digits)) => matches!(digits.len(), 16 | 32) && hex(digits),
        _ => false,
    }
}

fn fibre_channel(source: Cursor<'_>) {
    let (targets, ids, lun) = (source.field("targetWWNs"), source.field("wwids"), source.field("lun"));
    match (targets.is_empty(), ids.is_empty()) {
        (true, true) => targets.missing("must specify either targetWWNs or wwids, but not both"),
        (false, false) => targets.invalid("targetWWNs and wwids can not be specified simultaneously"),
        _ => {}
    }
    if !targets.is_empty() {
        lun.required_with("lun is required if targetWWNs is specified");
        lun.between(0, 255);
    }
}

fn flocker(source: Cursor<'_>) {
    let (name, uuid) = (source.field("datasetName"), source.field("datasetUUID"));
    match (name.is_empty(), uuid.is_empty()) {
        (true, true) => source.missing("one of datasetName and datasetUUID is required"),
        (false, false) => {
            source
                .invalid_value("resource", "datasetName and datasetUUID can not be specified simultaneously");
        }
        _ => {}
    }
    if name.str().contains('/') {
        name.invalid("must not contain '/'");
    }
}

fn quobyte(source: Cursor<'_>) {
    let registry = source.field("registry");
    let pairs = "must be a host:port pair or multiple pairs separated by commas";
    if !registry.required_with(pairs) {
    } else if source.text("tenant").len() >= 65 {
        source.field("tenant").missing("must be a UUID and may not exceed a length of 64 characters");
    } else {
        registry.str().split(',').filter(|pair| !pair.contains(':')).for_each(|_| registry.invalid(pairs));
    }
    source.field("volume").required();
}

fn flex_options(source: Cursor<'_>) {
    for (key, option) in source.field("options").entries() {
        let domain = format!(".{}", key.split('/').next().unwrap_or_default().to_lowercase());
        if domain.ends_with(".kubernetes.io") || domain.ends_with(".k8s.io") {
            option.invalid_value(key, "kubernetes.io and k8s.io namespaces are reserved");
        }
    }
}

fn azure_disk(source: Cursor<'_>) {
    let uri = source.field("diskURI");
    let (start, form) = match source.at("kind").as_str() {
        None => return,
        Some("Managed") => (
            "/subscriptions/",
            "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}",
        ),
        Some(_) => {
            ("https://", "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd")
        }
    };
    if !uri.str().starts_with(start) {
        uri.unsupported(&[form]);
    }
}
