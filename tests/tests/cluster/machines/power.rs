//! Machines that are shut down, cut off and started again. What was acknowledged is kept, and what runs runs once.

use super::{Machines, all_ready, answers, no_address_is_leaked, of_pods, on_machines, spread};
use crate::harness::{Namespace, cluster, eventually};
use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Writers at once.
const WRITERS: usize = 4;
/// What is acknowledged before the plug is pulled.
const WRITTEN: usize = 60;

/// A pod on `node` that notes when it is told to end; `more` lines of its spec.
fn ends_in_order(namespace: &Namespace<'_>, name: &str, node: &str, more: &str) {
    namespace.apply(&format!(
        "apiVersion: v1
kind: Pod
metadata: {{ name: {name} }}
spec:
  nodeName: {node}
  {more}
  containers:
  - name: c
    image: lab.local/echo:1
    command: [sh, -c, 'trap \"date +%s >/ends/{name}; sync; exit 0\" TERM; sleep 1000 & wait']
    volumeMounts: [{{ name: ends, mountPath: /ends }}]
  volumes: [{{ name: ends, hostPath: {{ path: /var/lib/ends, type: DirectoryOrCreate }} }}]
"
    ));
    namespace.kubectl(&["wait", "--for=condition=Ready", "--timeout=300s", &format!("pod/{name}")]);
}

#[test]
fn a_worker_that_shuts_down_ends_its_pods_in_order() {
    on_machines("graceful shutdown of a worker", async |machines| {
        let vm = machines.victim();
        let settings = "shutdownGracePeriod: 120s\\nshutdownGracePeriodCriticalPods: 60s\\n";
        vm.run(&format!(
            "rm -rf /var/lib/ends; sed -i /shutdownGracePeriod/d /etc/windlass/kubelet.yaml; printf '{settings}' >>/etc/windlass/kubelet.yaml; \
             systemctl restart windlass-agent"
        ))
        .await?;
        let inhibits = async || match vm.run("systemd-inhibit --list --no-legend").await {
            Ok(list) if list.contains("kubelet") => Ok(()),
            Ok(list) => Err(list),
            Err(error) => Err(format!("{error:#}")),
        };
        let patience = Duration::from_secs(60);
        lab::patience::eventually("an inhibitor of ours", patience, inhibits)
            .await
            .map_err(anyhow::Error::msg)?;
        all_ready(300);
        let namespace = cluster().namespace("vm-shutdown");
        ends_in_order(&namespace, "plain", &vm.name, "terminationGracePeriodSeconds: 30");
        ends_in_order(&namespace, "critical", &vm.name, "priorityClassName: system-node-critical");
        let boot = vm.boot_id().await?;
        // what it says is cut off with the connection
        let _ = vm.output("systemctl poweroff").await;
        let message = "Pod was terminated in response to imminent node shutdown.";
        for pod in ["plain", "critical"] {
            let told = eventually("the pod's end", 150, || {
                let path = "{.status.phase}|{.status.reason}|{.status.message}|{.status.conditions[?(@.type=='DisruptionTarget')].reason}";
                let told = namespace.path(&format!("pod/{pod}"), path);
                if told.starts_with("Running") { Err(told) } else { Ok(told) }
            });
            ensure!(told == format!("Failed|Terminated|{message}|TerminationByKubelet"), "{pod}: {told}");
        }
        vm.power_on().await?;
        vm.started_after(&boot).await?;
        all_ready(300);
        let ends = vm.run("cat /var/lib/ends/plain /var/lib/ends/critical").await?;
        let times: Vec<u64> = ends.lines().filter_map(|line| line.parse().ok()).collect();
        ensure!(times.len() == 2 && times[0] <= times[1], "the critical one ends last: {ends}");
        no_address_is_leaked(vm).await
    });
}

#[test]
fn b_a_worker_that_is_cut_off_must_not_leave_duplicates() {
    on_machines("power cut of a worker", async |machines| {
        let vm = machines.victim();
        let namespace = cluster().namespace("vm-cut");
        let count = machines.all.len();
        spread(&namespace, "web", u32::try_from(count)?);
        let on_victim = |lines: &[String]| lines.iter().filter(|line| line.ends_with(&vm.name)).count();
        ensure!(on_victim(&of_pods(&namespace, "web", "{.spec.nodeName}")) > 0, "a pod on {}", vm.name);
        let boot = vm.boot_id().await?;
        vm.power_off().await?;
        let cut = Instant::now();
        eventually("others take over", 360, || {
            let path = "{.status.phase} {.status.conditions[?(@.type=='Ready')].status} {.metadata.deletionTimestamp}@{.spec.nodeName}";
            let pods = of_pods(&namespace, "web", path);
            let ready = pods
                .iter()
                .filter(|pod| pod.starts_with("Running True @") && !pod.ends_with(&vm.name))
                .count();
            if ready == count { Ok(()) } else { Err(pods.join(", ")) }
        });
        machines.took("  from the power cut to its pods' replacement", cut)?;
        vm.power_on().await?;
        vm.started_after(&boot).await?;
        all_ready(300);
        eventually("no pod twice", 120, || {
            let pods = of_pods(&namespace, "web", "{.metadata.name} {.status.phase}");
            if pods.len() == count && pods.iter().all(|pod| pod.ends_with(" Running")) {
                Ok(())
            } else {
                Err(pods.join(", "))
            }
        });
        let port = namespace.path("service/web", "{.spec.ports[0].nodePort}");
        for address in &machines.addresses {
            answers(address, &port, 10).await?;
        }
        for vm in &machines.all {
            no_address_is_leaked(vm).await?;
        }
        Ok(())
    });
}

