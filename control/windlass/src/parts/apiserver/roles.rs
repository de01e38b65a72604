//! Roles and bindings that a cluster must have, written through the API at every start: what is missing in them is added, what an
//! administrator added stays, and one annotated `rbac.authorization.kubernetes.io/autoupdate: "false"` is left alone.

use anyhow::Context as _;
use apiserver::bootstrap::{self, Write};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, PostParams};
use serde_json::Value;
use std::collections::BTreeMap;

const GROUP: &str = "rbac.authorization.k8s.io";
/// Kind and plural.
const KINDS: [(&str, &str); 4] = [
    ("ClusterRole", "clusterroles"),
    ("ClusterRoleBinding", "clusterrolebindings"),
    ("Role", "roles"),
    ("RoleBinding", "rolebindings"),
];
/// Writes under way at once: they share the store's commits.
const AT_ONCE: usize = 32;

fn interface(plural: &str) -> ApiResource {
    let kind = KINDS.iter().find(|(_, p)| *p == plural).map_or("", |(kind, _)| *kind);
    ApiResource {
        group: GROUP.to_owned(),
        version: "v1".to_owned(),
        api_version: format!("{GROUP}/v1"),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

/// Writes what every cluster starts with.
pub(super) async fn write_first(client: &kube::Client) -> anyhow::Result<()> {
    reconcile(client, bootstrap::objects()).await
}

/// Writes what is missing of `wanted`, whole objects. Another server may be doing the same: what it wrote first counts.
pub(super) async fn reconcile(client: &kube::Client, wanted: &[Value]) -> anyhow::Result<()> {
    let mut existing: BTreeMap<(String, String, String), Value> = BTreeMap::new();
    for (kind, plural) in KINDS {
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &interface(plural));
        let list = api.list(&ListParams::default()).await.with_context(|| format!("list {plural}"))?;
        for object in list.items {
            let mut value = serde_json::to_value(&object).with_context(|| format!("read {kind}"))?;
            // Items of a list do not say what they are.
            value["apiVersion"] = format!("{GROUP}/v1").into();
            value["kind"] = kind.into();
            let text = |field: &str| value["metadata"][field].as_str().unwrap_or_default().to_owned();
            let key = (kind.to_owned(), text("namespace"), text("name"));
            existing.insert(key, value);
        }
    }
    let find = |kind: &str, namespace: &str, name: &str| {
        existing.get(&(kind.to_owned(), namespace.to_owned(), name.to_owned())).cloned()
    };
    let writes = bootstrap::reconcile(wanted, find);
    futures::stream::iter(writes)
        .map(|write| apply(client, write))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

async fn apply(client: &kube::Client, write: Write) -> anyhow::Result<()> {
    let (object, replaces, removes) = match write {
        Write::Create(object) => (object, false, false),
        Write::Update(object) => (object, true, false),
        Write::Recreate(object) => (object, false, true),
    };
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (kind, name, namespace) = (text("/kind"), text("/metadata/name"), text("/metadata/namespace"));
    let what = || format!("write {kind} {name}");
    let plural = KINDS.iter().find(|(k, _)| *k == kind).map_or("", |(_, plural)| *plural);
    let interface = interface(plural);
    let api: Api<DynamicObject> = if namespace.is_empty() {
        Api::all_with(client.clone(), &interface)
    } else {
        Api::namespaced_with(client.clone(), &namespace, &interface)
    };
    let typed: DynamicObject = serde_json::from_value(object).with_context(what)?;
    if removes {
        api.delete(&name, &DeleteParams::default()).await.with_context(what)?;
    }
    let done = if replaces {
        api.replace(&name, &PostParams::default(), &typed).await
    } else {
        api.create(&PostParams::default(), &typed).await
    };
    match done {
        Err(kube::Error::Api(status)) if status.is_already_exists() || status.is_conflict() => Ok(()),
        done => done.map(drop).with_context(what),
    }
}
