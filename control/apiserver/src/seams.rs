//! What the filters ask of the registry: answers to requests, and single objects.

use crate::chain::Resources;
use crate::context::{Context, Request, RequestInfo, Response};
use crate::objects::Lookup;
use crate::registry::kind::Kind;
use crate::registry::metadata::{name, namespace};
use crate::write::Writer;
use futures::future::BoxFuture;
use machinery::access::object_at;
use machinery::object::{self, Gr};
use machinery::status::Status;
use serde_json::Value;
use std::sync::Arc;

/// The registry as the front's filters hold it.
#[derive(Clone, Debug)]
pub struct Shared(pub Arc<Writer>);

impl Resources for Shared {
    fn serve(&self, context: Context, request: Request) -> BoxFuture<'static, Response> {
        let writer = self.0.clone();
        Box::pin(async move { crate::handler::handle(&writer, context, request).await })
    }

    fn knows(&self, info: &RequestInfo) -> bool {
        self.0.registry.kind(&info.group, &info.version, &info.resource).is_some()
    }
}

impl Lookup for Shared {
    fn get<'a>(
        &'a self,
        group: &'a str,
        resource: &'a str,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Option<Arc<Value>>> {
        Box::pin(async move {
            let kind = self.0.registry.kind_of(group, resource)?;
            match self.0.registry.lookup(&kind, namespace, name).await {
                Ok(found) => found.map(Arc::new),
                Err(error) => {
                    tracing::warn!(%error, group, resource, namespace, name, "lookup");
                    None
                }
            }
        })
    }

    fn label_secret<'a>(
        &'a self,
        secret: &'a Value,
        label: &'static str,
        value: &'a str,
    ) -> BoxFuture<'a, ()> {
        let change = move |old: &Value| {
            if object::uid(old) != object::uid(secret) {
                return Err(Status::not_found(&Gr::new("", "secrets"), name(secret)));
            }
            let mut new = old.clone();
            object::set_resource_version(&mut new, "");
            object_at(&mut new, "metadata.labels").insert(label.to_owned(), value.into());
            Ok(new)
        };
        Box::pin(async move {
            let Some(kind) = Kind::of("", "secrets") else { return };
            let (namespace, name) = (namespace(secret), name(secret));
            if let Err(error) = self.0.amend(&kind, namespace, name, "", &change).await {
                tracing::warn!(%error, namespace, name, label, "secret not labelled");
            }
        })
    }
}
