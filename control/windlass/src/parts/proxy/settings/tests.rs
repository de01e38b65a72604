use super::*;
use crate::parts::component::Component;
use serde_json::json;

fn of(file: Value) -> anyhow::Result<Settings> {
    read(&Document(file), Some("n")).map(|(settings, _)| settings)
}

fn by_flags(line: &str) -> anyhow::Result<Settings> {
    let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    of(Component::named("kube-proxy").unwrap().table().parse(&arguments)?.document())
}

fn nets(all: &[&str]) -> Vec<IpNet> {
    all.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn the_file_counts_and_the_node_is_named_by_the_flag() {
    let file = json!({"clusterCIDR": "10.1.0.0/16,fd00::/48", "hostnameOverride": "other",
        "healthzBindAddress": "127.0.0.1:1", "metricsBindAddress": "::1"});
    let config = read(&Document(file), Some("N1")).unwrap().0.proxy;
    assert_eq!(config.node, "n1");
    assert_eq!(config.detect, Detect::Fixed(Pods::Ranges(nets(&["10.1.0.0/16", "fd00::/48"]))));
    assert_eq!(config.healthz, Some("127.0.0.1:1".parse().unwrap()));
    assert_eq!(config.mode, Some("[::1]:10249".parse().unwrap()));
    let bare = by_flags("--cluster-cidr=10.2.0.0/16").unwrap().proxy;
    assert_eq!(bare.detect, Detect::Fixed(Pods::Ranges(nets(&["10.2.0.0/16"]))));
    assert_eq!(bare.healthz, Some("0.0.0.0:10256".parse().unwrap()));
}

/// Each flag, the field it is, and what tells its effect from the default.
#[test]
fn a_flag_and_its_field_must_not_differ_in_effect_nor_do_nothing() {
    type Effect = fn(&Settings) -> String;
    let shown: Effect = |settings| format!("{settings:?}");
    let cases = [
        ("--bind-address=192.0.2.9", json!({"bindAddress": "192.0.2.9"})),
        ("--bind-address-hard-fail", json!({"bindAddressHardFail": true})),
        ("--cluster-cidr=10.9.0.0/16", json!({"clusterCIDR": "10.9.0.0/16"})),
        ("--detect-local-mode=NodeCIDR", json!({"detectLocalMode": "NodeCIDR"})),
        (
            "--detect-local-mode=BridgeInterface --pod-bridge-interface=cni0",
            json!({"detectLocalMode": "BridgeInterface", "detectLocal": {"bridgeInterface": "cni0"}}),
        ),
        (
            "--detect-local-mode=InterfaceNamePrefix --pod-interface-name-prefix=veth",
            json!({"detectLocalMode": "InterfaceNamePrefix", "detectLocal": {"interfaceNamePrefix": "veth"}}),
        ),
        ("--masquerade-all", json!({"iptables": {"masqueradeAll": true}})),
        ("--nodeport-addresses=primary", json!({"nodePortAddresses": ["primary"]})),
        (
            "--nodeport-addresses=192.0.2.0/24,fd00::/8",
            json!({"nodePortAddresses": ["192.0.2.0/24", "fd00::/8"]}),
        ),
        ("--oom-score-adj=7", json!({"oomScoreAdj": 7})),
        ("--iptables-sync-period=1m", json!({"iptables": {"syncPeriod": "1m"}})),
        ("--iptables-min-sync-period=2s", json!({"iptables": {"minSyncPeriod": "2s"}})),
        ("--conntrack-max-per-core=0", json!({"conntrack": {"maxPerCore": 0}})),
        ("--conntrack-min=9", json!({"conntrack": {"min": 9}})),
        ("--conntrack-tcp-be-liberal", json!({"conntrack": {"tcpBeLiberal": true}})),
        ("--conntrack-tcp-timeout-established=0s", json!({"conntrack": {"tcpEstablishedTimeout": "0s"}})),
        ("--conntrack-tcp-timeout-close-wait=5s", json!({"conntrack": {"tcpCloseWaitTimeout": "5s"}})),
        ("--conntrack-udp-timeout=5s", json!({"conntrack": {"udpTimeout": "5s"}})),
        ("--conntrack-udp-timeout-stream=5s", json!({"conntrack": {"udpStreamTimeout": "5s"}})),
        ("--kube-api-qps=2.5", json!({"clientConnection": {"qps": 2.5}})),
        ("--kube-api-burst=3", json!({"clientConnection": {"burst": 3}})),
        ("--healthz-bind-address=127.0.0.1:7", json!({"healthzBindAddress": "127.0.0.1:7"})),
        ("--metrics-bind-address=127.0.0.2", json!({"metricsBindAddress": "127.0.0.2"})),
    ];
    let usual = shown(&of(json!({})).unwrap());
    for (line, file) in cases {
        let flag = shown(&by_flags(line).unwrap());
        assert_eq!(flag, shown(&of(file).unwrap()), "{line}");
        assert_ne!(flag, usual, "{line}");
    }
}

#[test]
fn the_mode_chooses_the_section_and_where_node_ports_are() {
    let file = |mode: &str| {
        json!({"mode": mode,
            "iptables": {"syncPeriod": "1m", "minSyncPeriod": "1s", "masqueradeAll": true},
            "ipvs": {"syncPeriod": "2m", "minSyncPeriod": "2s"},
            "nftables": {"syncPeriod": "3m", "minSyncPeriod": "3s"}})
    };
    let minutes = |count: u64| Duration::from_secs(60 * count);
    for (mode, count, all) in
        [("", 1, true), ("iptables", 1, true), ("ipvs", 2, true), ("nftables", 3, false)]
    {
        let config = of(file(mode)).unwrap().proxy;
        assert_eq!((config.audit, config.patience), (minutes(count), minutes(2 * count)), "{mode}");
        assert_eq!(config.pause, Duration::from_secs(count), "{mode}");
        assert_eq!(config.masquerade_all, all, "{mode}");
        let ports = if mode == "nftables" { NodePorts::Primary } else { NodePorts::Ranges(Vec::new()) };
        assert_eq!(config.node_ports, ports, "{mode}");
    }
    assert_eq!(of(json!({"mode": "nftables"})).unwrap().proxy.pause, Duration::ZERO, "changes do not wait");
}

#[test]
fn what_upstream_refuses_is_refused_by_its_field() {
    for (file, words) in [
        (json!({"mode": "userspace"}), "must be iptables, ipvs, nftables or blank"),
        (json!({"bindAddress": "host"}), "BindAddress: Invalid value"),
        (json!({"healthzBindAddress": "host:1"}), "HealthzBindAddress: Invalid value"),
        (json!({"metricsBindAddress": "127.0.0.1:0"}), "must be a valid port"),
        (json!({"configSyncPeriod": "-1s"}), "ConfigSyncPeriod"),
        (json!({"iptables": {"masqueradeBit": 32}}), "must be within the range [0, 31]"),
        (json!({"nftables": {"masqueradeBit": -1}}), "must be within the range [0, 31]"),
        (
            json!({"iptables": {"minSyncPeriod": "31s"}}),
            "must be greater than or equal to KubeProxyConfiguration",
        ),
        (json!({"oomScoreAdj": 1001}), "must be within the range [-1000, 1000]"),
        (json!({"conntrack": {"min": -1}}), "Min: Invalid value: -1"),
        (json!({"conntrack": {"udpTimeout": "-1s"}}), "UDPTimeout: Invalid value"),
        (json!({"nodePortAddresses": ["primary", "10.0.0.0/8"]}), "can't use both 'primary' and CIDRs"),
        (json!({"nodePortAddresses": ["10.0.0.0/8", "x"]}), "NodePortAddresses[1]"),
        (json!({"detectLocalMode": "Guess"}), "Unsupported value: \"Guess\""),
        (json!({"detectLocalMode": "BridgeInterface"}), "must not be empty"),
        (json!({"clusterCIDR": "10.0.0.0/8,10.1.0.0/16"}), "dual-stack pair of CIDRs"),
        (json!({"clusterCIDR": "x"}), "must be a valid CIDR block"),
        (json!({"clientConnection": {"burst": -1}}), "Burst"),
        (json!({"featureGates": {"APIServerTracing": false}}), "locked to true"),
    ] {
        let error = of(file.clone()).unwrap_err().to_string();
        assert!(error.contains(words), "{file}: {error}");
    }
}

#[test]
fn a_gate_nobody_knows_and_another_mode_are_warned_of_by_name() {
    let file = json!({"mode": "ipvs", "featureGates": {"Soon": true}});
    let (_, warnings) = read(&Document(file), Some("n")).unwrap();
    assert!(warnings.iter().any(|w| w.contains("Soon")), "{warnings:?}");
    assert!(warnings.iter().any(|w| w.contains("ipvs")), "{warnings:?}");
}
