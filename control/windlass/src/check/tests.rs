use super::facts::{Cgroups, Disk, Dropping, Facts, Holder, Member, Mounted, Packager, Taken, Wanted};
use super::judge::Level;
use super::*;
use std::collections::BTreeSet;

const GIB: u64 = 1 << 30;
const ID: &str = "0123456789abcdef0123456789abcdef";

/// A machine that has nothing wrong with it.
fn sound() -> Facts {
    let controllers = ["cpu", "cpuset", "io", "memory", "pids"].map(str::to_owned);
    Facts {
        kernel: "6.1.0-44-amd64".into(),
        cgroups: Some(Cgroups::Unified(controllers.into())),
        systemd: true,
        packager: Some(Packager::Apt),
        containerd: Some("containerd github.com/containerd/containerd 1.7.24 1.7.24~ds1".into()),
        containerd_config: Some(
            "disabled_plugins = []\n[plugins.\"x\".containerd.runtimes.runc.options]\n  SystemdCgroup = true\n\
             [plugins.\"y\"]\n  sandbox_image = \"localhost/windlass-pause:1\"\n"
                .into(),
        ),
        containerd_files: [("/etc/containerd/config.toml".into(), "SystemdCgroup = true\n".to_owned())].into(),
        images: Some(["localhost/windlass-pause:1".to_owned()].into()),
        own_image: Some("/usr/local/lib/windlass/images/pause.tar".into()),
        containerd_runs: true,
        has_low_level_runtime: true,
        nft: Some("nftables v1.0.6 (Lester Gooch #5)".into()),
        kubelet_driver: Some("systemd".into()),
        clock_kept: Some(true),
        host_name: "n1".into(),
        machine_id: ID.into(),
        memory: 4 * GIB,
        disks: vec![Disk { path: "/var/lib".into(), size: 20 * GIB, available: 10 * GIB }],
        mounts: vec![mounted("/var/lib/containerd", "/"), mounted("/opt/cni/bin", "/opt")],
        cni_files: ["10-windlass.conflist".to_owned()].into(),
        resolv_conf: Some("/etc/resolv.conf".into()),
        resolvers: vec![[192, 0, 2, 53].into()],
        ..Facts::default()
    }
}

fn mounted(directory: &str, at: &str) -> Mounted {
    Mounted { directory: directory.into(), at: at.into(), read_only: false, noexec: false }
}

fn wanted() -> Wanted {
    Wanted {
        cluster_dns: vec![[10, 96, 0, 10].into()],
        ports: vec![10250],
        pod_ranges: vec!["10.244.0.0/16".into()],
        kubelet_config: Some("/etc/windlass/kubelet.yaml".into()),
        cni_conf_dir: "/etc/cni/net.d".into(),
        cni_bin_dir: "/opt/cni/bin".into(),
        ..Wanted::default()
    }
}

/// What is found, without what is well.
fn findings(facts: &Facts, wanted: &Wanted) -> Vec<Finding> {
    let all = looks(facts, wanted).into_iter().map(|look| look.finding);
    let found: Vec<Finding> = all.filter(|finding| finding.level != Level::Ok).collect();
    for finding in &found {
        assert!(finding.remedy.as_ref().is_some_and(|remedy| !remedy.is_empty()), "no remedy: {finding:?}");
        for command in &finding.commands {
            // One line, with nothing to fill in.
            assert!(!command.contains('\n') && !command.contains("..."), "{command}");
        }
    }
    found
}

fn found(facts: &Facts) -> Vec<(&'static str, Level)> {
    findings(facts, &wanted()).iter().map(|finding| (finding.id.unwrap(), finding.level)).collect()
}

/// The commands of the only finding.
fn commands(facts: &Facts, wanted: &Wanted) -> Vec<String> {
    let mut found = findings(facts, wanted);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0).commands
}

#[test]
fn a_sound_machine_must_not_be_complained_of() {
    assert!(found(&sound()).is_empty());
    assert_eq!(looks(&sound(), &wanted()).len(), judge::LOOKS.len());
}

