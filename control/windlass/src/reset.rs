//! `windlass reset`: this machine as it was before it was a node. Pods end; their network, mounts and cgroups go, and all state of ours.
//!
//! Each step is tried, whatever became of those before it; what could not be undone is told at the end, and a second run goes on there. A
//! directory in which something is still mounted is left alone: what is mounted may be somebody's data.

mod plan;

use crate::cli::{AgentFlags, NodeFlags, ResetFlags};
use crate::{lock, member, output, settings};
use anyhow::{Context as _, bail};
use cri_proto::client::{Deadlines, Runtime};
use futures::StreamExt as _;
use kubelet::cgroup_record;
pub(crate) use plan::unescaped;
use plan::{Cgroup, Places, Table};
use serde_json::json;
use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

const RUNTIME: &str = "unix:///run/containerd/containerd.sock";
const CONTAINERD: &str = "containerd.service";
/// What every sandbox of a kubelet is labelled with.
const POD_UID: &str = "io.kubernetes.pod.uid";
/// Sandboxes that are stopped at a time.
const AT_A_TIME: usize = 8;
/// The longest that one call to the runtime, or one program, is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// The bridge of pods, and the protocol number of our routes.
const BRIDGE: &str = "cni0";
const PROTOCOL: &str = "87";
/// What the kubelet writes for logind, and how that begins.
const DELAY: &str = "/etc/systemd/logind.conf.d/99-kubelet.conf";
const DELAY_BEGINS: &str = "# Kubelet logind override";

pub(crate) async fn run(flags: &ResetFlags, file: &Option<PathBuf>) -> anyhow::Result<()> {
    let (flags_of_file, wrong) = settings::merge_leniently(AgentFlags::default(), file)?;
    for error in wrong {
        tracing::warn!("passed over: {error:#}");
    }
    let node = flags_of_file.node;
    let places = places(&node);
    if !flags.yes {
        let all: Vec<String> = places.directories.iter().map(|dir| dir.display().to_string()).collect();
        bail!("this ends every pod of this machine and removes {}; give --yes to do it", all.join(", "));
    }
    // Where neither ever ran, the pods of this machine are another kubelet's.
    if !["server", "agent"].iter().any(|dir| places.data_dir.join(dir).is_dir()) {
        let nothing = json!({"pods": 0, "tables": 0, "mounts": 0, "failed": []});
        return output::print(flags.output, "nothing of ours is here\n", &nothing);
    }
    // Held to the end: nothing may start pods meanwhile.
    let mut locks = Vec::new();
    for (dir, what) in [("server", "windlass server"), ("agent", "windlass agent")] {
        let dir = places.data_dir.join(dir);
        if dir.is_dir() {
            locks.push(
                lock::take(&dir, what)
                    .context("stop it first: systemctl stop windlass-server windlass-agent")?,
            );
        }
    }
    let mut failed = Failures::default();
    let endpoint = node.container_runtime_endpoint.as_deref().unwrap_or(RUNTIME);
    let member = leave_members(&places.data_dir).await;
    let woken = wake_runtime(endpoint).await;
    let pods = failed.of("end the pods", end_pods(endpoint).await).unwrap_or_default();
    let tables = failed.of("remove nftables tables", remove_tables().await).unwrap_or_default();
    failed.of("remove links of the pod network", remove_links().await);
    failed.of("remove chains of iptables", remove_chains().await);
    failed.of("remove the addresses of the cluster's DNS", remove_dns_addresses(&node).await);
    failed.of("remove routes", program("ip", &["route", "flush", "proto", PROTOCOL]).await);
    failed.of("remove routes", program("ip", &["-6", "route", "flush", "proto", PROTOCOL]).await);
    let mounts = unmount(&places, &mut failed);
    remove_cgroups(&places.kubelet_root, &mut failed).await;
    for path in plan::own_files(&places.cni_conf_dir, &places.cni_bin_dir, &listing) {
        failed.of("remove", gone(std::fs::remove_file(&path)).with_context(|| path.display().to_string()));
    }
    if failed.of("remove logind's setting", remove_delay(Path::new(DELAY))) == Some(true) {
        // It reads its settings again; what it waits for is as before.
        let again = program("systemctl", &["kill", "--signal=HUP", "systemd-logind.service"]).await;
        failed.of("have logind read its settings", again);
    }
    if woken {
        failed.of("stop containerd again", program("systemctl", &["stop", CONTAINERD]).await);
    }
    drop(locks);
    for dir in &places.directories {
        // What says that a node was here, and where its cgroups are, goes last, so that a second run goes on.
        let says = dir.starts_with(&places.data_dir) || *dir == places.kubelet_root;
        if says && !failed.0.is_empty() {
            continue;
        }
        failed.of("remove", remove_directory(dir));
    }
    // Where nobody keeps anything else there.
    let _ = std::fs::remove_dir(&places.data_dir);
    let data = json!({"pods": pods, "tables": tables, "mounts": mounts, "etcd": member, "failed": failed.0});
    let lines: String = failed.0.iter().map(|failure| format!("  {failure}\n")).collect();
    let member = member.map(|told| told + "\n").unwrap_or_default();
    let text =
        format!("{member}ended {pods} pods, removed {tables} nftables tables and {mounts} mounts\n{lines}");
    output::print(flags.output, &text, &data)?;
    if !failed.0.is_empty() {
        bail!("{} of the steps failed; run this again once what they say is mended", failed.0.len());
    }
    Ok(())
}

