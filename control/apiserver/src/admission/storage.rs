//! DefaultStorageClass, StorageObjectInUseProtection, PersistentVolumeClaimResize.

use super::{Attributes, Operation, Verdict, classes};
use crate::registry::Registry;
use crate::registry::kind::Kind;
use crate::registry::metadata::finalizers;
use machinery::access::{Get as _, list_at, set_at};
use machinery::object;
use machinery::quantity::Quantity;
use serde_json::Value;

const DEFAULT: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

pub(super) fn default_class<'a>(registry: &'a Registry, a: &'a mut Attributes<'_>) -> Verdict<'a> {
    Box::pin(async move {
        let claim = a.new_object();
        if !a.is("", "persistentvolumeclaims", "")
            || a.operation != Operation::Create
            || claim.present("spec.storageClassName").is_some()
            || object::annotation(claim, "volume.beta.kubernetes.io/storage-class").is_some()
        {
            return Ok(());
        }
        let class = classes::by_default(registry, ("storage.k8s.io", "storageclasses"), &DEFAULT).await?;
        if let (Some(class), Some(claim)) = (class, &mut a.object) {
            set_at(claim, "spec.storageClassName", class);
        }
        Ok(())
    })
}

pub(super) fn protect<'a>(_: &'a Registry, a: &'a mut Attributes<'_>) -> Verdict<'a> {
    Box::pin(async move {
        if a.operation != Operation::Create {
            return Ok(());
        }
        let finalizer = if a.is("", "persistentvolumes", "") {
            "kubernetes.io/pv-protection"
        } else if a.is("", "persistentvolumeclaims", "") {
            "kubernetes.io/pvc-protection"
        } else if a.is("storage.k8s.io", "volumeattributesclasses", "") {
            "kubernetes.io/vac-protection"
        } else {
            return Ok(());
        };
        if let Some(object) = &mut a.object
            && !finalizers(object).contains(&finalizer)
        {
            list_at(object, "metadata.finalizers").push(finalizer.into());
        }
        Ok(())
    })
}

pub(super) fn resize<'a>(registry: &'a Registry, a: &'a mut Attributes<'_>) -> Verdict<'a> {
    Box::pin(async move {
        if !a.is("", "persistentvolumeclaims", "") || a.operation != Operation::Update {
            return Ok(());
        }
        let size = |claim: &Value| {
            claim
                .present("spec.resources.requests.storage")
                .and_then(Value::as_str)
                .and_then(|q| Quantity::parse(q).ok())
        };
        match (size(a.old_object()), size(a.new_object())) {
            (Some(before), Some(after)) if after > before => {}
            _ => return Ok(()),
        }
        if a.old_object().text("status.phase") != "Bound" {
            return Err(a.forbidden("Only bound persistent volume claims can be expanded"));
        }
        let class = a.new_object().text("spec.storageClassName");
        let expandable = match Kind::of("storage.k8s.io", "storageclasses").filter(|_| !class.is_empty()) {
            Some(kind) => registry
                .lookup(&kind, "", class)
                .await?
                .is_some_and(|c| c.present("allowVolumeExpansion") == Some(&Value::Bool(true))),
            None => false,
        };
        if expandable {
            return Ok(());
        }
        Err(a.forbidden(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
        ))
    })
}
