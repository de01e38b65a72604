//! Verbs on resources: an authenticated and authorised request in, its answer out.
//!
//! - [`handle`]: the way through; `verbs`: get, list, watch, create, update, delete, deletecollection; `patch`
//! - `subresource`: everything after an object's name: status, scale, binding, eviction, token, streams
//! - `negotiate`, `body`, `respond`, `failure`, `table`, `watch`: what the bytes mean, on the way in and out

mod body;
mod failure;
mod negotiate;
mod patch;
mod respond;
mod subresource;
mod table;
mod verbs;
mod watch;

use crate::context::{Context, Request, Response};
use crate::registry::Registry;
use crate::registry::call::{Call, Warnings};
use crate::registry::kind::Kind;
use crate::registry::options::WriteOptions;
use crate::write::Writer;
use http::{HeaderMap, StatusCode};
use machinery::object::Gr;
use machinery::status::{Reason, Status};
use negotiate::{Media, Shape};
use serde_json::Value;

pub(crate) use failure::FailureLooks;

/// What an exchange has gathered on its way.
pub(crate) struct Exchange<'a> {
    pub writer: &'a Writer,
    pub registry: &'a Registry,
    pub context: &'a Context,
    pub headers: HeaderMap,
    pub kind: Kind,
    pub warnings: Warnings,
}

impl<'a> Exchange<'a> {
    /// The write this request asks for.
    pub(crate) fn call(&'a self) -> Result<Call<'a>, Status> {
        let info = &self.context.info;
        let namespace = if self.kind.resource.namespaced { info.namespace.clone() } else { String::new() };
        Ok(Call {
            context: self.context,
            kind: self.kind,
            namespace,
            name: info.name.clone(),
            subresource: &info.subresource,
            options: WriteOptions::parse(self.context, patch::applies(&self.headers))?,
            warnings: self.warnings.clone(),
            seen: crate::admission::Seen::default(),
        })
    }

    /// What the client wants back, or 406.
    pub(crate) fn accept(&self, watch: bool) -> Result<negotiate::Accept, Status> {
        negotiate::accept(&self.headers, self.context, watch, |media, shape| self.serves(media, shape))
    }

    /// As [`Exchange::accept`], for answers that no table can show.
    pub(crate) fn accept_untabled(&self) -> Result<negotiate::Accept, Status> {
        negotiate::accept(&self.headers, self.context, false, |media, shape| {
            !matches!(shape, Shape::Table(_)) && self.serves(media, shape)
        })
    }

    /// Custom resources, their scales among them, have no protobuf form; their metadata alone has.
    fn serves(&self, media: Media, shape: Shape) -> bool {
        media != Media::Proto || shape != Shape::Full || self.kind.rules().has_protobuf()
    }

    /// Notes warnings for the answer.
    pub(crate) fn warn(&self, warnings: impl IntoIterator<Item = String>) {
        self.warnings.lock().extend(warnings);
    }

    /// Writes the object that was sent, of the stored version, to the audit log.
    pub(crate) fn audit(&self, sent: &Value) {
        self.context.audit.request_object(sent, || {
            let mut shown = sent.clone();
            self.kind.to_client(&mut shown);
            shown
        });
    }

    /// The same for an object in its client's version, which is of another kind than the resource.
    pub(crate) fn audit_as_is(&self, sent: &Value) {
        self.context.audit.request_object(sent, || sent.clone());
    }

    /// The object's namespace, empty for cluster scope.
    pub(crate) fn namespace(&self) -> &str {
        if self.kind.resource.namespaced { &self.context.info.namespace } else { "" }
    }
}

/// Answers one request about a resource.
pub async fn handle(writer: &Writer, context: Context, request: Request) -> Response {
    let looks = FailureLooks::of(request.headers(), &context.query);
    let trail = context.audit.clone();
    let answered = route(writer, context, request).await;
    let mut response = answered.unwrap_or_else(|status| respond::failure(&status));
    trail.note(&mut response);
    looks.dress(response)
}

/// 404 of a path that names no resource: `the server could not find the requested resource`.
fn unknown() -> Status {
    Status::failure(
        StatusCode::NOT_FOUND.as_u16(),
        Reason::NotFound,
        "the server could not find the requested resource",
    )
}

async fn route(writer: &Writer, context: Context, request: Request) -> Result<Response, Status> {
    let registry = &*writer.registry;
    let info = &context.info;
    let kind = registry.kind(&info.group, &info.version, &info.resource).ok_or_else(unknown)?;
    if !info.subresource.is_empty() && kind.resource.subresource(&info.subresource).is_none() {
        return Err(unknown());
    }
    if !kind.is_found(&info.namespace, matches!(info.verb.as_str(), "list" | "watch")) {
        return Err(unknown());
    }
    if subresource::connects(&info.subresource) {
        return subresource::connect(writer, &kind, context, request).await;
    }
    let not_allowed = || Status::method_not_supported(&Gr::new(&info.group, &info.resource), &info.verb);
    let allowed = match kind.resource.subresource(&info.subresource) {
        Some(sub) => sub.verbs.contains(&info.verb.as_str()),
        None => kind.resource.serves(&info.verb),
    };
    if !allowed {
        return Err(not_allowed());
    }
    let (parts, body) = request.into_parts();
    let exchange = Exchange {
        writer,
        registry,
        context: &context,
        headers: parts.headers,
        kind,
        warnings: Warnings::default(),
    };
    let deprecations = [deprecation(&exchange.kind), exchange.kind.rules().deprecation()];
    if deprecations.iter().any(Option::is_some) {
        context.audit.annotate("k8s.io/deprecated", || "true".to_owned());
    }
    exchange.warn(deprecations.into_iter().flatten());
    let result = if info.subresource.is_empty() {
        if kind.resource.is_stored() {
            match info.verb.as_str() {
                "get" => verbs::get(&exchange).await,
                "list" => verbs::list(&exchange).await,
                "watch" => verbs::watch(&exchange).await,
                "create" => verbs::create(&exchange, body).await,
                "update" => verbs::update(&exchange, body).await,
                "patch" => patch::patch(&exchange, body).await,
                "delete" => verbs::delete(&exchange, body).await,
                "deletecollection" => verbs::delete_collection(&exchange, body).await,
                _ => Err(not_allowed()),
            }
        } else {
            subresource::unstored(&exchange, body).await
        }
    } else {
        subresource::handle(&exchange, body).await
    };
    let mut response = result.unwrap_or_else(|status| respond::failure(&status));
    respond::warn(&mut response, &exchange.warnings.lock());
    Ok(response)
}

/// What every answer about a deprecated kind says: kind, since when, and what takes its place.
const DEPRECATED: &[(&str, &str, &str, &str)] = &[
    ("v1", "ComponentStatus", "v1.19", ""),
    ("v1", "Endpoints", "v1.33", "; use discovery.k8s.io/v1 EndpointSlice"),
];

fn deprecation(kind: &Kind) -> Option<String> {
    let found =
        DEPRECATED.iter().find(|d| (d.0, d.1) == (kind.api_version().as_str(), kind.resource.kind))?;
    let (version, kind, since, replacement) = found;
    Some(format!("{version} {kind} is deprecated in {since}+{replacement}"))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test sees how what it spawns ends")]
mod tests;
