//! The end: machines are as they were before the installer, by `vagrant/listing`.

use super::{each, on_machines};
use anyhow::ensure;

#[test]
fn a_machine_that_is_reset_keeps_its_installation_only() {
    on_machines("windlass reset of a worker", async |machines| {
        let vm = machines.victim();
        // Containers go on without their runtime.
        vm.run("systemctl stop windlass-agent containerd && windlass reset --yes").await?;
        ensure!(
            vm.output("systemctl is-active containerd").await?.stdout == b"inactive\n",
            "it stays as it was"
        );
        vm.run("systemctl start containerd").await?;
        let left = vm.run("ls -d /var/lib/windlass /var/lib/kubelet 2>/dev/null; find /sys/fs/cgroup -name 'kubepods*'; ctr -n k8s.io containers ls -q; nft list tables | grep windlass; ip -o link | grep -E 'cni0|veth'; true").await?;
        ensure!(left.trim().is_empty(), "left: {left}");
        ensure!(!vm.run("windlass version").await?.is_empty(), "the program is still there");
        Ok(())
    });
}

#[test]
fn b_an_uninstalled_machine_must_not_keep_anything() {
    on_machines("install.sh --uninstall", async |machines| {
        // a server leaves the others' etcd before they go
        for vm in machines.servers().iter().skip(1).rev() {
            vm.run("systemctl stop windlass-server && windlass reset --yes").await?;
        }
        each(&machines.all, async |vm| {
            vm.run("~vagrant/windlass/install.sh --uninstall").await?;
            // what the suite itself has made
            vm.run("rm -rf /var/lib/ends /var/lib/disk").await?;
            let left = vm.differences().await?;
            ensure!(left.is_empty(), "it is not as it was:\n{}", left.join("\n"));
            Ok(())
        })
        .await
    });
}
