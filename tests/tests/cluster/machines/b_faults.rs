//! `windlass check` on a machine with faults: those that are planted are found, and no others, and the lines that it names take them away.

use super::{all_ready, on_machines};
use crate::harness::cluster;
use anyhow::{Context as _, Result, ensure};
use lab::vm::Vm;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// What operators' machines have.
struct Fault {
    /// The finding's stable name.
    id: &'static str,
    plant: &'static str,
    /// Takes away what planting and the remedy have left.
    restore: &'static str,
}

/// What is planted at one time: of containerd one fault at a time, of the rest all.
const GROUPS: [&[Fault]; 5] = [
    &[
        Fault {
            id: "swap-on",
            plant: "dd if=/dev/zero of=/planted bs=1M count=16 && chmod 600 /planted && mkswap /planted && swapon /planted && \
                    echo '/planted none swap sw 0 0' >>/etc/fstab",
            restore: "swapoff -a; rm -f /planted; sed -i '/^#*.planted /d' /etc/fstab",
        },
        // a kubelet of another installation
        Fault {
            id: "port-taken",
            plant: "printf '[Service]\\nExecStart=/usr/sbin/sshd -D -p 10250\\n[Install]\\nWantedBy=multi-user.target\\n' >/etc/systemd/system/planted.service && \
                    systemctl daemon-reload && systemctl enable --now planted.service && \
                    timeout 60 sh -c 'until ss -ltn | grep -q :10250; do sleep 0.2; done'",
            restore: "systemctl disable --now planted.service; rm -f /etc/systemd/system/planted.service; systemctl daemon-reload",
        },
        Fault {
            id: "clock-apart",
            plant: "echo $(date +%s) $(cut -d. -f1 /proc/uptime) >/run/planted.clock-apart && date -s 'now + 900 seconds'",
            restore: "read -r at up </run/planted.clock-apart; date -s @$((at - up + $(cut -d. -f1 /proc/uptime)))",
        },
        Fault {
            id: "runc-absent",
            plant: "dpkg --purge --force-depends runc",
            restore: "command -v runc || apt-get install -y runc",
        },
        Fault {
            id: "firewall-drops-input",
            plant: "nft add table inet planted && nft 'add chain inet planted input { type filter hook input priority 10; policy accept; }' && \
                    nft add rule inet planted input ct state established,related accept && nft add rule inet planted input tcp dport 22 accept && \
                    nft add rule inet planted input iif lo accept && nft 'add chain inet planted input { policy drop; }'",
            restore: "nft delete table inet planted",
        },
        // as Docker leaves it
        Fault {
            id: "firewall-drops-forward",
            plant: "nft add table ip planted && nft 'add chain ip planted FORWARD { type filter hook forward priority 10; policy drop; }'",
            restore: "nft delete table ip planted",
        },
        Fault {
            id: "dns-loop",
            plant: "cp -a /etc/resolv.conf /run/planted.dns-loop && echo nameserver 127.0.0.1 >/etc/resolv.conf",
            restore: "cat /run/planted.dns-loop >/etc/resolv.conf; rm -f /etc/windlass/resolv.conf; sed -i /^resolvConf:/d /etc/windlass/kubelet.yaml",
        },
        Fault {
            id: "disk-full",
            plant: "fallocate -l $(($(df --output=avail -B1M /var/lib | tail -n 1) - 500))M /var/cache/apt/archives/planted_1_all.deb",
            restore: "rm -f /var/cache/apt/archives/planted_1_all.deb",
        },
        Fault {
            id: "forwarding-off",
            plant: "sysctl -qw net.ipv4.ip_forward=0",
            restore: "sysctl -qw net.ipv4.ip_forward=1",
        },
        Fault {
            id: "inotify-short",
            plant: "sysctl -qw fs.inotify.max_user_instances=128",
            restore: "sysctl -qw fs.inotify.max_user_instances=8192",
        },
        // as a template's file has it: hostnamectl itself would leave the underscore out
        Fault {
            id: "hostname-invalid",
            plant: "cp -a /etc/hostname /run/planted.hostname-invalid && echo Worker_3 >/etc/hostname && hostname Worker_3",
            restore: "cp -a /run/planted.hostname-invalid /etc/hostname && hostname -F /etc/hostname",
        },
        // as an image's, of which machines are made
        Fault {
            id: "machine-id-invalid",
            plant: "cp -a /etc/machine-id /run/planted.machine-id-invalid && : >/etc/machine-id",
            restore: "cp -a /run/planted.machine-id-invalid /etc/machine-id; ln -sfn /etc/machine-id /var/lib/dbus/machine-id",
        },
        // as rules for hardening have it
        Fault {
            id: "module-forbidden",
            plant: "modprobe -r br_netfilter && echo 'install br_netfilter /bin/false' >/etc/modprobe.d/planted.conf",
            restore: "rm -f /etc/modprobe.d/planted.conf; modprobe br_netfilter; sysctl -q -p /etc/sysctl.d/90-windlass.conf",
        },
        Fault {
            id: "mount-noexec",
            plant: "mount --bind /opt/cni/bin /opt/cni/bin && mount -o remount,bind,noexec /opt/cni/bin",
            restore: "umount /opt/cni/bin",
        },
    ],
    &[Fault {
        id: "containerd-stopped",
        plant: "systemctl stop containerd.service",
        restore: "systemctl start containerd.service",
    }],
    // as containerd of Docker's repository comes
    &[Fault {
        id: "cri-disabled",
        plant: "cp -a /etc/containerd/config.toml /run/planted.cri-disabled && \
                sed -i '1i disabled_plugins = [\"io.containerd.grpc.v1.cri\"]' /etc/containerd/config.toml && systemctl restart containerd.service",
        restore: "cp -a /run/planted.cri-disabled /etc/containerd/config.toml && systemctl restart containerd.service",
    }],
    &[Fault {
        id: "cgroup-drivers-differ",
        plant: "cp -a /etc/containerd/conf.d/50-windlass.toml /run/planted.cgroup-drivers-differ && \
                sed -i 's/SystemdCgroup = true/SystemdCgroup = false/' /etc/containerd/conf.d/50-windlass.toml && systemctl restart containerd.service",
        restore: "cp -a /run/planted.cgroup-drivers-differ /etc/containerd/conf.d/50-windlass.toml && systemctl restart containerd.service",
    }],
    // on a machine without a way to its registry
    &[Fault {
        id: "sandbox-image-absent",
        plant: "cp -a /etc/containerd/conf.d/50-windlass.toml /run/planted.sandbox-image-absent && \
                sed -i 's|localhost/windlass-pause:1|registry.k8s.io/pause:3.10|' /etc/containerd/conf.d/50-windlass.toml && systemctl restart containerd.service",
        restore: "cp -a /run/planted.sandbox-image-absent /etc/containerd/conf.d/50-windlass.toml && systemctl restart containerd.service",
    }],
];

