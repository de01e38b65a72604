use super::*;

fn port(name: &str, number: u16) -> Port {
    Port { name: name.into(), protocol: "tcp".into(), number }
}

fn zone() -> Zone {
    let mut zone = Zone::default();
    let ip = |s: &str| s.parse::<IpAddr>().unwrap();
    zone.set_service(
        "default",
        "web",
        Some(Service::Cluster(vec![ip("10.96.0.5"), ip("fd00::5")], vec![port("http", 80)])),
    );
    zone.set_service("default", "db", Some(Service::Headless));
    zone.set_service("default", "idle", Some(Service::Headless));
    zone.set_service("default", "out", Some(Service::External("example.org".into())));
    let endpoint = |address: &str, host: Option<&str>| Endpoint {
        address: ip(address),
        host: host.map_or_else(|| dashed(ip(address)), str::to_owned),
        named: host.is_some(),
        ports: vec![port("sql", 5432)],
    };
    let endpoints = vec![endpoint("10.244.0.7", Some("db-0")), endpoint("10.244.1.9", None)];
    zone.set_slice("default", "db-x", Some(Slice { service: "db".into(), endpoints }));
    zone
}

fn ask(zone: &Zone, name: &str, kind: Kind) -> Option<Vec<String>> {
    let labels: Vec<&str> = name.split('.').collect();
    let text = |found: RecordData| match found {
        RecordData::Address(ip) => ip.to_string(),
        RecordData::Port { number, host, .. } => format!("{host}:{number}"),
        RecordData::Alias(name) => format!("-> {name}"),
        RecordData::Text(text) => text,
        RecordData::Server { host, addresses } => format!("{host} {addresses:?}"),
    };
    zone.lookup(&labels, kind).map(|found| found.into_iter().map(text).collect())
}

