//! Volumes of storage drivers: staged once on the node, published to each pod.
//!
//! What a driver was asked for is written beside the volume first (`vol_data.json`, as upstream writes it), so that a kubelet that starts
//! again can have it undone. Publishing is idempotent by the interface; it is repeated after a restart, and for drivers that ask for
//! it on every sync.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use cri_proto::csi::v1::volume_capability::access_mode::Mode;
use cri_proto::csi::v1::volume_capability::{AccessMode, AccessType, MountVolume};
use cri_proto::csi::v1::{NodePublishVolumeRequest, NodeStageVolumeRequest, VolumeCapability};
use cri_proto::csi::{Abilities, Driver};
use k8s_openapi::api::core::v1::{CSIVolumeSource, Pod, Secret, SecretReference};
use k8s_openapi::api::storage::v1::{CSIDriver, CSIDriverSpec, VolumeAttachment};
use kube::api::Api;
use sha2::{Digest, Sha256};

use super::claim::Claimed;
use super::ownership::{self, Change};
use super::{Error, Handles, Source, blocking, io};

mod record;

pub use record::Record;

/// One volume as a driver is asked for it.
struct VolumeRequest {
    driver: String,
    handle: String,
    /// The name of its directory in the pod's.
    name: String,
    fs_type: String,
    attributes: BTreeMap<String, String>,
    read_only: bool,
    /// The access modes of the volume, the first of which the driver is told; none: made for the pod alone.
    modes: Vec<String>,
    options: Vec<String>,
    publish_secret: Option<SecretReference>,
    stage_secret: Option<SecretReference>,
}

impl VolumeRequest {
    fn is_inline(&self) -> bool {
        self.modes.is_empty()
    }

    fn lifecycle(&self) -> &'static str {
        if self.is_inline() { "Ephemeral" } else { "Persistent" }
    }
}

fn failed(text: impl Into<String>) -> Error {
    Error::Driver(text.into())
}

fn hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The volume behind a claim.
pub async fn set_up_claimed(handles: &Handles, pod: &Pod, claimed: &Claimed) -> Result<Source, Error> {
    let spec = claimed.volume.spec.clone().unwrap_or_default();
    let source = spec.csi.unwrap_or_default();
    if claimed.block {
        return Err(Error::Unsupported { name: claimed.name().to_owned(), kind: "block csi" });
    }
    let wanted = VolumeRequest {
        driver: source.driver,
        handle: source.volume_handle,
        name: claimed.name().to_owned(),
        fs_type: source.fs_type.unwrap_or_default(),
        attributes: source.volume_attributes.unwrap_or_default(),
        read_only: claimed.read_only || source.read_only == Some(true),
        modes: spec.access_modes.unwrap_or_default(),
        options: spec.mount_options.unwrap_or_default(),
        publish_secret: source.node_publish_secret_ref,
        stage_secret: source.node_stage_secret_ref,
    };
    set_up(handles, pod, wanted).await
}

/// A volume that lives as long as its pod.
pub async fn set_up_inline(
    handles: &Handles,
    pod: &Pod,
    name: &str,
    source: &CSIVolumeSource,
) -> Result<Source, Error> {
    let secret = source.node_publish_secret_ref.as_ref().map(|secret| SecretReference {
        name: Some(secret.name.clone()),
        namespace: Some(crate::pod::namespace(pod).to_owned()),
    });
    let wanted = VolumeRequest {
        driver: source.driver.clone(),
        handle: format!("csi-{}", hash(&format!("{}{name}", crate::pod::uid(pod)))),
        name: name.to_owned(),
        fs_type: source.fs_type.clone().unwrap_or_default(),
        attributes: source.volume_attributes.clone().unwrap_or_default(),
        read_only: source.read_only == Some(true),
        modes: Vec::new(),
        options: Vec::new(),
        publish_secret: secret,
        stage_secret: None,
    };
    set_up(handles, pod, wanted).await
}

