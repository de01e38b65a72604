//! From a request and the object it names to the URL behind. Pure.
//! Upstream: `pkg/registry/core/{pod,node,service}/strategy.go` and their `rest/subresources.go`.

use super::address::{self, Named};
use super::container;
use crate::context::Context;
use crate::objects::{names, text};
use crate::query;
use http::Uri;
use machinery::field::{FieldError, Path};
use machinery::object::Gk;
use machinery::status::Status;
use serde_json::Value;
use std::net::IpAddr;

/// What a request comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Target {
    /// The kubelet of a node.
    Kubelet {
        /// Name of the node.
        node: String,
        /// Path and query.
        path: String,
    },
    /// Another server on a node.
    Node {
        /// Name of the node.
        node: String,
        /// Whether to speak TLS.
        scheme: String,
        /// Port, or empty for the kubelet's.
        port: String,
        /// Path and query.
        path: String,
    },
    Pod(Destination),
    /// Some endpoint of a service.
    Service {
        namespace: String,
        name: String,
        /// `https` to speak TLS.
        scheme: String,
        /// Name or number of the port.
        port: String,
        /// Path and query.
        path: String,
    },
    /// The same path with a slash.
    Redirect(String),
    /// There is nothing to be had yet: an unscheduled pod's log is empty.
    Nothing,
}

/// How the other end proves itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// No TLS: a pod's plain port.
    Plain,
    /// A kubelet: cluster authority, and our client certificate.
    Kubelet,
    /// A pod's or service's own certificate, which nobody can check.
    Unverified,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Host name or address.
    pub host: String,
    pub port: u16,
    pub trust: Trust,
    /// Path and query.
    pub path: String,
}

impl Destination {
    #[must_use]
    pub fn kubelet(host: String, port: u16, path: String) -> Self {
        Destination { host, port, trust: Trust::Kubelet, path }
    }

    #[must_use]
    pub fn proxied(scheme: impl AsRef<str>, ip: IpAddr, port: u16, path: String) -> Self {
        let trust = if scheme.as_ref() == "https" { Trust::Unverified } else { Trust::Plain };
        Destination { host: ip.to_string(), port, trust, path }
    }

    /// Turns from a kubelet to another port of its node.
    pub(super) fn turn_to(&mut self, scheme: impl AsRef<str>, port: impl AsRef<str>) {
        let port = port.as_ref();
        if port.is_empty() || port == self.port.to_string() {
            return;
        }
        self.port = port.parse().unwrap_or(self.port);
        self.trust = if scheme.as_ref() == "https" { Trust::Unverified } else { Trust::Plain };
    }

    /// `host:port`, an IPv6 address in brackets.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The whole URL, for messages.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.trust == Trust::Plain { "http" } else { "https" };
        format!("{scheme}://{}{}", self.authority(), self.path)
    }
}

/// Where a request goes. `object` is the pod, node or service it names.
pub fn target(context: &Context, uri: &Uri, object: &Value) -> Result<Target, Status> {
    let info = &context.info;
    match (info.resource.as_str(), info.subresource.as_str()) {
        ("pods", "exec") => stream(context, object, "exec"),
        ("pods", "attach") => stream(context, object, "attach"),
        ("pods", "portforward") => port_forward(context, object),
        ("pods", "log") => log(context, object),
        (_, "proxy") => proxy(context, uri, object),
        (resource, subresource) => {
            Err(Status::internal_error(format!("{resource}/{subresource} cannot be connected to")))
        }
    }
}

fn segment(text: &str) -> String {
    query::escape(text)
}

fn host_of(pod: &Value) -> Result<&str, Status> {
    match text(pod, "/spec/nodeName") {
        "" => Err(Status::bad_request(format!("pod {} does not have a host assigned", names(pod).1))),
        node => Ok(node),
    }
}

fn stream(context: &Context, pod: &Value, what: &str) -> Result<Target, Status> {
    let container = container::choose(pod, context.query("container").unwrap_or_default())?;
    let node = host_of(pod)?;
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for (option, parameter) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")]
    {
        if query::flag(&context.query, option) {
            pairs.push((parameter, "1"));
        }
    }
    if what == "exec" {
        pairs.extend(
            context.query.iter().filter(|(n, _)| n == "command").map(|(_, v)| ("command", v.as_str())),
        );
    }
    pairs.sort_by_key(|(name, _)| *name);
    let (namespace, name) = names(pod);
    let path = format!("/{what}/{}/{}/{}", segment(namespace), segment(name), segment(&container));
    Ok(Target::Kubelet { node: node.to_owned(), path: with_query(path, &pairs) })
}

fn with_query(path: String, pairs: &[(&str, &str)]) -> String {
    if pairs.is_empty() { path } else { format!("{path}?{}", query::encode(pairs.iter().copied())) }
}

