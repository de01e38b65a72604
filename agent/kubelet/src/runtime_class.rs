//! RuntimeClasses: which of the runtime's handlers a pod's sandbox is made by.
//!
//! Followed whole (a cluster has a handful, and only name and handler are kept). What wakes it: the API's watch events.
//! What it promises: an answer is what the watch saw last, and a server that is away takes no class away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Event, Source, mirror};
use futures::StreamExt;
use k8s_openapi::api::node::v1::RuntimeClass;
use tokio::sync::watch;

/// How long a pod waits for the first list.
const FIRST_LIST: Duration = Duration::from_secs(10);

/// Handlers by class name.
type Handlers = BTreeMap<String, String>;

/// A class that cannot be looked up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("runtimeclass.node.k8s.io {0:?} not found")]
    NotFound(String),
    /// The classes have not been read yet.
    #[error("failed to lookup RuntimeClass {0}: the RuntimeClasses have not been read yet")]
    Unread(String),
}

/// A shared handle to the classes.
#[derive(Clone, Debug)]
pub struct RuntimeClasses(Arc<watch::Sender<Option<Handlers>>>);

impl Default for RuntimeClasses {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl RuntimeClasses {
    /// The handler of a class; the runtime's default, which is empty, without one.
    pub async fn handler(&self, class: Option<&str>) -> Result<String, Error> {
        let Some(name) = class.filter(|name| !name.is_empty()) else { return Ok(String::new()) };
        let mut known = self.0.subscribe();
        let read = tokio::time::timeout(FIRST_LIST, known.wait_for(Option::is_some)).await;
        let Ok(Ok(handlers)) = read else { return Err(Error::Unread(name.to_owned())) };
        let found = handlers.as_ref().and_then(|handlers| handlers.get(name)).cloned();
        found.ok_or_else(|| Error::NotFound(name.to_owned()))
    }

    /// The handler of a class as far as it is known now; the runtime's default, which is empty, without one.
    pub fn known(&self, class: Option<&str>) -> Option<String> {
        match class.filter(|name| !name.is_empty()) {
            None => Some(String::new()),
            Some(name) => self.0.borrow().as_ref()?.get(name).cloned(),
        }
    }

    /// A kubelet without an API server knows no class.
    pub fn none(&self) {
        self.0.send_replace(Some(Handlers::new()));
    }

    /// Follows the API's classes until cancelled from outside.
    pub async fn follow(self, client: kube::Client) {
        let mut events = mirror::<RuntimeClass>(Source::all::<RuntimeClass>(&client));
        let (mut known, mut complete) = (Handlers::new(), false);
        while let Some(event) = events.next().await {
            match event {
                Event::Set(key, class) => drop(known.insert(key.name.as_ref().to_owned(), class.handler)),
                Event::Gone(gone) => drop(known.remove(&*gone.key.name)),
                Event::Synced => complete = true,
                Event::Unreadable(_) | Event::Failed(_) => continue,
            }
            if complete {
                self.0.send_replace(Some(known.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_class_names_its_handler() {
        let classes = RuntimeClasses::default();
        classes.0.send_replace(Some(Handlers::from([("gvisor".to_owned(), "runsc".to_owned())])));
        assert_eq!(classes.handler(None).await.unwrap(), "");
        assert_eq!(classes.handler(Some("gvisor")).await.unwrap(), "runsc");
        let missing = classes.handler(Some("kata")).await.unwrap_err();
        assert_eq!(missing.to_string(), "runtimeclass.node.k8s.io \"kata\" not found");
        let known = |class| classes.known(class);
        assert_eq!((known(None).as_deref(), known(Some("gvisor")).as_deref()), (Some(""), Some("runsc")));
        assert_eq!(known(Some("kata")), None);
    }
}