async fn set_up(handles: &Handles, pod: &Pod, wanted: VolumeRequest) -> Result<Source, Error> {
    let driver = handles
        .drivers
        .get(&wanted.driver)
        .map_err(|e| failed(format!("kubernetes.io/csi: mounter.SetUpAt failed to get CSI client: {e}")))?;
    let client = handles.objects.client().cloned().ok_or_else(|| failed("there is no API server"))?;
    let found = Api::<CSIDriver>::all(client.clone()).get_opt(&wanted.driver).await;
    let spec = found.map_err(|e| failed(e.to_string()))?.map(|d| d.spec);
    check_lifecycle(&wanted, spec.as_ref())?;
    let directory = super::directory(handles, pod, "csi", &wanted.name);
    let target = directory.join("mount");
    let shown = Source::Host { path: target.clone(), read_only: wanted.read_only };
    let repeats = spec.as_ref().is_some_and(|s| s.requires_republish == Some(true));
    if handles.drivers.is_published(&target) && !repeats {
        return Ok(shown);
    }
    let abilities = driver.abilities().await.map_err(|e| failed(e.to_string()))?;
    let handle = format!("kubernetes.io/csi/{}^{}", wanted.driver, wanted.handle);
    let turn = handles.drivers.turn(&handle);
    let _turn = turn.lock().await;
    let mut publish_context = HashMap::new();
    if !wanted.is_inline() {
        // In use from before it is attached for us, so that nobody detaches it under our hands.
        handles.drivers.hold(&handle);
        if spec.as_ref().is_none_or(|s| s.attach_required != Some(false)) {
            publish_context = attached(handles, client.clone(), &wanted).await?;
        }
    }
    let group = Change::of(pod).group.filter(|_| abilities.mount_group);
    let capability = capability(&wanted, abilities, group);
    let mut staging = String::new();
    if abilities.stage && !wanted.is_inline() {
        let path = staging_path(handles, &wanted.driver, &wanted.handle);
        staging = path.to_string_lossy().into_owned();
        stage(&driver, &client, &wanted, &path, capability.clone(), publish_context.clone()).await?;
    }
    let mut attributes = wanted.attributes.clone();
    let mut secrets = secret(&client, wanted.publish_secret.as_ref(), "NodePublishSecretRef").await?;
    if let Some(spec) = &spec {
        if spec.pod_info_on_mount == Some(true) {
            attributes.extend(pod_info(pod, wanted.is_inline()));
        }
        if let Some(tokens) = tokens(handles, pod, spec).await? {
            let key = "csi.storage.k8s.io/serviceAccount.tokens".to_owned();
            match spec.service_account_token_in_secrets == Some(true) {
                true => drop(secrets.insert(key, tokens)),
                false => drop(attributes.insert(key, tokens)),
            }
        }
    }
    let data = Record::of_pod(
        &wanted.name,
        &wanted.handle,
        &wanted.driver,
        &handles.config.node_name,
        wanted.lifecycle(),
    );
    let place = directory.clone();
    blocking(move || data.write(&place)).await?;
    let request = NodePublishVolumeRequest {
        volume_id: wanted.handle.clone(),
        publish_context,
        staging_target_path: staging,
        target_path: target.to_string_lossy().into_owned(),
        volume_capability: Some(capability),
        readonly: wanted.read_only,
        secrets: secrets.into_iter().collect(),
        volume_context: attributes.into_iter().collect(),
    };
    let was_published = handles.drivers.is_published(&target);
    if let Err(error) = driver.publish(request).await {
        if !error.is_unfinished() && !was_published {
            let path = target.clone();
            blocking(move || record::remove_mount(&path)).await?;
        }
        return Err(failed(error.to_string()));
    }
    let change = Change::of(pod);
    if !abilities.mount_group && takes_group(&wanted, spec.as_ref()) {
        let path = target.clone();
        blocking(move || ownership::apply(&path, &change)).await?;
    }
    handles.drivers.published(&target);
    Ok(shown)
}

