//! A plugin of our own on a socket.

#![allow(clippy::disallowed_methods, reason = "a test sees how what it spawns ends")]

use super::*;
use crate::v2::key_management_service_server::{KeyManagementService, KeyManagementServiceServer};
use crate::v2::{DecryptResponse, EncryptResponse, StatusResponse};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tonic::{Request, Response, Status};

/// Its keys are bytes that everything is xor-ed with.
#[derive(Clone)]
struct Plugin {
    key: Arc<Mutex<u8>>,
    /// The key changes right after the next status.
    turns: Arc<AtomicBool>,
    opened: Arc<AtomicUsize>,
    healthz: Arc<Mutex<&'static str>>,
}

#[tonic::async_trait]
impl KeyManagementService for Plugin {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let (healthz, key_id) = (self.healthz.lock().to_string(), self.key.lock().to_string());
        *self.key.lock() += u8::from(self.turns.swap(false, Ordering::SeqCst));
        Ok(Response::new(StatusResponse { version: "v2".into(), healthz, key_id }))
    }

    async fn encrypt(&self, request: Request<EncryptRequest>) -> Result<Response<EncryptResponse>, Status> {
        let key = *self.key.lock();
        let ciphertext = request.into_inner().plaintext.iter().map(|b| b ^ key).collect();
        let annotations = HashMap::from([("local.example.com".to_owned(), vec![key])]);
        Ok(Response::new(EncryptResponse { ciphertext, key_id: key.to_string(), annotations }))
    }

    async fn decrypt(&self, request: Request<DecryptRequest>) -> Result<Response<DecryptResponse>, Status> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        let request = request.into_inner();
        let key: u8 = request.key_id.parse().map_err(|_| Status::not_found("no such key"))?;
        assert_eq!(request.annotations["local.example.com"], [key]);
        Ok(Response::new(DecryptResponse { plaintext: request.ciphertext.iter().map(|b| b ^ key).collect() }))
    }
}

fn serve(socket: &Path) -> Plugin {
    let plugin = Plugin {
        key: Arc::new(Mutex::new(1)),
        turns: Arc::default(),
        opened: Arc::default(),
        healthz: Arc::new(Mutex::new("ok")),
    };
    let listener = tokio::net::UnixListener::bind(socket).unwrap();
    let service = KeyManagementServiceServer::new(plugin.clone());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(
                http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service.clone())),
            );
        }
    });
    plugin
}

fn client(socket: &Path) -> Arc<Kms> {
    let endpoint = format!("unix://{}", socket.display());
    Arc::new(Kms::new("k".to_owned(), &endpoint, Duration::from_secs(3)).unwrap())
}

const KEY: &[u8] = b"/registry/secrets/d/a";

/// Opens as the store does: what is wanting is fetched, once.
async fn open(kms: &Arc<Kms>, sealed: &Bytes) -> (Vec<u8>, bool) {
    for _ in 0..2 {
        match kms.open(sealed, KEY).unwrap() {
            Ok(opened) => return (opened.value.to_vec(), opened.stale),
            Err(Unreadable::Yet(fetch)) => fetch.await.unwrap(),
            Err(Unreadable::Damaged(why)) => panic!("{why}"),
        }
    }
    panic!("never")
}

#[tokio::test]
async fn one_seed_seals_many_values_and_another_server_asks_for_it_once() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("kms.sock");
    let plugin = serve(&socket);
    let (one, two) = (client(&socket), client(&socket));
    assert!(one.seal(b"early", KEY).is_err(), "nothing is sealed before the plugin has answered");
    one.look().await.unwrap();
    let sealed: Vec<Bytes> = (0..5u8).map(|n| one.seal(&[n; 9], KEY).unwrap()).collect();
    assert!(sealed.iter().all(|s| s.starts_with(b"k8s:enc:kms:v2:k:")));
    two.look().await.unwrap();
    for (sealed, n) in sealed.iter().zip(0..) {
        assert_eq!(open(&one, sealed).await, (vec![n; 9], false));
        assert_eq!(open(&two, sealed).await, (vec![n; 9], false));
    }
    assert_eq!(plugin.opened.load(Ordering::SeqCst), 1);
    assert!(one.open(&Bytes::from_static(b"k8s:enc:kms:v2:other:x"), KEY).is_none());
    assert!(matches!(one.open(&sealed[0], b"/registry/secrets/d/b"), Some(Err(Unreadable::Damaged(_)))));
}