fn taken(program: &str, unit: Option<&str>) -> Vec<Taken> {
    let by = Holder { pid: 7, program: program.into(), unit: unit.map(str::to_owned) };
    vec![Taken { port: 10250, by: Some(by) }]
}

fn member(name: &str, id: &str, is_ready: bool) -> Member {
    Member { name: name.into(), machine_id: id.into(), is_ready }
}

fn dropping(hook: &str, rules: &str) -> Vec<Dropping> {
    let [family, table, chain] = ["inet", "filter", hook].map(str::to_owned);
    vec![Dropping { family, table, chain, hook: hook.into(), rules: rules.into() }]
}

type Plant = fn(&mut Facts);
/// A fault, and a sibling of it that is none.
type Fault = (&'static str, Level, Plant, Plant);

const NOTHING: Plant = |_| {};
const OTHER_ID: &str = "ffffffffffffffffffffffffffffffff";

fn config(facts: &mut Facts, from: &str, to: &str) {
    facts.containerd_config = facts.containerd_config.take().map(|config| config.replace(from, to));
}

const OF_MACHINE: [Fault; 25] = [
    ("kernel-old", Level::Error, |f| f.kernel = "5.10.0-28-amd64".into(), |f| f.kernel = "5.13.0".into()),
    ("module-missing", Level::Error, |f| f.missing_modules = vec!["br_netfilter".into()], NOTHING),
    (
        "module-forbidden",
        Level::Error,
        |f| f.forbidden_modules = vec![("overlay".into(), vec!["/etc/modprobe.d/cis.conf".into()])],
        NOTHING,
    ),
    ("cgroups-absent", Level::Error, |f| f.cgroups = None, NOTHING),
    (
        "cgroup-controller-absent",
        Level::Error,
        |f| f.cgroups = Some(Cgroups::Unified(["cpu", "cpuset", "pids"].map(str::to_owned).into())),
        |f| f.cgroups = Some(Cgroups::Unified(["cpu", "cpuset", "memory", "pids"].map(str::to_owned).into())),
    ),
    (
        "cgroups-v1",
        Level::Warning,
        |f| f.cgroups = Some(Cgroups::Legacy(["cpu", "cpuset", "memory", "pids"].map(str::to_owned).into())),
        NOTHING,
    ),
    ("clock-past", Level::Error, |f| f.made = f.now.checked_add(HOUR).ok(), |f| f.made = Some(f.now)),
    (
        "clock-apart",
        Level::Error,
        |f| f.server_clock = f.now.checked_add(SKEW + SECOND).ok(),
        |f| f.server_clock = f.now.checked_add(SKEW).ok(),
    ),
    (
        "clock-apart",
        Level::Error,
        |f| f.server_clock = f.now.checked_sub(SKEW + SECOND).ok(),
        |f| f.server_clock = f.now.checked_sub(SKEW).ok(),
    ),
    ("clock-unkept", Level::Warning, |f| f.clock_kept = Some(false), |f| f.clock_kept = None),
    (
        "hostname-invalid",
        Level::Error,
        |f| f.host_name = "Node_1".into(),
        |f| f.host_name = "node-1.x".into(),
    ),
    (
        "hostname-common",
        Level::Error,
        |f| f.host_name = "localhost".into(),
        |f| f.host_name = "localhosts".into(),
    ),
    (
        "hostname-taken",
        Level::Error,
        |f| f.members = vec![member("n1", OTHER_ID, true)],
        |f| f.members = vec![member("n1", ID, true), member("n2", OTHER_ID, true)],
    ),
    (
        "hostname-inherited",
        Level::Warning,
        |f| f.members = vec![member("n1", OTHER_ID, false)],
        |f| f.members = vec![member("n2", OTHER_ID, false)],
    ),
    (
        "machine-id-invalid",
        Level::Error,
        // whose node n1 is nobody can say then
        |f| (f.machine_id, f.members) = (String::new(), vec![member("n1", ID, true)]),
        NOTHING,
    ),
    (
        "machine-id-shared",
        Level::Warning,
        |f| f.members = vec![member("n1", ID, true), member("n2", ID, true)],
        |f| f.members = vec![member("n1", ID, true)],
    ),
    ("memory-short", Level::Error, |f| f.memory = 191 << 20, NOTHING),
    ("memory-tight", Level::Warning, |f| f.memory = 192 << 20, |f| f.memory = 512 << 20),
    ("disk-full", Level::Error, |f| f.disks[0].available = GIB - 1, NOTHING),
    ("disk-filling", Level::Warning, |f| f.disks[0].available = 2 * GIB, |f| f.disks[0].available = 3 * GIB),
    ("mount-read-only", Level::Error, |f| f.mounts[1].read_only = true, NOTHING),
    (
        "mount-noexec",
        Level::Error,
        |f| f.mounts[0].noexec = true,
        |f| f.mounts.push(Mounted { noexec: true, ..mounted("/var/lib/kubelet", "/var/lib/kubelet") }),
    ),
    (
        "swap-on",
        Level::Warning,
        |f| f.swaps = vec!["/dev/sda2".into()],
        |f| (f.swaps, f.kubelet_swaps) = (vec!["/dev/sda2".into()], true),
    ),
    (
        "inotify-short",
        Level::Warning,
        |f| drop(f.sysctls.insert("fs.inotify.max_user_instances".into(), "128".into())),
        |f| drop(f.sysctls.insert("fs.inotify.max_user_instances".into(), "512".into())),
    ),
    (
        "forwarding-off",
        Level::Warning,
        |f| drop(f.sysctls.insert("net.ipv4.ip_forward".into(), "0".into())),
        |f| drop(f.sysctls.insert("net.ipv4.ip_forward".into(), "1".into())),
    ),
];

const OF_RUNTIME: [Fault; 18] = [
    ("containerd-absent", Level::Error, |f| f.containerd = None, NOTHING),
    (
        "containerd-old",
        Level::Error,
        |f| f.containerd = Some("containerd github.com/x/y 1.5.9 z".into()),
        |f| f.containerd = Some("containerd github.com/x/y v2.1.4 z".into()),
    ),
    ("runc-absent", Level::Error, |f| f.has_low_level_runtime = false, NOTHING),
    ("containerd-stopped", Level::Error, |f| f.containerd_runs = false, NOTHING),
    ("containerd-unreadable", Level::Error, |f| f.containerd_config = None, NOTHING),
    (
        "cri-disabled",
        Level::Error,
        |f| config(f, "[]", "[\"io.containerd.grpc.v1.cri\"]"),
        |f| config(f, "[]", "[\"io.containerd.snapshotter.v1.btrfs\"]"),
    ),
    ("cri-disabled", Level::Error, |f| config(f, "[]", "[\"cri\"]"), NOTHING),
    ("cgroup-drivers-differ", Level::Error, |f| f.kubelet_driver = None, NOTHING),
    (
        "cgroup-drivers-differ",
        Level::Error,
        |f| config(f, "SystemdCgroup = true", "SystemdCgroup = false"),
        NOTHING,
    ),
    (
        "cgroup-driver-cgroupfs",
        Level::Warning,
        |f| {
            f.kubelet_driver = None;
            config(f, "SystemdCgroup = true", "SystemdCgroup = false");
        },
        |f| {
            (f.kubelet_driver, f.systemd) = (None, false);
            config(f, "SystemdCgroup = true", "SystemdCgroup = false");
        },
    ),
    (
        "sandbox-image-absent",
        Level::Warning,
        |f| config(f, "localhost/windlass-pause:1", "registry.k8s.io/pause:3.10"),
        // the unit imports it
        |f| f.images = Some(BTreeSet::new()),
    ),
    (
        "sandbox-image-absent",
        Level::Warning,
        |f| (f.images, f.own_image) = (Some(BTreeSet::new()), None),
        |f| f.images = None,
    ),
    ("nft-absent", Level::Error, |f| f.nft = None, NOTHING),
    ("nft-old", Level::Error, |f| f.nft = Some("nftables v0.9.8 (E.D.S.)".into()), NOTHING),
    ("selinux-no-policy", Level::Error, |f| f.selinux = true, |f| f.selinux_policy = true),
    (
        "selinux-unlabelled",
        Level::Warning,
        |f| (f.selinux, f.selinux_policy) = (true, true),
        |f| {
            (f.selinux, f.selinux_policy) = (true, true);
            config(f, "[plugins.\"y\"]", "[plugins.\"y\"]\n    enable_selinux = true");
        },
    ),
    (
        "apparmor-no-parser",
        Level::Warning,
        |f| f.apparmor = true,
        |f| (f.apparmor, f.apparmor_parser) = (true, true),
    ),
    (
        "sandbox-image-absent",
        Level::Warning,
        |f| config(f, "sandbox_image = \"localhost", "sandbox = 'example.org"),
        NOTHING,
    ),
];

const OF_NETWORK: [Fault; 10] = [
    (
        "port-taken",
        Level::Error,
        |f| f.ports_taken = taken("kubelet", None),
        |f| f.ports_taken = taken("windlass", None),
    ),
    (
        "dns-loop",
        Level::Error,
        |f| f.resolvers = vec![[127, 0, 0, 53].into()],
        |f| f.resolvers = vec![[10, 96, 0, 11].into()],
    ),
    ("dns-loop", Level::Error, |f| f.resolvers.push([10, 96, 0, 10].into()), NOTHING),
    (
        "dns-absent",
        Level::Warning,
        |f| f.resolvers = Vec::new(),
        |f| (f.resolvers, f.resolv_conf) = (Vec::new(), None),
    ),
    (
        "firewalld-blocks",
        Level::Warning,
        |f| f.firewalld = Some("public (active)\n  ports: 110250/tcp\n".into()),
        |f| f.firewalld = Some("trusted\n  interfaces: cni0\npublic\n  ports: 22/tcp 10250/tcp\n".into()),
    ),
    (
        "ufw-blocks",
        Level::Warning,
        |f| f.ufw = Some("Status: active\n".into()),
        |f| f.ufw = Some("Status: active\nAnywhere on cni0  ALLOW\n10250/tcp  ALLOW\n".into()),
    ),
    (
        "firewall-drops-input",
        Level::Warning,
        |f| f.dropping = dropping("input", "tcp dport 22 accept"),
        |f| f.dropping = dropping("input", "iifname \"cni0\" accept\ntcp dport { 6443, 10250 } accept"),
    ),
    (
        "firewall-drops-forward",
        Level::Warning,
        |f| f.dropping = dropping("forward", ""),
        |f| f.dropping = dropping("forward", "oifname \"cni0\" accept"),
    ),
    (
        "networkmanager-manages",
        Level::Warning,
        |f| f.network_manager = true,
        |f| (f.network_manager, f.interfaces_unmanaged) = (true, true),
    ),
    (
        "cni-other",
        Level::Warning,
        |f| f.cni_files.extend(["10-flannel.conflist".to_owned()]),
        |f| f.cni_files.extend(["99-loopback.conf".to_owned()]),
    ),
];

const SECOND: jiff::SignedDuration = jiff::SignedDuration::from_secs(1);
const SKEW: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);
const HOUR: jiff::SignedDuration = jiff::SignedDuration::from_hours(1);

