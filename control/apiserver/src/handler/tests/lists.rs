use super::*;

async fn names(s: &Server, target: &str) -> Vec<String> {
    let list = s.get(target).await;
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i["metadata"]["name"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn lists_select_by_labels_and_fields() {
    let s = Server::start().await;
    for name in ["a", "b", "c"] {
        s.ok("POST", PODS, pod(name)).await;
    }
    assert_eq!(names(&s, PODS).await, ["a", "b", "c"]);
    assert_eq!(names(&s, &format!("{PODS}?labelSelector=app%20in%20(a,c)")).await, ["a", "c"]);
    assert_eq!(names(&s, &format!("{PODS}?fieldSelector=metadata.name%3Db")).await, ["b"]);
    assert_eq!(names(&s, "/api/v1/pods?fieldSelector=spec.nodeName%3D").await, ["a", "b", "c"]);
    assert_eq!(names(&s, "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1").await, [""; 0]);
    assert_eq!(names(&s, &format!("{PODS}?fieldSelector=status.phase!%3DPending")).await, [""; 0]);
    let (code, text) = s.refused("GET", &format!("{PODS}?fieldSelector=spec.foo%3Dx"), Value::Null).await;
    assert_eq!((code, text.as_str()), (400, "field label not supported: spec.foo"));
    assert_eq!(s.refused("GET", &format!("{PODS}?labelSelector=a%20in"), Value::Null).await.0, 400);
    let list = s.get(PODS).await;
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("PodList"), &json!("v1")));
    assert!(list["items"][0].get("kind").is_none());
}

