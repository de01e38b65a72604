//! The defaults an API server would have given a manifest's pod.

use k8s_openapi::api::core::v1::{Container, Lifecycle, Pod, Probe};

/// Fills in what is not set, by the rules of core/v1.
pub fn apply(pod: &mut Pod) {
    let Some(spec) = pod.spec.as_mut() else { return };
    spec.restart_policy.get_or_insert_with(|| "Always".to_owned());
    spec.dns_policy.get_or_insert_with(|| "ClusterFirst".to_owned());
    spec.termination_grace_period_seconds.get_or_insert(30);
    spec.security_context.get_or_insert_default();
    spec.scheduler_name.get_or_insert_with(|| "default-scheduler".to_owned());
    spec.enable_service_links.get_or_insert(true);
    let host_network = spec.host_network == Some(true);
    for each in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        container(each, host_network);
    }
    for volume in spec.volumes.iter_mut().flatten() {
        if let Some(source) = &mut volume.config_map {
            source.default_mode.get_or_insert(0o644);
        }
        if let Some(source) = &mut volume.secret {
            source.default_mode.get_or_insert(0o644);
        }
        if let Some(source) = &mut volume.downward_api {
            source.default_mode.get_or_insert(0o644);
        }
        if let Some(source) = &mut volume.projected {
            source.default_mode.get_or_insert(0o644);
        }
        if let Some(source) = &mut volume.host_path {
            source.type_.get_or_insert_default();
        }
    }
}

fn container(container: &mut Container, host_network: bool) {
    let image = container.image.as_deref().unwrap_or_default();
    let last = image.rsplit('/').next().unwrap_or_default();
    let latest = !image.contains('@') && (!last.contains(':') || last.ends_with(":latest"));
    let policy = if latest { "Always" } else { "IfNotPresent" };
    container.image_pull_policy.get_or_insert_with(|| policy.to_owned());
    container.termination_message_path.get_or_insert_with(|| "/dev/termination-log".to_owned());
    container.termination_message_policy.get_or_insert_with(|| "File".to_owned());
    for port in container.ports.iter_mut().flatten() {
        port.protocol.get_or_insert_with(|| "TCP".to_owned());
        if host_network {
            port.host_port.get_or_insert(port.container_port);
        }
    }
    let probes =
        [&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe];
    probes.into_iter().flatten().for_each(probe);
    if let Some(Lifecycle { post_start, pre_stop, .. }) = &mut container.lifecycle {
        for handler in [post_start, pre_stop].into_iter().flatten() {
            if let Some(get) = &mut handler.http_get {
                get.path.get_or_insert_with(|| "/".to_owned());
                get.scheme.get_or_insert_with(|| "HTTP".to_owned());
            }
        }
    }
    for variable in container.env.iter_mut().flatten() {
        if let Some(field) = variable.value_from.as_mut().and_then(|from| from.field_ref.as_mut()) {
            field.api_version.get_or_insert_with(|| "v1".to_owned());
        }
    }
    if let Some(resources) = &mut container.resources
        && let Some(limits) = resources.limits.clone()
    {
        let requests = resources.requests.get_or_insert_default();
        for (name, quantity) in limits {
            requests.entry(name).or_insert(quantity);
        }
    }
}

fn probe(probe: &mut Probe) {
    probe.timeout_seconds.get_or_insert(1);
    probe.period_seconds.get_or_insert(10);
    probe.success_threshold.get_or_insert(1);
    probe.failure_threshold.get_or_insert(3);
    if let Some(get) = &mut probe.http_get {
        get.path.get_or_insert_with(|| "/".to_owned());
        get.scheme.get_or_insert_with(|| "HTTP".to_owned());
    }
    if let Some(grpc) = &mut probe.grpc {
        grpc.service.get_or_insert_default();
    }
}
