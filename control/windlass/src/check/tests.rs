use super::facts::{Cgroups, Disk, Facts, Member, Wanted};
use super::judge::Level;
use super::*;

const GIB: u64 = 1 << 30;
const ID: &str = "0123456789abcdef0123456789abcdef";

/// A machine that has nothing wrong with it.
fn sound() -> Facts {
    let controllers = ["cpu", "cpuset", "io", "memory", "pids"].map(str::to_owned);
    Facts {
        kernel: "6.1.0-44-amd64".into(),
        cgroups: Some(Cgroups::Unified(controllers.into())),
        systemd: true,
        containerd: Some("containerd github.com/containerd/containerd 1.7.24 1.7.24~ds1".into()),
        containerd_config: Some(
            "disabled_plugins = []\n[plugins.\"x\".containerd.runtimes.runc.options]\n  SystemdCgroup = true\n".into(),
        ),
        containerd_runs: true,
        has_low_level_runtime: true,
        nft: Some("nftables v1.0.6 (Lester Gooch #5)".into()),
        kubelet_driver: Some("systemd".into()),
        clock_kept: Some(true),
        host_name: "n1".into(),
        machine_id: ID.into(),
        memory: 4 * GIB,
        disks: vec![Disk { path: "/var/lib".into(), size: 20 * GIB, available: 10 * GIB }],
        resolv_conf: "/etc/resolv.conf".into(),
        resolvers: vec![[192, 0, 2, 53].into()],
        ..Facts::default()
    }
}

fn wanted() -> Wanted {
    Wanted { cluster_dns: vec![[10, 96, 0, 10].into()], ports: vec![10250], ..Wanted::default() }
}

/// What is found, without what is well.
fn found(facts: &Facts) -> Vec<(&'static str, Level)> {
    let all = looks(facts, &wanted()).into_iter().filter(|look| look.finding.level != Level::Ok);
    all.map(|look| {
        assert!(look.finding.remedy.is_some_and(|remedy| !remedy.is_empty()), "{}: no remedy", look.check);
        (look.check, look.finding.level)
    })
    .collect()
}

#[test]
fn a_sound_machine_must_not_be_complained_of() {
    assert!(found(&sound()).is_empty());
    assert_eq!(looks(&sound(), &wanted()).len(), judge::LOOKS.len());
}

/// Each fault, planted alone, is found, and nothing else is.
#[test]
fn each_planted_fault_is_found_alone() {
    type Plant = fn(&mut Facts);
    let member = |name: &str, id: &str| Member { name: name.into(), machine_id: id.into(), is_ready: true };
    let faults: [(&'static str, Level, Plant); 26] = [
        ("kernel", Level::Error, |f| f.kernel = "5.10.0-28-amd64".into()),
        ("modules", Level::Error, |f| f.missing_modules = vec!["br_netfilter".into()]),
        ("cgroups", Level::Error, |f| f.cgroups = None),
        ("cgroups", Level::Error, |f| {
            f.cgroups = Some(Cgroups::Unified(["cpu", "cpuset", "pids"].map(str::to_owned).into()));
        }),
        ("containerd", Level::Error, |f| f.containerd = None),
        ("containerd", Level::Error, |f| f.containerd = Some("containerd github.com/x/y 1.5.9 z".into())),
        ("containerd", Level::Error, |f| f.containerd_runs = false),
        ("containerd", Level::Error, |f| f.has_low_level_runtime = false),
        ("containerd", Level::Error, |f| {
            f.containerd_config = f.containerd_config.take().map(|c| c.replace("[]", "[\"cri\"]"));
        }),
        ("cgroup-driver", Level::Error, |f| f.kubelet_driver = None),
        ("nftables", Level::Error, |f| f.nft = Some("nftables v0.9.8 (E.D.S.)".into())),
        ("ports", Level::Error, |f| f.ports_taken = vec![10250]),
        ("clock", Level::Error, |f| f.made = f.now.checked_add(jiff::SignedDuration::from_hours(1)).ok()),
        ("clock", Level::Error, |f| {
            f.server_clock = f.now.checked_add(jiff::SignedDuration::from_secs(61)).ok();
        }),
        ("clock", Level::Warning, |f| f.clock_kept = Some(false)),
        ("hostname", Level::Error, |f| f.host_name = "Node_1".into()),
        ("hostname", Level::Error, |f| f.host_name = "localhost".into()),
        ("machine-id", Level::Error, |f| f.machine_id = "uninitialized".into()),
        ("memory", Level::Error, |f| f.memory = 128 << 20),
        ("disk", Level::Error, |f| f.disks[0].available = 100 << 20),
        ("disk", Level::Warning, |f| f.disks[0].available = 2 * GIB),
        ("dns", Level::Error, |f| f.resolvers = vec![[127, 0, 0, 53].into()]),
        ("dns", Level::Error, |f| f.resolvers = vec![[10, 96, 0, 10].into()]),
        ("swap", Level::Warning, |f| f.swaps = vec!["/dev/sda2".into()]),
        ("networkmanager", Level::Warning, |f| f.services = ["NetworkManager.service".to_owned()].into()),
        ("selinux", Level::Error, |f| f.selinux = true),
    ];
    for (check, level, plant) in faults {
        let mut facts = sound();
        plant(&mut facts);
        assert_eq!(found(&facts), [(check, level)], "{facts:?}");
    }
    let mut facts = sound();
    facts.members = vec![member("n1", ID), member("n2", ID)];
    assert_eq!(found(&facts), [("machine-id", Level::Warning)]);
    facts.members = vec![member("n1", "ffffffffffffffffffffffffffffffff")];
    assert_eq!(found(&facts), [("hostname", Level::Error)]);
    facts.members[0].is_ready = false;
    assert_eq!(found(&facts), [("hostname", Level::Warning)], "a machine installed anew takes its place");
}

#[test]
fn what_stands_in_the_way_is_named_with_the_ports_that_are_needed() {
    let mut facts = sound();
    facts.services = ["firewalld.service".to_owned()].into();
    let looks = looks(&facts, &wanted());
    let remedy = looks.iter().find(|look| look.check == "firewall").unwrap().finding.remedy.clone().unwrap();
    assert!(remedy.contains("--add-port=10250/tcp") && remedy.contains("cni0"), "{remedy}");
}

#[test]
fn ports_of_the_program_itself_must_not_be_called_taken() {
    let mut facts = sound();
    facts.ports_taken = vec![10250];
    let running = Wanted { is_running: true, ..wanted() };
    assert!(looks(&facts, &running).iter().all(|look| look.finding.level == Level::Ok));
}

#[test]
fn a_machine_with_another_runtime_must_not_be_asked_for_containerd() {
    let facts = Facts { containerd: None, containerd_config: None, containerd_runs: false, ..sound() };
    let other = Wanted { is_other_runtime: true, ..wanted() };
    assert!(looks(&facts, &other).iter().all(|look| look.finding.level == Level::Ok));
}

#[test]
fn a_remedy_stands_below_its_finding() {
    let mut facts = sound();
    facts.nft = None;
    let text = text(&looks(&facts, &wanted()));
    let mut lines = text.lines().skip_while(|line| !line.starts_with("ERROR"));
    assert_eq!(lines.next(), Some("ERROR    nftables        nft is not installed"));
    assert!(lines.next().unwrap().trim_start().starts_with("remedy: apt-get install nftables"));
}
