use super::*;
use jiff::Timestamp;
use pki::tls::AnyPeer;
use pki::{Authority, Leaf};
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, ClientConfig, NamedGroup, SupportedProtocolVersion};
use rustls_pki_types::ServerName;
use std::net::Ipv4Addr;
use tokio_rustls::TlsConnector;

struct Issuer(Authority);

impl Issuer {
    fn new() -> Self {
        Self(Authority::generate("kubernetes", Timestamp::now()).unwrap())
    }

    /// A pair for `host`, shown to those who ask for one of `names`.
    fn pair(&self, host: &str, names: &[&str]) -> NamedPair {
        let leaf = Leaf::server(host, vec![host.to_owned()], vec![Ipv4Addr::LOCALHOST.into()]);
        let issued = self.0.issue(&leaf, Timestamp::now()).unwrap();
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        NamedPair { certificates: issued.cert_pem, key: issued.key_pem, names }
    }
}

fn first(pair: &NamedPair) -> Vec<u8> {
    pki::pem::certificates(pair.certificates.as_bytes()).unwrap()[0].to_vec()
}

/// What a client that asks for `name` and agrees on `versions` and `groups` is shown, and in which protocol.
async fn shake(
    end: &End,
    name: &str,
    versions: &[&'static SupportedProtocolVersion],
    groups: Option<NamedGroup>,
) -> Result<(Vec<u8>, Option<CipherSuite>, Option<Vec<u8>>), std::io::Error> {
    let (here, there) = tokio::io::duplex(1 << 16);
    let mut provider = ring::default_provider();
    if let Some(group) = groups {
        provider.kx_groups.retain(|known| known.name() == group);
    }
    let mut client = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyPeer::default()))
        .with_no_client_auth();
    client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let acceptor = end.acceptor(Some(Ipv4Addr::LOCALHOST.into()));
    let (client, server) =
        tokio::join!(TlsConnector::from(Arc::new(client)).connect(name, here), acceptor.accept(there));
    let (client, _server) = (client?, server?);
    let state = client.get_ref().1;
    let shown = state.peer_certificates().unwrap()[0].to_vec();
    let protocol = state.alpn_protocol().map(<[u8]>::to_vec);
    Ok((shown, state.negotiated_cipher_suite().map(|suite| suite.suite()), protocol))
}

const ANY: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

#[tokio::test]
async fn a_client_is_shown_the_certificate_of_the_name_it_asks_for() {
    let issuer = Issuer::new();
    let (default, own) = (issuer.pair("default.test", &[]), issuer.pair("own.test", &[]));
    let wild = issuer.pair("w.test", &["*.wild.test", "own.test", "127.0.0.1"]);
    let later = issuer.pair("l.test", &["a.wild.test", "*.wild.test"]);
    let served = ServingCertificate::from_pem(&default.certificates, &default.key).unwrap();
    served.replace_named(&[own.clone(), wild.clone(), later.clone()]).unwrap();
    let end = End::new(served.clone(), &Agreed::default()).unwrap();
    for (name, shown, why) in [
        ("b.wild.test", &wild, "the first that has a pattern has it"),
        ("A.wild.test", &later, "a whole name goes before a pattern"),
        ("own.test", &wild, "a name that was given goes before that of a certificate"),
        ("x.b.wild.test", &default, "a pattern is one label"),
        ("other.test", &default, "nobody has it"),
        ("127.0.0.1", &wild, "an address is not asked for by name, but was called"),
    ] {
        assert_eq!(shake(&end, name, ANY, None).await.unwrap().0, first(shown), "{why}");
    }
    let renewed = issuer.pair("renewed.test", &[]);
    served.replace(&renewed.certificates, &renewed.key).unwrap();
    assert_eq!(shake(&end, "other.test", ANY, None).await.unwrap().0, first(&renewed));
    assert_eq!(shake(&end, "b.wild.test", ANY, None).await.unwrap().0, first(&wild), "names stay");
    served.replace_named(std::slice::from_ref(&own)).unwrap();
    assert_eq!(shake(&end, "own.test", ANY, None).await.unwrap().0, first(&own));
}

#[tokio::test]
async fn a_handshake_must_not_agree_on_what_was_ruled_out() {
    let issuer = Issuer::new();
    let pair = issuer.pair("a.test", &[]);
    let served = ServingCertificate::from_pem(&pair.certificates, &pair.key).unwrap();
    let end = |agreed: Agreed| End::new(served.clone(), &agreed).unwrap();
    let all = end(Agreed::default());
    assert_eq!(shake(&all, "a.test", ANY, None).await.unwrap().2.unwrap(), b"h2");
    let old = shake(&all, "a.test", &[&TLS12], None).await.unwrap().1.unwrap();

    let new = end(Agreed { only_tls13: true, ..Agreed::default() });
    assert!(shake(&new, "a.test", &[&TLS12], None).await.is_err());
    assert!(shake(&new, "a.test", &[&TLS13], None).await.is_ok());

    let others: Vec<CipherSuite> = Agreed::known_suites().into_iter().filter(|suite| *suite != old).collect();
    let narrowed = end(Agreed { suites: Some(others.clone()), ..Agreed::default() });
    let agreed = shake(&narrowed, "a.test", &[&TLS12], None).await.unwrap().1.unwrap();
    assert!(others.contains(&agreed));
    let none = end(Agreed { suites: Some(Vec::new()), ..Agreed::default() });
    assert!(shake(&none, "a.test", &[&TLS12], None).await.is_err());
    assert!(shake(&none, "a.test", &[&TLS13], None).await.is_ok(), "TLS 1.3 has suites of its own");

    let groups = end(Agreed { groups: Some(vec![NamedGroup::secp384r1]), ..Agreed::default() });
    assert!(shake(&groups, "a.test", ANY, Some(NamedGroup::X25519)).await.is_err());
    assert!(shake(&groups, "a.test", ANY, Some(NamedGroup::secp384r1)).await.is_ok());

    let plain = end(Agreed { no_http2: true, ..Agreed::default() });
    assert_eq!(shake(&plain, "a.test", ANY, None).await.unwrap().2.unwrap(), b"http/1.1");
}
