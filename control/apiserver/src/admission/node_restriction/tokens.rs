//! Tokens of service accounts: for a pod bound to it, and for nobody that pod does not speak to.

use super::super::Attributes;
use super::pods;
use crate::context::RequestInfo;
use crate::registry::Registry;
use crate::registry::hooks::Decision;
use crate::registry::kind::Kind;
use machinery::access::Get as _;
use machinery::goformat::go_quote;
use machinery::object;
use machinery::status::Status;
use serde_json::Value;

pub(super) async fn requested(registry: &Registry, a: &Attributes<'_>, node: &str) -> Result<(), Status> {
    let request = a.new_object();
    let reference = request.present("spec.boundObjectRef").unwrap_or(&Value::Null);
    let field = |name| reference.text(name);
    if field("apiVersion") != "v1" || field("kind") != "Pod" || field("name").is_empty() {
        return Err(a.forbidden("node requested token not bound to a pod"));
    }
    if field("uid").is_empty() {
        return Err(a.forbidden("node requested token with a pod binding without a uid"));
    }
    let pod = pods::stored(registry, &a.namespace, field("name")).await?;
    if field("uid") != object::uid(&pod) {
        return Err(a.forbidden(format!(
            "the UID in the bound object reference ({}) does not match the UID in record. \
             The object might have been deleted and then recreated",
            field("uid")
        )));
    }
    if pod.text("spec.nodeName") != node {
        return Err(a.forbidden("node requested token bound to a pod scheduled on a different node"));
    }
    let audience = match request.items("spec.audiences") {
        [] => "",
        [one] => one.as_str().unwrap_or_default(),
        _ => return Err(a.forbidden("node may only request 0 or 1 audiences")),
    };
    audience_is_known(registry, a, &pod, audience).await
}

/// The pod's volumes name whom it speaks to, its CSI drivers do, or a role lets the node ask for that audience.
async fn audience_is_known(
    registry: &Registry,
    a: &Attributes<'_>,
    pod: &Value,
    audience: &str,
) -> Result<(), Status> {
    let mut problems: Vec<String> = Vec::new();
    for volume in pod.items("spec.volumes") {
        if volume.items("projected.sources").iter().any(|source| {
            source.present("serviceAccountToken").is_some_and(|token| token.text("audience") == audience)
        }) {
            return Ok(());
        }
        match driver_asks(registry, pod, volume, audience).await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(problem) => problems.push(problem.message.clone()),
        }
    }
    let quoted = go_quote(audience);
    if !problems.is_empty() {
        let all = match problems.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        return Err(a.forbidden(format!("error validating audience {quoted}: {all}")));
    }
    let info = RequestInfo {
        api_prefix: "api".to_owned(),
        version: "v1".to_owned(),
        ..RequestInfo::any_version(
            "request-serviceaccounts-token-audience",
            "",
            audience,
            &a.namespace,
            &a.name,
        )
    };
    if let Decision::Allow(_) = registry.front()?.authorize(a.user, &info).await {
        return Ok(());
    }
    Err(a.forbidden(format!(
        "audience {quoted} not found in pod spec volume, {} is not authorized to request tokens for this audience",
        a.user.name
    )))
}

/// Whether the CSI driver behind a volume wants tokens for that audience.
async fn driver_asks(
    registry: &Registry,
    pod: &Value,
    volume: &Value,
    audience: &str,
) -> Result<bool, Status> {
    let namespace = object::namespace(pod);
    let claim = volume.text("persistentVolumeClaim.claimName");
    let driver = if volume.present("ephemeral.volumeClaimTemplate").is_some() {
        let claim = format!("{}-{}", object::name(pod), volume.text("name"));
        behind_claim(registry, namespace, &claim).await?
    } else if !claim.is_empty() {
        behind_claim(registry, namespace, claim).await?
    } else {
        driver_of(volume).to_owned()
    };
    if driver.is_empty() {
        return Ok(false);
    }
    let driver = read(registry, ("storage.k8s.io", "csidrivers"), "", &driver).await?;
    let wanted = driver.items("spec.tokenRequests");
    Ok(wanted.iter().any(|request| request.text("audience") == audience))
}

async fn behind_claim(registry: &Registry, namespace: &str, name: &str) -> Result<String, Status> {
    let claim = read(registry, ("", "persistentvolumeclaims"), namespace, name).await?;
    let volume = read(registry, ("", "persistentvolumes"), "", claim.text("spec.volumeName")).await?;
    Ok(volume.get("spec").map(driver_of).unwrap_or_default().to_owned())
}

async fn read(
    registry: &Registry,
    (group, plural): (&'static str, &'static str),
    namespace: &str,
    name: &str,
) -> Result<Value, Status> {
    let kind =
        Kind::of(group, plural).ok_or_else(|| Status::internal_error(format!("{plural} are not served")))?;
    registry.read_required(&kind, namespace, name).await
}

/// In-tree volumes that CSI drivers serve (upstream: `csi-translation-lib/plugins`).
const MIGRATED: [(&str, &str); 7] = [
    ("awsElasticBlockStore", "ebs.csi.aws.com"),
    ("azureDisk", "disk.csi.azure.com"),
    ("azureFile", "file.csi.azure.com"),
    ("cinder", "cinder.csi.openstack.org"),
    ("gcePersistentDisk", "pd.csi.storage.gke.io"),
    ("portworxVolume", "pxd.portworx.com"),
    ("vsphereVolume", "csi.vsphere.vmware.com"),
];

/// The CSI driver of a volume source, or nothing. Pure.
fn driver_of(source: &Value) -> &str {
    if source.present("csi").is_some() {
        return source.text("csi.driver");
    }
    let migrated = MIGRATED.iter().find(|(plugin, _)| source.has(plugin));
    migrated.map_or("", |(_, driver)| *driver)
}
