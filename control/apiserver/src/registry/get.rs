//! GET: one object, from the store or, where the client is content with it, from the watch cache.

use super::kind::Kind;
use super::{Registry, storage, stored};
use crate::context::Context;
use bytes::Bytes;
use machinery::status::Status;
use serde_json::Value;
use store::Revision;

impl Registry {
    /// One object in the stored version. Without a resourceVersion the answer is the newest; with one, it is at least as new.
    pub(crate) async fn get(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        context: &Context,
    ) -> Result<Value, Status> {
        if !kind.reads_as_stored() && asked(context)?.is_none() {
            return self.read_required(kind, namespace, name).await;
        }
        let bytes = self.get_bytes(kind, namespace, name, context).await?;
        self.present(kind, kind.decode_wire(&bytes)?).await
    }

    /// The same as the bytes it is kept as, its resourceVersion among them. Those of a custom object are as the watch cache has
    /// them, or as they were stored.
    pub(crate) async fn get_bytes(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        context: &Context,
    ) -> Result<Bytes, Status> {
        let not_found = || Status::not_found(&kind.gr(), name);
        let Some(not_older) = asked(context)? else {
            let entry = self.entry(kind, namespace, name).await?.ok_or_else(not_found)?;
            return Ok(stored::wire(&entry.value, entry.mod_revision));
        };
        let cache = self.filled(kind).await?;
        cache.wait_until_fresh(not_older).await.map_err(|e| storage::unready(kind, &e))?;
        let found = cache.get(&kind.resource.key(namespace, name)).map_err(|e| storage::unready(kind, &e))?;
        found.map(|object| object.bytes.clone()).ok_or_else(not_found)
    }
}

/// The version the answer must not be older than; none asks for the newest.
fn asked(context: &Context) -> Result<Option<Revision>, Status> {
    let Some(text) = context.query("resourceVersion").filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|_| {
        Status::bad_request(format!(
            "Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        ))
    })
}
