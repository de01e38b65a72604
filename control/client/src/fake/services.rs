//! Services that are hard to read, for the tests of whoever serves them: a null no typed reader takes, and an invalid port.

use super::Fake;
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

const SERVICES: [(&str, &str); 3] = [("good", "10.96.0.50"), ("odd", "10.96.0.66"), ("bad", "10.96.0.77")];

fn service(name: &str, port: Value) -> Value {
    let (_, ip) = SERVICES.iter().find(|(known, _)| *known == name).unwrap();
    let condition =
        json!({"type": "t", "status": "True", "reason": "", "message": "", "lastTransitionTime": null});
    json!({"kind": "Service", "metadata": {"name": name, "namespace": "n", "uid": name, "resourceVersion": "7"},
        "spec": {"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": port, "protocol": "TCP"}]},
        "status": {"conditions": [condition]}})
}

/// A server that has one plain service, one with a null where a time should be, and one that cannot be read.
#[must_use]
pub fn server() -> Fake {
    let unreadable = service("bad", json!({}));
    Fake::new(vec![service("odd", json!(80)), service("good", json!(80)), unreadable])
}

/// Changes the services of [`server`], and has `expect` wait each time until the first list is served and the second is not; both are of
/// names and addresses.
pub async fn change(fake: &Fake, expect: impl AsyncFn(&[(&str, &str)], &[(&str, &str)])) {
    let [good, odd, bad] = SERVICES;
    expect(&[good, odd], &[]).await;
    fake.send("DELETED", service("odd", json!(80)));
    expect(&[good], &[odd]).await;
    fake.send("MODIFIED", service("bad", json!(80)));
    expect(&[good, bad], &[odd]).await;
    // Its last state cannot be read; its end is seen all the same.
    fake.send("DELETED", service("bad", json!({})));
    expect(&[good], &[odd, bad]).await;
}

/// Runs a test in a network namespace of its own, whose `lo` is up.
pub fn in_network_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let run = move || {
        assert!(unshare(CloneFlags::CLONE_NEWNET).is_ok(), "network namespaces need root");
        let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(up.unwrap().success());
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
    };
    std::thread::spawn(run).join().unwrap();
}
