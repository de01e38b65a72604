//! What the files of a configMap, secret, downwardAPI or projected volume hold.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Pod, Volume, VolumeProjection};

use super::atomic::{File, Payload};
use super::{Error, Handles};
use crate::pod::spec::downward::{self, Facts};

const DEFAULT_MODE: i32 = 0o644;
const TOKEN_SECONDS: i64 = 3600;

/// The files of a volume.
pub async fn of(handles: &Handles, pod: &Pod, facts: &Facts, volume: &Volume) -> Result<Payload, Error> {
    let mut files = Payload::new();
    if let Some(source) = &volume.config_map {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let optional = source.optional == Some(true);
        files = config_map(handles, pod, &source.name, source.items.as_deref(), optional, mode).await?;
    } else if let Some(source) = &volume.secret {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let name = source.secret_name.as_deref().unwrap_or_default();
        let optional = source.optional == Some(true);
        files = secret(handles, pod, name, source.items.as_deref(), optional, mode).await?;
    } else if let Some(source) = &volume.downward_api {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        files = downward(pod, facts, source.items.as_deref(), mode)?;
    } else if let Some(source) = &volume.projected {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        for projection in source.sources.iter().flatten() {
            files.extend(Box::pin(project(handles, pod, facts, projection, mode, &volume.name)).await?);
        }
    }
    Ok(files)
}

async fn project(
    handles: &Handles,
    pod: &Pod,
    facts: &Facts,
    projection: &VolumeProjection,
    mode: i32,
    volume: &str,
) -> Result<Payload, Error> {
    if let Some(source) = &projection.config_map {
        let optional = source.optional == Some(true);
        return config_map(handles, pod, &source.name, source.items.as_deref(), optional, mode).await;
    }
    if let Some(source) = &projection.secret {
        let optional = source.optional == Some(true);
        return secret(handles, pod, &source.name, source.items.as_deref(), optional, mode).await;
    }
    if let Some(source) = &projection.downward_api {
        return downward(pod, facts, source.items.as_deref(), mode);
    }
    if let Some(source) = &projection.service_account_token {
        let seconds = source.expiration_seconds.unwrap_or(TOKEN_SECONDS);
        let token = handles.tokens.get(pod, source.audience.as_deref(), seconds).await?;
        let owner = owner(pod);
        let file = File { data: token.as_bytes().to_vec(), mode: bits(token_mode(pod, owner, mode)), owner };
        return Ok(Payload::from([(source.path.clone(), file)]));
    }
    let kind = match projection {
        VolumeProjection { cluster_trust_bundle: Some(_), .. } => "clusterTrustBundle projected",
        VolumeProjection { pod_certificate: Some(_), .. } => "podCertificate projected",
        _ => return Ok(Payload::new()),
    };
    Err(Error::Unsupported { name: volume.to_owned(), kind })
}

/// Who is to read a token besides root: its owner, and with an fsGroup the group, which gets its bits later.
fn token_mode(pod: &Pod, owner: Option<u32>, mode: i32) -> i32 {
    let context = pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
    if owner.is_some() || context.and_then(|c| c.fs_group).is_some() { 0o600 } else { mode }
}

/// The user that every container of the pod runs as, if they name one and the same. Upstream: `FsUserFrom`.
fn owner(pod: &Pod) -> Option<u32> {
    let of_pod = pod.spec.as_ref().and_then(|s| s.security_context.as_ref()).and_then(|c| c.run_as_user);
    let ephemeral = crate::pod::ephemeral_containers(pod).iter().map(crate::pod::of_ephemeral);
    let all = crate::pod::containers(pod).map(|(_, c)| c.clone()).chain(ephemeral);
    let mut users = all.map(|c| c.security_context.and_then(|c| c.run_as_user).or(of_pod));
    let first = users.next()??;
    users.all(|user| user == Some(first)).then(|| u32::try_from(first).ok())?
}

fn bits(mode: i32) -> u32 {
    u32::try_from(mode).unwrap_or(0o644) & 0o7777
}

