use super::*;
use http::header::ACCEPT;
use http_body_util::BodyExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

fn golden(name: &str) -> Option<Value> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/kubernetes-1.36/discovery");
    match std::fs::read(root.join(name)) {
        Ok(bytes) => Some(serde_json::from_slice(&bytes).unwrap()),
        Err(_) => {
            println!("skipped: {name} is not beside the repository");
            None
        }
    }
}

fn discovery() -> Discovery {
    Discovery::new(Arc::new(Catalog::default()), "10.10.10.10:8050".into())
}

async fn get(discovery: &Discovery, path: &str, accept: &str) -> (Response, Value) {
    let headers = HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())]);
    let response = discovery.answer(path, &headers).unwrap_or_else(|| panic!("{path} is not served"));
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    (Response::from_parts(parts, answer::body("")), serde_json::from_slice(&bytes).unwrap())
}

/// A group's document without the versions upstream serves only when asked to, and we do not.
fn only_served(discovery: &Discovery, mut document: Value) -> Value {
    let groups = discovery.catalog.groups();
    let group = groups.iter().find(|g| document["name"] == g.name.as_str());
    if let (Some(group), Some(versions)) = (group, document.get_mut("versions").and_then(Value::as_array_mut))
    {
        versions.retain(|v| group.versions.iter().any(|g| v["version"] == g.name.as_str()));
    }
    document
}

/// What upstream serves only when asked to, and we do not.
fn without_alpha(mut document: Value, serves: impl Fn(&str, &str) -> bool) -> Value {
    if let Some(items) = document.get_mut("items").and_then(Value::as_array_mut) {
        for item in items.iter_mut() {
            let group = item["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let versions = item["versions"].as_array_mut().unwrap();
            versions.retain(|v| serves(&group, v["version"].as_str().unwrap()));
        }
        items.retain(|i| !i["versions"].as_array().unwrap().is_empty());
    }
    document
}

#[tokio::test]
async fn every_plain_document_equals_upstreams() {
    let discovery = discovery();
    for path in discovery.paths() {
        let name = format!("{}.json", path.trim_start_matches('/').replace('/', "__"));
        let Some(expected) = golden(&name) else { continue };
        let (_, got) = get(&discovery, &path, "application/json").await;
        let expected = only_served(&discovery, expected);
        if path == "/apis" {
            let ours: Vec<&Value> = got["groups"].as_array().unwrap().iter().collect();
            for group in ours {
                let theirs =
                    expected["groups"].as_array().unwrap().iter().find(|g| g["name"] == group["name"]);
                assert!(theirs.is_some(), "{group}");
            }
            continue;
        }
        assert_eq!(got, expected, "{path}");
    }
}

#[tokio::test]
async fn the_aggregated_document_equals_upstreams_for_what_is_served() {
    let discovery = discovery();
    let (response, got) =
        get(&discovery, "/apis", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
            .await;
    assert_eq!(
        response.headers()["content-type"],
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    );
    let Some(expected) = golden("aggregated_v2.json") else { return };
    let groups = discovery.catalog.groups();
    let expected = without_alpha(expected, |group, version| {
        groups.iter().any(|g| g.name == group && g.versions.iter().any(|v| v.name == version))
    });
    for (ours, theirs) in got["items"].as_array().unwrap().iter().zip(expected["items"].as_array().unwrap()) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(got["items"].as_array().unwrap().len(), expected["items"].as_array().unwrap().len());
}

#[tokio::test]
async fn clients_get_the_form_they_ask_for() {
    let discovery = discovery();
    let new = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
    assert_eq!(get(&discovery, "/api", new).await.1["apiVersion"], "apidiscovery.k8s.io/v2");
    assert_eq!(
        get(&discovery, "/api", &new[new.find(',').unwrap() + 1..]).await.1["apiVersion"],
        "apidiscovery.k8s.io/v2beta1"
    );
    assert_eq!(get(&discovery, "/api", "application/json, */*").await.1["kind"], "APIVersions");
    assert_eq!(get(&discovery, "/apis/apps/v1", new).await.1["kind"], "APIResourceList");
    let headers = HeaderMap::from_iter([(ACCEPT, "text/html".parse().unwrap())]);
    assert_eq!(discovery.answer("/api", &headers).unwrap().status(), 406);
    for path in ["/api/v2", "/apis/none", "/apis/apps/v9", "/apis//v1"] {
        assert!(discovery.answer(path, &HeaderMap::new()).is_none(), "{path}");
    }
}

#[tokio::test]
async fn an_unchanged_document_is_not_sent_again() {
    let discovery = discovery();
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let (response, _) = get(&discovery, "/apis", accept).await;
    let etag = response.headers()["etag"].clone();
    let headers = HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap()), (IF_NONE_MATCH, etag)]);
    assert_eq!(discovery.answer("/apis", &headers).unwrap().status(), 304);
}

