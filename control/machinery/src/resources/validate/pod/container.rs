//! Containers of every sort.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{env, handler, quantities, restart, rules, security};
use crate::{
    field::{FieldError, Path},
    names,
    resources::{access::Get, validate::Errors},
};

/// What a container may refer to.
pub(super) struct Context<'s> {
    pub(super) spec: &'s Value,
    pub(super) volumes: &'s BTreeMap<&'s str, &'s Value>,
    pub(super) claims: &'s BTreeSet<&'s str>,
}

impl Context<'_> {
    fn grace(&self) -> Option<i64> {
        self.spec.int("terminationGracePeriodSeconds")
    }
}

pub(super) fn containers(path: &Path, context: &Context<'_>, errors: &mut Errors) {
    let containers = context.spec.items("containers");
    if containers.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    let mut names = BTreeSet::new();
    for (index, container) in containers.iter().enumerate() {
        let path = path.index(index);
        common(&path, container, context, errors);
        if !names.insert(container.text("name")) {
            errors.push(FieldError::duplicate(&path.child("name"), container.text("name")));
        }
        if container.has("lifecycle") {
            handler::lifecycle(&path.child("lifecycle"), container.at("lifecycle"), context.grace(), errors);
        }
        handler::probes(&path, container, context.grace(), errors);
        restart::policy(&path, container, errors);
    }
    host_port_conflicts(path, containers, errors);
}

pub(super) fn init_containers(path: &Path, context: &Context<'_>, errors: &mut Errors) {
    let mut names: BTreeSet<&str> = context.spec.items("containers").iter().map(|c| c.text("name")).collect();
    for (index, container) in context.spec.items("initContainers").iter().enumerate() {
        let (list, path) = (path, path.index(index));
        common(&path, container, context, errors);
        restart::policy(&path, container, errors);
        let name = container.text("name");
        if names.contains(name) {
            errors.push(FieldError::duplicate(&path.child("name"), name));
        } else if !name.is_empty() {
            names.insert(name);
        }
        // Upstream looks at each as a list of its own, and so names the first.
        host_port_conflicts(list, std::slice::from_ref(container), errors);
        if container.text("restartPolicy") == "Always" {
            if container.has("lifecycle") {
                let path = path.child("lifecycle");
                handler::lifecycle(&path, container.at("lifecycle"), context.grace(), errors);
            }
            handler::probes(&path, container, context.grace(), errors);
        } else {
            for key in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                if container.has(key) {
                    let detail = "may not be set for init containers without restartPolicy=Always";
                    errors.push(FieldError::forbidden(&path.child(key), detail));
                }
            }
            let policies = container.items("resizePolicy").iter().enumerate();
            for (index, _) in
                policies.filter(|(_, policy)| policy.text("restartPolicy") == "RestartContainer")
            {
                let path = path.child("resizePolicy").index(index).child("restartPolicy");
                let detail = "must not be set to 'RestartContainer' for non-sidecar initContainers";
                errors.push(FieldError::invalid(&path, "RestartContainer", detail));
            }
        }
    }
}

/// What a container that is only there to look around may have.
const EPHEMERAL_FIELDS: &[&str] = &[
    "name",
    "image",
    "command",
    "args",
    "workingDir",
    "envFrom",
    "env",
    "volumeMounts",
    "volumeDevices",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "imagePullPolicy",
    "securityContext",
    "stdin",
    "stdinOnce",
    "tty",
    "targetContainerName",
];

pub(super) fn ephemeral_containers(path: &Path, context: &Context<'_>, errors: &mut Errors) {
    let named = |list: &str| context.spec.items(list).iter().map(|c| c.text("name")).collect::<BTreeSet<_>>();
    let others: BTreeSet<&str> = &named("containers") | &named("initContainers");
    let mut names = others.clone();
    let forbidden = "cannot be set for an Ephemeral Container";
    for (index, container) in context.spec.items("ephemeralContainers").iter().enumerate() {
        let path = path.index(index);
        common(&path, container, context, errors);
        only_for_pod(&path, container, errors);
        if !names.insert(container.text("name")) {
            errors.push(FieldError::duplicate(&path.child("name"), container.text("name")));
        }
        let target = container.text("targetContainerName");
        if !target.is_empty() && !others.contains(target) {
            errors.push(FieldError::not_found(&path.child("targetContainerName"), target));
        }
        for (key, value) in container.as_object().into_iter().flatten() {
            let empty = value.as_object().is_some_and(serde_json::Map::is_empty)
                || value.as_array().is_some_and(Vec::is_empty)
                || value.is_null();
            if !EPHEMERAL_FIELDS.contains(&key.as_str()) && !empty {
                errors.push(FieldError::forbidden(&path.child(key), forbidden));
            }
        }
        for (index, mount) in container.items("volumeMounts").iter().enumerate() {
            for key in ["subPath", "subPathExpr"] {
                if !mount.text(key).is_empty() {
                    let path = path.child("volumeMounts").index(index).child(key);
                    errors.push(FieldError::forbidden(&path, forbidden));
                }
            }
        }
    }
}

