//! Requests carried to other servers. Upstream: `kube-aggregator/pkg/apiserver/handler_proxy.go`.

use super::Aggregator;
use super::remote::Remote;
use crate::answer;
use crate::context::{Context, Request, Response, User};
use crate::stream::{carry, rewrite, trusted};
use crate::webhook::Services as _;
use bytes::Bytes;
use http::header::{
    ACCEPT, AUTHORIZATION, ETAG, HOST, HeaderName, HeaderValue, IF_NONE_MATCH, LOCATION, USER_AGENT,
};
use http::{HeaderMap, StatusCode, Version};
use http_body_util::{BodyExt as _, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

const REMOTE_USER: &str = "x-remote-user";
const REMOTE_UID: &str = "x-remote-uid";
const REMOTE_GROUP: &str = "x-remote-group";
const REMOTE_EXTRA: &str = "x-remote-extra-";
/// What a client is told whom a server would send elsewhere.
const REDIRECTED: &str = "the backend attempted to redirect this request, which is not permitted";

type Sender = http1::SendRequest<crate::context::Body>;

/// Why there is no connection.
enum Trouble {
    /// No place is known where the Service answers.
    Nowhere(String),
    /// The APIService, or what is shown to servers, is of no use.
    Unusable(String),
    /// Go's text of what failed.
    Failed(String),
}

impl Trouble {
    fn text(self) -> String {
        match self {
            Trouble::Nowhere(why) | Trouble::Unusable(why) | Trouble::Failed(why) => why,
        }
    }

    /// What a caller is told of it; upstream tells it as text.
    fn answer(self, upgrade: bool) -> Response {
        match self {
            Trouble::Nowhere(_) => unavailable("service unavailable"),
            Trouble::Unusable(why) => answer::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{why}\n")),
            Trouble::Failed(why) => unreached(&why, upgrade),
        }
    }
}

fn unavailable(why: &str) -> Response {
    answer::text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"))
}

/// It was not reached, in the words of upstream's transport, without which a request that leaves HTTP goes.
fn unreached(why: &str, upgrade: bool) -> Response {
    if upgrade { unavailable(why) } else { unavailable(&format!("error trying to reach service: {why}")) }
}

/// A connection to some endpoint of the server.
async fn connect(aggregator: &Aggregator, remote: &Remote) -> Result<Sender, Trouble> {
    let identity = aggregator.identity.lock().clone();
    let tls = remote.tls(&identity).map_err(Trouble::Unusable)?;
    let reached = aggregator.writer.registry.reach(&remote.namespace, &remote.service, remote.port).await;
    let (host, port) = reached.map_err(|e| Trouble::Nowhere(e.message))?;
    let stream = trusted::connect(&host, port, &remote.host(), tls).await.map_err(Trouble::Failed)?;
    let shaken = http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) = shaken.map_err(|e| Trouble::Failed(e.to_string()))?;
    aggregator.tasks.spawn(async move {
        if let Err(e) = connection.with_upgrades().await {
            tracing::debug!(error = %e, "connection to an aggregated server ended");
        }
    });
    Ok(sender)
}

/// What this server asks another itself.
pub(super) struct Question<'a> {
    pub path: &'a str,
    /// Whom it says it is: a name and a group, if any.
    pub user: (&'a str, Option<&'a str>),
    /// The state that is known already, as the other calls it; empty for none.
    pub known: &'a str,
    /// Bytes of the answer.
    pub longest: usize,
}

/// What it is answered.
pub(super) struct Answered {
    pub code: u16,
    pub etag: String,
    pub body: Bytes,
}

/// Asks the server for a document, as this server itself.
pub(super) async fn get(
    aggregator: &Aggregator,
    remote: &Remote,
    question: &Question<'_>,
) -> Result<Answered, String> {
    let mut sender = connect(aggregator, remote).await.map_err(Trouble::text)?;
    let mut request = http::Request::get(question.path)
        .header(HOST, format!("{}:{}", remote.host(), remote.port))
        .header(USER_AGENT, "kube-apiserver")
        .header(ACCEPT, answer::JSON)
        .body(answer::body(Bytes::new()))
        .map_err(|e| e.to_string())?;
    if let Ok(known) = HeaderValue::from_str(question.known)
        && !known.is_empty()
    {
        request.headers_mut().insert(IF_NONE_MATCH, known);
    }
    let (name, group) = question.user;
    let groups = group.into_iter().map(str::to_owned).collect();
    introduce(request.headers_mut(), &User { name: name.to_owned(), groups, ..User::default() })?;
    let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
    let code = response.status().as_u16();
    let etag =
        response.headers().get(ETAG).and_then(|etag| etag.to_str().ok()).unwrap_or_default().to_owned();
    let body = Limited::new(response.into_body(), question.longest).collect().await;
    Ok(Answered { code, etag, body: body.map_err(|e| e.to_string())?.to_bytes() })
}

