//! What follows an object's name in a path, and the kinds that are answered and forgotten.

mod binding;
mod components;
mod connect;
mod eviction;
mod review;
mod scale;
mod token;

pub(super) use connect::{connect, connects};

use super::table::{self, Include};
use super::{Exchange, body, negotiate, patch, respond, verbs};
use crate::context::{Body, Response};
use crate::write::update;
use http::StatusCode;
use machinery::status::Status;
use serde_json::Value;

/// A verb on a subresource.
pub(super) async fn handle(x: &Exchange<'_>, body: Body) -> Result<Response, Status> {
    let info = &x.context.info;
    match (info.subresource.as_str(), info.verb.as_str()) {
        ("scale", "get") => scale::get(x).await,
        ("scale", "update") => scale::update(x, body).await,
        ("scale", "patch") => scale::patch(x, body).await,
        ("binding", _) => binding::create(x, body, &info.name).await,
        ("eviction", _) => eviction::create(x, body).await,
        ("token", _) => token::create(x, body).await,
        // Everything else reads and writes the object itself; what it may change is the strategy's business.
        (_, "get") => verbs::get(x).await,
        (_, "update") => replace(x, body).await,
        (_, "patch") => patch::patch(x, body).await,
        _ => Err(Status::method_not_supported(&x.kind.gr(), &info.verb)),
    }
}

async fn replace(x: &Exchange<'_>, body: Body) -> Result<Response, Status> {
    let accept = x.accept(false)?;
    let call = x.call()?;
    let bytes = body::read(body).await?;
    let (object, warnings) = body::decode_kind(&x.headers, &bytes, &x.kind, call.options.field_validation)?;
    x.warn(warnings);
    x.audit(&object);
    update::check_names(&call, &object)?;
    let updated = x.writer.update(&call, &|_: &Value| Ok(object.clone()), None).await?;
    Ok(respond::written(&accept, &x.kind, updated, Include::parse(x.context)))
}

/// Reviews and bindings: created, answered, not stored.
pub(super) async fn unstored(x: &Exchange<'_>, body: Body) -> Result<Response, Status> {
    match (x.kind.resource.group, x.kind.resource.plural, x.context.info.verb.as_str()) {
        ("", "bindings", "create") => binding::create(x, body, "").await,
        ("", "componentstatuses", "get") => components::get(x).await,
        ("", "componentstatuses", "list") => components::list(x).await,
        ("authentication.k8s.io" | "authorization.k8s.io", _, "create") => review::create(x, body).await,
        _ => Err(Status::method_not_supported(&x.kind.gr(), &x.context.info.verb)),
    }
}

/// An answer that is itself the object posted, with what the server added.
fn created(x: &Exchange<'_>, object: &Value) -> Result<Response, Status> {
    let accept = x.accept_untabled()?;
    if let negotiate::Shape::Partial(version) = accept.shape {
        return Ok(respond::value(StatusCode::CREATED, &accept, &table::partial(version, object)));
    }
    Ok(respond::value(StatusCode::CREATED, &accept, object))
}
