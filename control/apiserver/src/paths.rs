//! Everything that is no resource, in one table: discovery, health, metrics, version, keys, API descriptions.

use crate::context::{Context, Response};
use crate::discovery::Discovery;
use crate::health::{Endpoint, Health};
use crate::metrics::{self, Metrics};
use crate::{answer, version};
use http::request::Parts;
use http::{Method, StatusCode};
use pki::openid;
use serde_json::{Value, json};
use std::sync::Arc;

/// Answers requests about anything else: discovery, health, metrics.
pub trait Paths: Send + Sync + 'static {
    /// Answers one authorised request.
    fn serve(&self, context: &Context, request: &Parts) -> Response;
}

/// More paths, such as those of the API description. Tells which it serves, and answers them.
pub trait Documents: Send + Sync + 'static {
    /// The paths, for the list at `/`.
    fn paths(&self) -> Vec<String>;
    /// The answer; `None` where the path is not one of these.
    fn answer(&self, context: &Context, request: &Parts) -> Option<Response>;
}

/// The documents by which others verify service account tokens.
#[derive(Clone, Debug, Default)]
pub struct OpenId {
    /// Body of `/.well-known/openid-configuration`.
    pub configuration: Value,
    /// Body of `/openid/v1/jwks`.
    pub keys: Value,
}

pub struct Table {
    /// `/api`, `/apis`.
    pub discovery: Discovery,
    /// `/healthz`, `/livez`, `/readyz`.
    pub health: Arc<Health>,
    /// `/metrics`, `/metrics/slis`.
    pub metrics: Arc<Metrics>,
    /// `/.well-known/openid-configuration`, `/openid/v1/jwks`.
    pub openid: Option<OpenId>,
    pub documents: Vec<Arc<dyn Documents>>,
}

impl Paths for Table {
    fn serve(&self, context: &Context, request: &Parts) -> Response {
        if let Some(response) = self.documents.iter().find_map(|d| d.answer(context, request)) {
            return response;
        }
        if !matches!(request.method, Method::GET | Method::HEAD) {
            return answer::text(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed\n");
        }
        let path = context.info.path.as_str();
        if let Some((endpoint, check)) = Endpoint::of(path) {
            let mut response = self.health.answer(endpoint, check, &context.query);
            if let Some(outcomes) = response.extensions_mut().remove() {
                self.metrics.checked(&outcomes);
            }
            return response;
        }
        match path.trim_end_matches('/') {
            "" | "/index.html" => answer::json(StatusCode::OK, &json!({"paths": self.paths()})),
            "/version" => answer::json(StatusCode::OK, &version::info()),
            "/metrics/slis" => {
                answer::bytes(StatusCode::OK, metrics::MEDIA_TYPE, self.metrics.render_indicators())
            }
            "/metrics" => answer::bytes(StatusCode::OK, metrics::MEDIA_TYPE, self.metrics.render()),
            openid::CONFIGURATION_PATH => self.openid("application/json", |o| &o.configuration),
            openid::KEYS_PATH => self.openid("application/jwk-set+json", |o| &o.keys),
            _ => self.discovery.answer(path, &request.headers).unwrap_or_else(answer::not_found),
        }
    }
}

impl Table {
    fn openid(&self, media_type: &'static str, part: impl Fn(&OpenId) -> &Value) -> Response {
        match &self.openid {
            Some(openid) => {
                let mut response = answer::bytes(StatusCode::OK, media_type, part(openid).to_string());
                answer::set(&mut response, http::header::CACHE_CONTROL, "public, max-age=3600");
                response
            }
            None => answer::not_found(),
        }
    }

    fn paths(&self) -> Vec<String> {
        let mut paths = self.discovery.paths();
        paths.extend(
            ["/healthz", "/livez", "/metrics", "/metrics/slis", "/readyz", "/version"].map(str::to_owned),
        );
        if self.openid.is_some() {
            paths.extend([openid::CONFIGURATION_PATH, openid::KEYS_PATH].map(str::to_owned));
        }
        paths.extend(self.documents.iter().flat_map(|d| d.paths()));
        paths.sort();
        paths
    }
}