#[test]
fn names_of_the_specification() {
    let zone = zone();
    let table: &[(&str, Kind, Option<&[&str]>)] = &[
        ("web.default.svc", Kind::A, Some(&["10.96.0.5"])),
        ("web.default.svc", Kind::Aaaa, Some(&["fd00::5"])),
        ("web.default.svc", Kind::Txt, Some(&[])),
        ("nope.default.svc", Kind::A, None),
        ("web.nowhere.svc", Kind::A, None),
        ("default.svc", Kind::A, Some(&[])),
        ("nowhere.svc", Kind::A, None),
        ("_http._tcp.web.default.svc", Kind::Srv, Some(&["web.default.svc:80"])),
        ("_http._udp.web.default.svc", Kind::Srv, None),
        ("_tcp.web.default.svc", Kind::A, Some(&[])),
        ("db.default.svc", Kind::A, Some(&["10.244.0.7", "10.244.1.9"])),
        ("db.default.svc", Kind::Aaaa, Some(&[])),
        ("db-0.db.default.svc", Kind::A, Some(&["10.244.0.7"])),
        ("10-244-1-9.db.default.svc", Kind::A, Some(&["10.244.1.9"])),
        ("db-1.db.default.svc", Kind::A, None),
        (
            "_sql._tcp.db.default.svc",
            Kind::Srv,
            Some(&["db-0.db.default.svc:5432", "10-244-1-9.db.default.svc:5432"]),
        ),
        ("idle.default.svc", Kind::A, None),
        ("out.default.svc", Kind::A, Some(&["-> example.org"])),
        ("out.default.svc", Kind::Cname, Some(&["-> example.org"])),
        ("10-1-2-3.default.pod", Kind::A, Some(&["10.1.2.3"])),
        ("10-1-2.default.pod", Kind::A, None),
        ("fd00--7.default.pod", Kind::Aaaa, Some(&["fd00::7"])),
        ("fd00-0-0-0-0-0-0-7.default.pod", Kind::Aaaa, Some(&["fd00::7"])),
        ("out.default.svc", Kind::Srv, Some(&[])),
        ("dns-version", Kind::Txt, Some(&["1.1.0"])),
        ("nonsense", Kind::A, None),
    ];
    for (name, kind, want) in table {
        let want = want.map(|w| w.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        assert_eq!(ask(&zone, name, *kind), want, "{name} {kind:?}");
    }
}

#[test]
fn reverse_names_come_and_go_with_their_owner() {
    let mut zone = zone();
    let ip = |s: &str| s.parse::<IpAddr>().unwrap();
    assert_eq!(zone.reverse(ip("10.96.0.5")), ["web.default.svc"]);
    assert_eq!(zone.reverse(ip("10.244.0.7")), ["db-0.db.default.svc"]);
    assert_eq!(zone.reverse(ip("10.244.1.9")), ["10-244-1-9.db.default.svc"], "named by its address");
    zone.set_service("default", "web", None);
    zone.set_slice("default", "db-x", None);
    for gone in ["10.96.0.5", "10.244.0.7", "10.244.1.9"] {
        assert!(zone.reverse(ip(gone)).is_empty(), "{gone}");
    }
}

#[test]
fn a_cluster_ip_must_not_be_called_by_an_endpoints_name() {
    let mut zone = zone();
    let ip = |s: &str| s.parse::<IpAddr>().unwrap();
    let endpoint = |address: &str| Endpoint {
        address: ip(address),
        host: dashed(ip(address)),
        named: false,
        ports: Vec::new(),
    };
    let slice = |service: &str| Slice {
        service: service.into(),
        endpoints: vec![endpoint("10.96.0.5"), endpoint("10.244.1.9"), endpoint("fd00::7")],
    };
    zone.set_slice("default", "web-x", Some(slice("web")));
    zone.set_slice("default", "web-y", Some(slice("web")));
    assert_eq!(zone.reverse(ip("10.96.0.5")), ["web.default.svc"]);
    let both = ["10-244-1-9.db.default.svc", "10-244-1-9.web.default.svc"];
    assert_eq!(zone.reverse(ip("10.244.1.9")), both, "one for each service");
    zone.set_slice("default", "web-x", None);
    assert_eq!(zone.reverse(ip("10.244.1.9")), both, "another slice has it still");
    assert_eq!(zone.reverse(ip("fd00::7")), ["fd00--7.web.default.svc"]);
}

#[test]
fn endpoints_of_a_service_with_an_address_must_not_be_without_a_name() {
    let mut zone = zone();
    let ip = |s: &str| s.parse::<IpAddr>().unwrap();
    let endpoint = |address: &str, host: Option<&str>| Endpoint {
        address: ip(address),
        host: host.map_or_else(|| dashed(ip(address)), str::to_owned),
        named: host.is_some(),
        ports: vec![port("http", 8080)],
    };
    let endpoints = vec![endpoint("10.244.0.7", Some("web-0")), endpoint("10.244.0.8", None)];
    zone.set_slice("default", "web-x", Some(Slice { service: "web".into(), endpoints: endpoints.clone() }));
    zone.set_slice("default", "out-x", Some(Slice { service: "out".into(), endpoints }));
    let of = |name: &str| ask(&zone, name, Kind::A);
    assert_eq!(of("web-0.web.default.svc"), Some(vec!["10.244.0.7".to_owned()]));
    assert_eq!(of("10-244-0-8.web.default.svc"), Some(vec!["10.244.0.8".to_owned()]));
    assert_eq!(of("web-1.web.default.svc"), None);
    assert_eq!(of("web-0.out.default.svc"), None, "an external name has no endpoints");
    assert_eq!(of("web.default.svc"), Some(vec!["10.96.0.5".to_owned()]));
}

#[test]
fn an_endpoint_of_two_families_must_not_be_told_twice() {
    let mut zone = zone();
    let endpoint = |address: &str| Endpoint {
        address: address.parse().unwrap(),
        host: "db-7".into(),
        named: true,
        ports: vec![port("sql", 5432)],
    };
    for (name, address) in [("db-4", "10.244.0.9"), ("db-4b", "10.244.0.9"), ("db-6", "fd00::9")] {
        let endpoints = vec![endpoint(address)];
        zone.set_slice("default", name, Some(Slice { service: "db".into(), endpoints }));
    }
    let found = zone.lookup(&["_sql", "_tcp", "db", "default", "svc"], Kind::Srv).unwrap();
    let of = |wanted: &str| -> Vec<&RecordData> {
        let is =
            |data: &&RecordData| matches!(data, RecordData::Port { host, .. } if host.starts_with(wanted));
        found.iter().filter(is).collect()
    };
    let [RecordData::Port { addresses, .. }] = of("db-7.")[..] else { panic!("{found:?}") };
    assert!(addresses.contains(&"fd00::9".parse().unwrap()) && addresses.len() == 3);
    assert_eq!(found.len(), 3, "{found:?}");
    assert_eq!(ask(&zone, "db-7.db.default.svc", Kind::A), Some(vec!["10.244.0.9".to_owned()]));
}

#[test]
fn a_namespace_without_services_must_not_be_missing_nor_a_missing_one_hold_pods() {
    let mut zone = zone();
    let pod = "10-1-2-3.nowhere.pod";
    assert_eq!(
        ask(&zone, pod, Kind::A),
        Some(vec!["10.1.2.3".to_owned()]),
        "it may be one that is not known yet"
    );
    zone.set_namespace("bare", true);
    zone.know_namespaces();
    for (name, exists) in
        [("bare.svc", true), ("bare.pod", true), ("nowhere.svc", false), ("nowhere.pod", false)]
    {
        assert_eq!(ask(&zone, name, Kind::A), exists.then(Vec::new), "{name}");
    }
    assert_eq!(ask(&zone, pod, Kind::A), None);
    assert_eq!(ask(&zone, "10-1-2-3.bare.pod", Kind::A), Some(vec!["10.1.2.3".to_owned()]));
    assert_eq!(ask(&zone, "10-1-2-3.default.pod", Kind::Aaaa), Some(vec![]), "its services were seen first");
    zone.set_namespace("bare", false);
    assert_eq!(ask(&zone, "bare.svc", Kind::A), None);
}

#[test]
fn the_zone_must_not_be_without_a_name_server() {
    let mut zone = zone();
    let ip = |s: &str| s.parse::<IpAddr>().unwrap();
    let servers = |zone: &Zone| match &zone.lookup(&[], Kind::Ns).unwrap()[..] {
        [RecordData::Server { host, addresses }] => (host.clone(), addresses.clone()),
        other => panic!("{other:?}"),
    };
    zone.set_servers(&[ip("10.96.0.10"), ip("fd00::a")]);
    assert_eq!(servers(&zone), ("ns.dns".to_owned(), vec![ip("10.96.0.10"), ip("fd00::a")]));
    assert_eq!(ask(&zone, "ns.dns", Kind::Aaaa), Some(vec!["fd00::a".to_owned()]));
    let service = Service::Cluster(vec![ip("10.96.0.10")], vec![port("dns", 53)]);
    zone.set_service("kube-system", "kube-dns", Some(service));
    assert_eq!(servers(&zone), ("kube-dns.kube-system.svc".to_owned(), vec![ip("10.96.0.10")]));
    assert_eq!(zone.lookup(&["default", "svc"], Kind::Ns), Some(Vec::new()), "no zone of its own");
}

#[test]
fn a_slice_must_not_stay_with_a_service_it_left() {
    let mut zone = zone();
    zone.set_service("default", "other", Some(Service::Headless));
    let address: IpAddr = "10.244.0.7".parse().unwrap();
    let endpoint = Endpoint { address, host: dashed(address), named: false, ports: Vec::new() };
    zone.set_slice("default", "db-x", Some(Slice { service: "other".into(), endpoints: vec![endpoint] }));
    assert_eq!(ask(&zone, "db.default.svc", Kind::A), None);
    assert_eq!(ask(&zone, "other.default.svc", Kind::A), Some(vec!["10.244.0.7".to_owned()]));
    assert_eq!(zone.reverse(address), ["10-244-0-7.other.default.svc"]);
    zone.set_slice("default", "db-x", None);
    assert_eq!(ask(&zone, "other.default.svc", Kind::A), None);
    assert!(zone.reverse(address).is_empty());
}
