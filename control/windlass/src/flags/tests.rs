use super::*;
use crate::parts::component::{COMPONENTS, Component};

fn scheduler() -> Table {
    Component::named("kube-scheduler").unwrap().table()
}

fn parse(line: &str) -> Result<Flags, Error> {
    let arguments: Vec<String> = line.split(' ').filter(|w| !w.is_empty()).map(str::to_owned).collect();
    scheduler().parse(&arguments)
}

fn refused(line: &str) -> String {
    parse(line).unwrap_err().to_string()
}

#[test]
fn an_unknown_flag_is_refused_by_name() {
    assert_eq!(refused("--x"), "unknown flag: --x");
    assert_eq!(refused("--leader-elects=true"), "unknown flag: --leader-elects");
    assert_eq!(refused("-x"), "unknown shorthand flag: 'x' in -x");
    assert_eq!(refused("--kubeconfig"), "flag needs an argument: --kubeconfig");
    assert_eq!(refused("--=x"), "bad flag syntax: --=x");
    assert_eq!(refused("a b"), "\"kube-scheduler\" does not take any arguments, got [\"a\" \"b\"]");
}

#[test]
fn a_value_of_another_type_is_refused_with_its_flag() {
    assert_eq!(
        refused("--secure-port=x"),
        "invalid argument \"x\" for \"--secure-port\" flag: strconv.ParseInt: parsing \"x\": invalid syntax"
    );
    for wrong in [
        "--leader-elect=yes",
        "--leader-elect-retry-period=2",
        "--bind-address=localhost",
        "--feature-gates=A",
        "--kube-api-qps=fast",
    ] {
        assert!(refused(wrong).starts_with("invalid argument"), "{wrong}");
    }
}

#[test]
fn booleans_take_a_value_only_after_an_equals_sign() {
    assert_eq!(parse("--leader-elect").unwrap().bool("leader-elect"), Some(true));
    assert_eq!(parse("--leader-elect=false").unwrap().bool("leader-elect"), Some(false));
    assert_eq!(parse("--leader-elect=F").unwrap().bool("leader-elect"), Some(false));
    assert!(refused("--leader-elect false").contains("does not take any arguments"));
    assert_eq!(parse("").unwrap().bool("leader-elect"), None);
}

#[test]
fn values_are_read_as_gos() {
    let flags = parse("--leader-elect-lease-duration 1m30s --secure_port=0 --kubeconfig=/a=b -v 4").unwrap();
    assert_eq!(flags.duration("leader-elect-lease-duration"), Some(Duration::from_secs(90)));
    assert_eq!(flags.port("secure-port", 10259), Ok(0));
    assert_eq!(flags.text("kubeconfig"), Some("/a=b"));
    assert_eq!(flags.int("v"), Some(4));
    assert_eq!(parse("-v=2").unwrap().int("v"), Some(2));
    assert_eq!(parse("-v6").unwrap().int("v"), Some(6));
    assert!(parse("--secure-port=65536").unwrap().port("secure-port", 1).is_err());
    let last = parse("--secure-port=1 --secure-port=2").unwrap();
    assert_eq!(last.port("secure-port", 0), Ok(2));
}

#[test]
fn lists_are_parted_by_commas_and_add_up() {
    let flags =
        parse("--authorization-always-allow-paths=/a,/b --authorization-always-allow-paths=/c").unwrap();
    assert_eq!(flags.list("authorization-always-allow-paths").unwrap(), ["/a", "/b", "/c"]);
    assert_eq!(flags.list("tls-cipher-suites"), None);
}

#[test]
fn a_flag_without_effect_is_named_once() {
    let flags = parse("--profiling=false --profiling --config=/x").unwrap();
    assert_eq!(flags.unused(), ["profiling"]);
}