#[derive(Deserialize)]
struct Finding {
    id: Option<String>,
    commands: Vec<String>,
}

#[test]
fn each_fault_that_is_planted_is_found_and_its_remedy_works() {
    on_machines("windlass check of planted faults", async |machines| {
        let vm = machines.victim();
        // others go on meanwhile, on other machines
        cluster().kubectl(&["cordon", &vm.name]);
        // what the node itself puts right must not be
        vm.run("systemctl stop windlass-agent.service").await?;
        let done = all(vm).await;
        vm.run("systemctl start windlass-agent.service").await?;
        cluster().kubectl(&["uncordon", &vm.name]);
        all_ready(300);
        done
    });
}

async fn all(vm: &Vm) -> Result<()> {
    let before = found(vm).await?;
    println!("found before: {:?}", before.keys());
    let mut wrong = Vec::new();
    for group in GROUPS {
        wrong.extend(plant_and_mend(vm, group, &before).await.err());
        for fault in group.iter().rev() {
            let restored = vm.run(&format!("{{ {}; }} >/dev/null 2>&1", fault.restore)).await;
            wrong.extend(restored.err().map(|error| error.context(fault.id)));
        }
    }
    vm.run("rm -f /run/planted.*").await?;
    let wrong: Vec<String> = wrong.iter().map(|error| format!("{error:#}")).collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    let after = found(vm).await?;
    ensure!(after.keys().eq(before.keys()), "found before: {:?}, after: {:?}", before.keys(), after.keys());
    Ok(())
}

async fn plant_and_mend(vm: &Vm, group: &[Fault], before: &Findings) -> Result<()> {
    let ids: BTreeSet<&str> = group.iter().map(|fault| fault.id).collect();
    for fault in group {
        vm.run(&format!("{{ {}; }} >/dev/null", fault.plant))
            .await
            .with_context(|| format!("plant {}", fault.id))?;
    }
    let planted = found(vm).await?;
    let new: BTreeSet<&str> =
        planted.keys().filter(|id| !before.contains_key(*id)).map(String::as_str).collect();
    let missed: Vec<_> = ids.difference(&new).collect();
    let invented: Vec<_> = new.difference(&ids).collect();
    ensure!(
        missed.is_empty() && invented.is_empty(),
        "not found: {missed:?}; found, but not planted: {invented:?}"
    );
    let mut wrong = Vec::new();
    for fault in group {
        let commands = &planted[fault.id];
        println!("{}: {}", fault.id, commands.join("; "));
        // as they stand there, one after the other
        let done = vm.run(&format!("{{ {}; }} >/dev/null", commands.join(" && "))).await;
        wrong.extend(done.err().map(|error| format!("the remedy of {}: {error:#}", fault.id)));
    }
    let after = found(vm).await?;
    wrong.extend(ids.iter().filter(|id| after.contains_key(**id)).map(|id| format!("{id} is still found")));
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Names of findings, with their commands.
type Findings = BTreeMap<String, Vec<String>>;

async fn found(vm: &Vm) -> Result<Findings> {
    // its status says that there are errors
    let said = vm.run("windlass check --role agent -o json; true").await?;
    let looks: Vec<Finding> = serde_json::from_str(&said).with_context(|| said.clone())?;
    Ok(looks.into_iter().filter_map(|look| Some((look.id?, look.commands))).collect())
}