/// Says who asks, and takes away whatever else might say so. The error: a name no header can hold, with which the caller would be
/// taken for somebody else.
fn introduce(headers: &mut HeaderMap, user: &User) -> Result<(), String> {
    let said: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            matches!(name.as_str(), REMOTE_USER | REMOTE_UID | REMOTE_GROUP)
                || name.as_str().starts_with(REMOTE_EXTRA)
        })
        .cloned()
        .collect();
    for name in said {
        headers.remove(name);
    }
    headers.remove(AUTHORIZATION);
    let mut add = |name: &str, value: &str| {
        // UTF-8 as it is, as Go writes it.
        match (HeaderName::try_from(name), HeaderValue::from_bytes(value.as_bytes())) {
            (Ok(name), Ok(value)) => {
                headers.append(name, value);
                Ok(())
            }
            _ => Err(format!("invalid header field value for {name:?}")),
        }
    };
    add(REMOTE_USER, &user.name)?;
    if !user.uid.is_empty() {
        add(REMOTE_UID, &user.uid)?;
    }
    user.groups.iter().try_for_each(|group| add(REMOTE_GROUP, group))?;
    for (key, values) in &user.extra {
        let name = format!("{REMOTE_EXTRA}{}", escaped(key));
        values.iter().try_for_each(|value| add(&name, value))?;
    }
    Ok(())
}

/// A key of extra as part of a header's name: what no header may hold is percent-encoded.
fn escaped(key: &str) -> String {
    let mut out = String::new();
    for byte in key.bytes() {
        match byte {
            b'%' => out.push_str("%25"),
            byte if byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte) => {
                out.push(char::from(byte))
            }
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Carries a caller's request there and the answer back.
pub(super) async fn carry(
    aggregator: &Aggregator,
    remote: &Remote,
    context: &Context,
    mut request: Request,
) -> Response {
    if !remote.available {
        return unavailable("service unavailable");
    }
    let upgrade = rewrite::is_upgrade(request.headers());
    let client = upgrade.then(|| hyper::upgrade::on(&mut request));
    let mut sender = match connect(aggregator, remote).await {
        Ok(sender) => sender,
        Err(trouble) => return trouble.answer(upgrade),
    };
    let (mut parts, body) = request.into_parts();
    rewrite::drop_hop_by_hop(&mut parts.headers, upgrade);
    if let Err(why) = introduce(&mut parts.headers, &context.user) {
        return unreached(&why, upgrade);
    }
    if let Ok(host) = HeaderValue::from_str(&format!("{}:{}", remote.host(), remote.port)) {
        parts.headers.insert(HOST, host);
    }
    let target = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
    parts.uri = target.parse().unwrap_or_default();
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    let body = if upgrade { answer::body(Bytes::new()) } else { body };
    let mut response = match sender.send_request(http::Request::from_parts(parts, body)).await {
        Ok(response) => response,
        Err(e) => {
            let why = if e.is_incomplete_message() { "EOF".to_owned() } else { e.to_string() };
            return unreached(&why, upgrade);
        }
    };
    if let (StatusCode::SWITCHING_PROTOCOLS, Some(client)) = (response.status(), client) {
        let server = hyper::upgrade::on(&mut response);
        aggregator.tasks.spawn(context.audit.clone().until(carry::tunnel(client, server)));
        let mut switched = response.map(|_| answer::body(Bytes::new()));
        rewrite::drop_hop_by_hop(switched.headers_mut(), true);
        return switched;
    }
    if response.status().is_redirection()
        && response.headers().contains_key(LOCATION)
        && !aggregator.passes_redirects()
    {
        return answer::bytes(StatusCode::BAD_GATEWAY, answer::TEXT, REDIRECTED);
    }
    rewrite::drop_hop_by_hop(response.headers_mut(), false);
    response.map(|body| body.map_err(Into::into).boxed_unsync())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn nobody_introduces_himself() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-remote-user", "root"),
            ("x-remote-extra-a", "b"),
            ("authorization", "Bearer x"),
            ("accept", "*/*"),
        ] {
            headers.insert(HeaderName::try_from(name).unwrap(), HeaderValue::from_static(value));
        }
        let user = User {
            name: "alice".into(),
            groups: vec!["g".into(), "h".into()],
            extra: BTreeMap::from([("example.com/Key".to_owned(), vec!["1".to_owned()])]),
            ..User::default()
        };
        introduce(&mut headers, &user).unwrap();
        assert_eq!(headers["x-remote-user"], "alice");
        assert_eq!(headers.get_all("x-remote-group").iter().count(), 2);
        assert_eq!(headers["x-remote-extra-example.com%2fkey"], "1");
        assert!(!headers.contains_key("authorization") && !headers.contains_key("x-remote-extra-a"));
        assert!(headers.contains_key("accept"));
    }

    #[test]
    fn a_caller_must_not_be_introduced_without_a_part_of_his_name() {
        let introduced = |name: &str, group: &str| {
            let mut headers = HeaderMap::new();
            let user = User { name: name.into(), groups: vec![group.into()], ..User::default() };
            introduce(&mut headers, &user).map(|()| headers)
        };
        let headers = introduced("Grüße", "組").unwrap();
        assert_eq!(headers["x-remote-user"].as_bytes(), "Grüße".as_bytes());
        assert_eq!(headers["x-remote-group"].as_bytes(), "組".as_bytes());
        assert!(introduced("a\nb", "g").is_err() && introduced("a", "g\r").is_err());
    }
}
