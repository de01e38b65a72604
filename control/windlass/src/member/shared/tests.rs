use super::*;
use crate::cli::{MemberFlags, StorageFlags};
use pki::ClusterNames;
use pki::bootstrap::JoinToken;

fn server(dir: &Path) -> String {
    pki::Pki::load_or_create(&dir.join("pki"), &ClusterNames::default(), Timestamp::now())
        .unwrap()
        .ca
        .cert_pem()
}

fn invitation(ca: &str, key: bool) -> Invitation {
    let token: BootstrapToken = "abcdef.0123456789abcdef".parse().unwrap();
    let text = JoinToken::new(token, &Certificate::from_pem(ca).unwrap()).expose();
    let key = key.then(|| CertificateKey::generate().unwrap());
    Invitation { key, ..Invitation::parse(&text, &MemberFlags::default()).unwrap() }
}

/// Nobody listens there.
const NOBODY: &str = "https://127.0.0.1:1";

#[tokio::test]
async fn what_an_earlier_start_got_must_not_need_the_other_server_again() {
    let dir = tempfile::tempdir().unwrap();
    let ca = server(dir.path());
    fetch(NOBODY, &invitation(&ca, false), dir.path(), false).await.unwrap();
    let error = fetch(NOBODY, &invitation(&ca, false), dir.path(), true).await.unwrap_err().to_string();
    assert!(error.contains("--control-plane"), "half of it, and no key to get the rest with: {error}");
}

#[tokio::test]
async fn the_keys_of_another_cluster_must_not_be_overwritten() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    server(dir.path());
    let before = std::fs::read(dir.path().join("pki/ca.key")).unwrap();
    let error = fetch(NOBODY, &invitation(&server(other.path()), true), dir.path(), true).await.unwrap_err();
    assert!(error.to_string().ends_with("belongs to another cluster"), "{error:#}");
    assert_eq!(std::fs::read(dir.path().join("pki/ca.key")).unwrap(), before);
}

#[test]
fn flags_name_files_and_what_came_from_another_server_fills_them() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("pki")).unwrap();
    for (_, below) in NAMED {
        std::fs::write(dir.path().join(below), "").unwrap();
    }
    let mut flags = StorageFlags::default();
    settle(&mut flags, dir.path()).unwrap();
    assert_eq!(flags.etcd_cafile, None, "there is no external etcd");
    assert_eq!(flags.encryption_provider_config, Some(dir.path().join("encryption-provider-config.yaml")));

    let named = Some(PathBuf::from("/etc/own.crt"));
    let mut flags = StorageFlags {
        etcd_servers: vec!["https://e:2379".into()],
        etcd_cafile: named.clone(),
        ..StorageFlags::default()
    };
    settle(&mut flags, dir.path()).unwrap();
    assert_eq!(
        (&flags.etcd_cafile, &flags.etcd_keyfile),
        (&named, &Some(dir.path().join("pki/external-etcd.key")))
    );
    let list: BTreeMap<String, PathBuf> =
        serde_json::from_slice(&std::fs::read(dir.path().join(LIST)).unwrap()).unwrap();
    assert_eq!(list["external-etcd-ca.crt"], Path::new("/etc/own.crt"));
}

#[tokio::test]
async fn a_token_of_a_replaced_authority_must_not_lock_a_server_out() {
    use pki::rotation::{Step, rotate};
    let (dir, now) = (tempfile::tempdir().unwrap(), Timestamp::now());
    let first = server(dir.path());
    for step in [Step::Prepare, Step::Switch, Step::Finish] {
        rotate(&dir.path().join("pki"), "ca", "kubernetes", step, now).unwrap();
        fetch(NOBODY, &invitation(&first, false), dir.path(), false).await.unwrap();
    }
    assert_ne!(server(dir.path()), first);
}

#[test]
fn a_control_plane_of_kubeadms_must_not_lack_an_entry() {
    let (own, others) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let key = CertificateKey::generate().unwrap();
    for dir in [own.path(), others.path()] {
        server(dir);
    }
    let entry = |dir: &Path, name: &str| {
        let text = sealed(dir, &key).unwrap().remove(name).unwrap().0;
        if text.is_empty() { String::new() } else { String::from_utf8(key.open(&text).unwrap()).unwrap() }
    };
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap();
    // `copycerts` refuses a Secret in which one of them is missing.
    let asked = EXTERNAL.map(|(entry, _)| entry);
    for dir in [own.path(), others.path()] {
        for name in ["ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "sa.pub", "sa.key"] {
            assert_eq!(entry(dir, name), read(dir.join("pki").join(name)));
        }
        assert_eq!(asked.map(|name| entry(dir, name)), [""; 3], "no file, an empty entry");
    }
    let names = ClusterNames::default();
    pki::etcd::EtcdPki::load_or_create(&own.path().join("pki"), "n1", &names, Timestamp::now()).unwrap();
    let files = ["etcd/ca.crt", "apiserver-etcd-client.crt", "apiserver-etcd-client.key"];
    let files = files.map(|name| read(own.path().join("pki").join(name)));
    assert_eq!(asked.map(|name| entry(own.path(), name)), files, "of the members beside servers");
    // An etcd of others, by the files that flags name.
    let named = others.path().join("named");
    std::fs::write(&named, "theirs").unwrap();
    let mut flags = StorageFlags {
        etcd_servers: vec!["https://192.0.2.9:2379".into()],
        etcd_cafile: Some(named),
        ..StorageFlags::default()
    };
    settle(&mut flags, others.path()).unwrap();
    assert_eq!(asked.map(|name| entry(others.path(), name)), ["theirs", "", ""]);
}
