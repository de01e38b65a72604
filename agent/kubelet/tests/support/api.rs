//! An API server in memory, as far as a kubelet asks one: objects of any kind are read, listed and watched; pods are
//! made, patched and deleted; events are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

type Answer = StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;
/// Resource, namespace (empty: none) and name.
type Key = (String, String, String);

/// The server; a cheap handle.
#[derive(Clone, Default)]
pub struct Api(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    objects: BTreeMap<Key, Value>,
    version: u64,
    /// Every change, by the version it made.
    log: Vec<(u64, Key, &'static str, Value)>,
    watches: Vec<(Asked, UnboundedSender<Bytes>)>,
    events: BTreeMap<String, Value>,
    /// Names of pods whose status is not taken.
    refused: BTreeSet<String>,
    away: bool,
    /// Resources that are listed to nobody, nor refused.
    withheld: BTreeSet<String>,
    requests: Vec<(Instant, Method, String)>,
}

/// What a path and its query name.
struct Asked {
    resource: String,
    namespace: String,
    name: Option<String>,
    fields: Vec<(String, String)>,
}

impl Asked {
    fn of(path: &str, query: &BTreeMap<String, String>) -> Self {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let from = if parts[0] == "api" { 2 } else { 3 };
        let (namespace, rest) = match &parts[from..] {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest.to_vec()),
            rest => ("", rest.to_vec()),
        };
        let selector = query.get("fieldSelector").map_or("", String::as_str);
        let fields = selector.split(',').filter_map(|pair| pair.split_once('='));
        Self {
            resource: rest[0].to_owned(),
            namespace: namespace.to_owned(),
            name: rest.get(1).map(|name| (*name).to_owned()),
            fields: fields.map(|(field, value)| (field.to_owned(), value.to_owned())).collect(),
        }
    }

    fn key(&self) -> Key {
        (self.resource.clone(), self.namespace.clone(), self.name.clone().unwrap_or_default())
    }

    fn means(&self, key: &Key, object: &Value) -> bool {
        let has = |(field, value): &(String, String)| {
            object.pointer(&format!("/{}", field.replace('.', "/"))).and_then(Value::as_str) == Some(value)
        };
        self.resource == key.0
            && (self.namespace.is_empty() || self.namespace == key.1)
            && self.fields.iter().all(has)
    }
}

impl State {
    fn put(&mut self, key: Key, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let kind = match self.objects.insert(key.clone(), object.clone()) {
            Some(_) => "MODIFIED",
            None => "ADDED",
        };
        self.tell(key, kind, object.clone());
        object
    }

    fn remove(&mut self, key: &Key) -> Option<Value> {
        let object = self.objects.remove(key)?;
        self.version += 1;
        self.tell(key.clone(), "DELETED", object.clone());
        Some(object)
    }

    fn tell(&mut self, key: Key, kind: &'static str, object: Value) {
        let line = line(kind, &object);
        self.watches.retain(|(asked, watch)| !asked.means(&key, &object) || watch.send(line.clone()).is_ok());
        self.log.push((self.version, key, kind, object));
    }

    fn answer(
        &mut self,
        method: &Method,
        asked: Asked,
        status: bool,
        query: &BTreeMap<String, String>,
        body: &[u8],
    ) -> Response<Answer> {
        if self.away {
            return refusal(503, "ServiceUnavailable");
        }
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        if asked.resource == "events" {
            return whole(201, self.event(asked.name.as_deref(), body));
        }
        match (method, &asked.name) {
            (&Method::GET, None) if query.get("watch").is_some_and(|w| w == "true") => {
                self.watch(asked, query)
            }
            (&Method::GET, None) => {
                let found: Vec<&Value> = self
                    .objects
                    .iter()
                    .filter(|(key, object)| asked.means(key, object))
                    .map(|(_, o)| o)
                    .collect();
                let metadata = json!({"resourceVersion": self.version.to_string()});
                whole(200, json!({"apiVersion": "v1", "kind": "List", "metadata": metadata, "items": found}))
            }
            (&Method::GET, Some(_)) => found(self.objects.get(&asked.key()).cloned()),
            (&Method::POST, _) => {
                let mut object = body;
                let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                let key = (asked.resource.clone(), asked.namespace.clone(), name.clone());
                if asked.name.is_none() && self.objects.contains_key(&key) {
                    return refusal(409, "AlreadyExists");
                }
                object["metadata"]["uid"] = format!("made-{}", self.version).into();
                whole(201, self.put((asked.resource, asked.namespace, name), object))
            }
            (&Method::PATCH, Some(name)) if status && self.refused.contains(name) => refusal(422, "Invalid"),
            (&Method::PATCH, Some(_)) => {
                let Some(mut object) = self.objects.get(&asked.key()).cloned() else { return found(None) };
                merge(&mut object, &body["status"]);
                whole(200, self.put(asked.key(), object))
            }
            (&Method::PUT, Some(_)) => whole(200, self.put(asked.key(), body)),
            (&Method::DELETE, Some(_)) => found(self.remove(&asked.key())),
            _ => refusal(405, "MethodNotAllowed"),
        }
    }

    fn event(&mut self, name: Option<&str>, body: Value) -> Value {
        let name = name.or_else(|| body["metadata"]["name"].as_str()).unwrap_or_default().to_owned();
        let event = self.events.entry(name).or_insert_with(|| body.clone());
        for field in ["count", "series"] {
            if let Some(value) = body.get(field) {
                event[field] = value.clone();
            }
        }
        event.clone()
    }

