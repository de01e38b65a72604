//! A server is saved while it is written to, and comes back on a machine that has nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail by panic")]
#![allow(clippy::disallowed_methods, reason = "a test sees how what it spawns ends")]

use futures::future::join_all;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, ObjectMeta, PostParams};
use kube::{Api, Client, Config};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Writers at once.
const WRITERS: usize = 8;

fn windlass(arguments: &[&str], data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
    command.args(["--config="]).args(arguments).arg("--data-dir").arg(data_dir);
    command
}

/// A server on a loopback address of its own; killed when dropped.
struct Server(Child);

impl Server {
    async fn start(data_dir: &Path, ip: &str) -> (Self, Client) {
        let log = std::fs::File::create(data_dir.with_extension("log")).unwrap();
        let mut command = windlass(&["server", "--no-agent", "--node-name", "n1"], data_dir);
        command.args(["--node-ip", ip, "--bind-address", ip]).stdout(Stdio::null()).stderr(log);
        let server = Self(command.spawn().unwrap());
        let kubeconfig = data_dir.join("server/admin.kubeconfig");
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(client) = connect(&kubeconfig).await {
                return (server, client);
            }
            let log = || std::fs::read_to_string(data_dir.with_extension("log")).unwrap_or_default();
            assert!(Instant::now() < end, "the server does not come up:\n{}", log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A client, once the server is ready.
async fn connect(kubeconfig: &Path) -> Option<Client> {
    let parsed = kube::config::Kubeconfig::read_from(kubeconfig).ok()?;
    let config = Config::from_custom_kubeconfig(parsed, &Default::default()).await.unwrap();
    let client = Client::try_from(config).unwrap();
    let ready = http::Request::get("/readyz").body(Vec::new()).unwrap();
    client.request_text(ready).await.ok()?;
    Some(client)
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn named(name: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        ..ConfigMap::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_acknowledged_before_a_snapshot_began_is_on_the_new_machine() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    let (server, client) = Server::start(&old, "127.77.1.1").await;
    let (written, stop) = (Arc::new(Mutex::new(BTreeSet::new())), Arc::new(AtomicBool::new(false)));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (written, stop) = (written.clone(), stop.clone());
            let api: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
            tokio::spawn(async move {
                for n in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let name = format!("w{writer}-{n}");
                    api.create(&PostParams::default(), &named(&name)).await.unwrap();
                    written.lock().unwrap().insert(name);
                }
            })
        })
        .collect();
    while written.lock().unwrap().len() < 300 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let before = written.lock().unwrap().clone();
    let data_dir = old.clone();
    let saved = tokio::task::spawn_blocking(move || {
        windlass(&["snapshot", "save", "-o", "json"], &data_dir).output()
    });
    let saved = json(&saved.await.unwrap().unwrap());
    stop.store(true, Ordering::SeqCst);
    join_all(writers).await.into_iter().for_each(|w| w.unwrap());
    let api: Api<ConfigMap> = Api::namespaced(client, "default");
    let last: u64 =
        api.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap().parse().unwrap();
    let listed = json(&windlass(&["snapshot", "list", "-o", "json"], &old).output().unwrap());
    assert_eq!(listed[0]["revision"], saved["revision"]);
    let refused = windlass(&["snapshot", "restore", saved["path"].as_str().unwrap()], &old).output().unwrap();
    assert!(!refused.status.success(), "the state of a running server must not be replaced");
    drop(server);

    let restored = windlass(&["snapshot", "restore", "-o", "json", saved["path"].as_str().unwrap()], &new);
    json(&{ restored }.output().unwrap());
    let (_server, client) = Server::start(&new, "127.77.1.2").await;
    let api: Api<ConfigMap> = Api::namespaced(client, "default");
    let found = api.list(&ListParams::default()).await.unwrap();
    let names: BTreeSet<String> = found.items.iter().filter_map(|c| c.metadata.name.clone()).collect();
    let lost: Vec<_> = before.difference(&names).collect();
    assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), before.len());
    let revision: u64 = found.metadata.resource_version.unwrap().parse().unwrap();
    assert!(revision > last, "revisions went back from {last} to {revision}");
    let authority = |dir: &Path| std::fs::read(dir.join("server/pki/ca.crt")).unwrap();
    assert_eq!(
        authority(&old),
        authority(&new),
        "machines that trusted the old server must trust the new one"
    );
}
