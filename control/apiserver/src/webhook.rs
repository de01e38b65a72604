//! Asks a webhook over HTTPS. Upstream: `apiserver/pkg/util/webhook/client.go` on client-go's REST client.

pub mod credentials;

use crate::answer;
use crate::objects::text;
use crate::stream::trusted::{self, BundleError};
use base64::Engine as _;
use credentials::{Credential, Credentials};
use futures::future::BoxFuture;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use machinery::goformat::go_quote;
use machinery::object::Gr;
use machinery::status::Status;
use rustls::ClientConfig;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of an answer.
const LONGEST_ANSWER: usize = 8 * 1024 * 1024;

/// An address or name, and a port.
pub(crate) type Address = (String, u16);

/// Knows where Services can be reached.
pub(crate) trait Services: Send + Sync {
    /// Some address where `port` of a Service answers.
    fn reach<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
        port: u16,
    ) -> BoxFuture<'a, Result<Address, Status>>;
}

/// Where a webhook is.
#[derive(Debug)]
enum Place {
    Service { namespace: String, name: String, port: u16 },
    Host { name: String, port: u16 },
}

/// Where a webhook is, and how it proves itself.
#[derive(Debug)]
pub(crate) struct Endpoint {
    place: Place,
    /// `name:port`, as requests name the host.
    authority: String,
    path: String,
    /// Whose servers are believed; the machine's own authorities where empty.
    bundle: Vec<u8>,
    tls: Result<Arc<ClientConfig>, String>,
}

impl Endpoint {
    /// From a `WebhookClientConfig`.
    pub(crate) fn parse(config: &Value) -> Self {
        let bundle = base64::engine::general_purpose::STANDARD
            .decode(text(config, "/caBundle"))
            .map_err(|_| BundleError::Unreadable);
        let tls = bundle.as_ref().map_err(ToString::to_string);
        let tls = tls.and_then(|bundle| trusted::config(bundle, false, None).map_err(|e| e.to_string()));
        let bundle = bundle.unwrap_or_default();
        match config.get("service").filter(|service| !service.is_null()) {
            Some(service) => {
                let (namespace, name) = (text(service, "/namespace"), text(service, "/name"));
                let port = service.get("port").and_then(Value::as_u64).and_then(|p| u16::try_from(p).ok());
                let port = port.filter(|p| *p != 0).unwrap_or(443);
                Endpoint {
                    authority: format!("{name}.{namespace}.svc:{port}"),
                    place: Place::Service { namespace: namespace.to_owned(), name: name.to_owned(), port },
                    path: rooted(text(service, "/path")),
                    bundle,
                    tls,
                }
            }
            None => {
                let rest = text(config, "/url").trim_start_matches("https://");
                let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                let uri = authority.parse::<http::uri::Authority>().ok();
                let name = uri.as_ref().map_or(authority, |a| a.host());
                let port = uri.as_ref().and_then(http::uri::Authority::port_u16).unwrap_or(443);
                let name = name.trim_start_matches('[').trim_end_matches(']').to_owned();
                Endpoint {
                    authority: authority.to_owned(),
                    place: Place::Host { name, port },
                    path: rooted(path),
                    bundle,
                    tls,
                }
            }
        }
    }

    /// From a conversion's `WebhookClientConfig`: a bundle of nothing but blanks is none (upstream: `webhookClientConfigForCRD`).
    pub(crate) fn of_conversion(config: &Value) -> Self {
        let bundle = base64::engine::general_purpose::STANDARD.decode(text(config, "/caBundle"));
        let mut config = config.clone();
        if let (Some(fields), true) =
            (config.as_object_mut(), bundle.is_ok_and(|bundle| bundle.trim_ascii().is_empty()))
        {
            fields.remove("caBundle");
        }
        Self::parse(&config)
    }