/// The driver takes volumes of this lifecycle; without a CSIDriver object only persistent ones.
fn check_lifecycle(wanted: &VolumeRequest, spec: Option<&CSIDriverSpec>) -> Result<(), Error> {
    let modes = spec.and_then(|s| s.volume_lifecycle_modes.as_deref()).unwrap_or_default();
    let taken = match modes {
        [] => !wanted.is_inline(),
        modes => modes.iter().any(|m| m == wanted.lifecycle()),
    };
    if taken {
        return Ok(());
    }
    let (driver, mode) = (&wanted.driver, wanted.lifecycle());
    Err(failed(match spec {
        Some(_) => format!(
            "kubernetes.io/csi: mounter.SetupAt failed to check volume lifecycle mode: volume mode \"{mode}\" not \
             supported by driver {driver} (only supports {modes:?})"
        ),
        None => format!(
            "kubernetes.io/csi: mounter.SetupAt failed to check volume lifecycle mode: volume mode \"{mode}\" not \
             supported by driver {driver} (no CSIDriver object)"
        ),
    }))
}

/// What the attacher says of the volume on this node, once it is attached.
async fn attached(
    handles: &Handles,
    client: kube::Client,
    wanted: &VolumeRequest,
) -> Result<HashMap<String, String>, Error> {
    let name = attachment_name(&wanted.handle, &wanted.driver, &handles.config.node_name);
    let found =
        Api::<VolumeAttachment>::all(client).get_opt(&name).await.map_err(|e| failed(e.to_string()))?;
    let status = found.and_then(|a| a.status);
    if let Some(error) = status.as_ref().and_then(|s| s.attach_error.as_ref()).and_then(|e| e.message.clone())
    {
        return Err(failed(error));
    }
    match status.filter(|s| s.attached) {
        Some(status) => Ok(status.attachment_metadata.unwrap_or_default().into_iter().collect()),
        None => Err(failed(format!(
            "volume {} has not been attached to node {} yet: waiting for VolumeAttachment {name}",
            wanted.handle, handles.config.node_name
        ))),
    }
}

/// The name of the VolumeAttachment of a volume on a node.
fn attachment_name(handle: &str, driver: &str, node: &str) -> String {
    format!("csi-{}", hash(&format!("{handle}{driver}{node}")))
}

/// Where a volume is staged, for all pods of the node.
fn staging_path(handles: &Handles, driver: &str, handle: &str) -> PathBuf {
    let plugins = handles.config.root_dir.join("plugins/kubernetes.io/csi");
    plugins.join(driver).join(hash(handle)).join("globalmount")
}

fn capability(wanted: &VolumeRequest, abilities: Abilities, group: Option<u32>) -> VolumeCapability {
    let mode = wanted.modes.first().map_or("ReadWriteOnce", String::as_str);
    let mode = match (mode, abilities.single_node_multi_writer) {
        ("ReadWriteOnce", true) => Mode::SingleNodeMultiWriter,
        ("ReadWriteOncePod", true) => Mode::SingleNodeSingleWriter,
        ("ReadWriteOnce" | "ReadWriteOncePod", false) => Mode::SingleNodeWriter,
        ("ReadOnlyMany", _) => Mode::MultiNodeReaderOnly,
        ("ReadWriteMany", _) => Mode::MultiNodeMultiWriter,
        _ => Mode::Unknown,
    };
    VolumeCapability {
        access_mode: Some(AccessMode { mode: mode.into() }),
        access_type: Some(AccessType::Mount(MountVolume {
            fs_type: wanted.fs_type.clone(),
            mount_flags: wanted.options.clone(),
            volume_mount_group: group.map(|g| g.to_string()).unwrap_or_default(),
        })),
    }
}

/// Whether the kubelet gives the volume to the pod's group.
fn takes_group(wanted: &VolumeRequest, spec: Option<&CSIDriverSpec>) -> bool {
    let policy = spec.and_then(|s| s.fs_group_policy.as_deref()).unwrap_or("ReadWriteOnceWithFSType");
    match policy {
        _ if wanted.read_only => false,
        "None" => false,
        "File" => true,
        _ => {
            !wanted.fs_type.is_empty()
                && (wanted.is_inline() || wanted.modes.iter().any(|m| m == "ReadWriteOnce"))
        }
    }
}

