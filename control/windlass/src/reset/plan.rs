//! What of a machine is ours, by what it says. Pure, but for the listing of directories, which is an argument.

use std::path::{Path, PathBuf};

/// Where a node keeps its things.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub(super) data_dir: PathBuf,
    pub(super) kubelet_root: PathBuf,
    pub(super) cni_conf_dir: PathBuf,
    pub(super) cni_bin_dir: PathBuf,
    /// Directories that are ours as a whole, the one with the credentials last.
    pub(super) directories: Vec<PathBuf>,
}

/// A table of nftables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) family: String,
    pub(super) name: String,
}

/// The tables that `nft list tables` names.
pub(super) fn listed_tables(listed: &str) -> Vec<Table> {
    let table = |line: &str| {
        let mut words = line.split_whitespace();
        words.next().filter(|word| *word == "table")?;
        let (family, name) = (words.next()?.to_owned(), words.next()?.to_owned());
        Some(Table { family, name })
    };
    listed.lines().filter_map(table).collect()
}

/// Our tables among them.
pub(super) fn own_tables(listed: &str) -> Vec<Table> {
    let ours = |table: &Table| table.name == "windlass" || table.name.starts_with("windlass-");
    listed_tables(listed).into_iter().filter(ours).collect()
}

/// What takes a kubelet's chains for other programs out of iptables, in this order.
pub(super) const CHAINS: [&str; 8] = [
    "-t filter -D OUTPUT -j KUBE-FIREWALL",
    "-t filter -D INPUT -j KUBE-FIREWALL",
    "-t filter -F KUBE-FIREWALL",
    "-t filter -X KUBE-FIREWALL",
    "-t mangle -X KUBE-IPTABLES-HINT",
    "-t mangle -X KUBE-KUBELET-CANARY",
    "-t nat -X KUBE-KUBELET-CANARY",
    "-t filter -X KUBE-KUBELET-CANARY",
];

/// A table that iptables keeps in nftables and makes whenever it needs it, of those a kubelet has it make.
pub(super) fn is_of_iptables(table: &Table) -> bool {
    ["ip", "ip6"].contains(&table.family.as_str())
        && ["mangle", "nat", "filter"].contains(&table.name.as_str())
}

/// Nothing is in a table but chains that let everything pass: without it all is the same.
pub(super) fn is_empty(listed: &str) -> bool {
    let frame = |line: &str| {
        // One of another name was made by somebody, who looks for it however empty it is.
        let name = line.strip_prefix("chain ").and_then(|rest| rest.strip_suffix(" {"));
        let chain = name
            .is_some_and(|name| ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"].contains(&name));
        let hook = line.starts_with("type ") && line.ends_with("policy accept;");
        line.is_empty() || line == "}" || line.starts_with("table ") || line.starts_with('#') || chain || hook
    };
    listed.lines().map(str::trim).all(frame)
}

/// Mounts below a directory, the one on it included, the last one first: as `/proc/self/mounts` has them, with its escapes undone.
pub(super) fn mounts_below(table: &str, dir: &Path) -> Vec<PathBuf> {
    let places = table.lines().filter_map(|line| line.split_whitespace().nth(1)).map(unescaped);
    let mut found: Vec<PathBuf> = places.filter(|path| path.starts_with(dir)).collect();
    found.reverse();
    found
}

/// Blanks and backslashes are written as three octal digits.
pub(crate) fn unescaped(text: &str) -> PathBuf {
    let mut out = text.to_owned();
    for (escape, plain) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        out = out.replace(escape, plain);
    }
    out.into()
}

/// A cgroup that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cgroup {
    pub(super) path: PathBuf,
    /// It was made for the one of all pods to be in: it goes where nobody else uses it.
    pub(super) above: bool,
}

/// The cgroups of all pods and those made for them, in every hierarchy that the table of mounts (`/proc/self/mounts`) has: those that kubelets of this
/// node wrote down, and those of kubelets that wrote nothing down. Inner ones come first.
pub(super) fn own_cgroups(table: &str, recorded: &[PathBuf]) -> Vec<Cgroup> {
    const NAMES: [&str; 2] = ["kubepods", "kubepods.slice"];
    let mut hierarchies: Vec<PathBuf> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|words| matches!(words.get(2), Some(&("cgroup" | "cgroup2"))))
        .filter_map(|words| words.get(1).map(|path| unescaped(path)))
        .collect();
    hierarchies.sort();
    hierarchies.dedup();
    let mut own: Vec<PathBuf> = recorded.to_vec();
    own.extend(NAMES.map(PathBuf::from).into_iter().filter(|path| !recorded.contains(path)));
    // `a-kubepods.slice`, as systemd spells it below `a.slice`.
    let is_of_pods = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        NAMES.contains(&name) || name.ends_with("-kubepods.slice")
    };
    own.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    let everywhere = |path: PathBuf| {
        let above = !is_of_pods(&path);
        hierarchies.iter().map(move |root| Cgroup { path: root.join(&path), above }).collect::<Vec<_>>()
    };
    own.into_iter().flat_map(everywhere).collect()
}

