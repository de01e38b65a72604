//! An API server for tests: objects by path, preconditions and merge patches, and what was asked.

use crate::informer::{Informer, Kind};
use client::Source;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use supervise::Scope;

#[derive(Clone, Default)]
pub(crate) struct Fake(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    requests: Vec<String>,
    /// Each patch makes a new version.
    counts: bool,
}

impl Fake {
    pub(crate) fn put(&self, path: &str, object: Value) {
        self.0.lock().objects.insert(path.to_owned(), object);
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.0.lock().objects.get(path).cloned()
    }

    /// Has these objects listed, and an informer know them.
    pub(crate) async fn shown<K: Kind<DynamicType = ()>>(
        &self,
        scope: &Scope,
        informer: &Arc<Informer<K>>,
        items: Vec<Value>,
    ) {
        let list = json!({ "metadata": { "resourceVersion": "1" }, "items": items });
        self.put(&K::url_path(&(), None), list);
        scope.keep(informer.task(K::plural(&()).into_owned(), Source::all::<K>(&self.client())));
        informer.synced().await;
    }

    /// From now on each patch gives its object the next version.
    pub(crate) fn count_versions(&self) {
        self.0.lock().counts = true;
    }

    /// What lies under a path.
    pub(crate) fn under(&self, prefix: &str) -> Vec<Value> {
        self.0.lock().objects.iter().filter(|(p, _)| p.starts_with(prefix)).map(|(_, o)| o.clone()).collect()
    }

    /// Requests that write, `METHOD PATH`.
    pub(crate) fn writes(&self) -> Vec<String> {
        self.0.lock().requests.iter().filter(|r| !r.starts_with("GET")).cloned().collect()
    }

    pub(crate) fn client(&self) -> Client {
        let fake = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let fake = fake.clone();
            async move {
                let (head, body) = request.into_parts();
                let bytes = body.collect().await.unwrap().to_bytes();
                let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
                if head.uri.query().is_some_and(|query| query.contains("watch=true")) {
                    // Nothing changes while somebody watches.
                    std::future::pending::<()>().await;
                }
                let (status, answer) = fake.0.lock().answer(&head.method, head.uri.path(), &body);
                let response = Response::builder().status(status).header("content-type", "application/json");
                Ok::<_, std::convert::Infallible>(
                    response.body(Body::from(answer.to_string().into_bytes())).unwrap(),
                )
            }
        });
        Client::new(service, "default")
    }
}

fn refused(code: StatusCode, reason: &str) -> (StatusCode, Value) {
    let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(),
        "reason": reason, "message": reason });
    (code, status)
}

impl State {
    fn answer(&mut self, method: &Method, path: &str, body: &Value) -> (StatusCode, Value) {
        self.requests.push(format!("{method} {path}"));
        if method == Method::POST {
            let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap_or_default());
            if self.objects.contains_key(&path) {
                return refused(StatusCode::CONFLICT, "AlreadyExists");
            }
            self.objects.insert(path, body.clone());
            return (StatusCode::CREATED, body.clone());
        }
        let path = path.strip_suffix("/status").unwrap_or(path);
        let below = format!("{path}/");
        let items: Vec<&Value> = self
            .objects
            .range(below.clone()..)
            .take_while(|(p, _)| p.starts_with(&below))
            .map(|(_, o)| o)
            .collect();
        if method == Method::GET && !items.is_empty() && !self.objects.contains_key(path) {
            return (StatusCode::OK, json!({ "kind": "List", "metadata": {}, "items": items }));
        }
        let Some(object) = self.objects.get_mut(path) else {
            return refused(StatusCode::NOT_FOUND, "NotFound");
        };
        let metadata = &object["metadata"];
        let other = |wanted: &Value, name: &str| !wanted[name].is_null() && wanted[name] != metadata[name];
        let wanted = if method == Method::DELETE { &body["preconditions"] } else { &body["metadata"] };
        if other(wanted, "uid") || other(wanted, "resourceVersion") {
            return refused(StatusCode::CONFLICT, "Conflict");
        }
        let method = method.as_str();
        match method {
            "DELETE" => return (StatusCode::OK, self.objects.remove(path).unwrap_or_default()),
            "PATCH" => {
                merge(object, body);
                let version =
                    object["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse::<u64>().ok());
                if let Some(version) = version.filter(|_| self.counts) {
                    object["metadata"]["resourceVersion"] = (version + 1000).to_string().into();
                }
            }
            "PUT" => *object = body.clone(),
            _ => {}
        }
        (StatusCode::OK, object.clone())
    }
}

fn merge(object: &mut Value, patch: &Value) {
    let (Value::Object(fields), Value::Object(changes)) = (&mut *object, patch) else {
        *object = patch.clone();
        return;
    };
    for (name, change) in changes {
        if change.is_null() {
            fields.remove(name);
        } else {
            merge(fields.entry(name).or_insert(Value::Null), change);
        }
    }
}