async fn stage(
    driver: &Driver,
    client: &kube::Client,
    wanted: &VolumeRequest,
    path: &Path,
    capability: VolumeCapability,
    publish_context: HashMap<String, String>,
) -> Result<(), Error> {
    let secrets = secret(client, wanted.stage_secret.as_ref(), "NodeStageSecretRef").await?;
    let data = Record::of_node(&wanted.handle, &wanted.driver);
    let place = path.to_owned();
    blocking(move || {
        std::fs::create_dir_all(&place).map_err(io("create staging directory", &place))?;
        data.write(place.parent().unwrap_or(&place))
    })
    .await?;
    let request = NodeStageVolumeRequest {
        volume_id: wanted.handle.clone(),
        publish_context,
        staging_target_path: path.to_string_lossy().into_owned(),
        volume_capability: Some(capability),
        secrets: secrets.into_iter().collect(),
        volume_context: wanted.attributes.clone().into_iter().collect(),
    };
    driver.stage(request).await.map_err(|error| {
        failed(format!("MountVolume.MountDevice failed for volume \"{}\" : {error}", wanted.name))
    })
}

/// A secret's values as text.
async fn secret(
    client: &kube::Client,
    reference: Option<&SecretReference>,
    field: &str,
) -> Result<BTreeMap<String, String>, Error> {
    let Some(reference) = reference else { return Ok(BTreeMap::new()) };
    let (namespace, name) =
        (reference.namespace.clone().unwrap_or_default(), reference.name.clone().unwrap_or_default());
    let found = Api::<Secret>::namespaced(client.clone(), &namespace).get(&name).await;
    let found = found.map_err(|e| failed(format!("fetching {field} {namespace}/{name} failed: {e}")))?;
    let text = |bytes: k8s_openapi::ByteString| String::from_utf8_lossy(&bytes.0).into_owned();
    Ok(found.data.unwrap_or_default().into_iter().map(|(key, value)| (key, text(value))).collect())
}

fn pod_info(pod: &Pod, inline: bool) -> [(String, String); 5] {
    let account = pod.spec.as_ref().and_then(|s| s.service_account_name.clone()).unwrap_or_default();
    [
        ("pod.name", crate::pod::name(pod).to_owned()),
        ("pod.namespace", crate::pod::namespace(pod).to_owned()),
        ("pod.uid", crate::pod::uid(pod).to_owned()),
        ("serviceAccount.name", account),
        ("ephemeral", inline.to_string()),
    ]
    .map(|(key, value)| (format!("csi.storage.k8s.io/{key}"), value))
}

/// The tokens the driver asks for, by audience, as JSON.
async fn tokens(handles: &Handles, pod: &Pod, spec: &CSIDriverSpec) -> Result<Option<String>, Error> {
    let requests = spec.token_requests.as_deref().unwrap_or_default();
    let mut all = serde_json::Map::new();
    for request in requests {
        let seconds = request.expiration_seconds.unwrap_or(3600);
        let (token, expires) = handles.tokens.get_with_end(pod, Some(&request.audience), seconds).await?;
        let status = serde_json::json!({"token": &*token, "expirationTimestamp": expires.to_string()});
        all.insert(request.audience.clone(), status);
    }
    Ok((!all.is_empty()).then(|| serde_json::Value::Object(all).to_string()))
}

