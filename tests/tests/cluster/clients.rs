//! Clients that are not ours: the kube crate, and PyPI's kubernetes. Lists by the page, watches, patches, applies, execs.

use crate::harness::cluster;
use crate::python;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{AttachParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};
use serde_json::json;
use std::process::Command;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const POD: &str = "apiVersion: v1
kind: Pod
metadata: { name: shell }
spec:
  terminationGracePeriodSeconds: 1
  containers: [{ name: c, image: 'lab.local/echo:1' }]
";

async fn client() -> Client {
    let file = Kubeconfig::read_from(cluster().kubeconfig()).unwrap();
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn the_kube_crate_lists_watches_patches_and_execs() {
    let namespace = cluster().namespace("clients-kube");
    namespace.apply(POD);
    namespace.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", "pod/shell"]);
    let name = namespace.name.clone();
    runtime().block_on(Box::pin(async move {
        let client = client().await;
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &name);
        for i in 0..7 {
            let map = json!({"metadata": {"name": format!("m{i}"), "labels": {"set": "seven"}}, "data": {"i": i.to_string()}});
            maps.create(&PostParams::default(), &serde_json::from_value(map).unwrap()).await.unwrap();
        }
        let (mut names, mut pages) = (Vec::new(), 0);
        let mut params = ListParams::default().labels("set=seven").limit(3);
        loop {
            let page = maps.list(&params).await.unwrap();
            names.extend(page.items.iter().map(ResourceExt::name_any));
            pages += 1;
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => break,
            }
        }
        assert_eq!((names.len(), pages), (7, 3), "{names:?}");

        let version = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
        let mut events = maps.watch(&WatchParams::default().labels("set=seven"), &version).await.unwrap().boxed();
        let merge = Patch::Merge(json!({"data": {"i": "changed"}}));
        let patched = maps.patch("m0", &PatchParams::default(), &merge).await.unwrap();
        assert_eq!(patched.data.unwrap()["i"], "changed");
        let applied = Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m1"}, "data": {"j": "1"}}));
        let applied = maps.patch("m1", &PatchParams::apply("suite"), &applied).await.unwrap();
        assert_eq!(applied.data.unwrap().len(), 2, "others' fields stay");
        maps.delete("m2", &kube::api::DeleteParams::default()).await.unwrap();
        let mut seen = Vec::new();
        while seen.len() < 3 {
            let event = tokio::time::timeout(std::time::Duration::from_secs(20), events.try_next());
            match event.await.expect("three events").unwrap().expect("a watch that goes on") {
                WatchEvent::Modified(map) => seen.push(format!("modified {}", map.name_any())),
                WatchEvent::Deleted(map) => seen.push(format!("deleted {}", map.name_any())),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(seen, ["modified m0", "modified m1", "deleted m2"]);
        let strategic = Patch::Strategic(json!({"metadata": {"labels": {"patched": "yes"}}}));
        let pods: Api<Pod> = Api::namespaced(client, &name);
        assert_eq!(pods.patch("shell", &PatchParams::default(), &strategic).await.unwrap().labels()["patched"], "yes");
        let gone = pods.get("nobody").await.unwrap_err();
        assert!(matches!(&gone, kube::Error::Api(status) if status.is_not_found()), "{gone}");

        let params = AttachParams::default().stdin(true).stderr(false);
        let mut process = pods.exec("shell", ["sh", "-c", "read line; echo got $line; exit 3"], &params).await.unwrap();
        let status = process.take_status().unwrap();
        process.stdin().unwrap().write_all(b"a line\n").await.unwrap();
        let mut out = String::new();
        process.stdout().unwrap().read_to_string(&mut out).await.unwrap();
        assert_eq!(out, "got a line\n");
        let status = status.await.expect("an exit status");
        let code = status.details.and_then(|d| d.causes).unwrap_or_default();
        assert_eq!(code.first().and_then(|c| c.message.as_deref()), Some("3"), "{code:?}");
    }));
}

const SCRIPT: &str = r#"
import sys
from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException
from kubernetes.stream import stream

config.load_kube_config(sys.argv[1])
ns, api = sys.argv[2], client.CoreV1Api()
for i in range(5):
    body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name=f"m{i}", labels={"set": "five"}), data={"i": str(i)})
    api.create_namespaced_config_map(ns, body)
names, token = [], None
while True:
    page = api.list_namespaced_config_map(ns, label_selector="set=five", limit=2, _continue=token)
    names += [m.metadata.name for m in page.items]
    token = page.metadata._continue
    if not token:
        break
assert names == [f"m{i}" for i in range(5)], names
version = api.list_namespaced_config_map(ns).metadata.resource_version
patched = api.patch_namespaced_config_map("m0", ns, {"data": {"i": "changed"}})
assert patched.data == {"i": "changed"}, patched.data
api.patch_namespaced_config_map("m1", ns, [{"op": "add", "path": "/data/j", "value": "1"}])
api.delete_namespaced_config_map("m2", ns)
seen, w = [], watch.Watch()
for event in w.stream(api.list_namespaced_config_map, ns, label_selector="set=five", resource_version=version, timeout_seconds=20):
    seen.append((event["type"], event["object"].metadata.name))
    if len(seen) == 3:
        w.stop()
assert seen == [("MODIFIED", "m0"), ("MODIFIED", "m1"), ("DELETED", "m2")], seen
maps = dynamic.DynamicClient(client.ApiClient()).resources.get(api_version="v1", kind="ConfigMap")
wanted = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m3"}, "data": {"k": "1"}}
applied = maps.server_side_apply(body=wanted, name="m3", namespace=ns, field_manager="suite")
assert applied.data.to_dict() == {"i": "3", "k": "1"}, applied.data
try:
    api.read_namespaced_pod("nobody", ns)
    raise AssertionError("a pod nobody made")
except ApiException as error:
    assert error.status == 404, error
out = stream(api.connect_get_namespaced_pod_exec, "shell", ns, command=["sh", "-c", "echo from python"],
             stdout=True, stderr=True, stdin=False, tty=False)
assert out == "from python\n", repr(out)
print("done")
"#;

#[test]
fn pypis_kubernetes_lists_watches_patches_applies_and_execs() {
    let Some(python) = python::interpreter("kubernetes") else { return };
    let namespace = cluster().namespace("clients-python");
    namespace.apply(POD);
    namespace.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", "pod/shell"]);
    let out = Command::new(python)
        .args(["-c", SCRIPT])
        .arg(cluster().kubeconfig())
        .arg(&namespace.name)
        .output()
        .unwrap();
    assert!(
        out.status.success() && out.stdout == b"done\n",
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
}
