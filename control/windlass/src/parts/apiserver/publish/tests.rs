use super::*;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::client::Body;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

/// Objects by path, with create, get and merge patch of `data`.
type Store = Arc<Mutex<BTreeMap<String, Value>>>;

fn client(store: &Store) -> kube::Client {
    let store = store.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let store = store.clone();
        async move {
            let (parts, body) = request.into_parts();
            let bytes = body.collect().await.unwrap().to_bytes();
            let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            let mut store = store.lock().unwrap();
            let path = parts.uri.path().to_owned();
            let (status, answer) = match parts.method {
                Method::POST => {
                    let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap());
                    let mut stored = false;
                    store.entry(path).or_insert_with(|| {
                        stored = true;
                        body.clone()
                    });
                    if stored {
                        (StatusCode::CREATED, body)
                    } else {
                        failure("AlreadyExists", StatusCode::CONFLICT)
                    }
                }
                Method::GET => match store.get(&path) {
                    Some(found) => (StatusCode::OK, found.clone()),
                    None => failure("NotFound", StatusCode::NOT_FOUND),
                },
                Method::PATCH => {
                    let found = store.get_mut(&path).unwrap();
                    for (key, value) in body["data"].as_object().unwrap() {
                        let data = found["data"].as_object_mut().unwrap();
                        if value.is_null() {
                            data.remove(key);
                        } else {
                            data.insert(key.clone(), value.clone());
                        }
                    }
                    (StatusCode::OK, found.clone())
                }
                other => panic!("unexpected {other} {path}"),
            };
            let bytes = serde_json::to_vec(&answer).unwrap();
            Ok::<_, Infallible>(Response::builder().status(status).body(Body::from(bytes)).unwrap())
        }
    });
    kube::Client::new(service, "default")
}

fn failure(reason: &str, code: StatusCode) -> (StatusCode, Value) {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": reason, "reason": reason, "code": code.as_u16()});
    (code, status)
}

const INFO_PATH: &str = "/api/v1/namespaces/kube-public/configmaps/cluster-info";

#[tokio::test]
async fn publishing_twice_changes_nothing_and_a_moved_server_is_told() {
    let store = Store::default();
    let client = client(&store);
    let token: BootstrapToken = "abcdef.0123456789abcdef".parse().unwrap();
    publish(&client, "https://192.0.2.1:6443", "CA", Some(&token), false).await.unwrap();
    let first = store.lock().unwrap().clone();
    publish(&client, "https://192.0.2.1:6443", "CA", Some(&token), false).await.unwrap();
    assert_eq!(*store.lock().unwrap(), first);
    let info = &first[INFO_PATH]["data"];
    let text = info["kubeconfig"].as_str().unwrap();
    assert_eq!(Kubeconfig::parse(text).unwrap().cluster().unwrap().server, "https://192.0.2.1:6443");
    assert!(token.verify(text, info["jws-kubeconfig-abcdef"].as_str().unwrap()));
    let secret = &first["/api/v1/namespaces/kube-system/secrets/bootstrap-token-abcdef"];
    assert_eq!(secret["data"]["token-secret"], "MDEyMzQ1Njc4OWFiY2RlZg==");
    assert_eq!(secret["type"], "bootstrap.kubernetes.io/token");

    // Another server of the same cluster is as good an address.
    publish(&client, "https://192.0.2.2:6443", "CA", None, true).await.unwrap();
    assert_eq!(store.lock().unwrap()[INFO_PATH]["data"], *info);

    // Without the token the old signature would vouch for a text it was not made of.
    publish(&client, "https://192.0.2.2:6443", "CA", None, false).await.unwrap();
    let moved = store.lock().unwrap()[INFO_PATH]["data"].clone();
    assert!(moved["kubeconfig"].as_str().unwrap().contains("192.0.2.2"));
    assert!(moved.get("jws-kubeconfig-abcdef").is_none());
}