/// Each fault, planted alone, is found, and nothing else is; what is almost that fault is not.
#[test]
fn each_planted_fault_is_found_alone_and_its_sibling_is_not() {
    for (id, level, plant, sibling) in OF_MACHINE.into_iter().chain(OF_RUNTIME).chain(OF_NETWORK) {
        let mut facts = sound();
        plant(&mut facts);
        assert_eq!(found(&facts), [(id, level)], "{facts:?}");
        let mut facts = sound();
        sibling(&mut facts);
        assert!(found(&facts).is_empty(), "{id}: {:?}", found(&facts));
    }
}

#[test]
fn what_a_remedy_runs_is_of_this_machine() {
    let mut facts = sound();
    facts.has_low_level_runtime = false;
    assert_eq!(commands(&facts, &wanted()), ["apt-get install -y runc"]);
    facts.packager = Some(Packager::Dnf);
    assert_eq!(commands(&facts, &wanted()), ["dnf install -y runc"]);
    let mut facts = sound();
    facts.containerd_runs = false;
    assert_eq!(commands(&facts, &wanted()), ["systemctl enable --now containerd"]);
    facts.systemd = false;
    assert!(commands(&facts, &wanted()).is_empty(), "there is no systemd to start it");
}

#[test]
fn who_has_a_port_is_stopped_for_good() {
    let mut facts = sound();
    for (unit, command) in
        [(Some("kubelet.service"), "systemctl disable --now kubelet.service"), (None, "kill 7")]
    {
        facts.ports_taken = taken("kubelet", unit);
        assert_eq!(commands(&facts, &wanted()), [command]);
    }
    facts.ports_taken[0].by = None;
    assert!(commands(&facts, &wanted()).is_empty());
}

