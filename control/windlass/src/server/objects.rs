//! Stored objects for the front: single ones for authentication, changes for authorisation.

use super::roles::interface;
use anyhow::Context as _;
use apiserver::chain::Resources;
use apiserver::context::{Body, Context, Request, RequestInfo, Response, User};
use apiserver::objects::{Lookup, OBSERVED, Observer};
use apiserver::registry::Registry;
use futures::StreamExt as _;
use futures::future::{BoxFuture, join_all};
use http_body_util::BodyExt as _;
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Api, ResourceExt as _};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::watch as signal;
use tokio_util::sync::CancellationToken;

/// The registry as the front sees it.
#[derive(Clone)]
pub(super) struct Stored(pub(super) Arc<Registry>);

impl Resources for Stored {
    fn serve(&self, context: Context, request: Request) -> BoxFuture<'static, Response> {
        Box::pin(self.0.clone().serve(context, request))
    }

    fn knows(&self, info: &RequestInfo) -> bool {
        self.0.knows(&info.group, &info.version, &info.resource)
    }
}

impl Lookup for Stored {
    fn get<'a>(
        &'a self,
        group: &'a str,
        resource: &'a str,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Option<Arc<Value>>> {
        let info = RequestInfo {
            is_resource: true,
            path: format!("/{resource}/{namespace}/{name}"),
            verb: "get".to_owned(),
            api_prefix: if group.is_empty() { "api" } else { "apis" }.to_owned(),
            group: group.to_owned(),
            version: "v1".to_owned(),
            namespace: namespace.to_owned(),
            resource: resource.to_owned(),
            subresource: String::new(),
            name: name.to_owned(),
            parts: vec![resource.to_owned(), name.to_owned()],
        };
        let user = User {
            name: "system:apiserver".to_owned(),
            groups: vec!["system:masters".to_owned()],
            ..User::default()
        };
        let context = Context { info, user, query: Vec::new(), user_agent: "windlass".to_owned() };
        let request = Request::new(Body::default());
        Box::pin(async move {
            let response = self.0.clone().serve(context, request).await;
            if !response.status().is_success() {
                return None;
            }
            let bytes = response.into_body().collect().await.ok()?.to_bytes();
            serde_json::from_slice(&bytes).ok().map(Arc::new)
        })
    }
}

/// Tells `observer` of every change until `stop`; `filled` turns true when it has heard of everything there was.
pub(super) async fn observe(
    client: kube::Client,
    registry: &Registry,
    observer: Arc<dyn Observer>,
    filled: signal::Sender<bool>,
    stop: CancellationToken,
) {
    let served = OBSERVED.into_iter().filter(|(group, resource)| registry.knows(group, "v1", resource));
    let feeds: Vec<Feed> =
        served.map(|(group, resource)| Feed::new(&client, group, resource, &observer)).collect();
    let mut listed: Vec<signal::Receiver<bool>> = feeds.iter().map(|f| f.listed.subscribe()).collect();
    let wait = async {
        for one in &mut listed {
            let _ = one.wait_for(|listed| *listed).await;
        }
        filled.send_replace(true);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = stop.cancelled() => {}
        _ = join_all(feeds.into_iter().map(Feed::run)) => {}
        () = wait => {}
    }
}

/// One resource's changes.
struct Feed {
    api: Api<DynamicObject>,
    group: &'static str,
    resource: &'static str,
    observer: Arc<dyn Observer>,
    listed: signal::Sender<bool>,
    /// Namespace and name of what the observer knows of, so that a new list can tell what is gone.
    known: BTreeSet<(String, String)>,
}

impl Feed {
    fn new(
        client: &kube::Client,
        group: &'static str,
        resource: &'static str,
        observer: &Arc<dyn Observer>,
    ) -> Self {
        let interface: ApiResource = interface(group, resource);
        Self {
            api: Api::all_with(client.clone(), &interface),
            group,
            resource,
            observer: observer.clone(),
            listed: signal::Sender::new(false),
            known: BTreeSet::new(),
        }
    }

    async fn run(mut self) {
        let mut events = watch(self.api.clone(), watcher::Config::default()).default_backoff().boxed();
        let mut fresh = BTreeSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => fresh.clear(),
                Ok(Event::InitApply(object)) => {
                    fresh.insert(self.put(&object));
                }
                Ok(Event::InitDone) => {
                    let gone: Vec<_> = self.known.difference(&fresh).cloned().collect();
                    for (namespace, name) in gone {
                        self.observer.delete(self.group, self.resource, &namespace, &name);
                    }
                    self.known = std::mem::take(&mut fresh);
                    self.listed.send_replace(true);
                }
                Ok(Event::Apply(object)) => {
                    let key = self.put(&object);
                    self.known.insert(key);
                }
                Ok(Event::Delete(object)) => {
                    let key = key(&object);
                    self.observer.delete(self.group, self.resource, &key.0, &key.1);
                    self.known.remove(&key);
                }
                Err(error) => {
                    tracing::warn!(resource = self.resource, error = %error, "watch for authorisation");
                }
            }
        }
    }

    fn put(&self, object: &DynamicObject) -> (String, String) {
        match serde_json::to_value(object).context("encode") {
            Ok(value) => self.observer.put(self.group, self.resource, &value),
            Err(error) => {
                tracing::error!(resource = self.resource, error = %error, "object for authorisation")
            }
        }
        key(object)
    }
}

fn key(object: &DynamicObject) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}
