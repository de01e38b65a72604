//! `pods/binding`: the scheduler's one write (upstream: `pkg/registry/core/pod/storage`).

use super::super::{Exchange, body};
use super::created;
use crate::admission::{self, Attributes, Operation, Seen};
use crate::context::{Body, Response};
use crate::registry::kind::Kind;
use crate::registry::metadata::{deleting, time};
use machinery::access::{Get as _, list_at, remove_at, set_at};
use machinery::field::{FieldError, Path};
use machinery::object;
use machinery::object::{Gk, Gr, Gvk};
use machinery::status::Status;
use serde_json::{Value, json};

/// Binds the pod that `name` (or, where empty, the binding) names.
pub(super) async fn create(x: &Exchange<'_>, request: Body, name: &str) -> Result<Response, Status> {
    let mut call = x.call()?;
    let bytes = body::read(request).await?;
    let gvk = Gvk::new("", "v1", "Binding");
    let (binding, warnings) = body::decode(&x.headers, &bytes, &gvk, call.options.field_validation)?;
    x.warn(warnings);
    x.audit_as_is(&binding);
    let mut attributes = Attributes::of_sent(&x.writer.admission, &call, Operation::Create, gvk, binding);
    admission::sent(x.registry, &mut attributes).await?;
    let binding = attributes.object.take().unwrap_or_default();
    let given = object::name(&binding);
    if !name.is_empty() && !given.is_empty() && given != name {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    let target = Path::new("target");
    let mut errors = Vec::new();
    let kind = binding.text("target.kind");
    if !kind.is_empty() && kind != "Node" {
        errors.push(FieldError::not_supported(&target.child("kind"), kind, &["Node", "<empty>"]));
    }
    let node = binding.text("target.name").to_owned();
    if node.is_empty() {
        errors.push(FieldError::required(&target.child("name"), ""));
    }
    if !errors.is_empty() {
        return Err(Status::invalid(&Gk::new("", "Binding"), given, &errors));
    }
    call.kind = Kind::of("", "pods").ok_or_else(|| Status::internal_error("pods are not served"))?;
    call.name = if name.is_empty() { given.to_owned() } else { name.to_owned() };
    call.subresource = "binding";
    call.seen = Seen::Already;
    let gr = call.kind.gr();
    let now = time(jiff::Timestamp::now());
    let bind = |old: &Value| {
        let refuse =
            |why: String| Err(Status::conflict(&Gr::new("", "pods/binding"), object::name(old), why));
        let mut pod = old.clone();
        object::set_resource_version(&mut pod, object::resource_version(&binding));
        let uid = object::uid(&binding);
        if !uid.is_empty() && uid != object::uid(old) {
            return Err(Status::conflict(
                &gr,
                object::name(old),
                format!(
                    "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                    object::uid(old)
                ),
            ));
        }
        if deleting(old) {
            return refuse(format!(
                "pod {} is being deleted, cannot be assigned to a host",
                object::name(old)
            ));
        }
        let assigned = old.text("spec.nodeName");
        if !assigned.is_empty() {
            return refuse(format!("pod {} is already assigned to node {assigned:?}", object::name(old)));
        }
        if !old.items("spec.schedulingGates").is_empty() {
            return refuse(format!("pod {} has non-empty .spec.schedulingGates", object::name(old)));
        }
        set_at(&mut pod, "spec.nodeName", node.clone());
        // What was a preemptor's claim to a node is settled.
        remove_at(&mut pod, "status.nominatedNodeName");
        for (key, value) in binding.texts("metadata.annotations") {
            object::set_annotation(&mut pod, key, Some(value));
        }
        for (key, value) in binding.texts("metadata.labels") {
            object::set_label(&mut pod, key, value);
        }
        scheduled(&mut pod, &now);
        Ok(pod)
    };
    x.writer.update(&call, &bind, None).await?;
    let mut status = Status::success();
    status.code = 201;
    created(x, &status.to_value())
}

/// The PodScheduled condition turns true.
fn scheduled(pod: &mut Value, now: &str) {
    let conditions = list_at(pod, "status.conditions");
    let wanted =
        json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
    match conditions.iter_mut().find(|c| c.text("type") == "PodScheduled") {
        Some(condition) if condition.present("status") == Some(&Value::String("True".into())) => {}
        Some(condition) => *condition = wanted,
        None => conditions.push(wanted),
    }
}