    fn watch(&mut self, asked: Asked, query: &BTreeMap<String, String>) -> Response<Answer> {
        let from: u64 = query.get("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or(0);
        let (tell, told) = unbounded_channel();
        for (version, key, kind, object) in &self.log {
            if *version > from && asked.means(key, object) {
                tell.send(line(kind, object)).unwrap();
            }
        }
        self.watches.push((asked, tell));
        let frames = futures::stream::unfold(told, |mut told| async move {
            Some((Ok(Frame::data(told.recv().await?)), told))
        });
        Response::new(StreamBody::new(frames.boxed()))
    }
}

fn line(kind: &str, object: &Value) -> Bytes {
    format!("{}\n", json!({"type": kind, "object": object})).into()
}

fn whole(code: u16, body: Value) -> Response<Answer> {
    let frame = Ok(Frame::data(Bytes::from(body.to_string())));
    let body = StreamBody::new(futures::stream::iter([frame]).boxed());
    Response::builder().status(code).body(body).unwrap()
}

fn refusal(code: u16, reason: &str) -> Response<Answer> {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason,
    });
    whole(code, status)
}

fn found(object: Option<Value>) -> Response<Answer> {
    object.map_or_else(|| refusal(404, "NotFound"), |object| whole(200, object))
}

/// Puts a patch of a status over an object's: conditions are merged by type.
pub fn merge(object: &mut Value, status: &Value) {
    for (field, value) in status.as_object().into_iter().flatten() {
        let before = object["status"][field].take();
        object["status"][field] = match value {
            Value::Array(list) => {
                let keyed = field == "conditions";
                let old = before.as_array().filter(|_| keyed).into_iter().flatten();
                let kept = old.filter(|old| list.iter().all(|new| new["type"] != old["type"])).cloned();
                let new = list.iter().filter(|new| new.get("$patch").is_none()).cloned();
                kept.chain(new).collect()
            }
            other => other.clone(),
        };
    }
}

impl Api {
    pub fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move {
                let (head, body) = request.into_parts();
                let query = form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes());
                let query: BTreeMap<String, String> = query.into_owned().collect();
                let body = body.collect().await?.to_bytes();
                let path = head.uri.path().to_owned();
                let asked = Asked::of(&path, &query);
                api.withheld(&head.method, &asked, &path).await;
                let mut state = api.0.lock();
                let status = path.ends_with("/status");
                Ok::<_, kube::Error>(state.answer(&head.method, asked, status, &query, &body))
            }
        });
        kube::Client::new(service, "default")
    }

    /// Notes a request; one that is not to be answered ends here.
    async fn withheld(&self, method: &Method, asked: &Asked, path: &str) {
        let withheld = {
            let mut state = self.0.lock();
            state.requests.push((Instant::now(), method.clone(), path.to_owned()));
            state.withheld.contains(&asked.resource)
        };
        if withheld {
            std::future::pending::<()>().await;
        }
    }

    /// Answers no question for objects of that resource any more.
    pub fn withhold(&self, resource: &str) {
        self.0.lock().withheld.insert(resource.to_owned());
    }

    /// Makes or replaces an object of namespace `n`.
    pub fn put(&self, resource: &str, object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        self.0.lock().put((resource.to_owned(), namespace, name), object);
    }

    pub fn change(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut state = self.0.lock();
        let key = pod_key(name);
        let mut pod = state.objects.get(&key).cloned().unwrap();
        change(&mut pod);
        state.put(key, pod);
    }

    /// Takes a pod away without any grace.
    pub fn remove(&self, name: &str) {
        self.0.lock().remove(&pod_key(name)).unwrap();
    }

    /// Asks for a pod's end.
    pub fn delete(&self, name: &str) {
        self.change(name, |pod| {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:01Z");
            pod["metadata"]["deletionGracePeriodSeconds"] = json!(1);
        });
    }

    pub fn pod(&self, name: &str) -> Option<Value> {
        self.0.lock().objects.get(&pod_key(name)).cloned()
    }

    pub fn phase(&self, name: &str) -> String {
        let pod = self.pod(name).unwrap_or_default();
        pod["status"]["phase"].as_str().unwrap_or_default().to_owned()
    }

    pub fn is_ready(&self, name: &str) -> bool {
        let pod = self.pod(name).unwrap_or_default();
        let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
    }

    /// Takes no status of this pod from now on, or takes them again.
    pub fn refuse(&self, name: &str, refused: bool) {
        let mut state = self.0.lock();
        match refused {
            true => state.refused.insert(name.to_owned()),
            false => state.refused.remove(name),
        };
    }

    /// Answers nothing from now on, or answers again.
    pub fn go_away(&self, away: bool) {
        let mut state = self.0.lock();
        state.away = away;
        if away {
            state.watches.clear();
        }
    }

    /// Texts of the events with a reason, and how often each was told.
    pub fn events(&self, reason: &str) -> Vec<(String, u64)> {
        let state = self.0.lock();
        let told = state.events.values().filter(|event| event["reason"] == reason);
        let count =
            |event: &Value| event["count"].as_u64().or(event["series"]["count"].as_u64()).unwrap_or(1);
        let text = |event: &Value| {
            event["message"].as_str().or(event["note"].as_str()).unwrap_or_default().to_owned()
        };
        told.map(|event| (text(event), count(event))).collect()
    }

    /// When a path was asked for.
    pub fn asked(&self, method: &Method, path: &str) -> Vec<Instant> {
        let state = self.0.lock();
        let same = state.requests.iter().filter(|(_, m, p)| m == method && p.ends_with(path));
        same.map(|(at, ..)| *at).collect()
    }
}

fn pod_key(name: &str) -> Key {
    ("pods".to_owned(), "n".to_owned(), name.to_owned())
}
