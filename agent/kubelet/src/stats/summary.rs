//! `/stats/summary`: upstream's `stats/v1alpha1.Summary`.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::collect::{Container, Measured, PodStats, VolumeUsage, began, boot_time};
use super::disk::{Filesystem, Used};
use super::network::{DEFAULT, Interface};
use crate::cgroup::pressure::{Pressure, Stall};
use crate::cgroup::usage::Usage;
use crate::node::machine;

/// The summary. With `brief`, only processor and memory (`?only_cpu_and_memory=true`).
pub fn of(measured: &Measured, node: &str, memory_capacity: u64, brief: bool) -> Value {
    let at = time(measured.at);
    let mut of_node = json!({"nodeName": node, "startTime": boot_time().map(time)});
    counted(&mut of_node, measured.machine.as_ref(), measured.machine_rate, &at, Some(memory_capacity));
    let mut pods = json!({"name": "pods", "startTime": boot_time().map(time)});
    counted(&mut pods, measured.all_pods.as_ref(), measured.all_pods_rate, &at, None);
    let mut systems = vec![pods];
    for system in &measured.systems {
        let mut shown =
            json!({"name": system.name, "startTime": system.started.or_else(boot_time).map(time)});
        counted(&mut shown, Some(&system.usage), system.rate, &at, None);
        systems.push(shown);
    }
    of_node["systemContainers"] = json!(systems);
    if !brief {
        of_node["network"] = interfaces(&measured.interfaces, &at);
        if let Some(root) = &measured.root {
            of_node["fs"] = filesystem(root, root.taken(), &at);
        }
        if let Some((found, used)) = &measured.images {
            let shown = filesystem(found, *used, &at);
            of_node["runtime"] = json!({"imageFs": shown, "containerFs": shown});
        }
        of_node["rlimit"] = processes(&at);
    }
    let pods: Vec<Value> = measured.pods.iter().map(|p| pod(p, measured, brief, &at)).collect();
    json!({"node": of_node, "pods": pods})
}

fn time(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}

/// Adds `cpu`, `memory`, `io` and `swap`.
fn counted(into: &mut Value, usage: Option<&Usage>, rate: Option<u64>, at: &str, capacity: Option<u64>) {
    let Some(usage) = usage else { return };
    let mut cpu = json!({"time": at, "usageCoreNanoSeconds": usage.cpu});
    if let Some(rate) = rate {
        cpu["usageNanoCores"] = json!(rate);
    }
    let mut memory = json!({
        "time": at,
        "usageBytes": usage.memory,
        "workingSetBytes": usage.working_set,
        "rssBytes": usage.rss,
        "pageFaults": usage.faults,
        "majorPageFaults": usage.major_faults,
    });
    if let Some(limit) = capacity.or(usage.memory_limit) {
        memory["availableBytes"] = json!(limit.saturating_sub(usage.working_set));
    }
    if let Some(stalled) = &usage.pressures.cpu {
        cpu["psi"] = psi(stalled);
    }
    if let Some(stalled) = &usage.pressures.memory {
        memory["psi"] = psi(stalled);
    }
    into["cpu"] = cpu;
    into["memory"] = memory;
    if let Some(stalled) = &usage.pressures.io {
        into["io"] = json!({"time": at, "psi": psi(stalled)});
    }
    if let Some(swap) = usage.swap {
        into["swap"] = json!({"time": at, "swapUsageBytes": swap});
        if let Some(limit) = usage.swap_limit {
            into["swap"]["swapAvailableBytes"] = json!(limit.saturating_sub(swap));
        }
    }
}

/// `PSIStats`; its totals are in nanoseconds.
fn psi(stalled: &Pressure) -> Value {
    let of = |stall: &Stall| {
        let [avg10, avg60, avg300] = stall.percents();
        json!({"total": stall.total.saturating_mul(1000), "avg10": avg10, "avg60": avg60, "avg300": avg300})
    };
    json!({"full": of(&stalled.full), "some": of(&stalled.some)})
}

