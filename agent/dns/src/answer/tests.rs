use super::*;
use crate::record::Service;

fn name(text: &str) -> Name {
    absolute(text).unwrap()
}

/// Services of the namespace `n`: `name target`, a cluster IP or an external name.
fn zone(services: &[(&str, &str)]) -> Zone {
    let mut zone = Zone::default();
    for (name, target) in services {
        let service = match target.parse::<IpAddr>() {
            Ok(ip) => Service::Cluster(vec![ip], Vec::new()),
            Err(_) => Service::External((*target).to_owned()),
        };
        zone.set_service("n", name, Some(service));
    }
    zone
}

fn decided(zone: &Zone, asked: &str, kind: RecordType) -> Decision {
    let mut message = Message::new(1, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(name(asked), kind));
    decide(&message, zone, &name("cluster.local"))
}

/// The answers' data in their order; what is to be asked elsewhere last, after an arrow.
fn told(zone: &Zone, asked: &str, kind: RecordType) -> Vec<String> {
    let data = |message: &Message| message.answers.iter().map(|r| r.data.to_string()).collect::<Vec<_>>();
    match decided(zone, asked, kind) {
        Decision::Respond(message) => {
            assert_eq!(message.metadata.response_code, ResponseCode::NoError);
            assert_eq!(message.answers.is_empty(), message.authorities.len() == 1, "a no says how long");
            data(&message)
        }
        Decision::Chase(message, next) => {
            let mut all = data(&message);
            all.push(format!("-> {}", next.name()));
            all
        }
        Decision::Forward => vec!["-> elsewhere".to_owned()],
    }
}

#[test]
fn an_alias_of_an_alias_must_not_end_at_the_first() {
    let inside = |one: &str| format!("{one}.n.svc.cluster.local");
    let targets: Vec<(String, String)> = [("a", "b"), ("b", "c"), ("x", "nope"), ("p", "q"), ("q", "P")]
        .iter()
        .map(|(from, to)| ((*from).to_owned(), inside(to)))
        .chain([("c".to_owned(), "10.96.0.5".to_owned()), ("out".to_owned(), "example.org".to_owned())])
        .chain([("far".to_owned(), inside("out"))])
        .collect();
    let services: Vec<(&str, &str)> = targets.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    let zone = zone(&services);
    let of = |one: &str| told(&zone, &inside(one), RecordType::A);
    assert_eq!(of("a"), ["b.n.svc.cluster.local.", "c.n.svc.cluster.local.", "10.96.0.5"]);
    assert_eq!(of("far"), ["out.n.svc.cluster.local.", "example.org.", "-> example.org."]);
    assert_eq!(of("x"), [""; 0], "an alias of nothing");
    assert_eq!(of("p"), [""; 0], "a circle");
    assert_eq!(told(&zone, &inside("a"), RecordType::AAAA), [""; 0], "no address of that family");
    assert_eq!(told(&zone, &inside("a"), RecordType::CNAME), ["b.n.svc.cluster.local."]);
}

#[test]
fn more_aliases_than_anybody_means_must_not_be_followed() {
    let names: Vec<String> = (0..12).map(|n| format!("s{n}")).collect();
    let targets: Vec<String> = (1..13).map(|n| format!("s{n}.n.svc.cluster.local")).collect();
    let services: Vec<(&str, &str)> =
        names.iter().map(String::as_str).zip(targets.iter().map(String::as_str)).collect();
    let mut zone = zone(&services);
    zone.set_service("n", "s12", Some(Service::Cluster(vec!["10.96.0.5".parse().unwrap()], Vec::new())));
    assert_eq!(
        told(&zone, "s4.n.svc.cluster.local", RecordType::A).len(),
        9,
        "eight aliases and the address"
    );
    assert_eq!(told(&zone, "s3.n.svc.cluster.local", RecordType::A), [""; 0]);
}

#[test]
fn a_reverse_question_below_the_domain_must_not_leave_the_cluster() {
    let zone = zone(&[("web", "10.96.0.5")]);
    assert_eq!(told(&zone, "web.n.svc.cluster.local", RecordType::PTR), [""; 0]);
    let Decision::Respond(no) = decided(&zone, "_http._tcp.web.n.svc.cluster.local", RecordType::PTR) else {
        panic!("asked elsewhere")
    };
    assert_eq!((no.metadata.response_code, no.authorities.len()), (ResponseCode::NXDomain, 1));
    assert_eq!(told(&zone, "5.0.96.10.in-addr.arpa", RecordType::PTR), ["web.n.svc.cluster.local."]);
    assert_eq!(told(&zone, "9.9.96.10.in-addr.arpa", RecordType::PTR), ["-> elsewhere"]);
}
