//! An installation that is killed again and again comes to its end all the same, and its undoing leaves the machine as it was before the first of those runs.

use super::{Machines, on_bare_machines};
use crate::harness::eventually;
use anyhow::{Context as _, Result, ensure};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

const KILLS: u32 = 10;
/// The variable that names the seed of a run that is to be had again.
const SEED: &str = "WINDLASS_SEED";
/// Seconds after which a run is killed: as many points in the first two seconds of a run as in its last thirty.
const EARLIEST: f64 = 0.5;
const LATEST: f64 = 40.0;
const INSTALL: &str = "/home/vagrant/windlass/install.sh";
/// Until what a killed run has left behind is at its end, such as a package manager.
const SETTLED: &str = "timeout 280 flock /run/windlass-install.lock true";

/// Numbers from 0 to 1 (splitmix64, Steele et al. 2014).
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let bits = u32::try_from((z ^ (z >> 31)) >> 32).unwrap_or(u32::MAX);
        f64::from(bits) / f64::from(u32::MAX)
    }
}

#[test]
fn an_installation_killed_ten_times_is_finished_and_undone() {
    on_bare_machines("install.sh killed at ten points, finished, undone", async |machines| {
        let vm = machines.server();
        if vm.output("test -e /etc/windlass/install/record").await?.status.success() {
            vm.run(&format!("{INSTALL} --uninstall")).await?;
        }
        let before = vm.differences().await?;
        ensure!(before.is_empty(), "{} is not as it was before all:\n{}", vm.name, before.join("\n"));
        let given = std::env::var(SEED).ok().map(|seed| seed.parse()).transpose().context(SEED)?;
        let seed = match given {
            Some(seed) => seed,
            None => u64::from(SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos()),
        };
        println!("{SEED}={seed}");
        let install = format!("{INSTALL} server --set node-ip={}", vm.address()?);
        let mut draw = Draw(seed);
        for round in 0..KILLS {
            let seconds = EARLIEST * (LATEST / EARLIEST).powf(draw.next());
            // with all that it has started, as by a power cut; or alone, as by a user
            let (who, how) = if round % 2 == 0 { ("all", "control-group") } else { ("main", "process") };
            let unit = format!("interrupted-{round}.service");
            vm.run(SETTLED).await?;
            let script = format!(
                "systemd-run -q --collect -u {unit} -p KillMode={how} {install} && sleep {seconds:.2}; \
                 if systemctl kill --kill-whom={who} -s KILL {unit} 2>/dev/null; then echo killed; else echo had ended; fi; \
                 tail -n 1 /etc/windlass/install/record 2>/dev/null; true"
            );
            let said = vm.run(&script).await?;
            println!("after {seconds:.2} s ({who}): {}", said.trim().replace('\n', ", last recorded: "));
        }
        vm.run(SETTLED).await?;
        vm.run(&install).await?;
        ready(machines).await?;
        vm.run("windlass check --role server --running").await?;
        vm.run(&format!("{INSTALL} --uninstall")).await?;
        let left = vm.differences().await?;
        ensure!(left.is_empty(), "{} is not as it was:\n{}", vm.name, left.join("\n"));
        Ok(())
    });
}

/// Waits until the new cluster's only node is ready.
async fn ready(machines: &Machines) -> Result<()> {
    let vm = machines.server();
    let kubeconfig = machines.folder.join("interrupted.kubeconfig");
    let text = vm.run(&format!("windlass kubeconfig --server https://{}:6443", vm.address()?)).await?;
    std::fs::write(&kubeconfig, text)?;
    let path =
        "jsonpath={range .items[*]}{.metadata.name}={.status.conditions[?(@.type=='Ready')].status} {end}";
    let wanted = format!("{}=True", vm.name);
    eventually("the node is ready", 180, || {
        let mut kubectl = Command::new("kubectl");
        // the machine's clock may be another one
        kubectl.arg("--kubeconfig").arg(&kubeconfig).args([
            "--insecure-skip-tls-verify",
            "get",
            "nodes",
            "-o",
            path,
        ]);
        let out = kubectl.output().map_err(|error| error.to_string())?;
        let said = String::from_utf8_lossy(&out.stdout).trim().to_owned();
        if said == wanted { Ok(()) } else { Err(said + &String::from_utf8_lossy(&out.stderr)) }
    });
    Ok(std::fs::remove_file(&kubeconfig)?)
}
