//! Limits that bite, on cgroup v2.

use super::on_machines;
use crate::harness::{cluster, eventually};
use anyhow::{Context as _, ensure};
use std::time::Duration;

#[test]
fn a_container_beyond_its_memory_is_killed_and_told_as_such() {
    on_machines("OOMKilled", async |machines| {
        let namespace = cluster().namespace("vm-memory");
        let node = &machines.steady().name;
        namespace.apply(&format!(
            "apiVersion: v1
kind: Pod
metadata: {{ name: hog }}
spec:
  nodeName: {node}
  restartPolicy: Never
  containers:
  - name: c
    image: lab.local/echo:1
    command: [sh, -c, 'x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done']
    resources: {{ limits: {{ memory: 32Mi }} }}
"
        ));
        let ended = ".status.containerStatuses[0].state.terminated";
        let told = eventually("the container is killed", 300, || {
            let told = namespace.path("pod/hog", &format!("{{{ended}.reason}} {{{ended}.exitCode}}"));
            if told.trim().is_empty() { Err("not yet".to_owned()) } else { Ok(told) }
        });
        ensure!(told == "OOMKilled 137", "{told}");
        ensure!(namespace.path("pod/hog", "{.status.phase}") == "Failed", "its phase");
        Ok(())
    });
}

#[test]
fn a_limit_of_processor_time_holds() {
    on_machines("a CPU limit, measured", async |machines| {
        let namespace = cluster().namespace("vm-cpu");
        let vm = machines.steady();
        namespace.apply(&format!(
            "apiVersion: v1
kind: Pod
metadata: {{ name: busy }}
spec:
  nodeName: {}
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: lab.local/echo:1
    command: [sh, -c, 'while :; do :; done']
    resources: {{ limits: {{ cpu: 200m, memory: 32Mi }}, requests: {{ cpu: 100m }} }}
",
            vm.name
        ));
        namespace.kubectl(&["wait", "--for=condition=Ready", "--timeout=300s", "pod/busy"]);
        let uid = namespace.path("pod/busy", "{.metadata.uid}").replace('-', "_");
        let slice = format!(
            "/sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid}.slice"
        );
        let limits = vm.run(&format!("cd {slice} && cat memory.max cpu.max && ls -d *.scope")).await?;
        let lines: Vec<&str> = limits.lines().collect();
        ensure!(lines[..2] == ["33554432", "20000 100000"] && lines.len() > 2, "{limits}");
        let look = async || -> anyhow::Result<(f64, f64, f64)> {
            let text = vm.run(&format!("cat /proc/uptime {slice}/cpu.stat")).await?;
            let number = |key: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(key));
                line.and_then(|value| value.trim().parse::<f64>().ok())
                    .with_context(|| format!("{key}: {text}"))
            };
            let now = text.split(' ').next().and_then(|seconds| seconds.parse().ok()).context("uptime")?;
            Ok((now, number("usage_usec ")? / 1e6, number("nr_throttled ")?))
        };
        let (from, used, throttled) = look().await?;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let (to, more, often) = look().await?;
        let share = (more - used) / (to - from);
        println!("used {share:.3} of a processor, throttled {} times", often - throttled);
        // a machine that is itself short of time gives less
        ensure!((0.05..0.23).contains(&share) && often > throttled, "{share} of a processor");
        namespace.kubectl(&["delete", "pod", "busy"]);
        let gone = async || match vm.output(&format!("test ! -e {slice}")).await {
            Ok(output) if output.status.success() => Ok(()),
            _ => Err("the pod's cgroup is there"),
        };
        lab::patience::eventually("nothing is left", Duration::from_secs(30), gone)
            .await
            .map_err(anyhow::Error::msg)
    });
}
