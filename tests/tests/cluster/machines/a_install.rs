//! What the installer has made of the machines.

use super::{each, nothing_ends, on_machines};
use crate::harness::cluster;
use anyhow::ensure;

#[test]
fn a_nodes_are_on_cgroup_v2_by_the_systemd_driver() {
    on_machines("nodes on systemd, cgroup v2 and the machine's containerd", async |machines| {
        each(&machines.all, async |vm| {
            let kind = vm.run("stat -fc %T /sys/fs/cgroup").await?;
            ensure!(kind.trim() == "cgroup2fs", "{kind}");
            let active =
                format!("systemctl is-active {} kubepods.slice containerd.service", machines.unit(vm));
            vm.run(&active).await?;
            let failed = vm.run("systemctl --failed --no-legend --plain").await?;
            ensure!(failed.trim().is_empty(), "{failed}");
            let role = machines.role(vm);
            vm.run(&format!("windlass check --role {role} --running")).await.map(drop)
        })
        .await?;
        let runtimes = "jsonpath={.items[*].status.nodeInfo.containerRuntimeVersion}";
        let runtimes = cluster().kubectl(&["get", "nodes", "-o", runtimes]);
        println!("{runtimes}");
        ensure!(runtimes.split(' ').all(|runtime| runtime.starts_with("containerd://")), "{runtimes}");
        Ok(())
    });
}

#[test]
fn b_a_second_run_of_the_installer_must_not_restart_anything() {
    on_machines("install.sh once more", async |machines| {
        nothing_ends();
        each(&machines.all, async |vm| {
            let look = format!(
                "systemctl show -P MainPID {} containerd.service; ctr -n k8s.io tasks ls -q | sort; \
                 find /etc/windlass /etc/containerd /etc/sysctl.d /etc/modules-load.d /usr/local/bin -type f -not -path '/etc/windlass/install/*' -exec sha256sum {{}} + | sort",
                machines.unit(vm)
            );
            let before = vm.run(&look).await?;
            vm.run(&format!("~vagrant/windlass/install.sh {}", machines.role(vm))).await?;
            let after = vm.run(&look).await?;
            ensure!(before == after, "\n{before}\nis now\n{after}");
            Ok(())
        })
        .await
    });
}
