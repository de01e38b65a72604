use super::*;
use jiff::Timestamp;
use pki::{Authority, Leaf};
use rustls::ServerConfig;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// A server that answers every request with a refusal, by TLS.
async fn living() -> String {
    answering(|_| 401).await.0
}

/// A server that answers the request with this number, from 0 on, with that status; and how many there were.
async fn answering(status: fn(usize) -> u16) -> (String, Arc<AtomicUsize>) {
    of(&Authority::generate("ca", Timestamp::now()).unwrap(), NAME, status).await
}

/// The same, with a certificate of that authority for this name.
async fn of(authority: &Authority, name: &str, status: fn(usize) -> u16) -> (String, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let (listener, address) = listener().await;
    let leaf = Leaf::server("api", vec![name.into()], Vec::new());
    let issued = authority.issue(&leaf, Timestamp::now()).unwrap();
    let chain = pki::pem::certificates(issued.cert_pem.as_bytes()).unwrap();
    let key = pki::pem::private_key(issued.key_pem.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, counted) = (acceptor.clone(), counted.clone());
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await.ok()?;
                let mut request = vec![0; 4096];
                while stream.read(&mut request).await.ok()? > 0 {
                    let code = status(counted.fetch_add(1, Ordering::SeqCst));
                    let answer = format!("HTTP/1.1 {code} Said\r\nContent-Length: 2\r\n\r\nno");
                    stream.write_all(answer.as_bytes()).await.ok()?;
                }
                Some(())
            });
        }
    });
    (address, asked)
}

/// In front of `first`, with `others` known; and what ends it.
async fn balancer(dir: &Path, first: &str, others: &[String]) -> (Balancer, tokio_util::sync::DropGuard) {
    list::File::new(dir).write(others).unwrap();
    let balancer = Balancer::bind(dir, &format!("https://{first}").parse().unwrap()).await.unwrap();
    let (supervisor, stop) = (Supervisor::default(), CancellationToken::new());
    let scope = supervise::Scope::new(&supervisor, "", &stop);
    scope.keep(balancer.connections(&supervisor));
    tokio::spawn(async move { scope.ended().await });
    (balancer, stop.drop_guard())
}

/// Whether the server behind the balancer answers by TLS.
async fn reaches_a_living_one(balancer: &Balancer) -> bool {
    probe::Probe::default().ask(&balancer.address.to_string()).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_must_not_hold_its_clients_for_five_seconds() {
    let dir = tempfile::tempdir().unwrap();
    // Frozen: the kernel takes connections for it, and nobody reads them.
    let ((_frozen, first), second) = (listener().await, living().await);
    let (balancer, _stop) = balancer(dir.path(), &first, &[first.clone(), second]).await;
    let mut held = TcpStream::connect(balancer.address).await.unwrap();
    held.write_all(b"a request").await.unwrap();
    let began = Instant::now();
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(20), held.read_to_end(&mut answer)).await;
    assert!(ended.is_ok() && answer.is_empty(), "the connection is ended");
    // A machine that is busy with other tests is given as much again.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(reaches_a_living_one(&balancer).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_connection_must_not_wait_for_a_server_that_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (gone, second) = (listener().await.1, living().await);
    let (balancer, _stop) = balancer(dir.path(), &gone, &[gone.clone(), second]).await;
    assert!(reaches_a_living_one(&balancer).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_server_must_not_be_given_up_for_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let ((server, address), gone) = (listener().await, listener().await.1);
    let (balancer, _stop) = balancer(dir.path(), &address, &[address.clone(), gone]).await;
    let mut held = TcpStream::connect(balancer.address).await.unwrap();
    let (mut other, _) = server.accept().await.unwrap();
    tokio::time::sleep(LOOK + 2 * PATIENCE).await;
    other.write_all(b"late").await.unwrap();
    let mut answer = [0; 4];
    held.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"late");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_says_it_is_not_ready_must_not_be_kept() {
    let dir = tempfile::tempdir().unwrap();
    let ((first, _), second) = (answering(|_| 500).await, living().await);
    let (balancer, _stop) = balancer(dir.path(), &first, &[first.clone(), second.clone()]).await;
    let mut held = TcpStream::connect(balancer.address).await.unwrap();
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(20), held.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "the connection is ended");
    assert_eq!(balancer.choice.lock().servers()[0], second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_of_the_cluster_must_not_be_kept() {
    let [ours, stranger] = ["ca", "ca"].map(|name| Authority::generate(name, Timestamp::now()).unwrap());
    for (authority, name) in [(&stranger, NAME), (&ours, "another.name")] {
        let dir = tempfile::tempdir().unwrap();
        let ca = Files::new(dir.path()).client_ca();
        std::fs::create_dir_all(ca.parent().unwrap()).unwrap();
        std::fs::write(ca, ours.cert_pem()).unwrap();
        let (first, second) = (of(authority, name, |_| 200).await.0, of(&ours, NAME, |_| 200).await.0);
        let (balancer, _stop) = balancer(dir.path(), &first, &[first.clone(), second.clone()]).await;
        let mut held = TcpStream::connect(balancer.address).await.unwrap();
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(20), held.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "the connection is ended");
        assert_eq!(balancer.choice.lock().servers()[0], second);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_answer_must_not_move_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let ((first, asked), second) = (answering(|n| if n % 2 == 0 { 500 } else { 200 }).await, living().await);
    let (balancer, _stop) = balancer(dir.path(), &first, &[first.clone(), second]).await;
    let end = Instant::now() + Duration::from_secs(30);
    while asked.load(Ordering::SeqCst) < 6 {
        assert!(Instant::now() < end, "nobody asks");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(balancer.choice.lock().servers()[0], first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_servers_without_their_store_must_not_be_left_in_turn() {
    let dir = tempfile::tempdir().unwrap();
    let ((first, asked), (second, _)) = (answering(|_| 500).await, answering(|_| 500).await);
    let (balancer, _stop) = balancer(dir.path(), &first, &[first.clone(), second]).await;
    // To move away and back would end it.
    let mut held = TcpStream::connect(balancer.address).await.unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    while asked.load(Ordering::SeqCst) < 4 {
        assert!(Instant::now() < end, "nobody asks");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(balancer.choice.lock().servers()[0], first);
    let mut answer = [0];
    let ended = tokio::time::timeout(Duration::from_millis(100), held.read(&mut answer)).await;
    assert!(ended.is_err(), "the connection was ended: {ended:?}");
}

#[test]
fn an_error_of_this_machine_must_not_move_everybody() {
    for (kind, refuses) in [
        (io::ErrorKind::ConnectionRefused, true),
        (io::ErrorKind::ConnectionReset, true),
        (io::ErrorKind::AddrNotAvailable, false),
        (io::ErrorKind::HostUnreachable, false),
        (io::ErrorKind::Other, false),
    ] {
        assert_eq!(is_refusal(&kind.into()), refuses, "{kind:?}");
    }
}
