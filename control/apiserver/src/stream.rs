//! Requests that become byte streams: exec, attach, portforward and logs at a kubelet; proxies to nodes, pods, services.
//!
//! - [`container`]: which container is meant; [`address`]: where nodes, pods and services are
//! - [`destination`]: request and object to the URL behind; [`dial`]: a connection there
//! - [`messages`]: a log as WebSocket messages
//! - [`trusted`]: connections to the servers of webhooks and aggregated APIs
//! - [`carry`]: the request on that connection, upgrades passed through; [`rewrite`]: what a proxy changes on the way
//!
//! Everything that decides is pure: objects in, a [`destination::Destination`] or a `Status` out.

pub mod address;
pub mod carry;
pub mod container;
pub mod destination;
pub mod dial;
mod html;
pub mod messages;
pub mod rewrite;
pub mod trusted;

use crate::answer;
use crate::authz::{Attributes, Authorizer, forbidden};
use crate::context::{Context, Request, Response};
use crate::objects::Lookup;
use crate::tasks::Tasks;
use carry::Manner;
use destination::{Destination, Target};
use dial::Dialer;
use http::StatusCode;
use machinery::object::Gr;
use machinery::status::Status;
use serde_json::Value;
use std::sync::Arc;

/// Carries streaming requests to where they go.
#[derive(Clone)]
pub struct Connector {
    /// Finds nodes and endpoints.
    pub objects: Arc<dyn Lookup>,
    /// Asked again where one right implies another.
    pub authorizer: Arc<dyn Authorizer>,
    pub dialer: Arc<Dialer>,
    /// Which of a node's addresses to prefer.
    pub node_addresses: Vec<String>,
    pub tasks: Tasks,
}

/// kubeadm's preference; upstream's own default begins with the host name, which needs DNS to know it.
#[must_use]
pub fn default_node_addresses() -> Vec<String> {
    ["InternalIP", "ExternalIP", "InternalDNS", "ExternalDNS", "Hostname"].map(str::to_owned).to_vec()
}

impl Connector {
    /// Carries out `exec attach portforward log proxy` on `object`, the stored pod, service or node.
    pub async fn connect(&self, context: Context, request: Request, object: &Value) -> Response {
        match self.carry(&context, request, object).await {
            Ok(response) => response,
            Err(status) => answer::status(&status),
        }
    }

    async fn carry(&self, context: &Context, request: Request, object: &Value) -> Result<Response, Status> {
        let info = &context.info;
        let upgrades = matches!(info.subresource.as_str(), "exec" | "attach" | "portforward");
        if upgrades {
            self.may_create(context).await?;
        }
        let target = destination::target(context, request.uri(), object)?;
        let destination = match target {
            Target::Nothing => return Ok(answer::text(StatusCode::OK, "")),
            Target::Redirect(location) => {
                let mut response = answer::text(StatusCode::MOVED_PERMANENTLY, "");
                answer::set(&mut response, http::header::LOCATION, &location);
                return Ok(response);
            }
            Target::Kubelet { node, path } => self.kubelet(&node, path).await?,
            Target::Node { node, scheme, port, path } => {
                let mut destination = self.kubelet(&node, path).await?;
                destination.turn_to(scheme, port);
                destination
            }
            Target::Pod(destination) => destination,
            Target::Service { namespace, name, scheme, port, path } => {
                let endpoints = self.objects.get("", "endpoints", &namespace, &name).await;
                let chosen = address::endpoint(endpoints.as_deref(), object, &name, &port)?;
                Destination::proxied(scheme, chosen.0, chosen.1, path)
            }
        };
        let manner = match info.subresource.as_str() {
            _ if upgrades => Manner::UpgradeOnly,
            "log" => Manner::Log { resource: Gr::new("", "pods"), name: info.name.clone() },
            _ => Manner::Proxy { prefix: destination::proxy_prefix(request.uri().path(), context) },
        };
        carry::carry(&self.dialer, &self.tasks, request, destination, manner, &context.audit).await
    }

    async fn kubelet(&self, node: &str, path: String) -> Result<Destination, Status> {
        let resource = Gr::new("", "nodes");
        let object = self
            .objects
            .get("", "nodes", "", node)
            .await
            .ok_or_else(|| Status::not_found(&resource, node))?;
        let host = address::node(&object, &self.node_addresses).map_err(Status::internal_error)?;
        Ok(Destination::kubelet(host, address::kubelet_port(&object), path))
    }

    /// A WebSocket opens with GET: whoever may only read must not run commands that way. Upstream's gate
    /// `AuthorizePodWebsocketUpgradeCreatePermission`.
    async fn may_create(&self, context: &Context) -> Result<(), Status> {
        if context.info.verb != "get" {
            return Ok(());
        }
        let attributes = Attributes { verb: "create".into(), ..Attributes::of_context(context) };
        let decision = self.authorizer.decide(&attributes).await;
        if decision.allowed() { Ok(()) } else { Err(forbidden::status(&attributes, &decision)) }
    }
}
