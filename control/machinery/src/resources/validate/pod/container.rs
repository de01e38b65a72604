//! Containers of every sort.

use std::collections::{BTreeMap, BTreeSet};

use super::{env, handler, restart, security};
use crate::{names, resources::validate::cursor::Cursor};

/// What a container may refer to.
pub(super) struct Context<'v> {
    pub(super) spec: Cursor<'v>,
    pub(super) volumes: BTreeMap<&'v str, Cursor<'v>>,
    pub(super) claims: BTreeSet<&'v str>,
}

impl<'v> Context<'v> {
    fn names(&self, list: &'v str) -> BTreeSet<&'v str> {
        self.spec.each(list).map(|container| container.text("name")).collect()
    }

    fn actions(&self, container: Cursor<'v>) {
        let grace = self.spec.at("terminationGracePeriodSeconds").as_i64();
        handler::lifecycle(container.field("lifecycle"), grace);
        handler::probes(container, grace);
    }
}

pub(super) fn containers(context: &Context<'_>) {
    let containers = context.spec.field("containers");
    if !containers.required() {
        return;
    }
    let mut names = BTreeSet::new();
    for container in containers.items() {
        common(container, context);
        if !names.insert(container.text("name")) {
            container.field("name").duplicate();
        }
        context.actions(container);
        restart::policy(container);
    }
    host_port_conflicts(containers.items());
}

pub(super) fn init_containers(context: &Context<'_>) {
    let mut names = context.names("containers");
    let list = context.spec.field("initContainers");
    for container in list.items() {
        common(container, context);
        restart::policy(container);
        let name = container.field("name");
        if names.contains(name.str()) {
            name.duplicate();
        } else if !name.is_empty() {
            names.insert(name.str());
        }
        // Upstream looks at each as a list of its own, and so names the first.
        host_port_conflicts([container.reported_at(list.item(0))].into_iter());
        if container.text("restartPolicy") == "Always" {
            context.actions(container);
            continue;
        }
        for key in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if container.has(key) {
                let detail = "may not be set for init containers without restartPolicy=Always";
                container.field(key).forbidden(detail);
            }
        }
        for policy in container.each("resizePolicy").map(|policy| policy.field("restartPolicy")) {
            if policy.str() == "RestartContainer" {
                policy.invalid("must not be set to 'RestartContainer' for non-sidecar initContainers");
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

pub(super) fn ephemeral_containers(context: &Context<'_>) {
    let others = &context.names("containers") | &context.names("initContainers");
    let mut names = others.clone();
    let forbidden = "cannot be set for an Ephemeral Container";
    for container in context.spec.each("ephemeralContainers") {
        common(container, context);
        only_in_pods(container);
        if !names.insert(container.text("name")) {
            container.field("name").duplicate();
        }
        let target = container.field("targetContainerName");
        if !target.is_empty() && !others.contains(target.str()) {
            target.not_found();
        }
        for key in container.value.as_object().into_iter().flat_map(serde_json::Map::keys) {
            let field = container.field(key);
            let empty = field.value.as_object().is_some_and(serde_json::Map::is_empty)
                || field.value.as_array().is_some_and(Vec::is_empty);
            if !EPHEMERAL_FIELDS.contains(&key.as_str()) && field.is_set() && !empty {
                field.forbidden(forbidden);
            }
        }
        for mount in container.each("volumeMounts") {
            for path in ["subPath", "subPathExpr"].map(|key| mount.field(key)) {
                if !path.is_empty() {
                    path.forbidden(forbidden);
                }
            }
        }
    }
}

/// Checks for pods that templates need not pass.
pub(super) fn only_in_pods(container: Cursor<'_>) {
    let image = container.field("image");
    if image.str().trim() != image.str() {
        image.invalid("must not have leading or trailing whitespace");
    }
}

/// Checks for every container.
fn common(container: Cursor<'_>, context: &Context<'_>) {
    container.plain(&["name", "image", "terminationMessagePolicy"]);
    ports(container.field("ports"));
    env::variables(container.field("env"));
    env::sources(container.field("envFrom"));
    volume_mounts(container, context);
    volume_devices(container, context);
    container.plain(&["imagePullPolicy"]);
    container.field("resources").requirements(Cursor::container_resource);
    claims(container.field("resources.claims"), context);
    restart::resize(container.field("resizePolicy"), context.spec.text("restartPolicy"));
    let own_users = context.spec.at("hostUsers") == &serde_json::Value::Bool(false);
    security::container(container.field("securityContext"), own_users);
}

fn claims(claims: Cursor<'_>, context: &Context<'_>) {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for claim in claims.items() {
        let (name, request) = (claim.text("name"), claim.field("request"));
        if name.is_empty() {
            claim.missing("");
            continue;
        }
        let duplicate = |name: &str| claim.duplicate_value(name, "");
        if seen.contains(name) {
            // All of the claim's requests are there already.
            duplicate(name);
        } else {
            let key = if request.is_empty() { name.to_owned() } else { format!("{name}/{}", request.str()) };
            request.optional_format(names::dns1123_label);
            let parts = seen.iter().filter(|other| other.split('/').next() == Some(name)).count();
            if seen.contains(&key) {
                duplicate(&key);
            } else if request.is_empty() {
                (0..parts).for_each(|_| duplicate(name));
            }
            seen.insert(key);
        }
        if !context.claims.contains(name) {
            let known: Vec<&str> = context.claims.iter().copied().collect();
            let known = if known.is_empty() {
                " which is empty".to_owned()
            } else {
                format!(": {}", known.join(", "))
            };
            claim.not_found_value(
                name,
                &format!("must be one of the names in pod.spec.resourceClaims{known}"),
            );
        }
    }
}

fn ports(ports: Cursor<'_>) {
    let mut seen = BTreeSet::new();
    for port in ports.items() {
        let name = port.field("name");
        if !name.is_empty() && name.format(names::port_name) && !seen.insert(name.str()) {
            name.duplicate();
        }
        let own = port.field("containerPort");
        match own.number().unwrap_or_default() {
            0 => own.missing(""),
            _ => own.port_number(),
        }
        if port.int("hostPort") != 0 {
            port.field("hostPort").port_number();
        }
        port.plain(&["protocol"]);
    }
}

fn host_port_conflicts<'v>(containers: impl Iterator<Item = Cursor<'v>>) {
    let mut taken = BTreeSet::new();
    for port in containers.flat_map(|container| container.each("ports")) {
        let host = port.int("hostPort");
        let id = format!("{}/{}/{host}", port.text("protocol"), port.text("hostIP"));
        if host != 0 && !taken.insert(id.clone()) {
            port.field("hostPort").duplicate_value(id, "");
        }
    }
}

fn volume_mounts(container: Cursor<'_>, context: &Context<'_>) {
    let mounts = container.field("volumeMounts");
    let devices = container.list("volumeDevices");
    let mut points = BTreeSet::new();
    for mount in mounts.items() {
        let (name, point) = (mount.field("name"), mount.field("mountPath"));
        name.required();
        if !context.volumes.contains_key(name.str()) {
            name.not_found();
        }
        point.required();
        if !points.insert(point.str()) {
            point.invalid("must be unique");
        }
        let used =
            |key: &str, text: &str| devices.iter().any(|d| d.get(key).and_then(|v| v.as_str()) == Some(text));
        if used("name", name.str()) {
            name.invalid("must not already exist in volumeDevices");
        }
        if used("devicePath", point.str()) {
            point.invalid("must not already exist as a path in volumeDevices");
        }
        // Upstream leaves the index out of these paths.
        let (whole, expression) = (mount.reported_at(mounts), mount.field("subPathExpr"));
        whole.field("subPath").descending();
        if !expression.is_empty() && !mount.text("subPath").is_empty() {
            expression.invalid("subPathExpr and subPath are mutually exclusive");
        }
        whole.field("subPathExpr").descending();
        propagation(whole.field("mountPropagation"), container);
        recursive_read_only(whole);
    }
}

fn propagation(mode: Cursor<'_>, container: Cursor<'_>) {
    mode.is_plain();
    if mode.str() == "Bidirectional" && !container.flag("securityContext.privileged") {
        mode.forbidden("Bidirectional mount propagation is available only to privileged containers");
    }
}

fn recursive_read_only(mount: Cursor<'_>) {
    let mode = mount.field("recursiveReadOnly");
    if !matches!(mode.str(), "IfPossible" | "Enabled") {
        mode.is_plain();
        return;
    }
    if !mount.flag("readOnly") {
        mode.forbidden("may only be specified when readOnly is true");
    }
    if !matches!(mount.text("mountPropagation"), "" | "None") {
        mode.forbidden("may only be specified when mountPropagation is None or not specified");
    }
}

fn volume_devices(container: Cursor<'_>, context: &Context<'_>) {
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for device in container.each("volumeDevices") {
        let (name, path) = (device.field("name"), device.field("devicePath"));
        name.required();
        if !names.insert(name.str()) {
            name.invalid("must be unique");
        }
        match context.volumes.get(name.str()) {
            None => name.not_found(),
            Some(volume) if !volume.has("persistentVolumeClaim") && !volume.has("ephemeral") => name.invalid(
                "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
            ),
            Some(_) => {}
        }
        path.required();
        if path.str().split('/').any(|part| part == "..") {
            path.invalid("can not contain backsteps ('..')");
        } else if !paths.insert(path.str()) {
            path.invalid("must be unique");
        }
        let mut mounts = container.each("volumeMounts");
        if mounts.any(|mount| mount.text("name") == name.str()) {
            name.invalid("must not already exist in volumeMounts");
        }
        let mut mounts = container.each("volumeMounts");
        if mounts.any(|mount| mount.text("mountPath") == path.str()) {
            path.invalid("must not already exist as a path in volumeMounts");
        }
    }
}
