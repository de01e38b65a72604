//! Static pods: a manifest at a URL (`staticPodURL`), of one pod or of a list. Upstream: `pkg/kubelet/config/http.go`.
//!
//! What wakes it: a period. What it reads: the URL. What it writes: the map of static pods. What it promises: a server that does not answer,
//! or answers nonsense, leaves the pods it named last as they are; until it has answered once, nothing is known of them.

use super::Pods;
use super::manifests::{Origin, adopt};
use crate::config::manifest::ManifestUrl;
use http::{HeaderName, HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The longest answer that is read.
const MAX_BYTES: usize = 10 << 20;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many failures in a row are worth a warning.
const TOLD: u32 = 3;

/// Follows it until cancelled from outside.
pub async fn follow(source: ManifestUrl, node: String, tell: watch::Sender<Option<Arc<Pods>>>) {
    let (mut known, mut failures) = (Vec::new(), 0);
    loop {
        let fetched = tokio::time::timeout(PATIENCE, fetch(&source)).await;
        let read = fetched.unwrap_or_else(|_| Err("no answer".to_owned())).and_then(|bytes| {
            if bytes == known {
                return Ok(None);
            }
            let pods = parse(&source.url, &bytes, &node)?;
            known = bytes;
            Ok(Some(pods))
        });
        match read {
            Ok(pods) => {
                failures = 0;
                if let Some(pods) = pods {
                    tell.send_replace(Some(Arc::new(pods)));
                }
            }
            Err(error) => {
                failures += 1;
                if failures <= TOLD {
                    tracing::warn!(url = source.url, error, "Failed to read pods from URL");
                }
            }
        }
        tokio::time::sleep(source.period).await;
    }
}

/// The answer's bytes; the error says what is wrong with it.
async fn fetch(source: &ManifestUrl) -> Result<Vec<u8>, String> {
    let text = |error: &dyn std::error::Error| error.to_string();
    let uri: Uri = source.url.parse().map_err(|error: http::uri::InvalidUri| text(&error))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let mut parts = uri.into_parts();
    parts.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
    let base = Uri::from_parts(parts).map_err(|error| text(&error))?;
    let client = kube::Client::try_from(kube::Config::new(base)).map_err(|error| text(&error))?;
    let mut request = Request::get(path);
    for (name, value) in &source.headers {
        let name: HeaderName = name.parse().map_err(|_| format!("{name:?} is no header"))?;
        let value: HeaderValue = value.parse().map_err(|_| format!("header {name} has a bad value"))?;
        request = request.header(name, value);
    }
    let request = request.body(kube::client::Body::empty()).map_err(|error| text(&error))?;
    let answer = client.send(request).await.map_err(|error| supervise::chain(&error))?;
    if answer.status() != StatusCode::OK {
        return Err(format!("{}: {}", source.url, answer.status()));
    }
    let body =
        Limited::new(answer.into_body(), MAX_BYTES).collect().await.map_err(|error| error.to_string())?;
    Ok(body.to_bytes().to_vec())
}

/// One pod, or a list of them.
fn parse(url: &str, bytes: &[u8], node: &str) -> Result<Pods, String> {
    if bytes.is_empty() {
        return Ok(Pods::new());
    }
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let mut value: Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    if value["apiVersion"] != "v1" {
        return Err(format!("{url}: want apiVersion v1"));
    }
    let items = match value["kind"].as_str() {
        Some("Pod") => vec![value],
        Some("PodList" | "List") => match value["items"].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        },
        other => return Err(format!("{url}: couldn't parse as single or multiple pods: kind {other:?}")),
    };
    let mut pods = Pods::new();
    for item in items {
        let own = serde_json::to_vec(&item).map_err(|error| error.to_string())?;
        let pod = adopt(item, &own, Origin::Url(url), node).map_err(|error| error.to_string())?;
        pods.insert(crate::pod::uid(&pod).to_owned(), Arc::new(pod));
    }
    Ok(pods)
}