struct Custom(AtomicU64);

impl Source for Custom {
    fn generation(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn groups(&self) -> Vec<Group> {
        if self.generation() == 0 {
            return Vec::new();
        }
        let resource = Resource { plural: "widgets".into(), kind: "Widget".into(), ..Resource::default() };
        vec![Group {
            name: "acme.com".into(),
            priority: 0,
            versions: vec![Version {
                name: "v1".into(),
                resources: vec![resource],
                stale: self.generation() > 1,
            }],
        }]
    }
}

#[tokio::test]
async fn a_custom_resource_appears_when_it_is_defined() {
    let custom = Arc::new(Custom(AtomicU64::new(0)));
    let discovery = Discovery::new(Arc::new(Catalog::new(vec![custom.clone()])), String::new());
    assert!(discovery.answer("/apis/acme.com/v1", &HeaderMap::new()).is_none());
    let before = get(&discovery, "/apis", "*/*").await.1;
    custom.0.store(1, Ordering::Relaxed);
    assert_ne!(get(&discovery, "/apis", "*/*").await.1, before);
    assert_eq!(get(&discovery, "/apis/acme.com/v1", "*/*").await.1["resources"][0]["kind"], "Widget");
}

#[tokio::test]
async fn a_version_whose_server_is_silent_must_not_pass_for_current() {
    let custom = Arc::new(Custom(AtomicU64::new(1)));
    let discovery = Discovery::new(Arc::new(Catalog::new(vec![custom.clone()])), String::new());
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    for (generation, freshness) in [(1, "Current"), (2, "Stale")] {
        custom.0.store(generation, Ordering::Relaxed);
        let document = get(&discovery, "/apis", accept).await.1;
        let groups = document["items"].as_array().unwrap();
        let group = groups.iter().find(|g| g["metadata"]["name"] == "acme.com").unwrap();
        assert_eq!(group["versions"][0]["freshness"], freshness);
    }
}

#[tokio::test]
async fn every_document_is_there_in_yaml_and_protobuf() {
    let discovery = discovery();
    for path in discovery.paths() {
        let expected = get(&discovery, &path, "application/json").await.1;
        for accept in ["application/yaml", "application/vnd.kubernetes.protobuf, application/json"] {
            let headers = HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())]);
            let response = discovery.answer(&path, &headers).unwrap();
            let media_type = response.headers()["content-type"].to_str().unwrap().to_owned();
            assert!(accept.starts_with(&media_type), "{path}: {media_type}");
            let bytes = response.into_body().collect().await.unwrap().to_bytes();
            // `/api` and `/api/v1` name no version of their own, in any encoding: clients know what they asked for.
            if media_type == PROTOBUF && expected.get("apiVersion").is_none() {
                assert!(bytes.starts_with(b"k8s\0"));
                continue;
            }
            let got = if media_type == YAML {
                codec::yaml::decode(&bytes).unwrap().value
            } else {
                let kind = machinery::object::Gvk::new("", "v1", expected["kind"].as_str().unwrap());
                codec::proto::decode(schema::builtin(), &bytes, Some(&kind)).unwrap()
            };
            for part in ["groups", "resources", "versions"] {
                assert_eq!(got.get(part), expected.get(part), "{path} {accept}");
            }
        }
    }
}
