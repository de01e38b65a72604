use super::*;
use bytes::Bytes;

pub(super) struct Events {
    body: crate::context::Body,
    rest: Vec<u8>,
}

impl Events {
    async fn frame(&mut self) -> Option<Bytes> {
        let frame =
            tokio::time::timeout(Duration::from_secs(5), self.body.frame()).await.expect("an event in time");
        Some(frame?.unwrap().into_data().unwrap())
    }

    pub(super) async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line).unwrap();
                return Some((event["type"].as_str().unwrap().to_owned(), event["object"].clone()));
            }
            let bytes = self.frame().await?;
            self.rest.extend_from_slice(&bytes);
        }
    }

    pub(super) async fn named(&mut self) -> (String, String) {
        let (event, object) = self.next().await.unwrap();
        (event, object["metadata"]["name"].as_str().unwrap_or_default().to_owned())
    }
}

pub(super) async fn open(s: &Server, target: &str, headers: &[(&str, &str)]) -> Events {
    let response = s.send("GET", target, "", headers, admin()).await;
    assert_eq!(response.status(), StatusCode::OK);
    Events { body: response.into_body(), rest: Vec::new() }
}

pub(super) fn event(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

#[tokio::test]
async fn a_watch_sees_transitions_of_its_selection() {
    let s = Server::start().await;
    s.ok("POST", PODS, pod("a")).await;
    let mut all = open(&s, &format!("{PODS}?watch=1"), &[]).await;
    assert_eq!(all.named().await, event("ADDED", "a"));
    let mut chosen = open(&s, &format!("{PODS}?watch=1&labelSelector=app%3Da"), &[]).await;
    assert_eq!(chosen.named().await, event("ADDED", "a"));
    let target = format!("{PODS}/a");
    s.patch(&target, "merge-patch+json", json!({"metadata": {"annotations": {"x": "y"}}})).await;
    let left = s.patch(&target, "merge-patch+json", json!({"metadata": {"labels": {"app": "z"}}})).await.body;
    s.patch(&target, "merge-patch+json", json!({"metadata": {"labels": {"app": "a"}}})).await;
    s.ok("DELETE", &target, Value::Null).await;
    for kind in ["MODIFIED", "MODIFIED", "MODIFIED", "DELETED"] {
        assert_eq!(all.named().await, event(kind, "a"));
    }
    assert_eq!(chosen.named().await, event("MODIFIED", "a"));
    let (kind, object) = chosen.next().await.unwrap();
    assert_eq!(kind, "DELETED");
    assert_eq!(object["metadata"]["labels"]["app"], "a");
    assert_eq!(object["metadata"]["resourceVersion"], left["metadata"]["resourceVersion"]);
    assert_eq!(chosen.named().await, event("ADDED", "a"));
    assert_eq!(chosen.named().await, event("DELETED", "a"));
}

#[tokio::test]
async fn a_watch_goes_on_from_a_revision_or_is_told_that_it_is_too_old() {
    let s = Server::start().await;
    let list = s.get(MAPS).await;
    let from = list["metadata"]["resourceVersion"].as_str().unwrap();
    s.ok("POST", MAPS, config_map("a")).await;
    let mut events = open(&s, &format!("{MAPS}?watch=1&resourceVersion={from}"), &[]).await;
    assert_eq!(events.named().await, event("ADDED", "a"));
    s.registry.backend.compact(s.registry.backend.revision()).await.unwrap();
    let old =
        Config { cache: store::cache::Options { history: 1, ..Default::default() }, ..Config::default() };
    let s = Server::with(old).await;
    for i in 0..4 {
        s.ok("POST", MAPS, config_map(&format!("m{i}"))).await;
    }
    s.get(MAPS).await;
    let mut events = open(&s, &format!("{MAPS}?watch=1&resourceVersion=1"), &[]).await;
    let (kind, status) = events.next().await.unwrap();
    assert_eq!(
        (kind.as_str(), &status["code"], &status["reason"]),
        ("ERROR", &json!(410), &json!("Expired"))
    );
    assert!(status["message"].as_str().unwrap().starts_with("too old resource version: 1 ("));
}

#[tokio::test]
async fn a_streaming_list_ends_with_its_bookmark() {
    let s = Server::start().await;
    s.ok("POST", MAPS, config_map("a")).await;
    let options = "watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let mut events = open(&s, &format!("{MAPS}?{options}"), &[]).await;
    assert_eq!(events.named().await, event("ADDED", "a"));
    let (kind, bookmark) = events.next().await.unwrap();
    assert_eq!(kind, "BOOKMARK");
    assert_eq!(bookmark["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!((&bookmark["kind"], &bookmark["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
    s.ok("POST", MAPS, config_map("b")).await;
    assert_eq!(events.named().await, event("ADDED", "b"));
    assert_eq!(s.refused("GET", &format!("{MAPS}?watch=1&sendInitialEvents=true"), Value::Null).await.0, 422);
}

#[tokio::test]
async fn a_watch_ends_by_its_timeout_after_a_bookmark() {
    let s = Server::start().await;
    let mut events =
        open(&s, &format!("{MAPS}?watch=1&timeoutSeconds=2&allowWatchBookmarks=true"), &[]).await;
    let (kind, _) = events.next().await.unwrap();
    assert_eq!(kind, "BOOKMARK");
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn protobuf_and_tables_in_watches() {
    let s = Server::start().await;
    s.ok("POST", MAPS, config_map("a")).await;
    let mut events = open(
        &s,
        &format!("{MAPS}?watch=1"),
        &[("accept", "application/vnd.kubernetes.protobuf;stream=watch")],
    )
    .await;
    let frame = events.frame().await.unwrap();
    let length = u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize;
    assert_eq!(frame.len(), length + 4);
    // field 1, the type; then field 2, the object: no envelope around the event itself
    assert_eq!(&frame[4..12], b"\x0a\x05ADDED\x12");
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let mut events = open(&s, &format!("{MAPS}?watch=1"), &table).await;
    let (_, first) = events.next().await.unwrap();
    assert_eq!(first["rows"][0]["cells"][0], "a");
    assert!(first["columnDefinitions"].is_array());
    s.ok("POST", MAPS, config_map("b")).await;
    let (_, second) = events.next().await.unwrap();
    assert!(second["columnDefinitions"].is_null());
}