/// What could not be undone.
#[derive(Debug, Default)]
struct Failures(Vec<String>);

impl Failures {
    fn of<T>(&mut self, what: &str, done: anyhow::Result<T>) -> Option<T> {
        done.inspect_err(|error| self.0.push(format!("{what}: {error:#}"))).ok()
    }
}

fn places(node: &NodeFlags) -> Places {
    let or = |path: &Option<PathBuf>, usual: &str| path.clone().unwrap_or_else(|| usual.into());
    let kubelet_root = or(&node.kubelet_root, "/var/lib/kubelet");
    let data_dir = node.data_dir();
    let directories = vec![
        kubelet_root.clone(),
        or(&node.pod_logs_dir, "/var/log/pods"),
        or(&node.container_logs_dir, "/var/log/containers"),
        "/var/lib/cni/networks/windlass".into(),
        "/run/windlass".into(),
        data_dir.join("snapshots"),
        data_dir.join("agent"),
        data_dir.join("server"),
    ];
    Places {
        kubelet_root,
        data_dir,
        cni_conf_dir: or(&node.cni_conf_dir, "/etc/cni/net.d"),
        cni_bin_dir: or(&node.cni_bin_dir, "/opt/cni/bin"),
        directories,
    }
}

/// Takes a server out of its cluster's etcd; what became of that. Where it cannot be, nothing else is kept from being undone: another server can do it later.
async fn leave_members(data_dir: &Path) -> Option<String> {
    let left = tokio::time::timeout(PATIENCE, member::command::leave(data_dir)).await;
    let error = match left.context("etcd does not answer") {
        Ok(Ok(left)) => {
            return left.map(|name| format!("{name} is no member of the cluster's etcd any more"));
        }
        Ok(Err(error)) | Err(error) => error,
    };
    Some(format!(
        "this server is still a member of the cluster's etcd: {error:#}; `windlass member remove` on another server ends that"
    ))
}

/// Starts containerd where it is stopped, for containers go on without it; whether it had to be.
async fn wake_runtime(endpoint: &str) -> bool {
    endpoint == RUNTIME
        && Path::new("/run/systemd/system").is_dir()
        && program("systemctl", &["is-active", CONTAINERD]).await.is_err()
        // Fails where it is not installed, or broken: there is nobody to ask then.
        && program("systemctl", &["start", CONTAINERD]).await.is_ok()
}