#[test]
fn a_clock_is_set_by_what_it_is_off() {
    let mut facts = sound();
    facts.server_clock = facts.now.checked_sub(HOUR).ok();
    assert_eq!(commands(&facts, &wanted()), ["date -s 'now - 3600 seconds'"]);
    facts.server_clock = facts.now.checked_add(HOUR).ok();
    assert_eq!(commands(&facts, &wanted()), ["date -s 'now + 3600 seconds'"]);
}

#[test]
fn a_new_name_must_not_be_refused_in_turn() {
    let mut facts = sound();
    for (name, command) in [
        ("Node_1", "hostnamectl set-hostname node-1"),
        ("-Web.Example.", "hostnamectl set-hostname web.example"),
        ("___", "hostnamectl set-hostname node-012345"),
        ("localhost", "hostnamectl set-hostname node-012345"),
    ] {
        facts.host_name = name.into();
        assert_eq!(commands(&facts, &wanted()), [command]);
    }
    facts.host_name = "n1".into();
    facts.members = vec![member("n1", OTHER_ID, true)];
    assert_eq!(commands(&facts, &wanted()), ["hostnamectl set-hostname n1-012345"]);
    let named = Wanted { node_name: Some("n1".into()), ..wanted() };
    assert!(commands(&facts, &named).is_empty(), "the name is not the host's");
}

