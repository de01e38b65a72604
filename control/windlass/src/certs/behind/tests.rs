use super::*;
use pki::rotation::rotate;
use pki::{ClusterNames, Leaf, Pki, expiry};
use serde_json::json;

/// A server's files at a step, and the certificates that were made before it.
fn files_at(step: Step) -> (tempfile::TempDir, Pki) {
    let dir = tempfile::tempdir().unwrap();
    let now = Timestamp::now();
    let first = Pki::load_or_create(dir.path(), &ClusterNames::default(), now).unwrap();
    let before = [Step::Prepare, Step::Switch, Step::Finish];
    for done in before.into_iter().take_while(|done| *done != step) {
        rotate(dir.path(), "ca", "kubernetes", done, now).unwrap();
    }
    (dir, first)
}

fn rotation(dir: &Path, step: Step) -> Rotation<'_> {
    Rotation { name: "ca", step, dir, data_dir: dir }
}

#[test]
fn a_certificate_of_the_old_authority_must_not_be_left_behind() {
    let (dir, first) = files_at(Step::Finish);
    let now = Timestamp::now();
    let paths: Vec<_> = pki::LEAVES.iter().map(|(name, ..)| dir.path().join(format!("{name}.crt"))).collect();
    let held = expiry::inspect(dir.path(), &paths, now).unwrap().certificates;
    let left = of_the_old("ca", &held);
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left[0].starts_with("apiserver: it is of the old authority"), "{left:?}");
    assert!(of_the_old("front-proxy-ca", &held).is_empty());
    let second = Pki::load_or_create(dir.path(), &ClusterNames::default(), now).unwrap();
    let held = expiry::inspect(dir.path(), &paths, now).unwrap().certificates;
    assert!(of_the_old("ca", &held).is_empty());

    let judged = |pem: &str| {
        let authorities = rotation(dir.path(), Step::Finish).authorities(Timestamp::now()).unwrap();
        authorities.judge(Ok(Certificate::from_pem(pem).unwrap()))
    };
    assert_eq!(judged(&second.apiserver.cert_pem), None);
    assert_eq!(judged(&first.apiserver.cert_pem).unwrap(), "its certificate is of the old authority");
    let stranger =
        pki::Authority::generate("other", now).unwrap().issue(&Leaf::client("u", &[]), now).unwrap();
    assert_eq!(judged(&stranger.cert_pem).unwrap(), "its certificate is of neither authority");
}

#[tokio::test]
async fn a_step_must_not_be_done_while_nobody_can_say_who_follows() {
    let now = Timestamp::now();
    for step in [Step::Switch, Step::Finish] {
        let (dir, _) = files_at(step);
        let said = rotation(dir.path(), step).found(&[], now).await.unwrap().in_the_way;
        assert!(
            said.iter().any(|line| line.starts_with("nodes and servers: the cluster cannot be asked")),
            "{said:?}"
        );
        let early = said.iter().any(|line| line.starts_with("agents: they learn"));
        assert_eq!(early, step == Step::Switch, "{said:?}");
    }
    let (dir, _) = files_at(Step::Switch);
    let learnt = i64::try_from(node::AUTHORITIES_LEARNT.as_secs()).unwrap();
    let later = Timestamp::now() + jiff::SignedDuration::from_secs(1 + learnt);
    assert_eq!(rotation(dir.path(), Step::Switch).too_early(later).unwrap(), None);
    let (dir, _) = files_at(Step::Prepare);
    assert!(rotation(dir.path(), Step::Prepare).found(&[], now).await.unwrap().in_the_way.is_empty());
}

/// Serves TLS with a certificate until the test's runtime ends.
#[allow(clippy::disallowed_methods, reason = "a test")]
async fn serving(issued: &pki::authority::Issued) -> u16 {
    let chain = pki::pem::certificates(issued.cert_pem.as_bytes()).unwrap();
    let key = pki::pem::private_key(issued.key_pem.as_bytes()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            acceptor.accept(stream).await.ok();
        }
    });
    port
}

