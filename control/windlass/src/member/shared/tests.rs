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