/// Stops and removes every sandbox of a kubelet; gives their number. A machine without a runtime has none.
async fn end_pods(endpoint: &str) -> anyhow::Result<usize> {
    if !Path::new(endpoint.trim_start_matches("unix://")).exists() {
        return Ok(0);
    }
    let deadlines = Deadlines { request: PATIENCE, ..Deadlines::default() };
    let runtime = Runtime::connect(endpoint, deadlines)?;
    let sandboxes = runtime.list_pod_sandboxes(HashMap::new()).await?;
    let ours: Vec<String> =
        sandboxes.into_iter().filter(|sandbox| sandbox.labels.contains_key(POD_UID)).map(|s| s.id).collect();
    let count = ours.len();
    let ended: Vec<_> = futures::stream::iter(ours)
        .map(|id| {
            let runtime = &runtime;
            async move {
                runtime.stop_pod_sandbox(&id).await?;
                runtime.remove_pod_sandbox(&id).await
            }
        })
        .buffer_unordered(AT_A_TIME)
        .collect()
        .await;
    ended.into_iter().collect::<Result<Vec<()>, _>>()?;
    Ok(count)
}

/// What a program prints.
async fn program(name: &str, arguments: &[&str]) -> anyhow::Result<String> {
    crate::program::run(name, arguments, PATIENCE).await
}

async fn remove_tables() -> anyhow::Result<usize> {
    let tables = plan::own_tables(&program("nft", &["list", "tables"]).await?);
    for Table { family, name } in &tables {
        program("nft", &["delete", "table", family, name]).await?;
    }
    Ok(tables.len())
}

/// Removes the chains that kubelets make for other programs, and the tables that hold nothing then.
async fn remove_chains() -> anyhow::Result<()> {
    for name in ["iptables", "ip6tables"] {
        for words in plan::CHAINS {
            let arguments: Vec<&str> = ["-w", "5"].into_iter().chain(words.split(' ')).collect();
            // There is no such program, chain or rule, which is as good.
            let _ = program(name, &arguments).await;
        }
    }
    for table in plan::listed_tables(&program("nft", &["list", "tables"]).await?) {
        let Table { family, name } = &table;
        if plan::is_of_iptables(&table)
            && plan::is_empty(&program("nft", &["list", "table", family, name]).await?)
        {
            program("nft", &["delete", "table", family, name]).await?;
        }
    }
    Ok(())
}

/// Removes the setting by which a kubelet has logind wait for pods, and its directory where nobody keeps anything else there; false where there is none.
fn remove_delay(path: &Path) -> anyhow::Result<bool> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        text => text.with_context(|| path.display().to_string())?,
    };
    if !text.starts_with(DELAY_BEGINS) {
        return Ok(false);
    }
    std::fs::remove_file(path).with_context(|| path.display().to_string())?;
    if let Some(dir) = path.parent() {
        let _ = std::fs::remove_dir(dir);
    }
    Ok(true)
}

/// Removes the bridge of pods, and the links to other nodes' with the routes by them.
async fn remove_links() -> anyhow::Result<()> {
    for link in network::links().into_iter().chain([BRIDGE]) {
        if Path::new("/sys/class/net").join(link).exists() {
            program("ip", &["link", "delete", link]).await?;
        }
    }
    Ok(())
}

/// Takes the addresses that the node's DNS answers on from the loopback link.
async fn remove_dns_addresses(node: &NodeFlags) -> anyhow::Result<()> {
    let there = program("ip", &["-o", "address", "show", "dev", "lo"]).await?;
    for address in node.cluster_dns()? {
        let whole = format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 });
        if there.split_whitespace().any(|word| word == whole) {
            program("ip", &["address", "delete", &whole, "dev", "lo"]).await?;
        }
    }
    Ok(())
}

