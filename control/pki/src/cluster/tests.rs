use super::*;
use crate::request::{CertificateRequest, Subject, new_key};
use crate::signer::{Rejection, Signer};
use jiff::SignedDuration;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

const DAY: SignedDuration = SignedDuration::from_hours(24);

fn start() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

fn names() -> ClusterNames {
    ClusterNames::of(
        "cluster.local",
        "10.96.0.1".parse().unwrap(),
        &["192.0.2.7".into(), "api.example".into()],
    )
}

fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect()
}

#[test]
fn a_directory_is_completed_once_and_then_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    Pki::load_or_create(dir.path(), &names(), start()).unwrap();
    let first = contents(dir.path());
    let expected = [
        "apiserver-kubelet-client.crt",
        "apiserver-kubelet-client.key",
        "apiserver.crt",
        "apiserver.key",
        "ca.crt",
        "ca.key",
        "front-proxy-ca.crt",
        "front-proxy-ca.key",
        "front-proxy-client.crt",
        "front-proxy-client.key",
        "sa.key",
        "sa.pub",
    ];
    assert_eq!(first.keys().collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>());
    for name in first.keys().filter(|n| n.ends_with(".key")) {
        let mode = fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    Pki::load_or_create(dir.path(), &names(), start() + DAY).unwrap();
    assert_eq!(contents(dir.path()), first);
}

#[test]
fn whatever_file_a_crash_lost_the_next_start_mends_it() {
    let dir = tempfile::tempdir().unwrap();
    let before = Pki::load_or_create(dir.path(), &names(), start()).unwrap();
    for name in contents(dir.path())
        .keys()
        .filter(|n| !["ca.key", "front-proxy-ca.key", "sa.key"].contains(&n.as_str()))
    {
        fs::remove_file(dir.path().join(name)).unwrap();
        let after = Pki::load_or_create(dir.path(), &names(), start() + DAY).unwrap();
        assert_eq!(after.ca.key_pem(), before.ca.key_pem(), "{name}");
        assert!(dir.path().join(name).exists(), "{name}");
    }
    fs::remove_file(dir.path().join("ca.key")).unwrap();
    let error = Pki::load_or_create(dir.path(), &names(), start()).unwrap_err().to_string();
    assert!(error.contains("load authority ca") && error.contains("ca.key is missing"), "{error}");
}

#[test]
fn an_authority_must_not_be_replaced_when_its_files_disagree() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Pki::load_or_create(one.path(), &names(), start()).unwrap();
    Pki::load_or_create(two.path(), &names(), start()).unwrap();
    fs::copy(two.path().join("ca.key"), one.path().join("ca.key")).unwrap();
    let error = Pki::load_or_create(one.path(), &names(), start()).unwrap_err().to_string();
    assert!(error.contains("does not match the certificate"), "{error}");
}

#[test]
fn leaves_renew_at_two_thirds_and_authorities_keep_their_key() {
    let dir = tempfile::tempdir().unwrap();
    let young = Pki::load_or_create(dir.path(), &names(), start()).unwrap();
    let early = Pki::load_or_create(dir.path(), &names(), start() + DAY * 243).unwrap();
    assert_eq!(early.apiserver.cert_pem, young.apiserver.cert_pem);
    let due = young.next_renewal().unwrap();
    assert!(due > start() + DAY * 243 && due < start() + DAY * 244, "{due}");
    let late = Pki::load_or_create(dir.path(), &names(), due).unwrap();
    assert_ne!(late.apiserver.cert_pem, young.apiserver.cert_pem);
    assert_eq!(late.ca.cert_pem(), young.ca.cert_pem());

    let far = start() + DAY * 2450;
    let old = Pki::load_or_create(dir.path(), &names(), far).unwrap();
    assert_ne!(old.ca.cert_pem(), young.ca.cert_pem());
    assert_eq!(old.ca.certificate().public_key, young.ca.certificate().public_key);
    let leaf = Certificate::from_pem(&late.apiserver.cert_pem).unwrap();
    assert!(leaf.is_signed_by(old.ca.certificate()), "leaves of before stay valid");
}

