//! The resource `things`: kept in memory, by namespace and name; watches see every change.

use crate::answers::{Body, refusal, reply};
use crate::{GROUP, VERSIONS};
use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::watch;

type Key = (String, String);

/// A change, as watches tell it.
#[derive(Clone)]
struct Change {
    revision: u64,
    event: &'static str,
    namespace: String,
    object: Value,
}

#[derive(Default)]
struct Kept {
    revision: u64,
    objects: BTreeMap<Key, Value>,
    changes: Vec<Change>,
}

/// All things there are.
pub struct Things {
    kept: Arc<Mutex<Kept>>,
    revision: watch::Sender<u64>,
}

impl Default for Things {
    fn default() -> Self {
        Things { kept: Arc::default(), revision: watch::Sender::new(0) }
    }
}

/// What a path names below the group.
struct Place<'a> {
    version: &'a str,
    namespace: &'a str,
    name: Option<&'a str>,
}

fn place(path: &str) -> Option<Place<'_>> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let found = match *parts.as_slice() {
        ["apis", GROUP, version, "things"] => Place { version, namespace: "", name: None },
        ["apis", GROUP, version, "namespaces", namespace, "things"] => {
            Place { version, namespace, name: None }
        }
        ["apis", GROUP, version, "namespaces", namespace, "things", name] => {
            Place { version, namespace, name: Some(name) }
        }
        _ => return None,
    };
    VERSIONS.contains(&found.version).then_some(found)
}

/// An object in the version that was asked for: versions differ by name only.
fn shown(object: &Value, version: &str) -> Value {
    let mut object = object.clone();
    object["apiVersion"] = format!("{GROUP}/{version}").into();
    object["kind"] = "Thing".into();
    object
}

impl Things {
    /// Answers a request by `user`.
    pub fn answer(
        &self,
        method: &Method,
        path: &str,
        query: &str,
        user: &str,
        sent: Value,
    ) -> Response<Body> {
        let Some(Place { version, namespace, name }) = place(path) else {
            return refusal(
                StatusCode::NOT_FOUND,
                "NotFound",
                "the server could not find the requested resource",
            );
        };
        let watches = query.split('&').any(|part| matches!(part, "watch=true" | "watch=1"));
        match (method.as_str(), name) {
            ("GET", None) if watches => self.watch(version, namespace, query),
            ("GET", None) => reply(StatusCode::OK, &self.list(version, namespace)),
            ("POST", None) if !namespace.is_empty() => self.put(version, namespace, None, user, sent),
            ("PUT", Some(name)) => self.put(version, namespace, Some(name), user, sent),
            ("GET" | "DELETE", Some(name)) => {
                let key = (namespace.to_owned(), name.to_owned());
                let mut kept = self.kept.lock();
                let Some(object) = kept.objects.get(&key).cloned() else {
                    let message = format!("things.{GROUP} {name:?} not found");
                    return refusal(StatusCode::NOT_FOUND, "NotFound", &message);
                };
                if method == Method::DELETE {
                    kept.objects.remove(&key);
                    self.changed(&mut kept, "DELETED", namespace, object.clone());
                }
                reply(StatusCode::OK, &shown(&object, version))
            }
            _ => {
                let message = "the server does not allow this method on the requested resource";
                refusal(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
            }
        }
    }

    fn list(&self, version: &str, namespace: &str) -> Value {
        let kept = self.kept.lock();
        let chosen = kept.objects.iter().filter(|((of, _), _)| namespace.is_empty() || of == namespace);
        let items: Vec<Value> = chosen.map(|(_, object)| shown(object, version)).collect();
        json!({"kind": "ThingList", "apiVersion": format!("{GROUP}/{version}"),
            "metadata": {"resourceVersion": kept.revision.to_string()}, "items": items})
    }

    fn put(
        &self,
        version: &str,
        namespace: &str,
        name: Option<&str>,
        user: &str,
        mut sent: Value,
    ) -> Response<Body> {
        let named = sent["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if !sent["metadata"].is_object() || named.is_empty() || name.is_some_and(|name| name != named) {
            return refusal(StatusCode::BAD_REQUEST, "BadRequest", "name must be provided");
        }
        let key = (namespace.to_owned(), named.clone());
        let mut kept = self.kept.lock();
        let is_there = kept.objects.contains_key(&key);
        if is_there != name.is_some() {
            let (code, reason, what) = match is_there {
                true => (StatusCode::CONFLICT, "AlreadyExists", "already exists"),
                false => (StatusCode::NOT_FOUND, "NotFound", "not found"),
            };
            return refusal(code, reason, &format!("things.{GROUP} {named:?} {what}"));
        }
        let metadata = &mut sent["metadata"];
        metadata["namespace"] = namespace.into();
        metadata["annotations"]["example.windlass.dev/by"] = user.into();
        metadata["resourceVersion"] = (kept.revision + 1).to_string().into();
        kept.objects.insert(key, sent.clone());
        let (code, event) =
            if is_there { (StatusCode::OK, "MODIFIED") } else { (StatusCode::CREATED, "ADDED") };
        self.changed(&mut kept, event, namespace, sent.clone());
        reply(code, &shown(&sent, version))
    }

    fn changed(&self, kept: &mut Kept, event: &'static str, namespace: &str, object: Value) {
        kept.revision += 1;
        let change = Change { revision: kept.revision, event, namespace: namespace.to_owned(), object };
        kept.changes.push(change);
        self.revision.send_replace(kept.revision);
    }

    fn watch(&self, version: &str, namespace: &str, query: &str) -> Response<Body> {
        let from = query.split('&').find_map(|part| part.strip_prefix("resourceVersion=")?.parse().ok());
        let (version, namespace) = (version.to_owned(), namespace.to_owned());
        let state = (self.kept.clone(), self.revision.subscribe(), from.unwrap_or(0_u64));
        let frames = stream::unfold(state, move |(kept, mut revisions, seen)| {
            let (version, namespace) = (version.clone(), namespace.clone());
            async move {
                loop {
                    drop(revisions.borrow_and_update());
                    let next = kept.lock().changes.iter().find(|change| change.revision > seen).cloned();
                    let Some(change) = next else {
                        revisions.changed().await.ok()?;
                        continue;
                    };
                    let mut line = Vec::new();
                    if namespace.is_empty() || change.namespace == namespace {
                        let event = json!({"type": change.event, "object": shown(&change.object, &version)});
                        line = format!("{event}\n").into_bytes();
                    }
                    let frame = Ok::<_, Infallible>(Frame::data(Bytes::from(line)));
                    return Some((frame, (kept, revisions, change.revision)));
                }
            }
        });
        let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
        let media = HeaderValue::from_static("application/json");
        response.headers_mut().insert(http::header::CONTENT_TYPE, media);
        response
    }
}
