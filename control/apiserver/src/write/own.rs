//! What the server itself writes: no webhook or policy sees it.

use super::delete::Deleted;
use super::{Writer, Written};
use crate::context::{Context, User};
use crate::registry::call::{Call, Change};
use crate::registry::kind::Kind;
use crate::registry::options::DeleteOptions;
use machinery::object;
use machinery::status::Status;
use serde_json::Value;

fn context() -> Context {
    let user = User {
        name: "system:apiserver".to_owned(),
        groups: vec!["system:masters".to_owned(), "system:authenticated".to_owned()],
        ..User::default()
    };
    Context { user, user_agent: "windlass".to_owned(), ..Context::default() }
}

impl Writer {
    pub(crate) async fn make(&self, kind: &Kind, mut object: Value) -> Result<Written, Status> {
        let (namespace, name) = (object::namespace(&object).to_owned(), object::name(&object).to_owned());
        let context = context();
        kind.default(&mut object);
        self.create(&Call::unseen(&context, kind, &namespace, &name), object).await
    }

    /// Makes `object` unless something of its name is there.
    pub(crate) async fn ensure(&self, kind: &Kind, object: Value) -> Result<(), Status> {
        if self.registry.entry(kind, object::namespace(&object), object::name(&object)).await?.is_some() {
            return Ok(());
        }
        match self.make(kind, object).await {
            Err(e) if e.code == 409 => Ok(()),
            other => other.map(drop),
        }
    }

    /// Changes an object of the server's own.
    pub(crate) async fn amend(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        subresource: &'static str,
        change: &dyn Change,
    ) -> Result<Value, Status> {
        let context = context();
        let mut call = Call::unseen(&context, kind, namespace, name);
        call.subresource = subresource;
        self.update(&call, change, None).await.map(|u| u.object)
    }

    /// Deletes an object; it may be gone already.
    pub(crate) async fn discard(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<(), Status> {
        let context = context();
        let call = Call::unseen(&context, kind, namespace, name);
        match self.delete(&call, options).await {
            Ok(Deleted::Object(_) | Deleted::Status(_)) => Ok(()),
            Err(error) if error.code == 404 => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Deletes an object as it was `seen`. Another of its name, or another state of it, is somebody else's work by now, and stays.
    pub(crate) async fn discard_seen(&self, kind: &Kind, seen: &Value) -> Result<(), Status> {
        let exactly = DeleteOptions {
            uid: Some(object::uid(seen).to_owned()),
            resource_version: Some(object::resource_version(seen).to_owned()),
            ..DeleteOptions::default()
        };
        match self.discard(kind, object::namespace(seen), object::name(seen), &exactly).await {
            Err(error) if error.code != 409 => Err(error),
            _ => Ok(()),
        }
    }
}
