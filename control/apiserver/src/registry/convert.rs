//! Custom objects from one version to another: by name only, or by a webhook (upstream: `pkg/apiserver/conversion`).
//!
//! An object in a watch cache, and one just read, is in the version it was stored in; [`Registry::present`] and functions like it bring it
//! to the version its client speaks. With a webhook, everything that needs it is asked for at once.

use super::kind::Kind;
use super::slot::gone;
use super::{Registry, stored};
use crate::webhook::Endpoint;
use bytes::Bytes;
use futures::future::BoxFuture;
use machinery::custom::{Conversion, Definition, Origin, review};
use machinery::object::{self, Gvk};
use machinery::status::{Reason, Status};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use store::Entry;

/// How long a webhook may take (upstream's fixed 30 seconds).
const PATIENCE: Duration = Duration::from_secs(30);
/// Objects asked for at once.
const AT_ONCE: usize = 500;

/// What converts objects of a kind; none for built-in ones, whose versions are met by [`Kind::to_client`].
fn definition(kind: &Kind) -> Result<Option<Arc<Definition>>, Status> {
    kind.custom.map(|slot| slot.serving().map(|serving| serving.definition()).ok_or_else(gone)).transpose()
}

impl Registry {
    /// A stored entry as an object of the version `kind` speaks (built in: the stored version).
    pub(crate) async fn decode(&self, kind: &Kind, entry: &Entry) -> Result<Value, Status> {
        let Some(definition) = definition(kind)? else { return kind.decode(entry) };
        let mut object = stored::decode(&entry.value, entry.mod_revision)
            .map_err(|e| Status::internal_error(format!("decode {}: {e}", entry.key)))?;
        definition.read(&mut object);
        self.convert(kind, &definition, object, kind.version).await
    }

    /// The bytes to store for an object of the version `kind` speaks.
    pub(crate) async fn encode(&self, kind: &Kind, object: &Value) -> Result<Bytes, Status> {
        let Some(definition) = definition(kind)? else { return kind.encode(object) };
        let stored = self.convert(kind, &definition, object.clone(), definition.storage).await?;
        kind.encode(&stored)
    }

    /// An object of a watch cache in the version `kind` speaks (built in: the stored version).
    pub(crate) async fn present(&self, kind: &Kind, object: Value) -> Result<Value, Status> {
        let Some(definition) = definition(kind)? else { return Ok(object) };
        self.convert(kind, &definition, object, kind.version).await
    }

    /// The same of several, for which a webhook is asked at once.
    pub(crate) async fn present_many(&self, kind: &Kind, objects: Vec<Value>) -> Result<Vec<Value>, Status> {
        let Some(definition) = definition(kind)? else { return Ok(objects) };
        self.convert_all(kind, &definition, objects, kind.version).await
    }

    /// Objects in any version of their definition, whichever version the client speaks.
    pub(crate) async fn in_version(
        &self,
        kind: &Kind,
        objects: Vec<Value>,
        version: &str,
    ) -> Result<Vec<Value>, Status> {
        let definition = definition(kind)?.ok_or_else(gone)?;
        self.convert_all(kind, &definition, objects, version).await
    }

    /// Many objects of a watch cache, as their bytes, in the version `kind` speaks.
    pub(crate) async fn present_all(&self, kind: &Kind, bytes: &[Bytes]) -> Result<Vec<Value>, Status> {
        let definition = definition(kind)?.ok_or_else(gone)?;
        let objects: Vec<Value> = bytes.iter().map(|b| kind.decode_wire(b)).collect::<Result<_, _>>()?;
        self.convert_all(kind, &definition, objects, kind.version).await
    }

    async fn convert(
        &self,
        kind: &Kind,
        definition: &Definition,
        object: Value,
        to: &str,
    ) -> Result<Value, Status> {
        let converted = self.convert_all(kind, definition, vec![object], to).await?;
        converted.into_iter().next().ok_or_else(gone)
    }

    /// Objects in another version, in their order.
    async fn convert_all(
        &self,
        kind: &Kind,
        definition: &Definition,
        mut objects: Vec<Value>,
        to: &str,
    ) -> Result<Vec<Value>, Status> {
        let gvk = Gvk::new(definition.group, to, kind.resource.kind);
        let wanted = gvk.api_version();
        let others: Vec<usize> =
            (0..objects.len()).filter(|i| object::api_version(&objects[*i]) != wanted).collect();
        if others.is_empty() {
            return Ok(objects);
        }
        let version = definition.version(to).ok_or_else(gone)?;
        match &definition.conversion {
            Conversion::None => others.iter().for_each(|i| object::set_gvk(&mut objects[*i], &gvk)),
            Conversion::Webhook(webhook) => {
                for some in others.chunks(AT_ONCE) {
                    let sent: Vec<Value> = some.iter().map(|i| objects[*i].clone()).collect();
                    let converted = self.ask_webhook(webhook, &wanted, &sent).await?;
                    some.iter().zip(converted).for_each(|(i, object)| objects[*i] = object);
                }
            }
        }
        for i in others {
            definition.coerce(version, &mut objects[i], Origin::Sent).map_err(Status::internal_error)?;
        }
        Ok(objects)
    }

    async fn ask_webhook(&self, webhook: &Value, to: &str, objects: &[Value]) -> Result<Vec<Value>, Status> {
        let from = objects.first().and_then(Gvk::of).map(|g| g.to_string()).unwrap_or_default();
        // Nothing makes a status of it upstream either: it has no reason.
        let failed = |why: String| {
            Status::failure(500, Reason::Unknown, format!("conversion webhook for {from}{why}"))
        };
        let uid = uuid::Uuid::new_v4().to_string();
        let review = review::ask(webhook, &uid, to, objects)
            .ok_or_else(|| failed(" failed: no supported conversion review versions".to_owned()))?;
        let answer =
            self.call_webhook(webhook, &review).await.map_err(|why| failed(format!(" failed: {why}")))?;
        review::answer(&review, &answer, objects).map_err(failed)
    }

    /// Sends a review; the error is why there is no answer. Finding the webhook reads other objects, so the future is
    /// boxed here.
    fn call_webhook<'a>(
        &'a self,
        webhook: &'a Value,
        review: &'a Value,
    ) -> BoxFuture<'a, Result<Value, String>> {
        Box::pin(async move {
            let endpoint = Endpoint::of_conversion(webhook.get("clientConfig").unwrap_or(&Value::Null));
            let answer = endpoint.ask(self, None, review, PATIENCE).await;
            answer.map_err(|why| why.strip_prefix("failed to call webhook: ").unwrap_or(&why).to_owned())
        })
    }
}