fn port_forward(context: &Context, pod: &Value) -> Result<Target, Status> {
    let node = host_of(pod)?;
    let ports: Vec<&str> =
        context.query.iter().filter(|(n, _)| n == "ports").flat_map(|(_, v)| v.split(',')).collect();
    let ports = ports.join(",");
    let pairs = if ports.is_empty() { vec![] } else { vec![("port", ports.as_str())] };
    let (namespace, name) = names(pod);
    let path = format!("/portForward/{}/{}", segment(namespace), segment(name));
    Ok(Target::Kubelet { node: node.to_owned(), path: with_query(path, &pairs) })
}

fn log(context: &Context, pod: &Value) -> Result<Target, Status> {
    check_log_options(context)?;
    let container = container::choose(pod, context.query("container").unwrap_or_default())?;
    let node = text(pod, "/spec/nodeName");
    if node.is_empty() {
        return Ok(Target::Nothing);
    }
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for name in ["follow", "previous", "timestamps"] {
        if query::flag(&context.query, name) {
            pairs.push((name, "true"));
        }
    }
    for name in ["limitBytes", "sinceSeconds", "sinceTime", "stream", "tailLines"] {
        pairs.extend(context.query(name).filter(|v| !v.is_empty()).map(|v| (name, v)));
    }
    pairs.sort_unstable();
    let (namespace, name) = names(pod);
    let path = format!("/containerLogs/{}/{}/{}", segment(namespace), segment(name), segment(&container));
    Ok(Target::Kubelet { node: node.to_owned(), path: with_query(path, &pairs) })
}

fn check_log_options(context: &Context) -> Result<(), Status> {
    let mut errors = Vec::new();
    let mut number = |name: &str, least: i64, detail: &str| -> Result<(), Status> {
        let Some(text) = context.query(name).filter(|v| !v.is_empty()) else { return Ok(()) };
        let value: i64 = text.parse().map_err(|_| {
            let quoted = machinery::goformat::go_quote(text);
            Status::bad_request(format!("strconv.ParseInt: parsing {quoted}: invalid syntax"))
        })?;
        if value < least {
            errors.push(FieldError::invalid(&Path::new(name), value, detail));
        }
        Ok(())
    };
    number("tailLines", 0, "must be greater than or equal to 0")?;
    number("limitBytes", 1, "must be greater than 0")?;
    number("sinceSeconds", 1, "must be greater than 0")?;
    if let (Some(_), Some(_)) = (context.query("sinceSeconds"), context.query("sinceTime")) {
        errors.push(FieldError::forbidden(
            &Path::root(),
            "at most one of `sinceTime` or `sinceSeconds` may be specified",
        ));
    }
    // A feature that is off: PodLogsQuerySplitStreams.
    if context.query("stream").is_some() {
        errors.push(FieldError::forbidden(&Path::new("stream"), "may not be specified"));
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::invalid(&Gk::new("", "PodLogOptions"), &context.info.name, &errors))
}

/// Segments of the raw path up to and with `proxy`.
fn proxy_depth(context: &Context) -> usize {
    // /api/v1/[namespaces/NS/]RESOURCE/NAME/proxy
    if context.info.namespace.is_empty() { 5 } else { 7 }
}

/// The path up to and with `proxy`: what must stand before every path the server behind hands out.
#[must_use]
pub fn proxy_prefix(raw: &str, context: &Context) -> String {
    let kept: Vec<&str> = raw.trim_start_matches('/').split('/').take(proxy_depth(context)).collect();
    format!("/{}", kept.join("/"))
}

fn proxy(context: &Context, uri: &Uri, object: &Value) -> Result<Target, Status> {
    let info = &context.info;
    let rest = uri.path().get(proxy_prefix(uri.path(), context).len()..).unwrap_or_default();
    let question = uri.query().map(|q| format!("?{q}")).unwrap_or_default();
    if rest.is_empty() && info.verb == "get" {
        return Ok(Target::Redirect(format!("{}/{question}", uri.path())));
    }
    let path = format!("{}{question}", if rest.is_empty() { "/" } else { rest });
    let named = Named::parse(&info.name).ok_or_else(|| {
        let kind = info.resource.trim_end_matches('s');
        Status::bad_request(format!("invalid {kind} request {}", machinery::goformat::go_quote(&info.name)))
    })?;
    match info.resource.as_str() {
        "nodes" => Ok(Target::Node { node: named.name, scheme: named.scheme, port: named.port, path }),
        "pods" => {
            let ip = address::pod(object)?;
            let default = if named.scheme == "https" { 443 } else { 80 };
            let port = match named.port.as_str() {
                "" => address::first_container_port(object).unwrap_or(default),
                port => port
                    .parse()
                    .map_err(|_| Status::bad_request(format!("invalid pod request {:?}", info.name)))?,
            };
            Ok(Target::Pod(Destination::proxied(&named.scheme, ip, port, path)))
        }
        "services" => Ok(Target::Service {
            namespace: info.namespace.clone(),
            name: named.name,
            scheme: named.scheme,
            port: named.port,
            path,
        }),
        other => Err(Status::internal_error(format!("{other} cannot be proxied to"))),
    }
}

#[cfg(test)]
mod tests;
