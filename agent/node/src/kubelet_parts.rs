//! The kubelet as this node runs it: its settings from ours and the `KubeletConfiguration` file, its pods, and, with an API
//! server, the Node object and its Lease.

use crate::Config;
use crate::client::limited;
use crate::identity::{Files, Role};
use crate::progress::Progress;
use kubelet::eviction;
use kubelet::node::{self as node_object, Cloud, Reported, Reservation, Sources, trouble};
use kubelet::pressure::Signal;
use kubelet::server::{self, Authorization};
use kubelet::{ConfigError, Kubelet, enforcement, iptables, kept_free, shutdown};
use machinery::quantity::Quantity;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use supervise::{Scope, Supervisor, Task, TaskError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Where upstream's kubelet writes pods' logs; the file may say otherwise unless a flag does.
const POD_LOGS: &str = "/var/log/pods";
/// Where upstream's kubelet finds resolvers; likewise.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The kubelet's settings: the file's, then what every node of ours has.
pub(crate) fn settings(config: &Config, files: &Files) -> Result<kubelet::Config, ConfigError> {
    let (name, ips) = (config.node_name.clone(), config.node_ips.clone());
    let sources = kubelet::Sources {
        file: config.kubelet_config.clone(),
        drop_ins: config.kubelet_drop_ins.clone(),
        flags: config.kubelet_flags.clone(),
    };
    let mut out = kubelet::Config::read(&sources, name, ips)?;
    out.node_ips_given = config.node_ips_given;
    out.cloud_external = config.cloud_external;
    out.machine_id_files.clone_from(&config.machine_id_files);
    out.boot_id_files.clone_from(&config.boot_id_files);
    out.ignore_eviction = config.ignore_eviction;
    out.host.tune_kernel = config.tune_kernel;
    out.root_dir.clone_from(&config.kubelet_root);
    if config.pod_logs_dir != Path::new(POD_LOGS) {
        out.pod_logs_dir.clone_from(&config.pod_logs_dir);
    }
    out.container_logs_dir.clone_from(&config.container_logs_dir);
    if let Some(endpoint) = &config.runtime_endpoint {
        out.container_runtime_endpoint.clone_from(endpoint);
    }
    if out.static_pod_path.is_none() {
        out.static_pod_path.clone_from(&config.static_pod_path);
    }
    if out.cluster_dns.is_empty() {
        out.cluster_dns = config.cluster_dns.iter().map(ToString::to_string).collect();
    }
    if out.cluster_domain.is_empty() {
        out.cluster_domain.clone_from(&config.cluster_domain);
    }
    if out.resolv_conf.as_deref() == Some(Path::new(RESOLV_CONF)) {
        out.resolv_conf = Some(config.resolv_conf.clone());
    }
    if let Some(root) = &config.cgroup_root {
        out.cgroup_root.clone_from(root);
    }
    if let Some((path, programs)) = &config.credential_providers {
        out.credential_providers =
            kubelet::load_credential_providers(path, programs).map_err(ConfigError::from)?.into();
    }
    out.node_labels.extend(config.labels.clone());
    if !config.taints.is_empty() {
        out.register_with_taints.clone_from(&config.taints);
    }
    if let Some(register) = config.register {
        out.register_node = register;
    }
    if out.tls_cert_file.is_none() {
        out.tls_cert_file = Some(files.pair(Role::Serving));
        out.tls_private_key_file = Some(files.pair(Role::Serving));
    }
    trust_cluster(&mut out.authentication, &files.client_ca());
    Ok(out)
}

/// Clients of the kubelet's port are known by certificates of the cluster's authority, unless the file names another.
fn trust_cluster(authentication: &mut Value, ca: &Path) {
    if authentication.pointer("/x509/clientCAFile").and_then(Value::as_str).is_some_and(|f| !f.is_empty()) {
        return;
    }
    if !authentication.is_object() {
        *authentication = json!({});
    }
    authentication["x509"] = json!({ "clientCAFile": ca });
}

/// How the node presents itself, by the kubelet's settings.
fn presentation(settings: &kubelet::Config) -> Result<node_object::Config, TaskError> {
    let base =
        node_object::Config::new(&settings.node_name, settings.node_ips.clone(), settings.root_dir.clone());
    let lease = u64::try_from(settings.node_lease_duration_seconds).unwrap_or(40).max(1);
    Ok(node_object::Config {
        labels: settings.node_labels.clone(),
        taints: settings.register_with_taints.clone(),
        provider_id: settings.provider_id.clone(),
        register: settings.register_node,
        port: settings.port,
        max_pods: settings.max_pods,
        pods_per_core: settings.pods_per_core,
        max_images: settings.node_status_max_images,
        local_storage: settings.local_storage,
        machine_id_files: settings.machine_id_files.clone(),
        boot_id_files: settings.boot_id_files.clone(),
        cloud: settings.cloud_external.then_some(Cloud { ips_given: settings.node_ips_given }),
        reservation: Reservation {
            eviction_memory: kept_free(settings, Signal::MemoryAvailable),
            eviction_storage: kept_free(settings, Signal::NodefsAvailable),
            ..reservation(&[&settings.kube_reserved, &settings.system_reserved])?
        },
        check_period: settings.node_status_update_frequency,
        report_period: settings.node_status_report_frequency,
        lease_duration: Duration::from_secs(lease),
        ..base
    })
}

/// What several lists of reserved amounts keep from pods together.
fn reservation(lists: &[&BTreeMap<String, String>]) -> Result<Reservation, TaskError> {
    let mut out = Reservation::default();
    for (name, text) in lists.iter().flat_map(|list| list.iter()) {
        let amount: Quantity = text.parse().map_err(|e| format!("reserved {name} {text:?}: {e}"))?;
        match name.as_str() {
            "cpu" => out.cpu_millis += u64::try_from(amount.milli_value()).unwrap_or(0),
            "memory" => out.memory += u64::try_from(amount.value()).unwrap_or(0),
            "ephemeral-storage" => out.storage += u64::try_from(amount.value()).unwrap_or(0),
            // Process ids are limited by cgroups alone; they are no resource of the node.
            "pid" => {}
            other => return Err(format!("reserved {other:?} is no resource that can be reserved").into()),
        }
    }
    Ok(out)
}

/// Runs the kubelet until `stop`, each part of it as a task of the supervisor; `progress` is told once its port listens and the node is registered.
pub(crate) async fn run(
    settings: kubelet::Config,
    client: Option<kube::Client>,
    supervisor: Supervisor,
    progress: Progress,
    stop: CancellationToken,
) -> Result<(), TaskError> {
    if let Some(dir) = &settings.static_pod_path {
        std::fs::create_dir_all(dir).map_err(|e| format!("create directory {}: {e}", dir.display()))?;
    }
    let presentation = presentation(&settings)?;
    let port = server::Config::of(&settings)?;
    let scope = Arc::new(Scope::new(&supervisor, "kubelet/", &stop));
    // Tasks hold the scope: it ends with us, however we end.
    let _guard = scope.stop().clone().drop_guard();
    let for_pods = match settings.requests {
        Some((qps, burst)) => client.clone().map(|client| limited(client, f64::from(qps), burst)),
        None => client.clone(),
    };
    let preparing = Box::pin(Kubelet::prepare(settings, for_pods, scope.clone()));
    let Some(prepared) = stop.run_until_cancelled(preparing).await else { return Ok(()) };
    let kubelet = prepared?;
    let settings = kubelet.config();
    let (reporting, reported) = watch::channel(Reported::default());
    let (parts, report) = (kubelet.enforcement(), reporting.clone());
    scope.keep(Task::endless("node-allocatable", move || enforcement::keep(parts.clone(), report.clone())));
    let (parts, report) = (kubelet.eviction(), reporting.clone());
    scope.keep(Task::new("eviction", move |stop| {
        let (parts, report) = (parts.clone(), report.clone());
        async move {
            Box::pin(eviction::watch(parts, &report, &stop)).await;
            Ok(())
        }
    }));
    if settings.iptables_chains {
        scope.keep(Task::endless("iptables", iptables::keep));
    }
    let (parts, report) = (kubelet.shutdown(), reporting.clone());
    scope.keep(Task::endless("node-shutdown", move || shutdown::watch(parts.clone(), report.clone())));
    // Volumes that are attached show as they come into use.
    let (in_use, report) = (kubelet.drivers().in_use(), reporting.clone());
    scope.keep(Task::endless("volumes-in-use", move || show(in_use.clone(), report.clone())));
    let (of, report) = (scope.clone(), reporting.clone());
    scope.keep(Task::endless("health", move || trouble::follow(of.clone(), report.clone())));
    if let Some(number) = settings.read_only {
        let port = server::Config { address: (settings.address, number).into(), ..port.clone() };
        scope.keep(serve(port, &kubelet, Access::Everybody, scope.clone()));
    }
    if let Some(address) = settings.healthz {
        let of = scope.clone();
        scope.keep(Task::endless("healthz", move || server::plain::healthz(address, of.clone())));
    }
    // Reviews are the API server's: a node without one has nobody to ask, and serves only if everybody may.
    let somebody_decides = client.is_some() || port.authorization == Authorization::AlwaysAllow;
    if settings.serve && somebody_decides {
        let access = Access::Known(client.clone(), progress.listening.clone());
        scope.keep(serve(port, &kubelet, access, scope.clone()));
    } else {
        progress.listening.send_replace(true);
    }
    if let Some(client) = client {
        let (runtime, health, events) = (kubelet.runtime(), kubelet.health(), kubelet.recorder());
        let sources = Sources { runtime, health, reported, events };
        node_object::keep(&scope, presentation, client, sources, progress.registered);
    } else {
        // A node of no cluster: there is nobody to know it.
        progress.registered.send_replace(Some(String::new()));
    }
    Box::pin(kubelet.run()).await;
    drop(reporting);
    Ok(())
}

/// Shows the volumes in use as they change.
async fn show(mut in_use: watch::Receiver<BTreeSet<String>>, report: watch::Sender<Reported>) {
    loop {
        let shown: Vec<String> = in_use.borrow_and_update().iter().cloned().collect();
        report.send_if_modified(|reported| {
            let changed = reported.volumes_in_use != shown;
            reported.volumes_in_use = shown;
            changed
        });
        if in_use.changed().await.is_err() {
            return;
        }
    }
}

/// Whom a port is for.
#[derive(Clone)]
enum Access {
    /// Those who are known, by TLS; the client reviews who they are. It is told once connections are taken.
    Known(Option<kube::Client>, watch::Sender<bool>),
    /// Everybody, to read, without TLS.
    Everybody,
}

/// Serves a port of the kubelet's. What keeps it from being served (an address in use, a certificate that is not there yet)
/// does not keep pods from running: it is tried again.
fn serve(port: server::Config, kubelet: &Kubelet, access: Access, scope: Arc<Scope>) -> Task {
    let pods: Arc<dyn server::Pods> = Arc::new(kubelet.pods());
    let (runtime, stats) = (kubelet.runtime(), kubelet.stats());
    let health = server::Health { scope, pulse: kubelet.pulse() };
    let name = if matches!(access, Access::Everybody) { "read-only-server" } else { "server" };
    Task::new(name, move |_| {
        let (port, pods, runtime, stats) = (port.clone(), pods.clone(), runtime.clone(), stats.clone());
        let (access, health) = (access.clone(), health.clone());
        async move {
            match access {
                Access::Known(client, listening) => {
                    let listener = server::listen(port.address)?;
                    listening.send_replace(true);
                    Box::pin(server::serve(listener, port, pods, runtime, stats, client, health)).await?;
                }
                Access::Everybody => {
                    Box::pin(server::plain::read_only(port, pods, runtime, stats, health)).await?;
                }
            }
            Ok(())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_says_what_we_were_not_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kubelet.yaml");
        let text = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: 20\n\
                    clusterDomain: example.org\npodLogsDir: /logs\nkubeReserved: {cpu: 100m, memory: 64Mi}\n\
                    systemReserved: {cpu: '1'}\n";
        std::fs::write(&file, text).unwrap();
        let files = Files::new(dir.path());
        let mut config = Config::new("n1", vec!["192.0.2.1".parse().unwrap()]);
        config.kubelet_config = Some(file);
        config.cgroup_root = Some("/lab".into());
        let out = settings(&config, &files).unwrap();
        assert_eq!(
            (out.cluster_domain.as_str(), out.max_pods, out.cgroup_root.as_str()),
            ("example.org", 20, "/lab")
        );
        assert_eq!(out.pod_logs_dir, Path::new("/logs"));
        assert_eq!(out.cluster_dns, ["10.96.0.10"]);
        assert_eq!(out.tls_cert_file, Some(files.pair(Role::Serving)));
        assert_eq!(out.authentication["x509"]["clientCAFile"], json!(files.client_ca()));
        let shown = presentation(&out).unwrap();
        assert_eq!(
            (shown.max_pods, shown.reservation.cpu_millis, shown.reservation.memory),
            (20, 1100, 64 << 20)
        );
    }

    #[test]
    fn a_directory_for_links_to_logs_must_not_be_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::new("n1", vec!["192.0.2.1".parse().unwrap()]);
        config.container_logs_dir = "/links".into();
        let out = settings(&config, &Files::new(dir.path())).unwrap();
        assert_eq!(out.container_logs_dir, Path::new("/links"));
    }

    #[test]
    fn a_malformed_reservation_is_an_error() {
        let list = |name: &str, amount: &str| BTreeMap::from([(name.to_owned(), amount.to_owned())]);
        assert!(reservation(&[&list("cpu", "lots")]).is_err());
        assert!(reservation(&[&list("gpu", "1")]).is_err());
        assert!(reservation(&[&list("pid", "1000")]).is_ok());
    }
}