#[test]
fn a_new_name_makes_a_new_serving_certificate() {
    let dir = tempfile::tempdir().unwrap();
    Pki::load_or_create(dir.path(), &names(), start()).unwrap();
    let mut more = names();
    more.ips.push("192.0.2.8".parse().unwrap());
    let pki = Pki::load_or_create(dir.path(), &more, start()).unwrap();
    let cert = Certificate::from_pem(&pki.apiserver.cert_pem).unwrap();
    assert!(cert.ips.contains(&"192.0.2.8".parse().unwrap()));
    assert!(cert.dns_names.contains(&"kubernetes.default.svc.cluster.local".to_owned()));
    assert_eq!(cert.common_name, "kube-apiserver");
}

#[test]
fn every_organization_of_a_client_is_kept() {
    let ca = Authority::generate("kubernetes", start()).unwrap();
    let issued = ca.issue(&Leaf::client("alice", &["dev", "ops", "system:masters"]), start()).unwrap();
    let cert = Certificate::from_pem(&issued.cert_pem).unwrap();
    assert_eq!(cert.organizations, ["dev", "ops", "system:masters"]);
    assert_eq!(cert.common_name, "alice");
    assert!(!cert.is_ca);
}

/// kubeadm writes its authorities' keys as PKCS #1.
#[test]
fn an_authority_of_a_stock_cluster_must_not_be_refused() {
    let (cert, key) =
        (include_str!("../../tests/data/rsa-ca.pem"), include_str!("../../tests/data/rsa-pkcs1.pem"));
    let authority = Authority::from_pem(cert, key).unwrap();
    let now = authority.certificate().not_before + SignedDuration::from_hours(1);
    let leaf = authority.issue(&Leaf::client("jane", &["dev"]), now).unwrap();
    assert!(Certificate::from_pem(&leaf.cert_pem).unwrap().is_signed_by(authority.certificate()));
}

fn usages(list: &[&str]) -> Vec<String> {
    list.iter().map(|u| (*u).to_owned()).collect()
}

#[test]
fn a_kubelets_requests_are_signed() {
    let ca = Authority::generate("kubernetes", start()).unwrap();
    let key = new_key().unwrap();
    let mut subject = Subject::node("n1");
    let client = CertificateRequest::from_pem(&subject.request(&key).unwrap()).unwrap();
    let client_usages = usages(&["digital signature", "client auth"]);
    assert_eq!(Signer::ApiServerClientKubelet.validate(&client, &client_usages), Ok(()));
    let text = ca.sign(&client, &client_usages, signer::lifetime(None, LEAF_LIFE), start()).unwrap();
    let cert = Certificate::from_pem(&text).unwrap();
    assert_eq!(
        (cert.common_name.as_str(), cert.organizations.clone()),
        ("system:node:n1", vec!["system:nodes".into()])
    );
    assert!(cert.is_signed_by(ca.certificate()));

    subject.ips = vec!["192.0.2.1".parse().unwrap()];
    subject.dns_names = vec!["n1".into()];
    let serving = CertificateRequest::from_pem(&subject.request(&key).unwrap()).unwrap();
    let serving_usages = usages(&["server auth", "digital signature", "key encipherment"]);
    assert_eq!(Signer::KubeletServing.validate(&serving, &serving_usages), Ok(()));
    let text = ca.sign(&serving, &serving_usages, signer::lifetime(Some(60), LEAF_LIFE), start()).unwrap();
    let cert = Certificate::from_pem(&text).unwrap();
    assert_eq!((cert.dns_names, cert.ips), (subject.dns_names, subject.ips));
    assert_eq!(cert.not_after, start() + signer::SHORTEST_LIFE);

    assert_eq!(Signer::ApiServerClientKubelet.validate(&serving, &client_usages), Err(Rejection::DnsNames));
    assert_eq!(Signer::KubeletServing.validate(&client, &serving_usages), Err(Rejection::NamesRequired));
    let wrong = Signer::KubeletServing.validate(&serving, &client_usages).unwrap_err();
    assert_eq!(wrong.to_string(), "usages did not match [digital signature key encipherment server auth]");
    let wrong = Signer::ApiServerClient.validate(&client, &serving_usages).unwrap_err();
    assert_eq!(wrong.to_string(), "invalid usage for client certificate: server auth");
}