#[test]
fn c_a_server_that_is_cut_off_must_not_lose_what_it_acknowledged() {
    on_machines("power cut of the server while it writes", async |machines| {
        let vm = machines.server();
        let namespace = cluster().namespace("vm-writes");
        let client = lab::up::client_without_retries(cluster().kubeconfig()).await?;
        let (written, stop) = (Mutex::new(BTreeSet::new()), CancellationToken::new());
        let writers = (0..WRITERS).map(|writer| write(&client, &namespace.name, writer, &written, &stop));
        let boot = vm.boot_id().await?;
        let cut = async {
            let enough = async || match written.lock().unwrap_or_else(PoisonError::into_inner).len() {
                WRITTEN.. => Ok(()),
                few => Err(format!("{few} writes")),
            };
            let done = lab::patience::eventually("writes", Duration::from_secs(120), enough).await;
            let cut = vm.power_off().await;
            stop.cancel();
            done.map_err(anyhow::Error::msg).and(cut)
        };
        let (_, cut) = tokio::join!(futures::future::join_all(writers), cut);
        cut?;
        vm.power_on().await?;
        vm.started_after(&boot).await?;
        all_ready(300);
        let names = namespace.kubectl(&["get", "configmaps", "-o", "jsonpath={.items[*].metadata.name}"]);
        let kept: BTreeSet<&str> = names.split(' ').collect();
        let written = written.into_inner().unwrap_or_else(PoisonError::into_inner);
        let lost: Vec<&String> = written.iter().filter(|name| !kept.contains(name.as_str())).collect();
        println!("{} writes acknowledged, {} kept", written.len(), kept.len());
        ensure!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        Ok(())
    });
}

/// Makes one object after another until it is told to stop; notes those that were acknowledged.
async fn write(
    client: &Client,
    namespace: &str,
    writer: usize,
    written: &Mutex<BTreeSet<String>>,
    stop: &CancellationToken,
) {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let all = async {
        for index in 0.. {
            let name = format!("w{writer}-{index}");
            let map = ConfigMap {
                metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
                ..ConfigMap::default()
            };
            if api.create(&PostParams::default(), &map).await.is_ok() {
                written.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
            }
        }
    };
    tokio::select! {
        () = all => {}
        () = stop.cancelled() => {}
    }
}

#[test]
fn d_all_machines_at_once_come_back() {
    on_machines("reboot of all machines at once", async |machines| {
        let namespace = cluster().namespace("vm-reboot");
        spread(&namespace, "web", u32::try_from(machines.all.len())?);
        let port = namespace.path("service/web", "{.spec.ports[0].nodePort}");
        let mut boots = Vec::new();
        for vm in &machines.all {
            boots.push(vm.boot_id().await?);
        }
        futures::future::join_all(machines.all.iter().map(|vm| vm.output("systemctl reboot"))).await;
        for (vm, boot) in machines.all.iter().zip(&boots) {
            vm.started_after(boot).await?;
        }
        all_ready(300);
        namespace.kubectl(&["rollout", "status", "deployment/web", "--timeout=240s"]);
        // What a shutdown ended stays to be read, as long as anybody keeps it; its replacement runs in its place.
        let after = of_pods(&namespace, "web", "{.metadata.name}={.status.phase}/{.status.reason}");
        let (ended, rest): (Vec<_>, Vec<_>) =
            after.iter().partition(|pod| pod.ends_with("=Failed/Terminated"));
        let all_run = rest.iter().all(|pod| pod.ends_with("=Running/"));
        ensure!(rest.len() == machines.all.len() && all_run, "{rest:?} beside {ended:?}");
        serves(machines, &port).await?;
        for vm in &machines.all {
            no_address_is_leaked(vm).await?;
        }
        Ok(())
    });
}

/// A moment after its pods are ready, a node port answers on every machine, and then always.
async fn serves(machines: &Machines, port: &str) -> Result<()> {
    for address in &machines.addresses {
        let look = async || answers(address, port, 1).await;
        let patience = Duration::from_secs(60);
        lab::patience::eventually("a node port", patience, look).await.map_err(anyhow::Error::msg)?;
        answers(address, port, 10).await?;
    }
    Ok(())
}
