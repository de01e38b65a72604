//! Pods, and the pod templates inside other kinds.

use serde_json::Value;

use super::{
    amounts,
    image::pull_policy,
    storage::{claim_spec, iscsi, rbd, scale_io},
};
use crate::access::{Fields, Get, default, default_int, default_text, entries, existing, object, set};

const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// A pod: its spec, and what is filled in for pods but not for templates.
pub(super) fn pod(pod: &mut Value) {
    let Some(spec) = object(pod, "spec") else { return };
    pod_spec(spec);
    default(spec, "enableServiceLinks", true);
    let host_network = spec.flag("hostNetwork");
    for list in ["initContainers", "containers"] {
        for container in entries(spec, list) {
            if let Some(resources) = existing(container, "resources") {
                requests_from_limits(resources);
            }
            if host_network {
                for port in entries(container, "ports") {
                    let own = port.int("containerPort").unwrap_or_default();
                    default_int(port, "hostPort", own);
                }
            }
        }
    }
    amounts::of_pod(pod);
    amounts::round(
        pod,
        &["status.allocatedResources", "status.resources.limits", "status.resources.requests"],
    );
    for list in
        ["status.initContainerStatuses", "status.containerStatuses", "status.ephemeralContainerStatuses"]
    {
        amounts::round_each(pod, list, &["allocatedResources", "resources.limits", "resources.requests"]);
    }
}

/// What a limit names and no request does is requested at the limit.
fn requests_from_limits(resources: &mut Value) {
    let Some(limits) = resources.fields("limits").filter(|limits| !limits.is_empty()).cloned() else {
        return;
    };
    if let Some(requests) = object(resources, "requests") {
        for (name, quantity) in limits {
            default(requests, &name, quantity);
        }
    }
}

/// The pod spec under `template` of another kind's spec.
pub(super) fn template(spec: &mut Value) {
    if let Some(spec) = object(spec, "template").and_then(|template| object(template, "spec")) {
        pod_spec(spec);
    }
}

/// What every pod spec is given.
pub(super) fn pod_spec(spec: &mut Value) {
    default_text(spec, "dnsPolicy", "ClusterFirst");
    default_text(spec, "restartPolicy", "Always");
    default_text(spec, "schedulerName", "default-scheduler");
    default(spec, "terminationGracePeriodSeconds", 30);
    default(spec, "securityContext", Fields::new());
    amounts::round(spec, &["overhead", "resources.limits", "resources.requests"]);
    for list in CONTAINERS {
        amounts::round_each(spec, list, amounts::RESOURCES);
        for container in entries(spec, list) {
            self::container(container);
        }
    }
    for volume in entries(spec, "volumes") {
        self::volume(volume);
    }
}

fn container(container: &mut Value) {
    let policy = pull_policy(container.text("image"));
    default_text(container, "imagePullPolicy", policy);
    default_text(container, "terminationMessagePath", "/dev/termination-log");
    default_text(container, "terminationMessagePolicy", "File");
    // Written even when it is empty: upstream's field is no pointer.
    default(container, "resources", Fields::new());
    for port in entries(container, "ports") {
        default_text(port, "protocol", "TCP");
    }
    for variable in entries(container, "env") {
        if let Some(field) = existing(variable, "valueFrom.fieldRef") {
            default_text(field, "apiVersion", "v1");
        }
        if let Some(key) = existing(variable, "valueFrom.fileKeyRef") {
            default(key, "optional", false);
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = existing(container, probe) {
            default_int(probe, "timeoutSeconds", 1);
            default_int(probe, "periodSeconds", 10);
            default_int(probe, "successThreshold", 1);
            default_int(probe, "failureThreshold", 3);
            if let Some(grpc) = existing(probe, "grpc") {
                default(grpc, "service", "");
            }
            http_get(probe);
        }
    }
    for hook in ["lifecycle.postStart", "lifecycle.preStop"] {
        if let Some(hook) = existing(container, hook) {
            http_get(hook);
        }
    }
}

fn http_get(handler: &mut Value) {
    if let Some(get) = existing(handler, "httpGet") {
        default_text(get, "path", "/");
        default_text(get, "scheme", "HTTP");
    }
}

/// 0644: how files of projected volumes appear.
const FILE_MODE: i64 = 0o644;

fn volume(volume: &mut Value) {
    let has_source = volume
        .as_object()
        .is_some_and(|fields| fields.iter().any(|(key, source)| key != "name" && !source.is_null()));
    if !has_source {
        set(volume, "emptyDir", Fields::new());
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = existing(volume, source) {
            default(source, "defaultMode", FILE_MODE);
        }
    }
    downward_items(existing(volume, "downwardAPI"));
    for source in entries(volume, "projected.sources") {
        downward_items(existing(source, "downwardAPI"));
        if let Some(token) = existing(source, "serviceAccountToken") {
            default(token, "expirationSeconds", 3600);
        }
        if let Some(certificate) = existing(source, "podCertificate") {
            default(certificate, "maxExpirationSeconds", 86400);
        }
    }
    if let Some(path) = existing(volume, "hostPath") {
        default(path, "type", "");
    }
    if let Some(image) = existing(volume, "image") {
        let policy = pull_policy(image.text("reference"));
        default_text(image, "pullPolicy", policy);
    }
    if let Some(claim) = existing(volume, "ephemeral.volumeClaimTemplate.spec") {
        claim_spec(claim);
    }
    if let Some(disk) = existing(volume, "azureDisk") {
        default(disk, "cachingMode", "ReadWrite");
        default(disk, "kind", "Shared");
        default(disk, "fsType", "ext4");
        default(disk, "readOnly", false);
    }
    iscsi(volume);
    rbd(volume);
    scale_io(volume);
}

fn downward_items(source: Option<&mut Value>) {
    if let Some(source) = source {
        for item in entries(source, "items") {
            if let Some(field) = existing(item, "fieldRef") {
                default_text(field, "apiVersion", "v1");
            }
        }
    }
}