/// What pods are held to and templates are not.
pub(super) fn only_for_pods(path: &Path, containers: &[Value], errors: &mut Errors) {
    for (index, container) in containers.iter().enumerate() {
        only_for_pod(&path.index(index), container, errors);
    }
}

fn only_for_pod(path: &Path, container: &Value, errors: &mut Errors) {
    let image = container.text("image");
    if image.trim() != image {
        let detail = "must not have leading or trailing whitespace";
        errors.push(FieldError::invalid(&path.child("image"), image, detail));
    }
}

/// What every container is held to.
fn common(path: &Path, container: &Value, context: &Context<'_>, errors: &mut Errors) {
    let name = container.text("name");
    if rules::required(&path.child("name"), name, errors) {
        rules::label(&path.child("name"), name, errors);
    }
    rules::required(&path.child("image"), container.text("image"), errors);
    let policies = ["File", "FallbackToLogsOnError"];
    let key = "terminationMessagePolicy";
    rules::one_of(&path.child(key), container.text(key), &policies, errors);
    ports(&path.child("ports"), container.items("ports"), errors);
    env::variables(&path.child("env"), container.items("env"), errors);
    env::sources(&path.child("envFrom"), container.items("envFrom"), errors);
    volume_mounts(path, container, context, errors);
    volume_devices(&path.child("volumeDevices"), container, context, errors);
    let policies = ["Always", "IfNotPresent", "Never"];
    rules::one_of(&path.child("imagePullPolicy"), container.text("imagePullPolicy"), &policies, errors);
    quantities::requirements(&path.child("resources"), container.at("resources"), errors);
    claims(&path.child("resources").child("claims"), container, context, errors);
    let (policies, pod_policy) = (container.items("resizePolicy"), context.spec.text("restartPolicy"));
    restart::resize(&path.child("resizePolicy"), policies, pod_policy, errors);
    let own_users = context.spec.at("hostUsers") == &Value::Bool(false);
    security::container(&path.child("securityContext"), container.at("securityContext"), own_users, errors);
}

fn claims(path: &Path, container: &Value, context: &Context<'_>, errors: &mut Errors) {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for (index, claim) in container.items("resources.claims").iter().enumerate() {
        let path = path.index(index);
        let (name, request) = (claim.text("name"), claim.text("request"));
        if !rules::required(&path, name, errors) {
            continue;
        }
        if seen.contains(name) {
            // All of the claim's requests are there already.
            errors.push(FieldError::duplicate(&path, name));
        } else {
            let key = if request.is_empty() { name.to_owned() } else { format!("{name}/{request}") };
            if !request.is_empty() {
                rules::label(&path.child("request"), request, errors);
            }
            let parts = seen.iter().filter(|other| other.split('/').next() == Some(name)).count();
            if seen.contains(&key) {
                errors.push(FieldError::duplicate(&path, key.as_str()));
            } else if request.is_empty() {
                errors.extend((0..parts).map(|_| FieldError::duplicate(&path, name)));
            }
            seen.insert(key);
        }
        if !context.claims.contains(name) {
            let mut error = FieldError::not_found(&path, name);
            let known: Vec<&str> = context.claims.iter().copied().collect();
            let known = if known.is_empty() {
                " which is empty".to_owned()
            } else {
                format!(": {}", known.join(", "))
            };
            error.detail = format!("must be one of the names in pod.spec.resourceClaims{known}");
            errors.push(error);
        }
    }
}

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

fn ports(path: &Path, ports: &[Value], errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = port.text("name");
        if !name.is_empty() {
            let messages = names::port_name(name);
            if !messages.is_empty() {
                rules::text(&path.child("name"), name, messages, errors);
            } else if !seen.insert(name) {
                errors.push(FieldError::duplicate(&path.child("name"), name));
            }
        }
        if port.int("containerPort").unwrap_or_default() == 0 {
            errors.push(FieldError::required(&path.child("containerPort"), ""));
        } else {
            rules::port_number(&path.child("containerPort"), port.at("containerPort"), errors);
        }
        if port.int("hostPort").unwrap_or_default() != 0 {
            rules::port_number(&path.child("hostPort"), port.at("hostPort"), errors);
        }
        rules::one_of(&path.child("protocol"), port.text("protocol"), &PROTOCOLS, errors);
    }
}

fn host_port_conflicts(path: &Path, containers: &[Value], errors: &mut Errors) {
    let mut taken = BTreeSet::new();
    for (index, container) in containers.iter().enumerate() {
        for (port_index, port) in container.items("ports").iter().enumerate() {
            let host = port.int("hostPort").unwrap_or_default();
            let id = format!("{}/{}/{host}", port.text("protocol"), port.text("hostIP"));
            if host != 0 && !taken.insert(id.clone()) {
                let path = path.index(index).child("ports").index(port_index).child("hostPort");
                errors.push(FieldError::duplicate(&path, id));
            }
        }
    }
}

