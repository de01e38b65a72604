//! A node's cgroups: made before its PID 1 starts, entered by it, removed when the node is gone. Works on v1, v2 and hybrid.

use anyhow::{Context, Result};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const MOUNT: &str = "/sys/fs/cgroup";

/// How one hierarchy is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// `cgroup` or `cgroup2`.
    pub fstype: String,
    /// Mount options that select the controllers: `cpu,cpuacct`, `none,name=systemd`; empty for v2.
    pub options: String,
}

/// The machine's mounted hierarchies, in mount order.
///
/// # Errors
/// `/proc/self/mountinfo` cannot be read.
pub fn hierarchies() -> Result<Vec<Hierarchy>> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    Ok(parse(&text))
}

fn parse(mountinfo: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let mount = left.split(' ').nth(4).unwrap_or_default();
        let mut right = right.split(' ');
        let fstype = right.next().unwrap_or_default();
        let superblock = right.nth(1).unwrap_or_default();
        if !fstype.starts_with("cgroup") || !mount.starts_with(MOUNT) {
            continue;
        }
        if found.iter().any(|h| h.mount == Path::new(mount)) {
            continue;
        }
        let options = if fstype == "cgroup2" { String::new() } else { controllers(superblock) };
        found.push(Hierarchy { mount: mount.into(), fstype: fstype.into(), options });
    }
    found
}

fn controllers(superblock: &str) -> String {
    let named = superblock.split(',').find(|o| o.starts_with("name="));
    if let Some(name) = named {
        return format!("none,{name}");
    }
    let flags = ["rw", "ro", "seclabel", "clone_children", "xattr", "noprefix", "nsdelegate"];
    superblock.split(',').filter(|o| !flags.contains(o) && !o.contains('=')).collect::<Vec<_>>().join(",")
}

/// Makes the cgroup `relative` in every hierarchy and moves this process into it.
///
/// # Errors
/// A cgroup cannot be made or entered.
pub fn enter(relative: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let mut dir = hierarchy.mount.clone();
        for part in relative.split('/') {
            inherit_v2(&dir)?;
            let parent = dir.clone();
            dir.push(part);
            fs::create_dir_all(&dir).with_context(|| format!("make cgroup {}", dir.display()))?;
            inherit_cpuset(&parent, &dir)?;
        }
        fs::write(dir.join("cgroup.procs"), "0")
            .with_context(|| format!("enter cgroup {}", dir.display()))?;
    }
    Ok(())
}

/// A v1 cpuset starts empty and admits no process until it has processors and memory nodes.
fn inherit_cpuset(parent: &Path, child: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let (from, to) = (parent.join(file), child.join(file));
        if parent.join("cgroup.controllers").exists() || !to.exists() {
            continue;
        }
        if fs::read_to_string(&to).unwrap_or_default().trim().is_empty() {
            let value = fs::read(&from).with_context(|| format!("read {}", from.display()))?;
            fs::write(&to, value).with_context(|| format!("write {}", to.display()))?;
        }
    }
    Ok(())
}

/// On v2 a child has only the controllers its parent hands down.
fn inherit_v2(parent: &Path) -> Result<()> {
    let Ok(controllers) = fs::read_to_string(parent.join("cgroup.controllers")) else { return Ok(()) };
    let wanted: Vec<String> = controllers.split_whitespace().map(|c| format!("+{c}")).collect();
    let file = parent.join("cgroup.subtree_control");
    match fs::write(&file, wanted.join(" ")) {
        Ok(()) => Ok(()),
        // a busy root of someone else's: what is handed down already has to do
        Err(e) if e.raw_os_error() == Some(nix::libc::EBUSY) => Ok(()),
        Err(e) => Err(e).with_context(|| format!("write {}", file.display())),
    }
}

/// Mounts this namespace's view of every hierarchy below `/sys/fs/cgroup` (a fresh sysfs is mounted there already).
/// `outside` is what [`hierarchies`] gave before.
///
/// # Errors
/// A mount fails.
pub fn mount_view(outside: &[Hierarchy]) -> Result<()> {
    let unified = outside.iter().any(|h| h.mount == Path::new(MOUNT) && h.fstype == "cgroup2");
    if !unified {
        crate::shell::run("mount", &["-t", "tmpfs", "-o", "mode=755", "tmpfs", MOUNT])?;
    }
    for hierarchy in outside {
        let target = hierarchy.mount.to_string_lossy().into_owned();
        fs::create_dir_all(&hierarchy.mount).with_context(|| format!("make {target}"))?;
        let mut args = vec!["-t", hierarchy.fstype.as_str()];
        if !hierarchy.options.is_empty() {
            args.extend(["-o", hierarchy.options.as_str()]);
        }
        args.extend(["cgroup", target.as_str()]);
        crate::shell::run("mount", &args)?;
    }
    if unified {
        // v2 admits no process beside children that have controllers: PID 1 and its services live in a leaf
        let leaf = Path::new(MOUNT).join("init");
        fs::create_dir_all(&leaf).with_context(|| format!("make cgroup {}", leaf.display()))?;
        fs::write(leaf.join("cgroup.procs"), "0")
            .with_context(|| format!("enter cgroup {}", leaf.display()))?;
        inherit_v2(Path::new(MOUNT))?;
    }
    Ok(())
}

/// Removes the cgroup `relative` with all its children from every hierarchy. What is still busy is reported, the rest goes.
///
/// # Errors
/// A cgroup still holds processes.
pub fn remove(relative: &str) -> Result<()> {
    let mut failed = None;
    for hierarchy in hierarchies()? {
        if let Err(error) = remove_tree(&hierarchy.mount.join(relative)) {
            failed = Some(error);
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Removes the cgroup `relative` itself where it has no children left.
///
/// # Errors
/// `/proc/self/mountinfo` cannot be read.
pub fn remove_if_empty(relative: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let _ = fs::remove_dir(hierarchy.mount.join(relative));
    }
    Ok(())
}

fn remove_tree(dir: &Path) -> Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e).with_context(|| format!("read cgroup {}", dir.display())),
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("remove cgroup {}", dir.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_a_hybrid_machine() {
        let text = "31 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                    32 31 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
                    33 31 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
                    34 31 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let got: Vec<_> = parse(text).into_iter().map(|h| (h.fstype, h.options)).collect();
        let want = [("cgroup", "cpu,cpuacct"), ("cgroup", "none,name=systemd"), ("cgroup2", "")];
        assert_eq!(got, want.map(|(a, b)| (a.to_owned(), b.to_owned())));
    }
}