/// Has the drivers take back what they gave a pod, and what no other pod of the node uses any more.
pub async fn tear_down(handles: &Handles, uid: &str) -> Result<(), Error> {
    let root = handles.config.pod_dir(uid).join("volumes/kubernetes.io~csi");
    let place = root.clone();
    for directory in blocking(move || record::directories(&place)).await? {
        let place = directory.clone();
        let Some(data) = blocking(move || Record::read(&place)).await? else { continue };
        let driver = handles.drivers.get(&data.driver).map_err(|e| {
            failed(format!("kubernetes.io/csi: Unmounter.TearDownAt failed to get CSI client: {e}"))
        })?;
        let name = format!("kubernetes.io/csi/{}^{}", data.driver, data.handle);
        let turn = handles.drivers.turn(&name);
        let _turn = turn.lock().await;
        let target = directory.join("mount");
        driver
            .unpublish(&data.handle, &target)
            .await
            .map_err(|e| failed(format!("kubernetes.io/csi: Unmounter.TearDownAt failed: {e}")))?;
        handles.drivers.unpublished(&target);
        let place = directory.clone();
        blocking(move || record::forget(&place)).await?;
        if data.is_inline() {
            continue;
        }
        let pods = handles.config.root_dir.join("pods");
        let own = data.clone();
        if blocking(move || Ok(record::is_used(&pods, &own))).await? {
            continue;
        }
        let staging = staging_path(handles, &data.driver, &data.handle);
        if staging.is_dir() {
            driver
                .unstage(&data.handle, &staging)
                .await
                .map_err(|e| failed(format!("kubernetes.io/csi: attacher.UnmountDevice failed: {e}")))?;
            let place = staging.clone();
            blocking(move || {
                record::remove_mount(&place)?;
                record::forget(place.parent().unwrap_or(&place))
            })
            .await?;
        }
        handles.drivers.release(&name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wanted(modes: &[&str], fs_type: &str) -> VolumeRequest {
        VolumeRequest {
            driver: "d".into(),
            handle: "h".into(),
            name: "v".into(),
            fs_type: fs_type.into(),
            attributes: BTreeMap::new(),
            read_only: false,
            modes: modes.iter().map(|m| (*m).to_owned()).collect(),
            options: Vec::new(),
            publish_secret: None,
            stage_secret: None,
        }
    }

    fn spec(fields: serde_json::Value) -> CSIDriverSpec {
        serde_json::from_value(fields).unwrap()
    }

    #[test]
    fn access_modes_depend_on_what_the_driver_tells_apart() {
        let mode = |modes: &[&str], apart| {
            let abilities = Abilities { single_node_multi_writer: apart, ..Abilities::default() };
            capability(&wanted(modes, ""), abilities, Some(7)).access_mode.unwrap().mode()
        };
        assert_eq!(mode(&["ReadWriteOnce"], false), Mode::SingleNodeWriter);
        assert_eq!(mode(&["ReadWriteOnce"], true), Mode::SingleNodeMultiWriter);
        assert_eq!(mode(&["ReadWriteOncePod"], true), Mode::SingleNodeSingleWriter);
        assert_eq!(mode(&["ReadWriteMany"], true), Mode::MultiNodeMultiWriter);
        assert_eq!(mode(&[], false), Mode::SingleNodeWriter, "made for one pod");
    }

    #[test]
    fn groups_are_given_as_the_driver_wants_it() {
        let rwo = wanted(&["ReadWriteOnce"], "ext4");
        assert!(takes_group(&rwo, None));
        assert!(!takes_group(&wanted(&["ReadWriteOnce"], ""), None));
        assert!(!takes_group(&wanted(&["ReadWriteMany"], "ext4"), None));
        assert!(takes_group(&wanted(&["ReadWriteMany"], ""), Some(&spec(json!({"fsGroupPolicy": "File"})))));
        assert!(!takes_group(&rwo, Some(&spec(json!({"fsGroupPolicy": "None"})))));
    }

    #[test]
    fn inline_volumes_only_of_drivers_that_say_so() {
        let inline = wanted(&[], "");
        assert!(check_lifecycle(&inline, None).is_err());
        assert!(
            check_lifecycle(&inline, Some(&spec(json!({"volumeLifecycleModes": ["Ephemeral"]})))).is_ok()
        );
        let both = wanted(&["ReadWriteOnce"], "");
        assert!(check_lifecycle(&both, None).is_ok());
        assert!(check_lifecycle(&both, Some(&spec(json!({"volumeLifecycleModes": ["Ephemeral"]})))).is_err());
    }

    #[test]
    fn names_are_upstreams() {
        // sha256("handledrivernode"), as upstream's controller names the attachment.
        let name = attachment_name("handle", "driver", "node");
        assert_eq!(name.len(), "csi-".len() + 64);
        assert_eq!(name, format!("csi-{}", hash("handledrivernode")));
    }
}