fn volume_mounts(path: &Path, container: &Value, context: &Context<'_>, errors: &mut Errors) {
    let path = path.child("volumeMounts");
    let devices = container.items("volumeDevices");
    let mut points = BTreeSet::new();
    for (index, mount) in container.items("volumeMounts").iter().enumerate() {
        let item = path.index(index);
        let (name, point) = (mount.text("name"), mount.text("mountPath"));
        rules::required(&item.child("name"), name, errors);
        if !context.volumes.contains_key(name) {
            errors.push(FieldError::not_found(&item.child("name"), name));
        }
        rules::required(&item.child("mountPath"), point, errors);
        if !points.insert(point) {
            errors.push(FieldError::invalid(&item.child("mountPath"), point, "must be unique"));
        }
        if devices.iter().any(|device| device.text("name") == name) {
            let detail = "must not already exist in volumeDevices";
            errors.push(FieldError::invalid(&item.child("name"), name, detail));
        }
        if devices.iter().any(|device| device.text("devicePath") == point) {
            let detail = "must not already exist as a path in volumeDevices";
            errors.push(FieldError::invalid(&item.child("mountPath"), point, detail));
        }
        // Upstream leaves the index out of these paths.
        descending(&path.child("subPath"), mount.text("subPath"), errors);
        let expression = mount.text("subPathExpr");
        if !expression.is_empty() && !mount.text("subPath").is_empty() {
            let detail = "subPathExpr and subPath are mutually exclusive";
            errors.push(FieldError::invalid(&item.child("subPathExpr"), expression, detail));
        }
        descending(&path.child("subPathExpr"), expression, errors);
        propagation(&path.child("mountPropagation"), mount, container, errors);
        recursive_read_only(&path.child("recursiveReadOnly"), mount, errors);
    }
}

fn propagation(path: &Path, mount: &Value, container: &Value, errors: &mut Errors) {
    let mode = mount.text("mountPropagation");
    if !mount.has("mountPropagation") {
        return;
    }
    let supported = ["Bidirectional", "HostToContainer", "None"];
    if !supported.contains(&mode) {
        errors.push(FieldError::not_supported(path, mode, &supported));
    }
    if mode == "Bidirectional" && !container.flag("securityContext.privileged") {
        let detail = "Bidirectional mount propagation is available only to privileged containers";
        errors.push(FieldError::forbidden(path, detail));
    }
}

fn recursive_read_only(path: &Path, mount: &Value, errors: &mut Errors) {
    let mode = mount.text("recursiveReadOnly");
    match mode {
        "" | "Disabled" => {}
        "IfPossible" | "Enabled" => {
            if !mount.flag("readOnly") {
                let detail = "may only be specified when readOnly is true";
                errors.push(FieldError::forbidden(path, detail));
            }
            if !matches!(mount.text("mountPropagation"), "" | "None") {
                let detail = "may only be specified when mountPropagation is None or not specified";
                errors.push(FieldError::forbidden(path, detail));
            }
        }
        _ => {
            let supported = ["Disabled", "IfPossible", "Enabled"];
            errors.push(FieldError::not_supported(path, mode, &supported));
        }
    }
}

/// A path below something: relative, and not upwards.
pub(in crate::resources::validate) fn descending(path: &Path, value: &str, errors: &mut Errors) {
    if value.starts_with('/') {
        errors.push(FieldError::invalid(path, value, "must be a relative path"));
    }
    no_backsteps(path, value, errors);
}

pub(in crate::resources::validate) fn no_backsteps(path: &Path, value: &str, errors: &mut Errors) {
    if value.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(path, value, "must not contain '..'"));
    }
}

fn volume_devices(path: &Path, container: &Value, context: &Context<'_>, errors: &mut Errors) {
    let mounts = container.items("volumeMounts");
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for (index, device) in container.items("volumeDevices").iter().enumerate() {
        let path = path.index(index);
        let (name, point) = (device.text("name"), device.text("devicePath"));
        let (name_path, point_path) = (path.child("name"), path.child("devicePath"));
        rules::required(&name_path, name, errors);
        if !names.insert(name) {
            errors.push(FieldError::invalid(&name_path, name, "must be unique"));
        }
        match context.volumes.get(name) {
            None => errors.push(FieldError::not_found(&name_path, name)),
            Some(volume) if !volume.has("persistentVolumeClaim") && !volume.has("ephemeral") => {
                let detail =
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.push(FieldError::invalid(&name_path, name, detail));
            }
            Some(_) => {}
        }
        rules::required(&point_path, point, errors);
        if point.split('/').any(|part| part == "..") {
            let detail = "can not contain backsteps ('..')";
            errors.push(FieldError::invalid(&point_path, point, detail));
        } else if !paths.insert(point) {
            errors.push(FieldError::invalid(&point_path, point, "must be unique"));
        }
        if mounts.iter().any(|mount| mount.text("name") == name) {
            errors.push(FieldError::invalid(&name_path, name, "must not already exist in volumeMounts"));
        }
        if mounts.iter().any(|mount| mount.text("mountPath") == point) {
            let detail = "must not already exist as a path in volumeMounts";
            errors.push(FieldError::invalid(&point_path, point, detail));
        }
    }
}