#[tokio::test]
async fn a_new_key_of_the_plugin_makes_what_the_old_one_sealed_stale() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("kms.sock");
    let plugin = serve(&socket);
    let kms = client(&socket);
    kms.look().await.unwrap();
    let sealed = kms.seal(b"v", KEY).unwrap();
    *plugin.key.lock() = 2;
    kms.look().await.unwrap();
    assert_eq!(open(&kms, &sealed).await, (b"v".to_vec(), true));
    let again = kms.seal(b"v", KEY).unwrap();
    assert_eq!(open(&kms, &again).await, (b"v".to_vec(), false));
}

#[tokio::test]
async fn a_key_that_changes_between_status_and_seed_must_not_be_taken_for_the_status_key() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("kms.sock");
    let plugin = serve(&socket);
    let kms = client(&socket);
    plugin.turns.store(true, Ordering::SeqCst);
    assert!(kms.look().await.is_err());
    assert!(kms.seal(b"v", KEY).is_err());
    kms.look().await.unwrap();
    let sealed = kms.seal(b"v", KEY).unwrap();
    assert_eq!(open(&kms, &sealed).await, (b"v".to_vec(), false));
}

#[tokio::test]
async fn a_plugin_that_is_silent_for_long_must_not_be_sealed_with() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("kms.sock");
    let plugin = serve(&socket);
    let kms = client(&socket);
    kms.look().await.unwrap();
    let sealed = kms.seal(b"v", KEY).unwrap();
    *plugin.healthz.lock() = "ill";
    assert!(kms.check().is_ok());
    assert_eq!(kms.look().await.unwrap_err().to_string(), "got a healthz status \"ill\"");
    assert_eq!(
        kms.check().unwrap_err(),
        "got a healthz status \"ill\"",
        "it is told before nothing is sealed any more"
    );
    // What the next three minutes without a good answer come to.
    *kms.current.load_full().unwrap().until.lock() = Instant::now();
    assert!(kms.seal(b"v", KEY).is_err());
    assert_eq!(open(&kms, &sealed).await, (b"v".to_vec(), false));
}

#[tokio::test]
async fn a_plugin_that_was_never_heard_must_not_pass_for_well() {
    let dir = tempfile::tempdir().unwrap();
    let kms = client(&dir.path().join("nobody.sock"));
    assert!(kms.check().is_err());
    assert!(kms.look().await.is_err() && kms.check().is_err());
}

#[tokio::test]
async fn seeds_of_all_servers_there_ever_were_must_not_be_kept() {
    let dir = tempfile::tempdir().unwrap();
    let kms = client(&dir.path().join("nobody.sock"));
    for n in 0..2 * KNOWN {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&n.to_le_bytes());
        kms.keep_known(digest, Origin::Seed([0; SEED]));
        assert!(kms.known.lock().contains_key(&digest), "the newest is kept");
    }
    assert_eq!(kms.known.lock().len(), KNOWN);
}

/// RFC 5869, test case 1: the first block of its output.
#[test]
fn keys_are_derived_as_hkdf_expands() {
    let prk = "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5";
    let bytes = |hex: &str| -> Vec<u8> {
        (0..hex.len() / 2).map(|n| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap()).collect()
    };
    let derived = derive(&bytes(prk).try_into().unwrap(), &bytes("f0f1f2f3f4f5f6f7f8f9"));
    assert_eq!(derived, bytes("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"));
}