#[tokio::test]
async fn pages_show_one_moment_whatever_is_written_meanwhile() {
    let s = Server::start().await;
    for i in 0..10 {
        s.ok("POST", MAPS, config_map(&format!("m{i}"))).await;
    }
    let first = s.get(&format!("{MAPS}?limit=4")).await;
    assert_eq!(first["metadata"]["remainingItemCount"], 6);
    let moment = first["metadata"]["resourceVersion"].clone();
    s.ok("DELETE", &format!("{MAPS}/m5"), Value::Null).await;
    s.ok("POST", MAPS, config_map("m55")).await;
    let mut seen: Vec<Value> = first["items"].as_array().unwrap().clone();
    let mut token = first["metadata"]["continue"].as_str().unwrap().to_owned();
    while !token.is_empty() {
        let page = s.get(&format!("{MAPS}?limit=4&continue={token}")).await;
        assert_eq!(page["metadata"]["resourceVersion"], moment);
        seen.extend(page["items"].as_array().unwrap().clone());
        token = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
    }
    let names: Vec<_> = seen.iter().map(|i| i["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, (0..10).map(|i| format!("m{i}")).collect::<Vec<_>>());
    let (code, text) = s.refused("GET", &format!("{MAPS}?continue=nonsense"), Value::Null).await;
    assert_eq!(code, 400);
    assert!(text.starts_with("continue key is not valid"), "{text}");
    let exact = s
        .get(&format!("{MAPS}?resourceVersion={}&resourceVersionMatch=Exact", moment.as_str().unwrap()))
        .await;
    assert_eq!(exact["items"].as_array().unwrap().len(), 10);
    assert_eq!(names_now(&s).await, 10);
    let (code, text) = s
        .refused(
            "GET",
            &format!("{MAPS}?resourceVersion=1000000&resourceVersionMatch=NotOlderThan"),
            Value::Null,
        )
        .await;
    assert_eq!(code, 504);
    assert!(text.starts_with("Timeout: Too large resource version: 1000000, current: "), "{text}");
    assert_eq!(s.refused("GET", &format!("{MAPS}?resourceVersionMatch=Exact"), Value::Null).await.0, 422);
}

async fn names_now(s: &Server) -> usize {
    names(s, MAPS).await.len()
}

#[tokio::test]
async fn tables_and_partial_objects() {
    let s = Server::start().await;
    s.ok("POST", MAPS, config_map("a")).await;
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")];
    let list = s.call("GET", MAPS, Value::Null, &table).await.body;
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    assert_eq!(list["columnDefinitions"][0]["name"], "Name");
    assert_eq!(list["rows"][0]["cells"][0], "a");
    assert_eq!(list["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let one = s.call("GET", &format!("{MAPS}/a?includeObject=Object"), Value::Null, &table).await.body;
    assert_eq!(one["rows"][0]["object"]["data"]["a"], "1");
    let partial = [("accept", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io")];
    let list = s.call("GET", MAPS, Value::Null, &partial).await.body;
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert!(list["items"][0].get("data").is_none());
    let refused = s.call("GET", MAPS, Value::Null, &[("accept", "text/html")]).await;
    assert_eq!(refused.code, 406);
}

#[tokio::test]
async fn yaml_and_protobuf_both_ways() {
    let s = Server::start().await;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: yml\ndata:\n  k: 'yes'\n";
    let made =
        answer(s.send("POST", MAPS, yaml, &[("content-type", "application/yaml")], admin()).await).await;
    assert_eq!((made.code, &made.body["data"]["k"]), (201, &json!("yes")), "{}", made.body);
    let proto = "application/vnd.kubernetes.protobuf";
    let body = machinery::codec::proto::encode(machinery::schema::builtin(), &config_map("p")).unwrap();
    let made = s.send("POST", MAPS, body, &[("content-type", proto), ("accept", proto)], admin()).await;
    assert_eq!(made.status(), StatusCode::CREATED);
    assert_eq!(made.headers()["content-type"], proto);
    let list = s.send("GET", MAPS, "", &[("accept", proto)], admin()).await;
    let bytes = list.into_body().collect().await.unwrap().to_bytes();
    let list = machinery::codec::proto::decode(machinery::schema::builtin(), &bytes, None).unwrap();
    assert_eq!(list["items"][0]["metadata"]["name"], "p");
    assert_eq!(list["items"][0]["data"]["a"], "1");
}

#[tokio::test]
async fn large_lists_are_compressed_for_those_who_ask() {
    let s = Server::start().await;
    for i in 0..4 {
        let mut map = config_map(&format!("m{i}"));
        map["data"]["a"] = json!("x".repeat(50_000));
        s.ok("POST", MAPS, map).await;
    }
    let plain = s.send("GET", MAPS, "", &[], admin()).await;
    assert!(plain.headers().get("content-encoding").is_none());
    let plain = plain.into_body().collect().await.unwrap().to_bytes();
    let packed = s.send("GET", MAPS, "", &[("accept-encoding", "gzip, deflate")], admin()).await;
    assert_eq!(packed.headers()["content-encoding"], "gzip");
    let packed = packed.into_body().collect().await.unwrap().to_bytes();
    let mut unpacked = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed[..]), &mut unpacked).unwrap();
    // The server writes for itself meanwhile, so the list's own version may differ.
    let items = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap()["items"].clone();
    assert_eq!(items(&unpacked), items(&plain));
    assert_eq!(items(&plain).as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn events_are_one_collection_in_two_groups() {
    let s = Server::start().await;
    let event = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"},
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}, "reason": "Started", "message": "hello", "type": "Normal",
        "source": {"component": "kubelet"},
    });
    s.ok("POST", "/api/v1/namespaces/default/events", event).await;
    let newer = s.get("/apis/events.k8s.io/v1/namespaces/default/events/e").await;
    assert_eq!(newer["apiVersion"], "events.k8s.io/v1");
    assert_eq!((&newer["note"], &newer["regarding"]["name"]), (&json!("hello"), &json!("p")));
    let list = s.get("/apis/events.k8s.io/v1/events?fieldSelector=regarding.name%3Dp").await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    assert_eq!(
        s.get("/api/v1/events?fieldSelector=involvedObject.name%3Dp").await["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn a_cache_that_stands_still_must_not_refuse_a_list() {
    let (s, gate) = gate::gated().await;
    s.ok("POST", MAPS, config_map("a")).await;
    assert_eq!(names(&s, MAPS).await, ["a"]);
    gate.still.store(true, std::sync::atomic::Ordering::SeqCst);
    s.ok("POST", MAPS, config_map("b")).await;
    assert_eq!(names(&s, MAPS).await, ["a", "b"], "as the store has it");
    let page = s.get(&format!("{MAPS}?limit=1")).await;
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    let token = page["metadata"]["continue"].as_str().unwrap();
    assert_eq!(names(&s, &format!("{MAPS}?limit=1&continue={token}")).await, ["b"]);
    let ahead = s.ask("GET", &format!("{MAPS}?resourceVersion=99999999"), Value::Null).await;
    assert_eq!(ahead.code, 504, "what a client knows and the store does not");
}
