//! The eight verbs on stored resources, but for PATCH.

use super::Exchange;
use super::table::Include;
use super::{body, negotiate, respond, watch as stream};
use crate::context::{Body, Response};
use crate::registry::options::{DeleteOptions, ListOptions};
use crate::write::delete::Deleted;
use crate::write::update;
use http::StatusCode;
use machinery::object::Gvk;
use machinery::status::Status;
use serde_json::Value;

pub(super) async fn get(x: &Exchange<'_>) -> Result<Response, Status> {
    let accept = x.accept(false)?;
    let name = &x.context.info.name;
    // What is stored is what is sent: nothing is decoded.
    if respond::as_stored(&accept, &x.kind) {
        let bytes = x.registry.get_bytes(&x.kind, x.namespace(), name, x.context).await?;
        return Ok(respond::bytes(&accept, &bytes));
    }
    let object = x.registry.get(&x.kind, x.namespace(), name, x.context).await?;
    Ok(respond::object(StatusCode::OK, &accept, &x.kind, object, Include::parse(x.context)))
}

/// A page of objects.
pub(super) async fn list(x: &Exchange<'_>) -> Result<Response, Status> {
    let accept = x.accept(false)?;
    let options = ListOptions::parse(x.context, &x.kind, false)?;
    let list = x.registry.list(&x.kind, x.namespace(), &options).await?;
    Ok(respond::list(&accept, &x.kind, &list, Include::parse(x.context)))
}

/// Changes, until the client or its timeout ends them.
pub(super) async fn watch(x: &Exchange<'_>) -> Result<Response, Status> {
    let accept = x.accept(true)?;
    let mut options = ListOptions::parse(x.context, &x.kind, true)?;
    // The old form of watching one object names it in the path.
    let name = &x.context.info.name;
    if !name.is_empty() {
        if options.fields.is_empty() {
            options.fields = machinery::fields::FieldSelector::equal("metadata.name", name);
        } else if options.fields.required("metadata.name") != Some(name.as_str()) {
            return Err(Status::bad_request("fieldSelector metadata.name doesn't match requested name"));
        }
    }
    let watch = match x.registry.watch(&x.kind, x.namespace(), options).await {
        Ok(watch) => watch,
        Err(status) if status.code == 410 => return stream::refusal(&status, &accept),
        Err(status) => return Err(status),
    };
    Ok(stream::response(watch, x.kind, accept, Include::parse(x.context)))
}

pub(super) async fn create(x: &Exchange<'_>, body: Body) -> Result<Response, Status> {
    let accept = x.accept(false)?;
    let mut call = x.call()?;
    let bytes = body::read(body).await?;
    let (object, warnings) = body::decode_kind(&x.headers, &bytes, &x.kind, call.options.field_validation)?;
    x.warn(warnings);
    x.audit(&object);
    call.name = String::new();
    let created = x.writer.create(&call, object).await?;
    Ok(respond::written(&accept, &x.kind, created, Include::parse(x.context)))
}

pub(super) async fn update(x: &Exchange<'_>, body: Body) -> Result<Response, Status> {
    let accept = x.accept(false)?;
    let call = x.call()?;
    let bytes = body::read(body).await?;
    let (object, warnings) = body::decode_kind(&x.headers, &bytes, &x.kind, call.options.field_validation)?;
    x.warn(warnings);
    x.audit(&object);
    update::check_names(&call, &object)?;
    let mut object = object;
    call.dedup_owners(&mut object, false);
    let updated = x.writer.update(&call, &|_: &Value| Ok(object.clone()), Some(&object)).await?;
    Ok(respond::written(&accept, &x.kind, updated, Include::parse(x.context)))
}

async fn delete_options(x: &Exchange<'_>, body: Body) -> Result<DeleteOptions, Status> {
    let bytes = body::read(body).await?;
    if bytes.is_empty() {
        return DeleteOptions::parse(x.context, &Value::Null);
    }
    // Any group version may name the options; meta/v1 has their fields.
    let header = x.headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let media = negotiate::content_type(header)?;
    let gvk = Gvk::new("meta.k8s.io", "v1", "DeleteOptions");
    let unreadable = |e: String| Status::bad_request(format!("unable to decode delete options: {e}"));
    let decoded = body::parse(&bytes, media, &gvk).map_err(unreadable)?;
    let normalized = body::normalize(decoded.value, &gvk).map_err(unreadable)?;
    let kind = machinery::object::kind(&normalized.value);
    if !kind.is_empty() && kind != "DeleteOptions" {
        return Err(Status::bad_request(format!(
            "decoded object cannot be converted to DeleteOptions: {kind}"
        )));
    }
    x.context.audit.request_object(&normalized.value, || {
        let mut shown = normalized.value.clone();
        if machinery::object::api_version(&shown).is_empty() {
            machinery::object::set_gvk(&mut shown, &gvk);
        }
        shown
    });
    DeleteOptions::parse(x.context, &normalized.value)
}

/// An object gone, or going.
pub(super) async fn delete(x: &Exchange<'_>, body: Body) -> Result<Response, Status> {
    let accept = x.accept(false)?;
    let options = delete_options(x, body).await?;
    if options.propagation.is_none() && options.orphan.is_none() {
        x.warn(x.kind.orphaning_warning());
    }
    let call = x.call()?;
    let kept = matches!(options.orphan, Some(false));
    match x.writer.delete(&call, &options).await? {
        Deleted::Object(left) => {
            let going = machinery::object::deletion_timestamp(&left.object).is_some();
            let code = if kept && going { StatusCode::ACCEPTED } else { StatusCode::OK };
            Ok(respond::left(code, &accept, &x.kind, left, Include::parse(x.context)))
        }
        Deleted::Status(status) => Ok(respond::value(StatusCode::OK, &accept, &status.to_value())),
    }
}

/// Every selected object gone, or going.
pub(super) async fn delete_collection(x: &Exchange<'_>, body: Body) -> Result<Response, Status> {
    let accept = x.accept(false)?;
    let list_options = ListOptions::parse(x.context, &x.kind, false)?;
    let options = delete_options(x, body).await?;
    let call = x.call()?;
    let list = x.writer.delete_collection(&call, &list_options, &options).await?;
    Ok(respond::list(&accept, &x.kind, &list, Include::parse(x.context)))
}
