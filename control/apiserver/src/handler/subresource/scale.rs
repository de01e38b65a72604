//! `scale`: the replica count of any workload as one kind, `autoscaling/v1` Scale.

use super::super::negotiate::{Accept, Shape};
use super::super::table::{self, Include};
use super::super::{Exchange, body, patch, respond};
use crate::admission::{Seen, View};
use crate::context::{Body, Response};
use crate::registry::call::Call;
use crate::registry::kind::Kind;
use crate::registry::rules::Selects;
use crate::write::managed::Configuration;
use crate::write::update::check_names;
use http::StatusCode;
use machinery::access::{Get as _, find, object_at, set_at};
use machinery::field::{FieldError, Path};
use machinery::labels::Selector;
use machinery::object;
use machinery::object::{Gk, Gvk};
use machinery::status::Status;
use serde_json::{Value, json};

fn gvk() -> Gvk {
    Gvk::new("autoscaling", "v1", "Scale")
}

/// What webhooks and policies see of a scaled workload.
static VIEW: View = View {
    subresource: "scale",
    gvk: ("autoscaling", "v1", "Scale"),
    of,
    put_back: |kind, object, scale| {
        let replicas = scale.present("spec.replicas").and_then(Value::as_i64).unwrap_or_default();
        set_replicas(kind, object, replicas);
    },
};

/// The Scale of an object, whose rules say where its replicas are.
fn of(kind: &Kind, object: &Value) -> Value {
    let Some(scaling) = kind.rules().scaling() else { return Value::Null };
    let count = |path: &str| find(object, path).and_then(Value::as_i64).unwrap_or_default();
    let mut scale = base(object);
    let replicas = count(&scaling.wanted);
    if replicas != 0 {
        set_at(&mut scale, "spec.replicas", replicas);
    }
    set_at(&mut scale, "status.replicas", count(&scaling.present));
    let selector = selector(&scaling.selects, object);
    if !selector.is_empty() {
        set_at(&mut scale, "status.selector", selector);
    }
    scale
}

/// The selector of an object's pods in its text form.
fn selector(selects: &Selects, object: &Value) -> String {
    match (selects, object.present("spec.selector")) {
        (Selects::Text(path), _) => find(object, path).and_then(Value::as_str).unwrap_or_default().to_owned(),
        // A ReplicationController's selector is a plain map.
        (Selects::Labels, Some(Value::Object(map))) if object::kind(object) == "ReplicationController" => {
            Selector::from_map(map).to_string()
        }
        (Selects::Labels, Some(selector)) => {
            Selector::from_label_selector(selector).map(|s| s.to_string()).unwrap_or_default()
        }
        (Selects::Labels, None) | (Selects::Nothing, _) => String::new(),
    }
}

/// Sets the wanted replicas of an object.
fn set_replicas(kind: &Kind, object: &mut Value, replicas: i64) {
    if let Some(scaling) = kind.rules().scaling() {
        set_at(object, &scaling.wanted, replicas);
    }
}

/// What every Scale has.
fn base(object: &Value) -> Value {
    let mut scale = json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {}, "spec": {}});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object.at("metadata").present(field) {
            object_at(&mut scale, "metadata").insert(field.to_owned(), value.clone());
        }
    }
    scale
}

pub(super) async fn get(x: &Exchange<'_>) -> Result<Response, Status> {
    let accept = x.accept(false)?;
    let workload = x.registry.read_required(&x.kind, x.namespace(), &x.context.info.name).await?;
    if let Some(scaling) = x.kind.rules().scaling()
        && find(&workload, &scaling.wanted).is_none()
    {
        let why = format!("the spec replicas field {:?} does not exist", scaling.wanted);
        return Err(Status::internal_error(why));
    }
    Ok(answer(x, &accept, of(&x.kind, &workload)))
}

/// A Scale in the shape its client asked for.
fn answer(x: &Exchange<'_>, accept: &Accept, scale: Value) -> Response {
    let shaped = match accept.shape {
        Shape::Table(version) => table::of_scale(version, &scale, Include::parse(x.context)),
        Shape::Partial(version) => table::partial(version, &scale),
        Shape::Full => scale,
    };
    respond::value(StatusCode::OK, accept, &shaped)
}