#[test]
fn a_machine_that_is_no_clone_must_not_be_told_to_change_its_id() {
    let mut facts = sound();
    facts.members = vec![member("n2", OTHER_ID, true), member("n3", OTHER_ID, true)];
    assert!(commands(&facts, &wanted()).is_empty());
    facts.members.push(member("n1", ID, true));
    facts.members.push(member("n4", ID, true));
    let commands: Vec<usize> =
        findings(&facts, &wanted()).iter().map(|finding| finding.commands.len()).collect();
    assert_eq!(commands, [2, 0], "by their ids in order");
}

#[test]
fn files_that_do_not_say_it_must_not_be_edited() {
    let mut facts = sound();
    config(&mut facts, "SystemdCgroup = true", "SystemdCgroup = false");
    let set = "sed -i 's/SystemdCgroup *=.*/SystemdCgroup = true/' /etc/containerd/config.toml";
    assert_eq!(commands(&facts, &wanted()), [set, "systemctl restart containerd"]);
    facts.containerd_files.insert("/etc/containerd/conf.d/x.toml".into(), "[debug]\n".into());
    assert_eq!(commands(&facts, &wanted())[0], set);
    facts.containerd_files.clear();
    assert!(commands(&facts, &wanted()).is_empty(), "half of it is worse than nothing");
}

#[test]
fn the_kubelets_side_is_set_in_the_file_it_has() {
    let mut facts = sound();
    facts.kubelet_driver = None;
    assert_eq!(
        commands(&facts, &wanted()),
        ["sed -i -e '$a cgroupDriver: systemd' -e '/^cgroupDriver:/d' /etc/windlass/kubelet.yaml"]
    );
    let none = Wanted { kubelet_config: None, ..wanted() };
    let made = commands(&facts, &none);
    assert!(made[0].ends_with("'cgroupDriver: systemd' >/etc/windlass/kubelet.yaml"), "{made:?}");
    assert_eq!(made[1], "echo 'kubelet-config: /etc/windlass/kubelet.yaml' >>/etc/windlass/config.yaml");
}