#[tokio::test]
async fn a_node_or_server_that_has_not_followed_is_named() {
    let (dir, first) = files_at(Step::Finish);
    let second = Pki::load_or_create(dir.path(), &ClusterNames::default(), Timestamp::now()).unwrap();
    let (old, new) = (serving(&first.apiserver).await, serving(&second.apiserver).await);
    let node = |name: &str, port: u16, ready: &str| -> Node {
        serde_json::from_value(json!({"metadata": {"name": name}, "status": {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "conditions": [{"type": "Ready", "status": ready}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        }}))
        .unwrap()
    };
    let nodes = [node("behind", old, "True"), node("follows", new, "True"), node("away", 1, "Unknown")];
    let authorities = rotation(dir.path(), Step::Finish).authorities(Timestamp::now()).unwrap();
    let said = async |step| {
        let mut found = Found::default();
        rotation(dir.path(), step).nodes(&nodes, &authorities, &mut found).await;
        found.in_the_way
    };
    let behind = said(Step::Finish).await;
    assert_eq!(behind.len(), 2, "{behind:?}");
    assert_eq!(behind[0], "node behind: its certificate is of the old authority");
    assert!(behind[1].starts_with("node away: it does not show its certificate"), "{behind:?}");
    assert_eq!(said(Step::Switch).await, ["node away: it is not ready, and may not know the new authority"]);
    // This server is no other one.
    let places = [place("127.0.0.1", new.into()), place("127.0.0.1", old.into())];
    let mut found = Found::default();
    rotation(dir.path(), Step::Finish).servers(&places, &authorities, &mut found).await.unwrap();
    assert!(found.unseen.is_empty(), "{found:?}");
    assert_eq!(
        found.in_the_way,
        [format!("server 127.0.0.1:{old}: its certificate is of the old authority")]
    );
}

#[tokio::test]
async fn another_server_must_not_be_in_the_way_of_a_switch_for_what_nobody_can_see() {
    let (dir, first) = files_at(Step::Finish);
    let authorities = rotation(dir.path(), Step::Switch).authorities(Timestamp::now()).unwrap();
    let places = [place("127.0.0.1", serving(&first.apiserver).await.into())];
    // This server has another certificate by now, so that one is another server's.
    Pki::load_or_create(dir.path(), &ClusterNames::default(), Timestamp::now()).unwrap();
    for (name, step) in
        [("ca", Step::Switch), ("front-proxy-ca", Step::Switch), ("front-proxy-ca", Step::Finish)]
    {
        let mut found = Found::default();
        let asked = Rotation { name, ..rotation(dir.path(), step) };
        asked.servers(&places, &authorities, &mut found).await.unwrap();
        assert!(found.in_the_way.is_empty(), "{found:?}");
        assert_eq!(found.unseen.len(), 1, "{found:?}");
        assert!(found.unseen[0].contains(name), "{found:?}");
    }
}

/// Serves TLS as [`serving`] does, and answers each request by whether the client shows a certificate of `believed`.
#[allow(clippy::disallowed_methods, reason = "a test")]
async fn answering(issued: &pki::authority::Issued, believed: Certificate) -> u16 {
    use pki::tls::AnyPeer;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let chain = pki::pem::certificates(issued.cert_pem.as_bytes()).unwrap();
    let key = pki::pem::private_key(issued.key_pem.as_bytes()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(std::sync::Arc::new(AnyPeer::default()))
        .with_single_cert(chain, key)
        .unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let leaf =
                stream.get_ref().1.peer_certificates().map(|all| Certificate::from_der(&all[0]).unwrap());
            let known = leaf.filter(|leaf| leaf.is_signed_by(&believed));
            let (line, body) = match &known {
                Some(leaf) => ("403 Forbidden", format!("Forbidden (user={}, verb=get)", leaf.common_name)),
                None => ("401 Unauthorized", "Unauthorized".to_owned()),
            };
            let mut request = [0; 2048];
            let _ = stream.read(&mut request).await;
            let text = format!(
                "HTTP/1.1 {line}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(text.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    port
}

#[tokio::test]
async fn whoever_does_not_believe_the_prepared_authority_must_not_be_left_behind_by_the_switch() {
    let (dir, first) = files_at(Step::Switch);
    let prepared = rotation::prepared(dir.path(), "ca").unwrap().unwrap();
    let stranger = first.ca.issue(&Leaf::server("other", vec![], vec![]), Timestamp::now()).unwrap();
    let follows = answering(&stranger, prepared.certificate().clone()).await;
    let behind = answering(&stranger, first.ca.certificate().clone()).await;
    let node = |name: &str, port: u16| -> Node {
        serde_json::from_value(json!({"metadata": {"name": name}, "status": {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "conditions": [{"type": "Ready", "status": "True"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        }}))
        .unwrap()
    };
    let asked = rotation(dir.path(), Step::Switch);
    let authorities = asked.authorities(Timestamp::now()).unwrap();
    let mut found = Found::default();
    asked.nodes(&[node("follows", follows), node("behind", behind)], &authorities, &mut found).await;
    assert_eq!(found.in_the_way, ["node behind: it does not believe the prepared authority yet"]);
    let mut found = Found::default();
    let places = [follows, behind].map(|port| place("127.0.0.1", port.into()));
    asked.servers(&places, &authorities, &mut found).await.unwrap();
    assert_eq!((found.in_the_way.len(), found.unseen.len()), (1, 0), "{found:?}");
    assert!(
        found.in_the_way[0].starts_with(&format!("server 127.0.0.1:{behind}: it does not believe")),
        "{found:?}"
    );
    assert!(found.in_the_way[0].contains("ca-next.key"), "{found:?}");
}
