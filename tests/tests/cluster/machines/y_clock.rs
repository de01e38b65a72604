//! The clock moved on by most of a certificate's life: all certificates are renewed without anybody, and the cluster works. Nothing moves it back: this is
//! the last test but the one that takes Windlass away.

use super::on_machines;
use crate::harness::{cluster, eventually};
use anyhow::{Context as _, ensure};
use serde_json::Value;
use std::time::Duration;

/// Beyond two thirds of a year.
const DAYS: u32 = 300;

/// kubectl as it would be in the machines' time, in which the server's certificate is no longer of the future.
fn kubectl(words: &[&str]) -> Result<String, String> {
    let out = cluster().kubectl_output(&[&["--insecure-skip-tls-verify"], words].concat());
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    if out.status.success() { Ok(said) } else { Err(String::from_utf8_lossy(&out.stderr).into_owned()) }
}

#[test]
fn certificates_renew_themselves_when_the_clock_moves() {
    on_machines("certificate renewal with the clock moved", async |machines| {
        for vm in &machines.all {
            vm.run(&format!(
                "date -s \"$(date -d '+{DAYS} days' '+%F %T')\" && hwclock -w 2>/dev/null; true"
            ))
            .await?;
        }
        for vm in &machines.all {
            let renewed = async || {
                let out =
                    vm.output("windlass certs check -o json").await.map_err(|error| format!("{error:#}"))?;
                let said = String::from_utf8_lossy(&out.stdout).into_owned();
                match serde_json::from_str::<Value>(&said) {
                    Ok(found) if out.status.success() && no_leaf_is_due(&found) => Ok(()),
                    _ => Err(said + &String::from_utf8_lossy(&out.stderr)),
                }
            };
            // the clock is read again every ten minutes
            let patience = Duration::from_secs(720);
            let what = format!("{}'s certificates are new", vm.name);
            lab::patience::eventually(&what, patience, renewed).await.map_err(anyhow::Error::msg)?;
        }
        let heartbeat = "jsonpath={range .items[*]}{.metadata.name}={.status.conditions[?(@.type=='Ready')].status} {end}";
        eventually("every node is ready in the new time", 180, || {
            let nodes = kubectl(&["get", "nodes", "-o", heartbeat])?;
            if nodes.split_whitespace().all(|node| node.ends_with("=True")) { Ok(()) } else { Err(nodes) }
        });
        let name = "vm-clock";
        kubectl(&["create", "namespace", name]).map_err(anyhow::Error::msg)?;
        eventually("a pod", 120, || kubectl(&["-n", name, "run", "p", "--image=lab.local/echo:1"]));
        kubectl(&["-n", name, "wait", "--for=condition=Ready", "--timeout=300s", "pod/p"])
            .map_err(anyhow::Error::msg)?;
        // the API server trusts the kubelet's new certificate
        let said = eventually("exec", 60, || kubectl(&["-n", name, "exec", "p", "--", "echo", "works"]));
        ensure!(said == "works\n", "{said}");
        kubectl(&["delete", "namespace", name, "--timeout=300s"])
            .map_err(anyhow::Error::msg)
            .context("delete")
            .map(drop)
    });
}

/// Every certificate has more than half a year left.
fn no_leaf_is_due(found: &Value) -> bool {
    const HALF_A_YEAR: i64 = 180 * 24 * 3600;
    let all = found["certificates"].as_array();
    all.is_some_and(|all| {
        !all.is_empty()
            && all.iter().all(|one| one["residualTime"].as_i64().is_some_and(|left| left > HALF_A_YEAR))
    })
}