    /// Sends `review`, with what `credentials` say is shown to the webhook; the error is the reason after `failed calling webhook "x": `.
    pub(crate) async fn ask(
        &self,
        services: &dyn Services,
        credentials: Option<&dyn Credentials>,
        review: &Value,
        time: Duration,
    ) -> Result<Value, String> {
        if let Err(why) = &self.tls {
            return Err(format!("could not get REST client: {why}"));
        }
        let url = format!("https://{}{}?timeout={}s", self.authority, self.path, time.as_secs());
        let posting = |why: &str| format!("failed to call webhook: Post {}: {why}", go_quote(&url));
        let asked = tokio::time::timeout(time, self.post(services, credentials, review, time));
        let (code, body) = match asked.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(why)) => return Err(posting(&why)),
            Err(_) => return Err(posting("context deadline exceeded")),
        };
        if !(200..=206).contains(&code) {
            return Err(format!("failed to call webhook: {}", failure(code, &body).message));
        }
        serde_json::from_slice(&body).map_err(|e| {
            let start: String = String::from_utf8_lossy(&body).chars().take(60).collect();
            format!("failed to call webhook: couldn't get version/kind; json parse error: {e} ({start})")
        })
    }

    async fn post(
        &self,
        services: &dyn Services,
        credentials: Option<&dyn Credentials>,
        review: &Value,
        time: Duration,
    ) -> Result<(u16, bytes::Bytes), String> {
        let mut tls = self.tls.clone()?;
        let Credential { identity, authorization } = match credentials {
            Some(credentials) => self.shown(credentials)?,
            None => Credential::default(),
        };
        if identity.is_some() {
            tls = trusted::config(&self.bundle, false, identity).map_err(|e| e.to_string())?;
        }
        let (host, port, name) = match &self.place {
            Place::Service { namespace, name, port } => {
                let (host, port) = services.reach(namespace, name, *port).await.map_err(|e| e.message)?;
                (host, port, format!("{}.{}.svc", name, namespace))
            }
            Place::Host { name, port } => (name.clone(), *port, name.clone()),
        };
        let stream = trusted::connect(&host, port, &name, tls).await?;
        let mut question = http::Request::post(format!("{}?timeout={}s", self.path, time.as_secs()))
            .header(HOST, &self.authority)
            .header(ACCEPT, "application/json, */*")
            .header(CONTENT_TYPE, answer::JSON)
            .header(USER_AGENT, "kube-apiserver-admission")
            .body(answer::body(review.to_string()))
            .map_err(|e| e.to_string())?;
        if let Some(authorization) = authorization {
            question.headers_mut().insert(AUTHORIZATION, authorization);
        }
        trusted::exchange(stream, question, LONGEST_ANSWER).await
    }

    fn shown(&self, credentials: &dyn Credentials) -> Result<Credential, String> {
        match &self.place {
            Place::Service { namespace, name, port } => {
                credentials.shown(&format!("{name}.{namespace}.svc"), *port)
            }
            Place::Host { name, port } => credentials.shown(name, *port),
        }
    }
}

/// A path that begins at the root and ends without a slash.
fn rooted(path: &str) -> String {
    format!("/{}", path.trim_matches('/'))
}

/// What client-go makes of an answer that is no success.
fn failure(code: u16, body: &[u8]) -> Status {
    let said = serde_json::from_slice::<Value>(body).ok();
    if let Some(status) = said.as_ref().and_then(Status::from_value).filter(|s| s.status == "Failure") {
        return status;
    }
    let text = String::from_utf8_lossy(body);
    let shown = if text.trim().is_empty() { "unknown" } else { text.trim() };
    Status::generic_server_response(code, "POST", &Gr::default(), "", shown, 0, true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn endpoints_are_read_from_services_and_urls() {
        let service = Endpoint::parse(&json!({"service": {"namespace": "n", "name": "s", "path": "/a/"}}));
        assert_eq!((service.authority.as_str(), service.path.as_str()), ("s.n.svc:443", "/a"));
        let url = Endpoint::parse(&json!({"url": "https://h.example:8443/x/y"}));
        assert_eq!((url.authority.as_str(), url.path.as_str()), ("h.example:8443", "/x/y"));
        assert!(matches!(url.place, Place::Host { ref name, port: 8443 } if name == "h.example"));
        let bare = Endpoint::parse(&json!({"url": "https://[::1]"}));
        assert!(matches!(bare.place, Place::Host { ref name, port: 443 } if name == "::1"));
        assert_eq!(bare.path, "/");
    }

    struct Nowhere;

    impl Services for Nowhere {
        fn reach<'a>(&'a self, _: &'a str, _: &'a str, _: u16) -> BoxFuture<'a, Result<Address, Status>> {
            Box::pin(std::future::ready(Err(Status::internal_error("nowhere"))))
        }
    }

    #[tokio::test]
    async fn a_bundle_that_cannot_be_read_must_not_pass_for_a_call_that_failed() {
        let endpoint = Endpoint::parse(&json!({"url": "https://h.example", "caBundle": "IAog"}));
        let asked = endpoint.ask(&Nowhere, None, &json!({}), Duration::from_secs(1)).await;
        let unreadable = "unable to load root certificates: unable to parse bytes as PEM block";
        assert_eq!(asked.unwrap_err(), format!("could not get REST client: {unreadable}"));
    }

    #[test]
    fn a_bundle_of_blanks_must_not_keep_a_conversion_from_its_webhook() {
        let config = json!({"url": "https://h.example", "caBundle": "IAog"});
        assert!(Endpoint::parse(&config).tls.is_err(), "for admission it is a bundle that cannot be read");
        assert!(Endpoint::of_conversion(&config).bundle.is_empty());
    }

    #[test]
    fn failures_read_as_client_go_words_them() {
        assert_eq!(failure(404, b"").message, "the server could not find the requested resource");
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "mine", "code": 500});
        assert_eq!(failure(500, status.to_string().as_bytes()).message, "mine");
    }
}