/// Tells the pods of two sources as one, once both are known.
pub async fn join(
    mut first: watch::Receiver<Option<Arc<Pods>>>,
    mut second: watch::Receiver<Option<Arc<Pods>>>,
    tell: watch::Sender<Option<Arc<Pods>>>,
) {
    loop {
        let known = (first.borrow_and_update().clone(), second.borrow_and_update().clone());
        if let (Some(one), Some(other)) = known {
            let mut all = Pods::clone(&other);
            all.extend(one.iter().map(|(uid, pod)| (uid.clone(), Arc::clone(pod))));
            tell.send_replace(Some(Arc::new(all)));
        }
        let changed = tokio::select! {
            changed = first.changed() => changed,
            changed = second.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::CONFIG_SOURCE;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    const POD: &str = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "c", "image": "a:1"}]}}"#;

    #[test]
    fn one_pod_and_lists_of_them_are_read() {
        let one = parse("http://m/x", POD.as_bytes(), "n1").unwrap();
        let pod = one.values().next().unwrap();
        assert_eq!(crate::pod::name(pod), "web-n1");
        assert_eq!(crate::pod::annotation(pod, CONFIG_SOURCE), Some("http"));
        let item =
            |name: &str| POD.replace("web", name).replacen(r#""apiVersion": "v1", "kind": "Pod", "#, "", 1);
        let list =
            format!(r#"{{"apiVersion": "v1", "kind": "PodList", "items": [{}, {}]}}"#, item("a"), item("b"));
        let names: Vec<String> = parse("http://m/x", list.as_bytes(), "n1")
            .unwrap()
            .values()
            .map(|pod| crate::pod::name(pod).to_owned())
            .collect();
        assert!(names.contains(&"a-n1".to_owned()) && names.contains(&"b-n1".to_owned()), "{names:?}");
        for wrong in [
            "nonsense: [",
            r#"{"apiVersion": "v1", "kind": "Secret"}"#,
            r#"{"apiVersion": "v1", "kind": "Pod"}"#,
        ] {
            assert!(parse("http://m/x", wrong.as_bytes(), "n1").is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_server_that_fails_must_not_take_its_pods_away() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/pods?x=1", listener.local_addr().unwrap());
        let serve = async {
            for (code, body) in [
                ("200 OK", POD.to_owned()),
                ("500 Internal Server Error", String::new()),
                ("200 OK", POD.replace("web", "other")),
            ] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = String::new();
                while !request.contains("\r\n\r\n") {
                    let mut buffer = [0; 1024];
                    let length = stream.read(&mut buffer).await.unwrap();
                    request.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
                }
                assert!(request.starts_with("GET /pods?x=1 "), "{request}");
                assert!(request.to_lowercase().contains("x-token: secret"), "{request}");
                let head =
                    format!("HTTP/1.1 {code}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                stream.write_all((head + &body).as_bytes()).await.unwrap();
            }
            std::future::pending::<()>().await
        };
        let headers = vec![("X-Token".to_owned(), "secret".to_owned())];
        let source = ManifestUrl { url, headers, period: Duration::from_millis(10) };
        let (tell, mut told) = watch::channel::<Option<Arc<Pods>>>(None);
        let mut seen = async || {
            told.changed().await.unwrap();
            let pods: Option<Arc<Pods>> = told.borrow_and_update().clone();
            pods.unwrap().values().map(|pod| crate::pod::name(pod).to_owned()).collect::<Vec<_>>()
        };
        let looked = async {
            assert_eq!(seen().await, ["web-n1"]);
            assert_eq!(seen().await, ["other-n1"], "nothing was told in between");
        };
        tokio::select! {
            () = follow(source, "n1".to_owned(), tell) => {}
            () = serve => {}
            () = looked => {}
        }
    }

    #[tokio::test]
    async fn two_sources_are_one_once_both_are_known() {
        let (one, first) = watch::channel(None);
        let (other, second) = watch::channel(None);
        let (tell, mut told) = watch::channel::<Option<Arc<Pods>>>(None);
        let of = |name: &str| {
            Some(Arc::new(parse("http://m/x", POD.replace("web", name).as_bytes(), "n").unwrap()))
        };
        let look = async {
            one.send_replace(of("a"));
            tokio::task::yield_now().await;
            assert!(told.borrow().is_none(), "half is not known");
            other.send_replace(of("b"));
            told.changed().await.unwrap();
            assert_eq!(told.borrow().as_ref().unwrap().len(), 2);
        };
        tokio::select! {
            () = join(first, second, tell) => {}
            () = look => {}
        }
    }
}
