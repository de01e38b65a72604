//! `windlass check` on a machine with one fault after another: each is found, it alone, and the lines that it names take it away.

use super::{all_ready, on_machines};
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

const FAULTS: [Fault; 18] = [
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
    Fault { id: "clock-apart", plant: "date -s 'now + 900 seconds'", restore: "true" },
    Fault {
        id: "containerd-stopped",
        plant: "systemctl stop containerd.service",
        restore: "systemctl start containerd.service",
    },
    // as containerd of Docker's repository comes
    Fault {
        id: "cri-disabled",
        plant: "cp -a /etc/containerd/config.toml /run/planted && \
                sed -i '1i disabled_plugins = [\"io.containerd.grpc.v1.cri\"]' /etc/containerd/config.toml && systemctl restart containerd.service",
        restore: "cp -a /run/planted /etc/containerd/config.toml && systemctl restart containerd.service",
    },
    Fault {
        id: "cgroup-drivers-differ",
        plant: "cp -a /etc/containerd/conf.d/50-windlass.toml /run/planted && \
                sed -i 's/SystemdCgroup = true/SystemdCgroup = false/' /etc/containerd/conf.d/50-windlass.toml && systemctl restart containerd.service",
        restore: "cp -a /run/planted /etc/containerd/conf.d/50-windlass.toml && systemctl restart containerd.service",
    },
    // on a machine without a way to its registry
    Fault {
        id: "sandbox-image-absent",
        plant: "cp -a /etc/containerd/conf.d/50-windlass.toml /run/planted && \
                sed -i 's|localhost/windlass-pause:1|registry.k8s.io/pause:3.10|' /etc/containerd/conf.d/50-windlass.toml && systemctl restart containerd.service",
        restore: "cp -a /run/planted /etc/containerd/conf.d/50-windlass.toml && systemctl restart containerd.service",
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
        plant: "cp -a /etc/resolv.conf /run/planted && echo nameserver 127.0.0.1 >/etc/resolv.conf",
        restore: "cat /run/planted >/etc/resolv.conf; rm -f /etc/windlass/resolv.conf; sed -i /^resolvConf:/d /etc/windlass/kubelet.yaml",
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
    Fault {
        id: "hostname-invalid",
        plant: "hostname >/run/planted && hostnamectl set-hostname Worker_3",
        restore: "hostnamectl set-hostname $(cat /run/planted)",
    },
    // as an image's, of which machines are made
    Fault {
        id: "machine-id-invalid",
        plant: "cp -a /etc/machine-id /run/planted && : >/etc/machine-id",
        restore: "cp -a /run/planted /etc/machine-id; ln -sfn /etc/machine-id /var/lib/dbus/machine-id",
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
        // what the node itself puts right must not be
        vm.run("systemctl stop windlass-agent.service").await?;
        let done = all(vm).await;
        vm.run("systemctl start windlass-agent.service").await?;
        all_ready(300);
        done
    });
}

async fn all(vm: &Vm) -> Result<()> {
    let before = found(vm, "").await?;
    println!("found before: {:?}", before.keys());
    let mut wrong = Vec::new();
    for fault in &FAULTS {
        let done = one(vm, fault, &before).await;
        let restored = vm.run(&format!("{{ {}; }} >/dev/null 2>&1", fault.restore)).await;
        for error in [done.err(), restored.err()].into_iter().flatten() {
            println!("{}: {error:#}", fault.id);
            wrong.push(format!("{}: {error:#}", fault.id));
        }
    }
    let after = found(vm, "").await?;
    ensure!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), FAULTS.len(), wrong.join("\n"));
    ensure!(after.keys().eq(before.keys()), "found before: {:?}, after: {:?}", before.keys(), after.keys());
    Ok(())
}

async fn one(vm: &Vm, fault: &Fault, before: &BTreeMap<String, Vec<String>>) -> Result<()> {
    let planted = found(vm, fault.plant).await.context("plant it")?;
    let new: BTreeSet<&str> =
        planted.keys().filter(|id| !before.contains_key(*id)).map(String::as_str).collect();
    ensure!(new == BTreeSet::from([fault.id]), "found {new:?}");
    let commands = &planted[fault.id];
    ensure!(!commands.is_empty(), "its remedy names no command");
    println!("{}: {}", fault.id, commands.join("; "));
    let after = found(vm, &commands.join(" && ")).await.context("its remedy")?;
    ensure!(!after.contains_key(fault.id), "it is still found after {commands:?}");
    Ok(())
}

/// What is found after a script: names of findings, with their commands.
async fn found(vm: &Vm, script: &str) -> Result<BTreeMap<String, Vec<String>>> {
    let first = if script.is_empty() { "true" } else { script };
    let said = vm
        .run(&format!("{{ {first}; }} >/dev/null && {{ windlass check --role agent -o json; true; }}"))
        .await?;
    let looks: Vec<Finding> = serde_json::from_str(&said).with_context(|| said.clone())?;
    Ok(looks.into_iter().filter_map(|look| Some((look.id?, look.commands))).collect())
}
