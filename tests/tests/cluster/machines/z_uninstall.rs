//! The end: machines are as they were before the installer.

use super::on_machines;
use anyhow::ensure;

/// What a node leaves when it is not taken away: programs, units, state, links, tables, cgroups, mounts, processes.
const LOOK: &str = "ls -d /usr/local/bin/windlass* /etc/systemd/system/windlass* /etc/windlass /var/lib/windlass /var/lib/kubelet /etc/cni /opt/cni \
    /var/lib/cni /var/lib/containerd /etc/containerd /etc/sysctl.d/90-windlass.conf /etc/modules-load.d/windlass.conf /run/windlass \
    /etc/systemd/logind.conf.d/99-kubelet.conf 2>/dev/null; \
    ip -o link | grep -E 'cni0|veth'; ip route show proto 87; ip -o address show dev lo | grep -v -E ' (127.0.0.1/8|::1/128) '; command -v nft >/dev/null && nft list tables | grep windlass; \
    find /sys/fs/cgroup -name 'kubepods*'; grep -E 'kubelet|containerd|netns/cni' /proc/mounts; systemctl list-units --all --plain --no-legend 'kubepods*'; \
    ls /proc/*/exe -l 2>/dev/null | grep -E 'windlass|containerd'; dpkg -l containerd runc nftables 2>/dev/null | grep ^ii";

#[test]
fn a_machine_that_is_reset_keeps_its_installation_only() {
    on_machines("windlass reset of a worker", async |machines| {
        let vm = machines.victim();
        vm.run("systemctl stop windlass-agent && windlass reset --yes").await?;
        let left = vm.run("ls -d /var/lib/windlass /var/lib/kubelet 2>/dev/null; find /sys/fs/cgroup -name 'kubepods*'; ctr -n k8s.io containers ls -q; nft list tables | grep windlass; ip -o link | grep -E 'cni0|veth'; true").await?;
        ensure!(left.trim().is_empty(), "left: {left}");
        ensure!(!vm.run("windlass version").await?.is_empty(), "the program is still there");
        Ok(())
    });
}

#[test]
fn b_an_uninstalled_machine_must_not_keep_anything() {
    on_machines("install.sh --uninstall", async |machines| {
        for vm in machines.all.iter().rev() {
            vm.run("~vagrant/windlass/install.sh --uninstall").await?;
            let left = vm.run(&format!("{{ {LOOK}; }}; true")).await?;
            ensure!(left.trim().is_empty(), "left on {}:\n{left}", vm.name);
        }
        Ok(())
    });
}