fn pod(pod: &PodStats, measured: &Measured, brief: bool, at: &str) -> Value {
    let object = &pod.view.pod;
    let containers: Vec<Value> = pod.containers.iter().map(|c| container(c, measured, brief, at)).collect();
    let mut shown = json!({
        "podRef": {
            "name": crate::pod::name(object),
            "namespace": crate::pod::namespace(object),
            "uid": crate::pod::uid(object),
        },
        "startTime": began(&pod.view).map(time),
        "containers": containers,
    });
    counted(&mut shown, pod.usage.as_ref(), pod.rate, at, None);
    if brief {
        return shown;
    }
    if !pod.interfaces.is_empty() {
        shown["network"] = interfaces(&pod.interfaces, at);
    }
    if !pod.volumes.is_empty() {
        shown["volume"] = pod.volumes.iter().map(|v| volume(v, crate::pod::namespace(object), at)).collect();
    }
    if let (Some(used), Some(root)) = (pod.ephemeral, &measured.root) {
        shown["ephemeral-storage"] = filesystem(root, used, at);
    }
    if let Some(count) = pod.usage.as_ref().and_then(|u| u.processes) {
        shown["process_stats"] = json!({"process_count": count});
    }
    shown
}

fn container(container: &Container, measured: &Measured, brief: bool, at: &str) -> Value {
    let mut shown = json!({"name": container.name, "startTime": container.started.map(time)});
    counted(&mut shown, container.usage.as_ref(), container.rate, at, None);
    if brief {
        return shown;
    }
    if let (Some(used), Some((images, _))) = (container.layer, &measured.images) {
        shown["rootfs"] = filesystem(images, used, at);
    }
    if let (Some(used), Some(root)) = (container.logs, &measured.root) {
        shown["logs"] = filesystem(root, used, at);
    }
    shown
}

fn volume(volume: &VolumeUsage, namespace: &str, at: &str) -> Value {
    let mut shown = filesystem(&volume.filesystem, volume.used, at);
    shown["name"] = json!(volume.name);
    if let Some(claim) = &volume.claim {
        shown["pvcRef"] = json!({"name": claim, "namespace": namespace});
    }
    shown
}

/// A filesystem, and how much of it one user takes.
fn filesystem(found: &Filesystem, used: Used, at: &str) -> Value {
    let mut shown = json!({
        "time": at,
        "availableBytes": found.available,
        "capacityBytes": found.capacity,
        "usedBytes": used.bytes,
        "inodesUsed": used.inodes,
    });
    if found.inodes > 0 {
        shown["inodes"] = json!(found.inodes);
        shown["inodesFree"] = json!(found.inodes_free);
    }
    shown
}

fn interfaces(all: &[Interface], at: &str) -> Value {
    let one = |i: &Interface| {
        json!({
            "name": i.name,
            "rxBytes": i.rx_bytes,
            "rxErrors": i.rx_errors,
            "txBytes": i.tx_bytes,
            "txErrors": i.tx_errors,
        })
    };
    // The default interface's counters stand beside the list, too.
    let default = all.iter().find(|i| i.name == DEFAULT).or_else(|| all.first());
    let mut shown = default.map(one).and_then(|v| v.as_object().cloned()).unwrap_or_else(Map::new);
    shown.insert("time".to_owned(), json!(at));
    shown.insert("interfaces".to_owned(), all.iter().map(one).collect());
    Value::Object(shown)
}