#[test]
fn resolvers_that_work_must_not_be_lost_with_those_that_do_not() {
    let mut facts = sound();
    facts.resolvers = vec![[127, 0, 0, 1].into(), [192, 0, 2, 53].into()];
    let with = commands(&facts, &wanted());
    assert_eq!(
        with[0],
        "mkdir -p /etc/windlass; printf '%s\\n' 'nameserver 192.0.2.53' >/etc/windlass/resolv.conf"
    );
    facts.resolvers.pop();
    assert_eq!(commands(&facts, &wanted())[0], "mkdir -p /etc/windlass; : >/etc/windlass/resolv.conf");
}

#[test]
fn what_stands_in_the_way_is_named_with_the_ports_that_are_needed() {
    let mut facts = sound();
    facts.firewalld = Some("public (active)".into());
    let said = commands(&facts, &wanted());
    assert!(said[0].contains("--add-interface=cni0 --add-source=10.244.0.0/16"), "{said:?}");
    assert!(said[1].ends_with("--add-port=10250/tcp"), "{said:?}");
    facts.firewalld = None;
    facts.dropping = dropping("input", "tcp dport 10250 accept");
    assert_eq!(commands(&facts, &wanted()), ["nft insert rule inet filter input iifname \"cni0\" accept"]);
    facts.dropping = dropping("input", "iifname \"cni0\" accept");
    let server = Wanted { ports: vec![10250, 6443], ..wanted() };
    assert_eq!(
        commands(&facts, &server),
        ["nft insert rule inet filter input tcp dport { 10250, 6443 } accept"]
    );
}

#[test]
fn ufws_own_chains_must_not_be_told_of_beside_it() {
    let mut facts = sound();
    facts.ufw = Some("Status: active\ncni0 10250".into());
    facts.dropping = dropping("input", "");
    facts.dropping[0].family = "ip".into();
    assert!(found(&facts).is_empty());
    facts.ufw = None;
    assert_eq!(found(&facts), [("firewall-drops-input", Level::Warning)]);
}

#[test]
fn a_mount_must_not_be_told_of_for_each_directory_on_it() {
    let mut facts = sound();
    facts.mounts = ["/var/lib/containerd", "/var/lib/windlass"]
        .map(|directory| Mounted { read_only: true, noexec: true, ..mounted(directory, "/var") })
        .into();
    assert_eq!(found(&facts), [("mount-read-only", Level::Error), ("mount-noexec", Level::Error)]);
}

#[test]
fn ports_of_the_program_itself_must_not_be_called_taken() {
    let mut facts = sound();
    facts.ports_taken = taken("kubelet", None);
    let running = Wanted { is_running: true, ..wanted() };
    assert!(findings(&facts, &running).is_empty());
}

#[test]
fn a_machine_with_another_runtime_must_not_be_asked_for_containerd() {
    let facts =
        Facts { containerd: None, containerd_config: None, containerd_runs: false, images: None, ..sound() };
    let other = Wanted { is_other_runtime: true, ..wanted() };
    assert!(findings(&facts, &other).is_empty());
}

#[test]
fn a_remedy_stands_below_its_finding_with_what_can_be_copied() {
    let mut facts = sound();
    facts.nft = None;
    let text = text(&looks(&facts, &wanted()));
    let mut lines = text.lines().skip_while(|line| !line.starts_with("ERROR"));
    assert_eq!(lines.next(), Some("ERROR    nft-absent              nft is not installed"));
    assert_eq!(lines.next().map(str::trim), Some("remedy: install it"));
    assert_eq!(lines.next().map(str::trim), Some("apt-get install -y nftables"));
}

#[test]
fn scripts_find_a_finding_by_its_name() {
    let mut facts = sound();
    facts.nft = None;
    let all = serde_json::to_value(looks(&facts, &wanted())).unwrap();
    let of =
        |check: &str| all.as_array().unwrap().iter().find(|look| look["check"] == check).unwrap().clone();
    assert_eq!(
        of("nftables"),
        serde_json::json!({
            "check": "nftables", "id": "nft-absent", "level": "error", "found": "nft is not installed",
            "remedy": "install it", "commands": ["apt-get install -y nftables"],
        })
    );
    assert_eq!(of("swap")["id"], serde_json::Value::Null);
}
