//! A node seen from outside: booting it, finding its processes.

use crate::control::Machine;
use crate::init::Spec;
use crate::layout::{Family, IMAGE_HOST, Layout, REGISTRY, REGISTRY_PORT};
use crate::{cgroup, network};
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long PID 1 may take to answer.
const BOOT_TIMEOUT: Duration = Duration::from_secs(20);

/// Boots `node` and connects it to the lab's link. The child is the process whose end ends the node.
///
/// # Errors
/// A namespace, mount or link cannot be made; the message names the log to read.
pub fn boot(layout: &Layout, node: &str, addresses: &[String], family: Family) -> Result<(Child, Machine)> {
    let dir = layout.node(node);
    fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    let spec = Spec {
        hostname: node.to_owned(),
        files: dir.join("fs"),
        logs: dir.join("log"),
        boot_id: fs::read_to_string("/proc/sys/kernel/random/uuid")
            .context("make a boot id")?
            .trim()
            .to_owned(),
        etc: files_in_etc(node, addresses, family.gateway()),
    };
    let spec_file = dir.join("spec.json");
    fs::write(&spec_file, serde_json::to_vec_pretty(&spec)?)
        .with_context(|| format!("write {}", spec_file.display()))?;
    // what /run held is gone after a boot
    let _ = fs::remove_dir_all(layout.node_path(node, "/run"));
    let log = fs::File::create(dir.join("init.log")).context("make init.log")?;
    let mut child = Command::new(std::env::current_exe().context("find this program")?)
        .args(["--lab", layout.name(), "launch", node])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("start the node")?;
    let pid = await_init(layout, node, &mut child)?;
    network::attach(node, pid, addresses, family)?;
    Ok((child, Machine { pid, address: addresses.first().cloned().unwrap_or_default() }))
}

fn await_init(layout: &Layout, node: &str, child: &mut Child) -> Result<i32> {
    let socket = layout.node_path(node, "/run/lab-init.sock");
    let started = Instant::now();
    loop {
        if let Ok(stream) = UnixStream::connect(&socket) {
            return Ok(getsockopt(&stream, PeerCredentials).context("ask who PID 1 is")?.pid());
        }
        if let Some(status) = child.try_wait().context("watch the node")? {
            bail!(
                "node {node} ended at boot ({status}); read {}",
                layout.node(node).join("init.log").display()
            );
        }
        if started.elapsed() > BOOT_TIMEOUT {
            bail!("node {node} does not boot; read {}", layout.node(node).join("init.log").display());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Replaces this process by the node: enters its cgroups, then new namespaces, where [`crate::init::main`] is PID 1.
///
/// # Errors
/// A cgroup cannot be entered, or `unshare` is missing.
pub fn launch(layout: &Layout, node: &str) -> Result<std::convert::Infallible> {
    // the supervisor's end ends `unshare`, whose end ends PID 1, whose end ends the node
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("ask to die with the supervisor")?;
    cgroup::enter(&layout.cgroup(node))?;
    let error = Command::new("unshare")
        .args([
            "--net",
            "--mount",
            "--pid",
            "--uts",
            "--ipc",
            "--cgroup",
            "--fork",
            "--kill-child=KILL",
            "--",
        ])
        .arg(std::env::current_exe().context("find this program")?)
        .args(["--lab", layout.name(), "init"])
        .arg(layout.node(node).join("spec.json"))
        .exec();
    Err(error).context("run unshare")
}

/// The windlass processes of a node: role (`server`, `agent`) and process id.
///
/// # Errors
/// `/proc` cannot be read.
pub fn windlass(machine: &Machine) -> Result<Vec<(String, i32)>> {
    let mut found = Vec::new();
    for role in ["server", "agent"] {
        found.extend(processes(machine, "windlass", role)?.into_iter().map(|pid| (role.to_owned(), pid)));
    }
    Ok(found)
}

/// Process ids (the host's) of a node that run `program` with the argument `word`.
///
/// # Errors
/// `/proc` cannot be read.
pub fn processes(machine: &Machine, program: &str, word: &str) -> Result<Vec<i32>> {
    let namespace =
        fs::read_link(format!("/proc/{}/ns/pid", machine.pid)).context("find the node's PID namespace")?;
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("read /proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        if fs::read_link(entry.path().join("ns/pid")).ok().as_ref() != Some(&namespace) {
            continue;
        }
        let Ok(line) = fs::read_to_string(entry.path().join("cmdline")) else { continue };
        let mut argv = line.split('\0');
        let name = argv.next().and_then(|p| Path::new(p).file_name()).and_then(|n| n.to_str());
        if name == Some(program) && argv.any(|argument| argument == word) {
            found.push(pid);
        }
    }
    Ok(found)
}

fn files_in_etc(node: &str, addresses: &[String], gateway: &str) -> BTreeMap<String, String> {
    let hosts: String = addresses.iter().map(|address| format!("{address} {node}\n")).collect();
    let registry = format!("http://{REGISTRY}:{REGISTRY_PORT}");
    let mirror = format!("[host.\"{registry}\"]\n  capabilities = [\"pull\", \"resolve\"]\n");
    let containerd = format!(
        r#"version = 2
# CAP_SYS_RESOURCE may be missing where a lab runs
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  sandbox_image = "{IMAGE_HOST}/pause:1"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/opt/cni/bin"
  conf_dir = "/etc/cni/net.d"
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "/etc/containerd/certs.d"
"#
    );
    let machine_id: String = format!("{node:x<32}")
        .bytes()
        .map(|b| char::from(b"0123456789abcdef"[usize::from(b % 16)]))
        .collect();
    // nodes share this machine's disk and memory, which are not theirs to judge
    let kubelet = "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
evictionHard:
  memory.available: 50Mi
  nodefs.available: 0%
  nodefs.inodesFree: 0%
  imagefs.available: 0%
  imagefs.inodesFree: 0%
imageGCHighThresholdPercent: 100
"
    .to_owned();
    [
        ("windlass/kubelet.yaml", kubelet),
        ("hostname", format!("{node}\n")),
        ("machine-id", format!("{machine_id}\n")),
        ("hosts", format!("127.0.0.1 localhost\n{hosts}{gateway} {REGISTRY}\n")),
        ("resolv.conf", format!("nameserver {gateway}\n")),
        ("containerd/config.toml", containerd),
        ("containerd/certs.d/_default/hosts.toml", mirror),
    ]
    .map(|(path, text)| (path.to_owned(), text))
    .into()
}