#[test]
fn flags_that_are_fields_must_not_be_written_otherwise_than_a_file_has_them() {
    const TABLE: &str = "on bool a.on\n\
        number int a.number\nspan duration span\nshare float share\nlist list list\n\
        map map map\ngates gates gates\nheaders multimap headers\naddress ip address\nname string name\nboth int b.x,c.x\n\
        other string\nidle string unused";
    let table = Table::read("x", TABLE);
    let of = |line: &str| {
        let arguments: Vec<String> = line.split(' ').filter(|w| !w.is_empty()).map(str::to_owned).collect();
        table.parse(&arguments).map(|flags| flags.document())
    };
    let cases = [
        ("", serde_json::json!({})),
        ("--other=x --idle=y", serde_json::json!({})),
        ("--on --number=-3", serde_json::json!({"a": {"on": true, "number": -3}})),
        (
            "--on=false --span=1m --share=0.5",
            serde_json::json!({"a": {"on": false}, "span": "1m", "share": 0.5}),
        ),
        ("--list=a,b --list=c", serde_json::json!({"list": ["a", "b", "c"]})),
        ("--map=m.available<10%,n=1", serde_json::json!({"map": {"m.available": "10%", "n": "1"}})),
        ("--gates=A=true,B=false --gates=A=0", serde_json::json!({"gates": {"A": false, "B": false}})),
        ("--headers=a:x,b:y,a:z", serde_json::json!({"headers": {"a": ["x", "z"], "b": ["y"]}})),
        ("--address= --name=", serde_json::json!({"name": ""})),
        ("--both=7", serde_json::json!({"b": {"x": 7}, "c": {"x": 7}})),
    ];
    for (line, expected) in cases {
        assert_eq!(of(line).unwrap(), expected, "{line}");
    }
    for wrong in ["--gates=A", "--gates=A=maybe", "--headers=a"] {
        assert!(of(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn every_line_of_every_table_is_a_flag() {
    for component in &COMPONENTS {
        let lines = component.flags.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let (lines, table) = (lines.count(), component.table());
        assert_eq!(table.flags.len(), lines, "{}", component.name);
        assert!(table.help().contains("--help"), "{}", component.name);
    }
}

/// What kubeadm 1.36 writes into static pods' manifests, the kubelet's unit and the proxy's DaemonSet
/// (`cmd/kubeadm/app/phases/{controlplane,kubelet,addons}`).
#[test]
fn what_kubeadm_writes_is_understood() {
    let written = [
        (
            "kube-scheduler",
            "authentication-kubeconfig=/k authorization-kubeconfig=/k bind-address=127.0.0.1 kubeconfig=/k leader-elect=true",
        ),
        (
            "kube-controller-manager",
            "allocate-node-cidrs=true authentication-kubeconfig=/k authorization-kubeconfig=/k bind-address=127.0.0.1 client-ca-file=/c cluster-cidr=10.244.0.0/16 cluster-name=kubernetes cluster-signing-cert-file=/c cluster-signing-key-file=/k controllers=*,bootstrapsigner,tokencleaner kubeconfig=/k leader-elect=true requestheader-client-ca-file=/c root-ca-file=/c service-account-private-key-file=/k service-cluster-ip-range=10.96.0.0/12 use-service-account-credentials=true",
        ),
        (
            "kube-apiserver",
            "advertise-address=10.0.0.1 allow-privileged=true authorization-mode=Node,RBAC client-ca-file=/c enable-admission-plugins=NodeRestriction enable-bootstrap-token-auth=true etcd-cafile=/c etcd-certfile=/c etcd-keyfile=/k etcd-servers=https://127.0.0.1:2379 kubelet-client-certificate=/c kubelet-client-key=/k kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname proxy-client-cert-file=/c proxy-client-key-file=/k requestheader-allowed-names=front-proxy-client requestheader-client-ca-file=/c requestheader-extra-headers-prefix=X-Remote-Extra- requestheader-group-headers=X-Remote-Group requestheader-username-headers=X-Remote-User secure-port=6443 service-account-issuer=https://kubernetes.default.svc.cluster.local service-account-key-file=/k service-account-signing-key-file=/k service-cluster-ip-range=10.96.0.0/12 tls-cert-file=/c tls-private-key-file=/k",
        ),
        (
            "kubelet",
            "bootstrap-kubeconfig=/b kubeconfig=/k config=/c container-runtime-endpoint=unix:///run/containerd/containerd.sock hostname-override=n node-ip=10.0.0.1 register-with-taints=a=b:NoSchedule node-labels=a=b",
        ),
        ("kube-proxy", "config=/c hostname-override=n"),
    ];
    for (name, line) in written {
        let arguments: Vec<String> = line.split(' ').map(|flag| format!("--{flag}")).collect();
        let parsed = Component::named(name).unwrap().table().parse(&arguments);
        assert!(parsed.is_ok(), "{name}: {parsed:?}");
    }
}