/// Our files in directories that others use, too: the CNI configuration, and the plugins that are links to our program.
pub(super) fn own_files(
    conf_dir: &Path,
    bin_dir: &Path,
    listing: &impl Fn(&Path) -> Vec<PathBuf>,
) -> Vec<PathBuf> {
    let is_ours = |path: &PathBuf| {
        let target = std::fs::read_link(path).unwrap_or_default();
        target.file_name().is_some_and(|name| name == "windlass-cni")
    };
    let mut found = vec![conf_dir.join("10-windlass.conflist")];
    found.extend(listing(bin_dir).into_iter().filter(is_ours));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_others_must_not_be_removed() {
        let listed = "table ip filter\ntable ip windlass\ntable inet windlass-cni\ntable inet windlassian\n";
        let names: Vec<String> =
            own_tables(listed).into_iter().map(|t| format!("{} {}", t.family, t.name)).collect();
        assert_eq!(names, ["ip windlass", "inet windlass-cni"]);
    }

    #[test]
    fn a_table_of_iptables_that_holds_something_must_not_be_removed() {
        let empty = "# Warning: table ip filter is managed by iptables-nft, do not touch!\ntable ip filter {\n\tchain INPUT {\n\
                     \t\ttype filter hook input priority filter; policy accept;\n\t}\n}\n";
        assert!(is_empty(empty));
        let rule = empty.replace("policy accept;", "policy accept;\n\t\tip saddr 192.0.2.1 counter drop");
        let policy = empty.replace("policy accept;", "policy drop;");
        assert!(!is_empty(&rule) && !is_empty(&policy));
        let tables = listed_tables("table ip filter\ntable inet filter\ntable ip raw\ntable ip6 nat\n");
        let of: Vec<bool> = tables.iter().map(is_of_iptables).collect();
        assert_eq!(of, [true, false, false, true]);
    }

    #[test]
    fn what_is_mounted_beside_pods_must_not_be_unmounted() {
        let table = "/dev/sda1 / ext4 rw 0 0\n\
                     tmpfs /var/lib/kubelet/pods/a tmpfs rw 0 0\n\
                     tmpfs /var/lib/kubelet/pods/a/b\\040c tmpfs rw 0 0\n\
                     tmpfs /var/lib/kubelet-other tmpfs rw 0 0\n";
        let found = mounts_below(table, Path::new("/var/lib/kubelet"));
        assert_eq!(found, ["/var/lib/kubelet/pods/a/b c", "/var/lib/kubelet/pods/a"].map(PathBuf::from));
    }

    const V1: &str = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
                      cgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";

    fn shown(found: Vec<Cgroup>) -> Vec<(String, bool)> {
        found.into_iter().map(|cgroup| (cgroup.path.display().to_string(), cgroup.above)).collect()
    }

    #[test]
    fn cgroups_must_not_stay_in_a_hierarchy_without_controllers() {
        let found = shown(own_cgroups(V1, &["kubepods".into()]));
        for hierarchy in ["memory", "systemd", "unified"] {
            for name in ["kubepods", "kubepods.slice"] {
                assert!(
                    found.contains(&(format!("/sys/fs/cgroup/{hierarchy}/{name}"), false)),
                    "{hierarchy} {name}"
                );
            }
        }
        assert_eq!(found.len(), 6);
    }

    #[test]
    fn cgroups_below_a_root_of_their_own_must_not_stay() {
        let v2 = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
        let found = shown(own_cgroups(
            v2,
            &["lab/n1/kubepods".into(), "lab/n1".into(), "a.slice/a-kubepods.slice".into()],
        ));
        let wanted = [
            ("/sys/fs/cgroup/lab/n1/kubepods", false),
            ("/sys/fs/cgroup/lab/n1", true),
            ("/sys/fs/cgroup/a.slice/a-kubepods.slice", false),
            ("/sys/fs/cgroup/kubepods", false),
            ("/sys/fs/cgroup/kubepods.slice", false),
        ];
        assert_eq!(found, wanted.map(|(path, above)| (path.to_owned(), above)));
    }

    #[test]
    fn plugins_of_others_must_not_be_removed() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/usr/local/bin/windlass-cni", dir.path().join("bridge")).unwrap();
        std::fs::write(dir.path().join("calico"), "").unwrap();
        let listing = |at: &Path| vec![at.join("bridge"), at.join("calico")];
        let found = own_files(Path::new("/etc/cni/net.d"), dir.path(), &listing);
        assert_eq!(found, ["/etc/cni/net.d/10-windlass.conflist".into(), dir.path().join("bridge")]);
    }
}
