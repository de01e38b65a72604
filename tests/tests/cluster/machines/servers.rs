//! Several servers (`SERVERS=3`): with one gone the others go on, whichever it is.

use super::{Machines, all_ready, on_machines};
use crate::harness::{cluster, eventually};
use anyhow::{Result, ensure};
use std::time::Instant;

#[test]
fn a_server_that_is_cut_off_must_not_take_the_api_with_it() {
    on_machines("power cut of one of three servers", async |machines| {
        if machines.servers().len() < 3 {
            println!("skipped: {} server; SERVERS=3 has three", machines.servers().len());
            return Ok(());
        }
        let namespace = cluster().namespace("vm-servers");
        namespace.kubectl(&["create", "configmap", "before"]);
        // the one that the others joined, which the kubeconfig names
        let (gone, left) = (machines.server(), &machines.addresses[1]);
        let boot = gone.boot_id().await?;
        gone.power_off().await?;
        let cut = Instant::now();
        eventually("a write by another server", 180, || {
            ask(left, &["-n", &namespace.name, "create", "configmap", "meanwhile"])
        });
        machines.took("  from the power cut to a write by another server", cut)?;
        eventually("its node is not ready", 180, || {
            let path = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
            let ready = ask(left, &["get", "node", &gone.name, "-o", path])?;
            if ready == "Unknown" { Ok(()) } else { Err(ready) }
        });
        gone.power_on().await?;
        gone.started_after(&boot).await?;
        eventually("the server that was cut off answers", 180, || {
            ask(&machines.addresses[0], &["get", "nodes"])
        });
        all_ready(300);
        known_everywhere(machines, &namespace.name)
    });
}

/// Every server has both objects.
fn known_everywhere(machines: &Machines, namespace: &str) -> Result<()> {
    for address in &machines.addresses[..machines.servers().len()] {
        let names = ask(address, &["-n", namespace, "get", "configmaps", "-o", "name"]);
        let names = names.map_err(anyhow::Error::msg)?;
        let has = |name: &str| names.lines().any(|line| line == format!("configmap/{name}"));
        ensure!(has("before") && has("meanwhile"), "{address}: {names}");
    }
    Ok(())
}

/// kubectl by the server at `address`.
fn ask(address: &str, words: &[&str]) -> Result<String, String> {
    let server = format!("https://{address}:6443");
    let out = cluster().kubectl_output(&[&["--server", &server, "--request-timeout=10s"], words].concat());
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    if out.status.success() { Ok(said) } else { Err(String::from_utf8_lossy(&out.stderr).into_owned()) }
}
