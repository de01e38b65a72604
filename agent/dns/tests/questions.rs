//! The sockets on loopback, with a resolver of the test's own upstream.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![allow(clippy::disallowed_methods, reason = "a test sees how what it spawns ends")]

use dns::record::{Endpoint, Port, Service, Slice};
use dns::serve::Answerer;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use supervise::Supervisor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Starts a server; gives its address (both transports) and itself.
async fn server(upstream: Vec<SocketAddr>) -> (SocketAddr, Arc<Answerer>) {
    let domain = Name::from_str("cluster.local.").unwrap();
    let answerer = Arc::new(Answerer::new(domain, upstream, &Supervisor::default()));
    answerer.change(|zone| {
        let port = |name: &str, number| Port { name: name.into(), protocol: "tcp".into(), number };
        let ip = "10.96.0.5".parse().unwrap();
        zone.set_service("default", "web", Some(Service::Cluster(vec![ip], vec![port("http", 80)])));
        zone.set_service("default", "out", Some(Service::External("example.org".into())));
        zone.set_service("default", "many", Some(Service::Headless));
        let endpoint = |n: u8| Endpoint {
            address: IpAddr::V4(Ipv4Addr::new(10, 244, 0, n)),
            host: format!("many-{n}"),
            named: true,
            ports: vec![port("http", 80)],
        };
        zone.set_slice(
            "default",
            "many-x",
            Some(Slice { service: "many".into(), endpoints: (1..=200).map(endpoint).collect() }),
        );
    });
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = socket.local_addr().unwrap();
    let listener = TcpListener::bind(at).await.unwrap();
    tokio::spawn(answerer.clone().datagrams(Arc::new(socket)));
    tokio::spawn(answerer.clone().listen(Arc::new(listener), CancellationToken::new()));
    (at, answerer)
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

async fn send(at: SocketAddr, bytes: &[u8]) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(bytes, at).await.unwrap();
    let mut buffer = vec![0; 65535];
    let length = timeout(Duration::from_secs(5), socket.recv(&mut buffer)).await.unwrap().unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

async fn ask(at: SocketAddr, name: &str, kind: RecordType) -> Message {
    let answer = send(at, &question(name, kind).to_vec().unwrap()).await;
    assert_eq!(answer.metadata.id, 4711);
    answer
}

fn addresses(message: &Message) -> Vec<String> {
    message.answers.iter().filter_map(|r| r.data.ip_addr()).map(|ip| ip.to_string()).collect()
}

#[tokio::test]
async fn names_of_the_cluster_are_answered_here() {
    let (at, answerer) = server(Vec::new()).await;
    let early = ask(at, "nope.default.svc.cluster.local.", RecordType::A).await;
    assert_eq!(early.metadata.response_code, ResponseCode::ServFail, "nothing is known for sure yet");
    answerer.know_everything();
    let found = ask(at, "WEB.default.svc.cluster.local.", RecordType::A).await;
    assert_eq!(addresses(&found), ["10.96.0.5"]);
    assert!(found.metadata.authoritative && found.metadata.recursion_available);
    let none = ask(at, "web.default.svc.cluster.local.", RecordType::AAAA).await;
    assert_eq!(
        (none.metadata.response_code, none.answers.len(), none.authorities.len()),
        (ResponseCode::NoError, 0, 1)
    );
    let missing = ask(at, "nope.default.svc.cluster.local.", RecordType::A).await;
    assert_eq!((missing.metadata.response_code, missing.authorities.len()), (ResponseCode::NXDomain, 1));
    let reverse = ask(at, "5.0.96.10.in-addr.arpa.", RecordType::PTR).await;
    assert_eq!(reverse.answers[0].data.to_string(), "web.default.svc.cluster.local.");
    let port = ask(at, "_http._tcp.web.default.svc.cluster.local.", RecordType::SRV).await;
    assert_eq!(port.answers[0].data.to_string(), "0 100 80 web.default.svc.cluster.local.");
    assert_eq!(port.additionals.len(), 1);
}

#[tokio::test]
async fn an_answer_too_long_for_a_datagram_is_whole_over_a_stream() {
    let (at, _) = server(Vec::new()).await;
    let name = "many.default.svc.cluster.local.";
    assert!(ask(at, name, RecordType::A).await.metadata.truncation);
    let mut stream = TcpStream::connect(at).await.unwrap();
    let bytes = question(name, RecordType::A).to_vec().unwrap();
    for _ in 0..2 {
        stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(Message::from_vec(&answer).unwrap().answers.len(), 200);
    }
}

#[tokio::test]
async fn an_answer_too_long_for_a_datagram_must_not_be_empty() {
    let (at, _) = server(Vec::new()).await;
    let name = "many.default.svc.cluster.local.";
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let cut = ask(at, name, RecordType::A).await;
        assert!(cut.metadata.truncation);
        assert!(addresses(&cut).len() >= 25, "as many as 512 bytes hold: {}", cut.answers.len());
        seen.extend(addresses(&cut));
    }
    assert_eq!(seen.len(), 200, "each is sent in its turn");
    let mut wide = question(name, RecordType::A);
    let mut edns = hickory_proto::op::Edns::new();
    edns.set_max_payload(4096);
    wide.set_edns(edns);
    let cut = send(at, &wide.to_vec().unwrap()).await;
    assert!(cut.metadata.truncation && cut.edns.is_some());
    assert!((70..80).contains(&cut.answers.len()), "what passes every link: {}", cut.answers.len());
    let ports = ask(at, "_http._tcp.many.default.svc.cluster.local.", RecordType::SRV).await;
    assert!(ports.metadata.truncation && !ports.answers.is_empty());
}

