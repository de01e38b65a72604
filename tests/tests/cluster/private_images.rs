//! Images of a registry that asks for a password.

use crate::harness::{Namespace, cluster, eventually};

const IMAGE: &str = "lab.local/private/echo:1";

fn secret(namespace: &Namespace<'_>, name: &str, server: &str, password: &str) {
    let (server, password) = (format!("--docker-server={server}"), format!("--docker-password={password}"));
    let args = ["create", "secret", "docker-registry", name, &server, "--docker-username=puller", &password];
    namespace.kubectl(&args);
}

/// A pod whose image is pulled whether the node has it or not.
fn pod(name: &str, spec: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 1, {spec} \
         containers: [{{name: c, image: '{IMAGE}', imagePullPolicy: Always}}]}}}}"
    )
}

#[test]
fn a_private_image_is_pulled_with_the_pods_or_its_accounts_secret_and_not_without() {
    let namespace = cluster().namespace("private-images");
    for (name, server, password) in [
        ("host", "lab.local", "secret"),
        ("url", "https://lab.local/v2/", "secret"),
        ("path", "lab.local/private", "secret"),
        ("wildcard", "*.local", "secret"),
        ("wrong", "lab.local/private/echo", "mistaken"),
        ("other", "other.local", "secret"),
    ] {
        secret(&namespace, name, server, password);
    }
    namespace.kubectl(&["create", "serviceaccount", "puller"]);
    namespace.kubectl(&[
        "patch",
        "serviceaccount",
        "puller",
        "-p",
        r#"{"imagePullSecrets":[{"name":"host"}]}"#,
    ]);
    // the wrong password is more specific: it is tried first
    let good = [
        ("host", "imagePullSecrets: [{name: host}],"),
        ("url", "imagePullSecrets: [{name: url}],"),
        ("path", "imagePullSecrets: [{name: path}],"),
        ("wildcard", "imagePullSecrets: [{name: wildcard}],"),
        ("second", "imagePullSecrets: [{name: wrong}, {name: host}],"),
        ("account", "serviceAccountName: puller,"),
    ];
    let bad = [
        ("none", ""),
        ("wrong", "imagePullSecrets: [{name: wrong}],"),
        ("other", "imagePullSecrets: [{name: other}],"),
    ];
    for (name, spec) in good.iter().chain(&bad) {
        namespace.apply(&pod(name, spec));
    }
    for (name, _) in good {
        namespace.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", &format!("pod/{name}")]);
    }
    for (name, _) in bad {
        eventually("a refused pull", 60, || {
            let path = "{.status.containerStatuses[0].state.waiting.reason}";
            let reason = namespace.path(&format!("pod/{name}"), path);
            if matches!(reason.as_str(), "ErrImagePull" | "ImagePullBackOff") { Ok(()) } else { Err(reason) }
        });
    }
}
