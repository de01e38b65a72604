//! What a server's settings change of its answers and connections.

use super::*;
use crate::headers::Headers;
use crate::shutdown::Shutdown;
use crate::tls::Agreed;

type Http2 = http2::SendRequest<Empty<bytes::Bytes>>;

impl World {
    /// A connection of HTTP/2, and how it ends.
    async fn http2(&self) -> (Http2, JoinHandle<Result<(), hyper::Error>>) {
        let stream = self.tls(ROOT, "h2").await;
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        (sender, tokio::spawn(connection))
    }

    fn get2(&self, path: &str) -> Sent {
        let uri = format!("https://127.0.0.1:{}{path}", self.port);
        http::Request::builder().uri(uri).body(Empty::new()).unwrap()
    }
}

#[tokio::test]
async fn pages_that_are_allowed_may_ask_before_they_prove_who_asks() {
    let world = world_with(|config| {
        let mut headers = Headers::default();
        headers.allow_origins(&["//good\\.test$".to_owned()]).unwrap();
        headers.keep_to_tls(&["max-age=1".to_owned()]).unwrap();
        config.headers = headers;
        config.authentication.anonymous = false;
    })
    .await;
    let ask = |method: &str, origin: &str| {
        world.request(method, "/api/v1/pods").header("origin", origin).body(Empty::new()).unwrap()
    };
    let preflight = world.send(None, ask("OPTIONS", "https://good.test")).await;
    assert_eq!(preflight.status(), 204);
    assert_eq!(preflight.headers()["access-control-allow-origin"], "https://good.test");
    let other = world.send(None, ask("OPTIONS", "https://evil.test")).await;
    assert_eq!((other.status().as_u16(), other.headers().get("access-control-allow-origin")), (401, None));
    let refused = world.send(None, ask("GET", "https://good.test")).await;
    assert_eq!(refused.status(), 401, "being allowed proves nothing");
    assert_eq!(refused.headers()["access-control-allow-origin"], "https://good.test");
    assert_eq!(refused.headers()["strict-transport-security"], "max-age=1");
    world.stop().await;
}

#[tokio::test]
async fn a_connection_ends_after_the_request_that_is_chosen() {
    let world = world_with(|config| config.limits.goaway = 1.0).await;
    let (mut sender, ended) = world.http2().await;
    let response = sender.send_request(world.get2("/api/v1/pods")).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(value(response).await["verb"], "list", "the request itself is answered");
    let ended = tokio::time::timeout(Duration::from_secs(5), ended).await;
    assert!(ended.is_ok(), "the connection is still there");
    world.stop().await;
}

#[tokio::test]
async fn a_connection_must_not_end_where_nothing_says_so() {
    let world = world().await;
    let (mut sender, ended) = world.http2().await;
    for _ in 0..3 {
        let response = sender.send_request(world.get2("/api/v1/pods")).await.unwrap();
        assert_eq!(value(response).await["verb"], "list");
    }
    assert!(!ended.is_finished());
    world.stop().await;
}

#[tokio::test]
async fn http2_is_spoken_with_nobody_where_it_is_off() {
    let world = world_with(|config| {
        config.limits.http2 = false;
        config.agreed = Agreed { no_http2: true, ..Agreed::default() };
    })
    .await;
    assert_eq!(world.send(ROOT, world.get("/api/v1/pods")).await.status(), 200);
    let mut roots = rustls::RootCertStore::empty();
    for der in pki::pem::certificates(world.authority.cert_pem().as_bytes()).unwrap() {
        roots.add(der).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream = tokio::net::TcpStream::connect((LOCALHOST, world.port)).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"http/1.1".as_slice()));
    drop(stream);
    world.stop().await;
}

#[tokio::test]
async fn a_server_that_goes_sends_new_requests_elsewhere_and_answers_the_old() {
    let world = world_with(|config| {
        config.shutdown =
            Shutdown { delay: Duration::from_millis(100), refuses: true, ..Shutdown::default() };
        config.request_timeout = Duration::from_secs(2);
    })
    .await;
    let (mut sender, ended) = world.http2().await;
    let mut second = sender.clone();
    let stuck = tokio::spawn({
        let request = world.get2("/api/v1/namespaces/a/pods/never");
        async move { second.send_request(request).await.unwrap().status().as_u16() }
    });
    // The stuck one is under way once another has been answered after it on the same connection.
    sender.send_request(world.get2("/api/v1/pods")).await.unwrap();
    let end = tokio::spawn({
        let server = world.server.clone();
        async move { server.end().await }
    });
    let refused = async {
        loop {
            let response = world.send(ROOT, world.get("/api/v1/pods")).await;
            if response.status() == 429 {
                return response;
            }
            assert_eq!(response.status(), 200);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let refused = tokio::time::timeout(Duration::from_secs(1), refused).await.expect("refuses in time");
    assert_eq!(
        (&refused.headers()["retry-after"], &refused.headers()["connection"]),
        (&"5".parse().unwrap(), &"close".parse().unwrap())
    );
    assert_eq!(text(refused).await, "The apiserver is shutting down, please try again later.\n");
    let ready = world.send(ROOT, world.get("/readyz")).await;
    assert_eq!(ready.status(), 500, "probes are answered to the end");
    assert_eq!(stuck.await.unwrap(), 504, "what was under way has its time");
    tokio::time::timeout(Duration::from_secs(5), end).await.expect("ends").unwrap();
    assert!(world.stopping.is_cancelled());
    drop(sender);
    let _ = tokio::time::timeout(Duration::from_secs(5), ended).await.expect("connections end");
    world.stop().await;
}
