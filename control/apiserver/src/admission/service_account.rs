//! ServiceAccount: a pod runs as an account of its namespace, and gets its token, CA and namespace mounted.

mod secrets;

use super::{Attributes, Operation, Verdict};
use crate::registry::Registry;
use crate::registry::kind::Kind;
use machinery::access::{Get as _, list_at, set_at};
use machinery::names::generate_name;
use machinery::object;
use machinery::status::Status;
use serde_json::{Value, json};
use std::time::Duration;
use store::cache::{ChangeKind, Scope};

const MIRROR: &str = "kubernetes.io/config.mirror";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// An hour and seven seconds: upstream's mark for tokens that admission asked for.
const TOKEN_SECONDS: i64 = 3607;
/// How long a pod of a new namespace waits for the controller to make its default account.
const DEFAULT_ACCOUNT_WAIT: Duration = Duration::from_secs(1);

fn applies(a: &Attributes<'_>) -> bool {
    a.is("", "pods", "") && a.operation == Operation::Create
}

fn is_mirror(pod: &Value) -> bool {
    object::annotation(pod, MIRROR).is_some()
}

pub(super) fn default<'a>(registry: &'a Registry, a: &'a mut Attributes<'_>) -> Verdict<'a> {
    Box::pin(async move {
        if !applies(a) || is_mirror(a.new_object()) {
            return Ok(());
        }
        let name = match a.new_object().text("spec.serviceAccountName") {
            "" => match a.new_object().text("spec.serviceAccount") {
                "" => "default".to_owned(),
                old => old.to_owned(),
            },
            name => name.to_owned(),
        };
        let account = required(registry, a, &name).await?;
        let suffix = registry.random();
        let Some(pod) = &mut a.object else { return Ok(()) };
        set_at(pod, "spec.serviceAccountName", name.clone());
        set_at(pod, "spec.serviceAccount", name);
        let automount = pod
            .present("spec.automountServiceAccountToken")
            .or_else(|| account.present("automountServiceAccountToken"))
            .and_then(Value::as_bool)
            .unwrap_or(true);
        if automount {
            mount_token(pod, suffix);
        }
        if pod.items("spec.imagePullSecrets").is_empty() {
            let secrets = account.items("imagePullSecrets");
            if !secrets.is_empty() {
                set_at(pod, "spec.imagePullSecrets", secrets.to_vec());
            }
        }
        Ok(())
    })
}

pub(super) fn check<'a>(registry: &'a Registry, a: &'a mut Attributes<'_>) -> Verdict<'a> {
    Box::pin(async move {
        let debugged = a.is("", "pods", "ephemeralcontainers") && a.operation == Operation::Update;
        if !applies(a) && !debugged {
            return Ok(());
        }
        let pod = a.new_object();
        if debugged || !is_mirror(pod) {
            return own_secrets(registry, a, debugged).await;
        }
        if !pod.text("spec.serviceAccountName").is_empty() {
            return Err(a.forbidden("a mirror pod may not reference service accounts"));
        }
        for volume in pod.items("spec.volumes") {
            if volume.get("secret").is_some() {
                return Err(a.forbidden("a mirror pod may not reference secrets"));
            }
            let projected = volume.items("projected.sources");
            if projected.iter().any(|s| s.get("serviceAccountToken").is_some()) {
                return Err(a.forbidden("a mirror pod may not use ServiceAccountToken volume projections"));
            }
        }
        Ok(())
    })
}

/// A pod has an account, whose secrets may be all it may name.
async fn own_secrets(registry: &Registry, a: &Attributes<'_>, debugged: bool) -> Result<(), Status> {
    let pod = a.new_object();
    let name = pod.text("spec.serviceAccountName");
    if name.is_empty() {
        let why = format!("no service account specified for pod {}/{}", a.namespace, object::name(pod));
        return Err(a.forbidden(why));
    }
    let account = required(registry, a, name).await?;
    let check = if debugged { secrets::refused_ephemeral } else { secrets::refused };
    match check(&account, pod).filter(|_| secrets::enforced(&account)) {
        Some(why) => Err(a.forbidden(why)),
        None => Ok(()),
    }
}

/// The account, or 403.
async fn required(registry: &Registry, a: &Attributes<'_>, name: &str) -> Result<Value, Status> {
    let found = account(registry, &a.namespace, name).await?;
    found.ok_or_else(|| {
        let of = &a.namespace;
        a.forbidden(format!(
            "error looking up service account {of}/{name}: serviceaccount {name:?} not found"
        ))
    })
}

/// The account; a default account that is still to be made is waited for.
async fn account(registry: &Registry, namespace: &str, name: &str) -> Result<Option<Value>, Status> {
    let Some(kind) = Kind::of("", "serviceaccounts") else { return Ok(None) };
    let found = registry.lookup(&kind, namespace, name).await?;
    if found.is_some() || name != "default" {
        return Ok(found);
    }
    let scope = Scope::Object { namespace: Some(namespace.to_owned()), name: name.to_owned() };
    let cache = registry.cache(&kind)?;
    let Ok((snapshot, mut watcher)) = cache.snapshot_and_watch(&scope) else { return Ok(None) };
    if snapshot.get(&kind.resource.key(namespace, name)).is_none() {
        let made = async {
            while let Some(change) = watcher.next().await {
                if change.kind != ChangeKind::Deleted {
                    break;
                }
            }
        };
        // Too late is the same as never: the lookup below says which.
        let _ = tokio::time::timeout(DEFAULT_ACCOUNT_WAIT, made).await;
    }
    registry.lookup(&kind, namespace, name).await
}

fn mount_token(pod: &mut Value, random: u64) {
    // A client that read a pod and creates it again already brings the volume.
    let present = pod
        .items("spec.volumes")
        .iter()
        .map(|v| v.text("name"))
        .find(|n| n.starts_with(VOLUME_PREFIX))
        .map(str::to_owned);
    let volume = present.clone().unwrap_or_else(|| generate_name(VOLUME_PREFIX, random));
    let mut needed = false;
    for list in ["initContainers", "containers"] {
        if pod.at("spec").items(list).is_empty() {
            continue;
        }
        for container in list_at(pod, &format!("spec.{list}")) {
            let mounted = container.items("volumeMounts").iter().any(|m| m.text("mountPath") == MOUNT_PATH);
            if !mounted {
                needed = true;
                list_at(container, "volumeMounts")
                    .push(json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH}));
            }
        }
    }
    if needed && present.is_none() {
        list_at(pod, "spec.volumes").push(json!({
            "name": volume,
            "projected": {
                "defaultMode": 420,
                "sources": [
                    {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
                    {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                    {"downwardAPI": {"items": [
                        {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
                    ]}},
                ],
            },
        }));
    }
}
