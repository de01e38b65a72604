//! GET: one object, from the store or, where the client is content with it, from the watch cache.

use super::kind::Kind;
use super::{Registry, storage};
use crate::context::Context;
use machinery::status::Status;
use serde_json::Value;

impl Registry {
    /// One object in the stored version. Without a resourceVersion the answer is the newest; with one, it is at least as new.
    pub(crate) async fn get(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        context: &Context,
    ) -> Result<Value, Status> {
        let not_older = match context.query("resourceVersion") {
            None | Some("") => return self.read_required(kind, namespace, name).await,
            Some(text) => text.parse().map_err(|_| {
                Status::bad_request(format!(
                    "Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
                ))
            })?,
        };
        let cache = self.cache(kind)?;
        cache.wait_until_fresh(not_older).await.map_err(|e| storage::unready(kind, &e))?;
        let found = cache.get(&kind.resource.key(namespace, name)).map_err(|e| storage::unready(kind, &e))?;
        match found {
            Some(object) => self.present(kind, kind.decode_wire(&object.bytes)?).await,
            None => Err(Status::not_found(&kind.gr(), name)),
        }
    }
}