/// Process ids of the machine: how many there may be, how many threads there are.
fn processes(at: &str) -> Value {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let (most, threads) = (machine::most_pids(), machine::threads(&load));
    json!({"time": at, "maxpid": most, "curproc": threads})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::View;
    use std::sync::Arc;

    fn measured() -> Measured {
        let pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}}));
        let view = View {
            pod: Arc::new(pod.unwrap()),
            status: Arc::default(),
            observed: Arc::new(crate::pod::observed::Observed::default()),
        };
        let usage =
            Usage { cpu: 5, memory: 100, working_set: 60, memory_limit: Some(90), ..Usage::default() };
        let used = Used { bytes: 7, inodes: 2 };
        let disk = Filesystem { available: 50, capacity: 80, used: 30, inodes: 10, inodes_free: 4 };
        Measured {
            at: Timestamp::from_second(1).unwrap(),
            machine: Some(usage.clone()),
            root: Some(disk),
            images: Some((disk, used)),
            systems: vec![crate::stats::system::System {
                name: "runtime",
                usage: usage.clone(),
                rate: Some(4),
                started: None,
            }],
            pods: vec![PodStats {
                view,
                usage: Some(usage.clone()),
                rate: Some(3),
                containers: vec![Container {
                    name: "c".into(),
                    id: "i".into(),
                    image: "m".into(),
                    started: None,
                    usage: Some(usage),
                    rate: None,
                    layer: Some(used),
                    logs: Some(used),
                }],
                interfaces: vec![Interface { name: "eth0".into(), rx_bytes: 9, ..Interface::default() }],
                volumes: vec![VolumeUsage {
                    name: "v".into(),
                    claim: Some("data".into()),
                    used,
                    filesystem: disk,
                    ephemeral: false,
                }],
                ephemeral: Some(used),
            }],
            ..Measured::default()
        }
    }

    #[test]
    fn the_summary_has_upstreams_shape() {
        let all = of(&measured(), "node", 1000, false);
        let pod = &all["pods"][0];
        assert_eq!(all["node"]["memory"]["availableBytes"], 940);
        assert_eq!(all["node"]["fs"]["inodesUsed"], 6);
        assert_eq!(pod["memory"]["availableBytes"], 30);
        assert_eq!(pod["cpu"]["usageNanoCores"], 3);
        assert_eq!(pod["containers"][0]["rootfs"]["usedBytes"], 7);
        assert_eq!(pod["volume"][0]["pvcRef"], json!({"name": "data", "namespace": "n"}));
        assert_eq!(pod["network"]["rxBytes"], 9);
        assert_eq!(pod["network"]["interfaces"][0]["name"], "eth0");
        assert_eq!(pod["ephemeral-storage"]["usedBytes"], 7);
        let brief = of(&measured(), "node", 1000, true);
        assert!(brief["pods"][0].get("network").is_none() && brief["node"].get("fs").is_none());
        assert_eq!(brief["pods"][0]["cpu"]["usageCoreNanoSeconds"], 5);
    }

    #[test]
    fn what_is_waited_for_and_what_swap_is_left_is_told_where_it_is_counted() {
        let mut shown = json!({});
        let bare = Usage { swap: Some(3), ..Usage::default() };
        counted(&mut shown, Some(&bare), None, "t", None);
        assert_eq!(shown["swap"], json!({"time": "t", "swapUsageBytes": 3}));
        assert!(shown.get("io").is_none() && shown["cpu"].get("psi").is_none());
        let some = Stall { averages: [150, 7, 0], total: 12 };
        let pressure = Some(Pressure { some, full: Stall::default() });
        let mut usage = Usage { swap_limit: Some(10), ..bare };
        (usage.pressures.cpu, usage.pressures.io) = (pressure, pressure);
        counted(&mut shown, Some(&usage), None, "t", None);
        let psi = json!({
            "full": {"total": 0, "avg10": 0.0, "avg60": 0.0, "avg300": 0.0},
            "some": {"total": 12_000, "avg10": 1.5, "avg60": 0.07, "avg300": 0.0},
        });
        assert_eq!((&shown["cpu"]["psi"], &shown["io"]["psi"]), (&psi, &psi));
        assert_eq!(shown["swap"]["swapAvailableBytes"], 7);
    }

    #[test]
    fn the_runtime_stands_beside_the_pods() {
        let shown = of(&measured(), "n", 1000, true);
        let systems = shown["node"]["systemContainers"].as_array().unwrap();
        let names: Vec<&Value> = systems.iter().map(|system| &system["name"]).collect();
        assert_eq!(names, ["pods", "runtime"]);
        assert_eq!(systems[1]["cpu"]["usageNanoCores"], 4);
        assert_eq!(systems[1]["memory"]["workingSetBytes"], 60);
    }
}