fn check_replicas(replicas: i64, name: &str) -> Result<(), Status> {
    if replicas >= 0 {
        return Ok(());
    }
    let path = Path::new("spec").child("replicas");
    let error = FieldError::invalid(&path, replicas, "must be greater than or equal to 0");
    Err(Status::invalid(&Gk::new("autoscaling", "Scale"), name, &[error]))
}

/// The workload with the replicas of a Scale.
fn scaled(kind: &Kind, workload: &Value, scale: &Value) -> Result<Value, Status> {
    let replicas = scale.present("spec.replicas").and_then(Value::as_i64).unwrap_or_default();
    check_replicas(replicas, object::name(workload))?;
    let mut new = workload.clone();
    set_replicas(kind, &mut new, replicas);
    object::set_resource_version(&mut new, object::resource_version(scale));
    let uid = object::uid(scale);
    if !uid.is_empty() {
        object::set_uid(&mut new, uid);
    }
    Ok(new)
}

pub(super) async fn update(x: &Exchange<'_>, request: Body) -> Result<Response, Status> {
    let accept = x.accept(false)?;
    let mut call = x.call()?;
    call.subresource = "";
    call.seen = Seen::As(&VIEW);
    let bytes = body::read(request).await?;
    let (scale, warnings) = body::decode(&x.headers, &bytes, &gvk(), call.options.field_validation)?;
    x.warn(warnings);
    x.audit_as_is(&scale);
    check_names(&call, &scale)?;
    let updated = x.writer.update(&call, &|old: &Value| scaled(&x.kind, old, &scale), None).await?;
    Ok(answer(x, &accept, of(&x.kind, &updated.object)))
}

pub(super) async fn patch(x: &Exchange<'_>, request: Body) -> Result<Response, Status> {
    let accept = x.accept(false)?;
    let mut call = x.call()?;
    call.subresource = "";
    call.seen = Seen::As(&VIEW);
    let bytes = body::read(request).await?;
    x.context.audit.request_patch(&bytes);
    if patch::applies(&x.headers) {
        call.options.applies = true;
        let config = configuration(x, &call, &bytes)?;
        let change = Configuration { registry: x.registry, call: &call, config: &config };
        let updated = x.writer.update(&call, &change, None).await?;
        return Ok(answer(x, &accept, of(&x.kind, &updated.object)));
    }
    let patch = patch::Patch::parse(patch::content_type(&x.headers), &bytes, &gvk())?;
    let change = |old: &Value| {
        let mut scale = of(&x.kind, old);
        object::set_resource_version(&mut scale, "");
        patch.apply(&mut scale)?;
        let decoded = body::normalize(scale, &gvk()).map_err(Status::bad_request)?;
        body::judge(call.options.field_validation, decoded.problems).map_err(Status::bad_request)?;
        let name = decoded.value.text("metadata.name");
        if name != object::name(old) {
            return Err(Status::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                object::name(old)
            )));
        }
        scaled(&x.kind, old, &decoded.value)
    };
    let updated = x.writer.update(&call, &change, None).await?;
    Ok(answer(x, &accept, of(&x.kind, &updated.object)))
}

/// A Scale that is applied, as the configuration of its workload: of the replicas, where it names any, and nothing else.
fn configuration(x: &Exchange<'_>, call: &Call<'_>, bytes: &bytes::Bytes) -> Result<Value, Status> {
    let (scale, _) = patch::configuration(bytes, &gvk())?;
    let kind = x.kind.gvk();
    let mut config =
        json!({"apiVersion": kind.api_version(), "kind": kind.kind, "metadata": {"name": call.name}});
    if !call.namespace.is_empty() {
        object::set_namespace(&mut config, &call.namespace);
    }
    if let Some(replicas) = scale.int("spec.replicas") {
        check_replicas(replicas, &call.name)?;
        set_replicas(&x.kind, &mut config, replicas);
    }
    Ok(config)
}
