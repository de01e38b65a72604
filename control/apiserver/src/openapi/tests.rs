use super::*;
use crate::context::{RequestInfo, User};
use http_body_util::BodyExt as _;

fn openapi() -> OpenApi {
    OpenApi::new(Arc::new(Catalog::default()))
}

async fn ask(
    openapi: &OpenApi,
    url: &str,
    headers: &[(http::HeaderName, &str)],
) -> Option<(Response, Vec<u8>)> {
    let mut request = http::Request::get(url).body(()).unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let (parts, ()) = request.into_parts();
    let info =
        RequestInfo { path: parts.uri.path().to_owned(), verb: "get".into(), ..RequestInfo::default() };
    let query = query::parse(parts.uri.query().unwrap_or_default());
    let context = Context { info, user: User::default(), query, ..Context::default() };
    let (head, body) = openapi.answer(&context, &parts)?.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes().to_vec();
    Some((Response::from_parts(head, answer::body("")), bytes))
}

async fn json_of(url: &str) -> Value {
    serde_json::from_slice(&ask(&openapi(), url, &[]).await.unwrap().1).unwrap()
}

#[tokio::test]
async fn types_carry_what_kubectl_merges_by() {
    let document = json_of("/openapi/v2").await;
    let definitions = &document["definitions"];
    let pod = &definitions["io.k8s.api.core.v1.Pod"];
    assert_eq!(
        pod["x-kubernetes-group-version-kind"],
        json!([{"group": "", "version": "v1", "kind": "Pod"}])
    );
    assert_eq!(
        pod["properties"]["spec"],
        json!({"$ref": "#/definitions/io.k8s.api.core.v1.PodSpec", "description": "What the pod is to run."})
    );
    let kind = "Name of the schema this object is written in, in CamelCase. Never changes.";
    assert_eq!(pod["properties"]["kind"], json!({"type": "string", "description": kind}));
    let spec = &definitions["io.k8s.api.core.v1.PodSpec"];
    assert_eq!(definitions["io.k8s.api.rbac.v1.PolicyRule"]["required"], json!(["verbs"]));
    let volumes = &spec["properties"]["volumes"];
    assert_eq!(volumes["x-kubernetes-patch-strategy"], "merge,retainKeys");
    assert_eq!(volumes["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(volumes["x-kubernetes-list-map-keys"], json!(["name"]));
    let ports = &definitions["io.k8s.api.core.v1.Container"]["properties"]["ports"];
    assert_eq!(ports["x-kubernetes-list-map-keys"], json!(["containerPort", "protocol"]));
    assert_eq!(
        definitions["io.k8s.apimachinery.pkg.util.intstr.IntOrString"],
        json!({"type": "string", "format": "int-or-string", "description": "A whole number or a text."})
    );
    let strategy = &definitions["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["strategy"];
    assert_eq!(strategy["x-kubernetes-patch-strategy"], "retainKeys");
}

#[tokio::test]
async fn every_reference_leads_somewhere_and_every_served_kind_is_described() {
    let document = json_of("/openapi/v2").await;
    let definitions = document["definitions"].as_object().unwrap();
    let text = document.to_string();
    let mut count = 0;
    for part in text.split("\"#/definitions/").skip(1) {
        let name = &part[..part.find('"').unwrap()];
        assert!(definitions.contains_key(name), "{name}");
        count += 1;
    }
    assert!(count > 2000, "{count}");
    let mut ids = std::collections::HashSet::new();
    for resource in machinery::resources::all() {
        for version in &resource.versions {
            let api_version = machinery::resources::group_version(resource.group, version);
            let name = definitions::of_kind(&api_version, resource.kind).unwrap();
            let gvk = &definitions[&name]["x-kubernetes-group-version-kind"][0];
            assert_eq!(
                gvk,
                &json!({"group": resource.group, "version": version, "kind": resource.kind}),
                "{name}"
            );
        }
    }
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap().iter().filter(|(m, _)| *m != "parameters") {
            assert!(
                ids.insert(operation["operationId"].as_str().unwrap().to_owned()),
                "{method} {path}: {}",
                operation["operationId"]
            );
        }
    }
}

#[tokio::test]
async fn writes_can_be_validated_and_dry_run() {
    let v2 = json_of("/openapi/v2").await;
    let v3 = json_of("/openapi/v3/apis/apps/v1").await;
    for document in [v2, v3] {
        let item = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"];
        assert_eq!(item["patch"]["x-kubernetes-group-version-kind"]["kind"], "Deployment");
        let names: Vec<_> = item["patch"]["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p["name"].as_str().unwrap())
            .collect();
        assert!(
            ["dryRun", "fieldManager", "fieldValidation", "force"].iter().all(|n| names.contains(n)),
            "{names:?}"
        );
    }
}

struct Custom;

impl crate::discovery::Source for Custom {
    fn generation(&self) -> u64 {
        1
    }

    fn groups(&self) -> Vec<crate::discovery::Group> {
        use crate::discovery::{Group, Resource, Version};
        let resource = Resource {
            plural: "widgets".into(),
            kind: "Widget".into(),
            verbs: vec!["get".into(), "patch".into()],
            ..Resource::default()
        };
        let version = Version { name: "v1".into(), resources: vec![resource], stale: false };
        vec![Group { name: "acme.com".into(), priority: 0, versions: vec![version] }]
    }
}

#[tokio::test]
async fn no_resource_must_offer_a_patch_it_refuses() {
    let openapi = OpenApi::new(Arc::new(Catalog::new(vec![Arc::new(Custom)])));
    let plain =
        ["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];
    let mut strategic = plain.to_vec();
    strategic.insert(2, "application/strategic-merge-patch+json");
    for (url, path, wanted) in [
        ("/openapi/v3/apis/acme.com/v1", "/apis/acme.com/v1/widgets/{name}", &plain[..]),
        ("/openapi/v3/apis/apps/v1", "/apis/apps/v1/namespaces/{namespace}/deployments/{name}", &strategic),
        ("/openapi/v3/api/v1", "/api/v1/nodes/{name}/status", &strategic),
    ] {
        let sorted = |types: &[&str]| {
            let mut sorted: Vec<String> = types.iter().map(|t| (*t).to_owned()).collect();
            sorted.sort();
            sorted
        };
        let v3: Value = serde_json::from_slice(&ask(&openapi, url, &[]).await.unwrap().1).unwrap();
        let content = v3["paths"][path]["patch"]["requestBody"]["content"].as_object().unwrap();
        assert_eq!(sorted(&content.keys().map(String::as_str).collect::<Vec<_>>()), sorted(wanted), "{path}");
        let v2: Value = serde_json::from_slice(&ask(&openapi, "/openapi/v2", &[]).await.unwrap().1).unwrap();
        assert_eq!(v2["paths"][path]["patch"]["consumes"], json!(wanted), "{path}");
        assert_eq!(v2["paths"][path]["get"]["consumes"], json!(["*/*"]), "{path}");
    }
}

#[tokio::test]
async fn a_group_version_holds_the_types_it_needs_and_no_others() {
    let document = json_of("/openapi/v3/apis/apps/v1").await;
    let schemas = document["components"]["schemas"].as_object().unwrap();
    assert!(
        schemas.contains_key("io.k8s.api.core.v1.PodSpec")
            && !schemas.contains_key("io.k8s.api.batch.v1.Job")
    );
    let strategy = &schemas["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["strategy"];
    assert_eq!(
        strategy["allOf"],
        json!([{"$ref": "#/components/schemas/io.k8s.api.apps.v1.DeploymentStrategy"}])
    );
    let text = document.to_string();
    for part in text.split("\"#/components/schemas/").skip(1) {
        let name = &part[..part.find('"').unwrap()];
        assert!(schemas.contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn no_object_must_go_without_words_for_what_every_object_has() {
    for url in ["/openapi/v2", "/openapi/v3/api/v1", "/openapi/v3/apis/apps/v1"] {
        let document = json_of(url).await;
        let schemas = document.get("definitions").unwrap_or(&document["components"]["schemas"]);
        let mut objects = 0;
        for (name, schema) in schemas.as_object().unwrap() {
            if schema.get("x-kubernetes-group-version-kind").is_none() {
                continue;
            }
            for field in ["apiVersion", "kind", "metadata", "spec", "status"] {
                if let Some(property) = schema["properties"].get(field) {
                    assert!(
                        property["description"].as_str().is_some_and(|d| !d.is_empty()),
                        "{url} {name}.{field}"
                    );
                    objects += 1;
                }
            }
        }
        assert!(objects > 20, "{url}: {objects}");
    }
}

/// What `kubectl explain` prints: a description of each field, and which are `-required-`.
#[tokio::test]
async fn explain_must_not_come_to_a_field_without_words() {
    let index = json_of("/openapi/v3").await;
    let v3 = index["paths"].as_object().unwrap().keys().map(|path| format!("/openapi/v3/{path}"));
    let mut seen = 0;
    for url in std::iter::once("/openapi/v2".to_owned()).chain(v3) {
        let document = json_of(&url).await;
        let schemas = document.get("definitions").unwrap_or(&document["components"]["schemas"]);
        for (name, schema) in schemas.as_object().into_iter().flatten() {
            assert!(schema["description"].as_str().is_some_and(|d| !d.is_empty()), "{url} {name}");
            for (field, property) in schema["properties"].as_object().into_iter().flatten() {
                let words = property["description"].as_str().unwrap_or_default();
                assert!(!words.is_empty(), "{url} {name}.{field}");
                seen += 1;
            }
            for field in schema["required"].as_array().into_iter().flatten() {
                assert!(schema["properties"].get(field.as_str().unwrap()).is_some(), "{url} {name}: {field}");
            }
        }
    }
    assert!(seen > 4000, "{seen}");
}

#[tokio::test]
async fn a_field_that_must_be_there_must_not_be_explained_as_optional() {
    let required = |document: &Value, of: &str| {
        let schemas = document.get("definitions").unwrap_or(&document["components"]["schemas"]);
        schemas[of]["required"].clone()
    };
    for (url, of, wanted) in [
        ("/openapi/v2", "io.k8s.api.core.v1.PodSpec", json!(["containers"])),
        ("/openapi/v2", "io.k8s.api.core.v1.Volume", json!(["name"])),
        ("/openapi/v3/apis/apps/v1", "io.k8s.api.apps.v1.DeploymentSpec", json!(["selector", "template"])),
        ("/openapi/v3/apis/apps/v1", "io.k8s.api.core.v1.VolumeMount", json!(["mountPath", "name"])),
        ("/openapi/v3/apis/batch/v1", "io.k8s.api.batch.v1.CronJobSpec", json!(["jobTemplate", "schedule"])),
        ("/openapi/v3/api/v1", "io.k8s.api.core.v1.ServiceSpec", Value::Null),
        ("/openapi/v3/api/v1", "io.k8s.api.core.v1.PodList", json!(["items"])),
    ] {
        assert_eq!(required(&json_of(url).await, of), wanted, "{url} {of}");
    }
}

#[tokio::test]
async fn the_index_leads_to_every_group_version() {
    let openapi = openapi();
    let index: Value = serde_json::from_slice(&ask(&openapi, "/openapi/v3", &[]).await.unwrap().1).unwrap();
    let paths = index["paths"].as_object().unwrap();
    assert!(paths.contains_key("api/v1") && paths.contains_key("apis/apps/v1"));
    for entry in paths.values() {
        let url = entry["serverRelativeURL"].as_str().unwrap();
        let (response, bytes) = ask(&openapi, url, &[(ACCEPT_ENCODING, "gzip")]).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["cache-control"]),
            (200, &HeaderValue::from_static("public, immutable"))
        );
        assert_eq!(&bytes[..2], [0x1f, 0x8b], "compressed");
    }
    let (moved, _) = ask(&openapi, "/openapi/v3/api/v1?hash=OLD", &[]).await.unwrap();
    assert_eq!(moved.headers()["location"], paths["api/v1"]["serverRelativeURL"].as_str().unwrap());
    assert!(ask(&openapi, "/openapi/v3/apis/none/v1", &[]).await.is_none());
}

/// Reads protobuf: (number, bytes) of length-delimited fields, (number, value) of the others.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let (mut n, mut shift) = (0u64, 0);
        loop {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            n |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return n;
            }
            shift += 7;
        }
    }
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let content = if key & 7 == 2 {
            let length = varint(&mut bytes) as usize;
            let (content, rest) = bytes.split_at(length);
            bytes = rest;
            content.to_vec()
        } else {
            assert_eq!(key & 7, 0);
            varint(&mut bytes).to_le_bytes().to_vec()
        };
        out.push((key >> 3, content));
    }
    out
}

fn field(message: &[u8], number: u64) -> Vec<u8> {
    fields(message).into_iter().find(|(n, _)| *n == number).unwrap_or_else(|| panic!("no field {number}")).1
}

fn named(message: &[u8], number: u64, name: &str) -> Vec<u8> {
    let all = fields(message).into_iter().filter(|(n, _)| *n == number);
    let entry =
        all.map(|(_, e)| e).find(|e| field(e, 1) == name.as_bytes()).unwrap_or_else(|| panic!("no {name}"));
    field(&entry, 2)
}

#[tokio::test]
async fn kubectls_protobuf_says_the_same() {
    let accept = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let (response, bytes) = ask(&openapi(), "/openapi/v2", &[(http::header::ACCEPT, accept)]).await.unwrap();
    assert_eq!(response.headers()["content-type"], PROTOBUF[0]);
    assert_eq!(field(&bytes, 1), b"2.0");
    let spec = named(&field(&bytes, 9), 1, "io.k8s.api.core.v1.PodSpec");
    let containers = named(&field(&spec, 25), 1, "containers");
    assert_eq!(field(&field(&containers, 22), 1), b"array");
    assert!(field(&containers, 4).starts_with(b"Containers of the pod"));
    assert_eq!(field(&field(&field(&containers, 23), 1), 1), b"#/definitions/io.k8s.api.core.v1.Container");
    assert_eq!(field(&named(&containers, 31, "x-kubernetes-patch-merge-key"), 2), b"\"name\"\n");
    let rule = named(&field(&bytes, 9), 1, "io.k8s.api.rbac.v1.PolicyRule");
    assert_eq!(field(&rule, 19), b"verbs");
    let item = named(&field(&bytes, 8), 2, "/api/v1/namespaces/{namespace}/pods/{name}");
    let patch = field(&item, 8);
    let queries: Vec<Vec<u8>> = fields(&patch)
        .into_iter()
        .filter(|(n, _)| *n == 8)
        .map(|(_, p)| field(&p, 1))
        .filter(|p| fields(p)[0].0 == 2)
        .map(|p| field(&field(&field(&p, 2), 3), 4))
        .collect();
    assert!(queries.contains(&b"dryRun".to_vec()) && queries.contains(&b"fieldValidation".to_vec()));
    assert!(
        field(&named(&patch, 13, "x-kubernetes-group-version-kind"), 2)
            .starts_with(b"{\"group\":\"\",\"kind\":\"Pod\"")
    );
}

#[tokio::test]
async fn documents_are_small_in_memory_and_not_sent_twice() {
    let openapi = openapi();
    let (response, plain) = ask(&openapi, "/openapi/v2", &[]).await.unwrap();
    let kept: usize = openapi.kept.lock().bytes();
    println!("openapi v2: {} bytes, {kept} compressed", plain.len());
    assert!(kept < 400_000, "{kept}");
    let etag = response.headers()["etag"].to_str().unwrap().to_owned();
    let (again, _) = ask(&openapi, "/openapi/v2", &[(IF_NONE_MATCH, &etag)]).await.unwrap();
    assert_eq!(again.status(), 304);
    assert_eq!(
        ask(&openapi, "/openapi/v2", &[(http::header::ACCEPT, "text/html")]).await.unwrap().0.status(),
        406
    );
}

/// Another server, with documents of its own.
struct Theirs;

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

impl crate::discovery::Source for Theirs {
    fn generation(&self) -> u64 {
        1
    }

    fn groups(&self) -> Vec<crate::discovery::Group> {
        use crate::discovery::{Group, Resource};
        let resource = Resource {
            plural: "things".into(),
            kind: "Thing".into(),
            verbs: vec!["get".into()],
            ..Resource::default()
        };
        let version = Version { name: "v1".into(), resources: vec![resource], stale: false };
        vec![Group { name: "theirs.io".into(), priority: 0, versions: vec![version] }]
    }

    fn described(&self, group: &str, version: &str) -> Option<crate::discovery::Described> {
        let v2 = json!({
            "paths": {"/apis/theirs.io/v1/things/{name}": {"get": {"operationId": "theirs", "parameters": [{"$ref": "#/parameters/pretty"}],
                "responses": {"200": {"schema": {"$ref": "#/definitions/io.theirs.Thing"}}}}}},
            "definitions": {
                "io.theirs.Thing": {"type": "object", "properties": {"metadata": {"$ref": format!("#/definitions/{OBJECT_META}")}}},
                OBJECT_META: {"type": "object", "description": "In their words."}},
            "parameters": {"pretty": {"name": "pretty", "in": "query", "type": "string"}},
        });
        let v3 = json!({"openapi": "3.0.0", "paths": {}, "components": {"schemas": {"io.theirs.Thing": {}}}});
        let bytes = |document: Value| Some(bytes::Bytes::from(document.to_string()));
        ((group, version) == ("theirs.io", "v1"))
            .then(|| crate::discovery::Described { v2: bytes(v2), v3: bytes(v3) })
    }
}

#[tokio::test]
async fn what_another_server_describes_is_described_in_its_words() {
    let openapi = OpenApi::new(Arc::new(Catalog::new(vec![Arc::new(Theirs)])));
    let read = async |url: &str| -> Value {
        serde_json::from_slice(&ask(&openapi, url, &[]).await.unwrap().1).unwrap()
    };
    let v2 = read("/openapi/v2").await;
    assert_eq!(v2["paths"]["/apis/theirs.io/v1/things/{name}"]["get"]["operationId"], "theirs");
    assert_eq!(v2["parameters"]["pretty"]["in"], "query");
    let thing = &v2["definitions"]["io.theirs.Thing"];
    let renamed = format!("{OBJECT_META}_v2");
    assert_eq!(thing["properties"]["metadata"]["$ref"], format!("#/definitions/{renamed}"));
    assert_eq!(v2["definitions"][&renamed]["description"], "In their words.");
    assert!(v2["definitions"][OBJECT_META]["properties"]["name"].is_object(), "ours stays as it is");
    let listed = read("/openapi/v3").await;
    let url = listed["paths"]["apis/theirs.io/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    assert_eq!(read(&url).await["components"]["schemas"], json!({"io.theirs.Thing": {}}));
    let accept = [(http::header::ACCEPT, PROTOBUF[0])];
    let protobuf = ask(&openapi, "/openapi/v2", &accept).await.unwrap().1;
    let reference = b"#/parameters/pretty";
    assert!(protobuf.windows(reference.len()).any(|part| part == reference));
}

/// Counts how often its kind is described.
#[derive(Default)]
struct Counting(std::sync::atomic::AtomicU32);

impl crate::discovery::Source for Counting {
    fn generation(&self) -> u64 {
        1
    }

    fn groups(&self) -> Vec<crate::discovery::Group> {
        crate::discovery::Source::groups(&Custom)
    }

    fn schema(&self, _: &str, _: &str, kind: &str, _: machinery::schema::openapi::Dialect) -> Option<Value> {
        (kind == "Widget").then(|| {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            json!({"type": "object"})
        })
    }
}

#[test]
fn the_whole_must_not_be_described_by_everybody_at_once() {
    let counting = Arc::new(Counting::default());
    let openapi = OpenApi::new(Arc::new(Catalog::new(vec![counting.clone()])));
    let together = std::sync::Barrier::new(4);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                together.wait();
                assert_eq!(openapi.v2(&HeaderMap::new()).status(), 200);
            });
        }
    });
    assert_eq!(counting.0.load(std::sync::atomic::Ordering::Relaxed), 1);
}