async fn config_map(
    handles: &Handles,
    pod: &Pod,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: bool,
    mode: i32,
) -> Result<Payload, Error> {
    let (namespace, uid) = (crate::pod::namespace(pod), crate::pod::uid(pod));
    let Some(map) = handles.objects.config_map(namespace, name, uid).await? else {
        return absent("configmap", name, optional);
    };
    let text = map.data.iter().flatten().map(|(k, v)| (k.as_str(), v.as_bytes()));
    let binary = map.binary_data.iter().flatten().map(|(k, v)| (k.as_str(), v.0.as_slice()));
    select(&text.chain(binary).collect(), items, optional, mode, "config")
}

async fn secret(
    handles: &Handles,
    pod: &Pod,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: bool,
    mode: i32,
) -> Result<Payload, Error> {
    let (namespace, uid) = (crate::pod::namespace(pod), crate::pod::uid(pod));
    let Some(secret) = handles.objects.secret(namespace, name, uid).await? else {
        return absent("secret", name, optional);
    };
    let bytes = |(k, v): (&'_ String, &'_ ByteString)| (k.clone(), v.0.clone());
    let owned: BTreeMap<String, Vec<u8>> = secret.data.iter().flatten().map(bytes).collect();
    let data = owned.iter().map(|(k, v)| (k.as_str(), v.as_slice())).collect();
    select(&data, items, optional, mode, "secret")
}

fn absent(kind: &'static str, name: &str, optional: bool) -> Result<Payload, Error> {
    if optional { Ok(Payload::new()) } else { Err(Error::Missing { kind, name: name.to_owned() }) }
}

/// All keys under their own names, or the listed ones under theirs.
fn select(
    data: &BTreeMap<&str, &[u8]>,
    items: Option<&[KeyToPath]>,
    optional: bool,
    mode: i32,
    kind: &'static str,
) -> Result<Payload, Error> {
    let file = |bytes: &[u8], mode: i32| File { data: bytes.to_vec(), mode: bits(mode), owner: None };
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(data.iter().map(|(key, bytes)| ((*key).to_owned(), file(bytes, mode))).collect());
    };
    let mut files = Payload::new();
    for item in items {
        match data.get(item.key.as_str()) {
            Some(bytes) => {
                files.insert(item.path.clone(), file(bytes, item.mode.unwrap_or(mode)));
            }
            None if optional => {}
            None => return Err(Error::Key { kind, key: item.key.clone() }),
        }
    }
    Ok(files)
}

fn downward(
    pod: &Pod,
    facts: &Facts,
    items: Option<&[DownwardAPIVolumeFile]>,
    mode: i32,
) -> Result<Payload, Error> {
    let mut files = Payload::new();
    for item in items.into_iter().flatten() {
        let text = if let Some(field) = &item.field_ref {
            downward::field(pod, facts, &field.field_path)?
        } else if let Some(selector) = &item.resource_field_ref {
            downward::resource(pod, None, facts, selector)?
        } else {
            continue;
        };
        let file = File { data: text.into_bytes(), mode: bits(item.mode.unwrap_or(mode)), owner: None };
        files.insert(item.path.clone(), file);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn token(spec: Value) -> (Option<u32>, i32) {
        let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
        (owner(&pod), token_mode(&pod, owner(&pod), 0o644))
    }

    #[test]
    fn a_token_belongs_to_the_one_user_of_its_pod_and_nobody_else_reads_it() {
        let both = |one: Value, other: Value| json!([{"name": "a", "securityContext": one}, {"name": "b", "securityContext": other}]);
        let seven = || json!({"runAsUser": 7});
        for (spec, want) in [
            (json!({"containers": [{"name": "a"}]}), (None, 0o644)),
            (json!({"containers": both(seven(), seven())}), (Some(7), 0o600)),
            (json!({"containers": both(seven(), json!({"runAsUser": 8}))}), (None, 0o644)),
            (json!({"containers": both(seven(), json!({}))}), (None, 0o644)),
            (json!({"securityContext": seven(), "containers": both(json!({}), seven())}), (Some(7), 0o600)),
            (json!({"containers": both(seven(), seven()), "initContainers": [{"name": "i"}]}), (None, 0o644)),
            (json!({"securityContext": {"fsGroup": 5}, "containers": [{"name": "a"}]}), (None, 0o600)),
        ] {
            assert_eq!(token(spec.clone()), want, "{spec}");
        }
    }
}