/// Unmounts what pods had mounted; gives the number of mounts.
fn unmount(places: &Places, failed: &mut Failures) -> usize {
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    // The table has real paths.
    let root = std::fs::canonicalize(&places.kubelet_root).unwrap_or_else(|_| places.kubelet_root.clone());
    let mut below = plan::mounts_below(&table, &root);
    // A filesystem that the root is of its own is the operator's.
    below.retain(|path| *path != root);
    for path in &below {
        let done = nix::mount::umount2(path, nix::mount::MntFlags::MNT_DETACH);
        failed.of("unmount", done.with_context(|| path.display().to_string()));
    }
    below.len()
}

/// Removes the pods' cgroups of every hierarchy, and those above them that were made for them; systemd is asked for those that are its own.
async fn remove_cgroups(kubelet_root: &Path, failed: &mut Failures) {
    let recorded = std::fs::read_to_string(kubelet_root.join(cgroup_record::FILE)).unwrap_or_default();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for Cgroup { path, above } in plan::own_cgroups(&mounts, &cgroup_record::read(&recorded)) {
        // Somebody else has something in there.
        if above && path.is_dir() && !below(&path).is_empty() {
            continue;
        }
        let slice = path.file_name().and_then(|name| name.to_str()).filter(|name| name.ends_with(".slice"));
        if let Some(slice) = slice.filter(|_| path.is_dir() && Path::new("/run/systemd/system").is_dir()) {
            // Fails where it is none of systemd's, which is as good.
            let _ = program("systemctl", &["stop", slice]).await;
        }
        let mut directories = below(&path);
        directories.push(path);
        for directory in directories {
            let removed = gone(std::fs::remove_dir(&directory));
            // Somebody has started something above the pods meanwhile.
            if !above {
                failed.of("remove cgroup", removed.with_context(|| directory.display().to_string()));
            }
        }
    }
}

/// The directories below one, the deepest first.
fn below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for child in listing(dir).into_iter().filter(|path| path.is_dir() && !path.is_symlink()) {
        found.extend(below(&child));
        found.push(child);
    }
    found
}

fn listing(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// Removes a directory and all below it, unless something is mounted there.
fn remove_directory(dir: &Path) -> anyhow::Result<()> {
    let table = std::fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    let real = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    if let Some(inside) = plan::mounts_below(&table, &real).iter().find(|path| **path != real) {
        bail!("{}: {} is still mounted", dir.display(), inside.display());
    }
    match std::fs::remove_dir_all(dir) {
        // A filesystem of its own: emptied, and left where it is.
        Err(error) if error.kind() == ErrorKind::ResourceBusy => Ok(()),
        done => gone(done).with_context(|| dir.display().to_string()),
    }
}

/// What is gone already is as good as removed.
fn gone(done: std::io::Result<()>) -> std::io::Result<()> {
    match done {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_must_not_end_the_others() {
        let mut failed = Failures::default();
        assert_eq!(failed.of("a", Err::<(), _>(anyhow::anyhow!("broken"))), None);
        assert_eq!(failed.of("b", Ok(3)), Some(3));
        assert_eq!(failed.0, ["a: broken"]);
    }

    #[test]
    fn what_logind_was_told_for_pods_must_not_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logind.conf.d/99-kubelet.conf");
        assert!(!remove_delay(&path).unwrap());
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "# Mine\n[Login]\nInhibitDelayMaxSec=7\n").unwrap();
        assert!(!remove_delay(&path).unwrap() && path.exists(), "an operator's own stays");
        std::fs::write(&path, "# Kubelet logind override\n[Login]\nInhibitDelayMaxSec=30\n").unwrap();
        assert!(remove_delay(&path).unwrap());
        assert!(!path.parent().unwrap().exists());
    }

    #[test]
    fn what_is_gone_already_must_not_be_a_failure() {
        let dir = tempfile::tempdir().unwrap();
        remove_directory(&dir.path().join("never")).unwrap();
        std::fs::create_dir_all(dir.path().join("a/b/c")).unwrap();
        assert_eq!(below(dir.path()), ["a/b/c", "a/b", "a"].map(|path| dir.path().join(path)));
        remove_directory(&dir.path().join("a")).unwrap();
        assert!(!dir.path().join("a").exists());
    }
}