#[test]
fn a_request_with_a_broken_signature_is_refused() {
    let text = Subject::node("n1").request(&new_key().unwrap()).unwrap();
    let mut der = crate::pem::blocks(&text, "CERTIFICATE REQUEST").remove(0);
    let inside = der.windows(2).position(|w| w == b"n1").unwrap();
    der[inside] = b'm';
    let forged = crate::pem::encode("CERTIFICATE REQUEST", &der);
    let error = CertificateRequest::from_pem(&forged).unwrap_err().to_string();
    assert!(error.starts_with("unable to verify certificate request signature"), "{error}");
    let other = crate::pem::encode("CERTIFICATE", &der);
    let error = CertificateRequest::from_pem(&other).unwrap_err().to_string();
    assert_eq!(error, "PEM block type must be CERTIFICATE REQUEST");
}

#[test]
fn usages_outside_the_api_are_refused() {
    let ca = Authority::generate("kubernetes", start()).unwrap();
    let request = Subject::node("n1").request(&new_key().unwrap()).unwrap();
    let request = CertificateRequest::from_pem(&request).unwrap();
    let error = ca.sign(&request, &usages(&["fly"]), DAY, start()).unwrap_err().to_string();
    assert!(error.contains(r#"unrecognized usage values: ["fly"]"#), "{error}");
}

#[test]
fn rustls_accepts_what_we_issue() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::load_or_create(dir.path(), &names(), Timestamp::now()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(pki.ca.certificate().der.clone().into()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(
        Arc::new(roots.clone()),
        provider.clone(),
    )
    .build()
    .unwrap();
    let cert = crate::pem::certificates(pki.apiserver.cert_pem.as_bytes()).unwrap().remove(0);
    for name in ["kubernetes.default.svc", "10.96.0.1", "::1", "192.0.2.7", "api.example"] {
        let name = rustls_pki_types::ServerName::try_from(name).unwrap();
        let now = rustls_pki_types::UnixTime::now();
        rustls::client::danger::ServerCertVerifier::verify_server_cert(
            &*verifier,
            &cert,
            &[],
            &name,
            &[],
            now,
        )
        .unwrap();
    }
    let clients = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .unwrap();
    let client =
        crate::pem::certificates(pki.apiserver_kubelet_client.cert_pem.as_bytes()).unwrap().remove(0);
    clients.verify_client_cert(&client, &[], rustls_pki_types::UnixTime::now()).unwrap();
    assert!(clients.verify_client_cert(&cert, &[], rustls_pki_types::UnixTime::now()).is_err());
}

#[test]
fn a_certificate_renewed_by_hand_says_the_same_with_another_key() {
    let dir = tempfile::tempdir().unwrap();
    let before = Pki::load_or_create(dir.path(), &names(), start()).unwrap();
    let later = start() + DAY * 30;
    for (name, ..) in LEAVES {
        Pki::renew(dir.path(), name, later).unwrap();
    }
    let after = Pki::load_or_create(dir.path(), &names(), later).unwrap();
    for (old, new) in [
        (&before.apiserver, &after.apiserver),
        (&before.apiserver_kubelet_client, &after.apiserver_kubelet_client),
        (&before.front_proxy_client, &after.front_proxy_client),
    ] {
        let [old, new] = [old, new].map(|issued| Certificate::from_pem(&issued.cert_pem).unwrap());
        assert_eq!(new.not_after, old.not_after + DAY * 30);
        assert_ne!(new.public_key, old.public_key);
        let says = |c: &Certificate| (c.subject.clone(), c.dns_names.clone(), c.ips.clone());
        assert_eq!(says(&new), says(&old));
    }
    assert!(Pki::renew(dir.path(), "ca", later).is_err());
}

#[test]
fn a_certificate_must_not_live_longer_than_its_signer_lets_it() {
    let (hours, minutes) = (SignedDuration::from_hours, SignedDuration::from_mins);
    for (asked, longest, life) in [
        (None, hours(2), hours(2)),
        (Some(3600), hours(2), hours(1)),
        (Some(86400), hours(2), hours(2)),
        (Some(60), hours(2), minutes(10)),
        (None, minutes(5), minutes(5)),
        (Some(600), minutes(5), minutes(5)),
        (Some(60), minutes(5), minutes(10)),
    ] {
        assert_eq!(signer::lifetime(asked, longest), life, "{asked:?} of {longest:?}");
    }
}