#[tokio::test]
async fn an_unknown_version_of_edns_must_not_be_answered_as_if_known() {
    let (at, _) = server(Vec::new()).await;
    for name in ["web.default.svc.cluster.local.", "example.com."] {
        let mut asked = question(name, RecordType::A);
        let mut edns = hickory_proto::op::Edns::new();
        edns.set_version(1);
        asked.set_edns(edns);
        let answer = send(at, &asked.to_vec().unwrap()).await;
        // the decoder knows this number by its other name, BADSIG
        assert_eq!((u16::from(answer.metadata.response_code), answer.answers.len()), (16, 0));
        assert_eq!(answer.edns.map(|edns| edns.version()), Some(0));
    }
}

#[tokio::test]
async fn an_alias_must_not_be_lost_for_want_of_a_resolver() {
    let (at, _) = server(Vec::new()).await;
    let alias = ask(at, "out.default.svc.cluster.local.", RecordType::A).await;
    assert_eq!((alias.metadata.response_code, alias.answers.len()), (ResponseCode::NoError, 1));
    assert_eq!(alias.answers[0].data.to_string(), "example.org.");
}

#[tokio::test]
async fn the_zone_names_its_server() {
    let (at, answerer) = server(Vec::new()).await;
    answerer.change(|zone| zone.set_servers(&["10.96.0.10".parse().unwrap()]));
    let servers = ask(at, "cluster.local.", RecordType::NS).await;
    assert_eq!(servers.answers[0].data.to_string(), "ns.dns.cluster.local.");
    assert_eq!(servers.additionals[0].data.to_string(), "10.96.0.10");
    assert_eq!(addresses(&ask(at, "ns.dns.cluster.local.", RecordType::A).await), ["10.96.0.10"]);
}

#[tokio::test]
async fn other_names_are_asked_upstream_and_aliases_followed() {
    let resolver = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let upstream = resolver.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        loop {
            let (length, from) = resolver.recv_from(&mut buffer).await.unwrap();
            let request = Message::from_vec(&buffer[..length]).unwrap();
            let mut response = Message::response(request.metadata.id, OpCode::Query);
            response.add_queries(request.queries.clone());
            let name = request.queries[0].name().clone();
            response.add_answer(Record::from_rdata(name, 9, RData::A(A::new(192, 0, 2, 1))));
            resolver.send_to(&response.to_vec().unwrap(), from).await.unwrap();
        }
    });
    let (at, _) = server(vec![upstream]).await;
    assert_eq!(addresses(&ask(at, "example.com.", RecordType::A).await), ["192.0.2.1"]);
    let alias = ask(at, "out.default.svc.cluster.local.", RecordType::A).await;
    assert_eq!(alias.answers[0].data.to_string(), "example.org.");
    assert_eq!(addresses(&alias), ["192.0.2.1"]);
}

#[tokio::test]
async fn one_question_of_many_clients_must_not_be_asked_each_time() {
    let resolver = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let upstream = resolver.local_addr().unwrap();
    let asked = Arc::new(std::sync::atomic::AtomicU8::new(0));
    let count = asked.clone();
    tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        loop {
            let (length, from) = resolver.recv_from(&mut buffer).await.unwrap();
            let turn = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let request = Message::from_vec(&buffer[..length]).unwrap();
            let mut response = Message::response(request.metadata.id, OpCode::Query);
            response.add_queries(request.queries.clone());
            let name = request.queries[0].name().clone();
            // the first answer may be kept, those of other names may not
            let time = if name.to_ascii().starts_with("kept") { 20 } else { 0 };
            response.add_answer(Record::from_rdata(name, time, RData::A(A::new(192, 0, 2, turn))));
            resolver.send_to(&response.to_vec().unwrap(), from).await.unwrap();
        }
    });
    let (at, _) = server(vec![upstream]).await;
    for spelling in ["kept.example.", "KEPT.example.", "kept.Example."] {
        let answer = ask(at, spelling, RecordType::A).await;
        assert_eq!(addresses(&answer), ["192.0.2.0"], "{spelling}");
        assert_eq!(answer.queries[0].name().to_ascii(), spelling);
    }
    for turn in 1..3 {
        assert_eq!(
            addresses(&ask(at, "fleeting.example.", RecordType::A).await),
            [format!("192.0.2.{turn}")]
        );
    }
    assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 3);
}

#[tokio::test]
async fn bad_input_costs_an_error_and_nothing_else() {
    let (at, answerer) = server(Vec::new()).await;
    answerer.know_everything();
    let unreachable = ask(at, "example.com.", RecordType::A).await;
    assert_eq!(unreachable.metadata.response_code, ResponseCode::ServFail);
    let garbage = send(at, &[1, 2, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 255, 255]).await;
    assert_eq!((garbage.metadata.id, garbage.metadata.response_code), (0x0102, ResponseCode::FormErr));
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(b"x", at).await.unwrap();
    assert_eq!(addresses(&ask(at, "web.default.svc.cluster.local.", RecordType::A).await), ["10.96.0.5"]);
}
