//! Custom resources, from their definition to their removal.

use super::*;

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
pub(super) const WIDGETS: &str = "/apis/acme.com/v1/namespaces/default/widgets";

fn version(name: &str, storage: bool) -> Value {
    json!({
        "name": name, "served": true, "storage": storage,
        "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
        "additionalPrinterColumns": [{"name": "Color", "type": "string", "jsonPath": ".spec.color"}],
        "selectableFields": [{"jsonPath": ".spec.color"}],
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "color": {"type": "string", "default": "red", "enum": ["red", "blue"]},
                "replicas": {"type": "integer", "minimum": 0},
                "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port"],
                    "items": {"type": "object", "required": ["port"], "properties": {"port": {"type": "integer"}}}}}},
            "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}}}}},
    })
}

fn crd() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.acme.com"},
        "spec": {"group": "acme.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"], "categories": ["all"]},
            "versions": [version("v1", true), version("v1beta1", false)]},
    })
}

fn widget(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "acme.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

fn condition(crd: &Value, kind: &str) -> String {
    let all = crd["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = all.iter().find(|c| c["type"] == kind).cloned().unwrap_or_default();
    found["status"].as_str().unwrap_or_default().to_owned()
}

/// Waits until a definition is as it should be.
async fn until(s: &Server, what: impl Fn(&Server, Value) -> bool) {
    until_at(s, &format!("{CRDS}/widgets.acme.com"), what).await;
}

/// Waits until what is read at a path is as it should be.
async fn until_at(s: &Server, path: &str, what: impl Fn(&Server, Value) -> bool) {
    for _ in 0..200 {
        let answer = s.ask("GET", path, Value::Null).await;
        if what(s, answer.body) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("it does not come to be");
}

pub(super) async fn defined() -> Server {
    let s = Server::start().await;
    let created = s.ok("POST", CRDS, crd()).await;
    assert_eq!(created["spec"]["names"]["listKind"], "WidgetList");
    assert_eq!(created["status"]["storedVersions"], json!(["v1"]));
    until(&s, |_, crd| condition(&crd, "Established") == "True").await;
    s
}

#[tokio::test]
async fn a_definition_must_not_be_unsettled_once_its_creation_is_answered() {
    let s = Server::start().await;
    let made = s.ok("POST", CRDS, crd()).await;
    assert!(made["status"]["conditions"].is_null(), "the answer is what was written: {made}");
    assert_eq!(condition(&s.get(&format!("{CRDS}/widgets.acme.com")).await, "Established"), "True");
    s.ok("POST", WIDGETS, widget("a", json!({}))).await;
    // One whose names are another's is settled, too: it says so.
    let mut rival = crd();
    rival["metadata"]["name"] = json!("gadgets.acme.com");
    rival["spec"]["names"]["plural"] = json!("gadgets");
    s.ok("POST", CRDS, rival).await;
    let rival = s.get(&format!("{CRDS}/gadgets.acme.com")).await;
    assert_eq!(
        (condition(&rival, "NamesAccepted"), condition(&rival, "Established")),
        ("False".into(), "False".into())
    );
}

#[tokio::test]
async fn a_definition_is_established_and_its_objects_are_served() {
    let s = defined().await;
    let made = s.ok("POST", WIDGETS, widget("a", json!({"replicas": 1, "nonsense": 1}))).await;
    assert_eq!(made["spec"], json!({"color": "red", "replicas": 1}));
    assert_eq!(made["metadata"]["generation"], 1);
    assert!(made["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"].is_object(), "{made}");
    let list = s.get(WIDGETS).await;
    assert_eq!(
        (list["kind"].as_str(), list["items"][0]["metadata"]["name"].as_str()),
        (Some("WidgetList"), Some("a"))
    );
    let beta = s.get("/apis/acme.com/v1beta1/namespaces/default/widgets/a").await;
    assert_eq!(beta["apiVersion"], "acme.com/v1beta1");
    assert_eq!(s.get("/apis/acme.com/v1beta1/widgets").await["apiVersion"], "acme.com/v1beta1");
    let (code, text) =
        s.refused("POST", WIDGETS, widget("b", json!({"color": "green", "replicas": -1}))).await;
    assert_eq!(code, 422);
    assert!(
        text.contains("spec.color: Unsupported value: \"green\": supported values: \"red\", \"blue\""),
        "{text}"
    );
    assert!(text.contains(
        "spec.replicas: Invalid value: -1: spec.replicas in body should be greater than or equal to 0"
    ));
    for (spec, found) in [
        (json!([]), "[] is of the type []interface {}"),
        (json!("x"), "x is of the type string"),
        (json!(1), "1 is of the type int64"),
    ] {
        let (code, text) = s.refused("POST", WIDGETS, widget("b", spec)).await;
        let why = format!(
            ".spec.replicas: Invalid value: 0: .spec.replicas accessor error: {found}, expected map[string]interface{{}}"
        );
        assert!(code == 422 && text.contains(&why), "{text}");
    }
    let (code, text) = s
        .refused("POST", &format!("{WIDGETS}?fieldValidation=Strict"), widget("b", json!({"nonsense": 1})))
        .await;
    assert_eq!(code, 400);
    assert!(text.contains("strict decoding error: unknown field \"spec.nonsense\""), "{text}");
    let (code, text) = s.refused("GET", "/apis/acme.com/v2/namespaces/default/widgets", Value::Null).await;
    assert_eq!((code, text.as_str()), (404, "the server could not find the requested resource"));
}

#[tokio::test]
async fn a_dry_run_must_not_show_less_than_the_write_would() {
    let s = Server::start().await;
    let mut defaulting = crd();
    for version in [0, 1] {
        let properties =
            &mut defaulting["spec"]["versions"][version]["schema"]["openAPIV3Schema"]["properties"];
        properties["status"]["default"] = json!({"replicas": 0});
    }
    // The stored version alone has this default.
    let properties = &mut defaulting["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    properties["spec"]["properties"]["replicas"]["default"] = json!(3);
    s.ok("POST", CRDS, defaulting).await;
    until(&s, |_, crd| condition(&crd, "Established") == "True").await;
    let beta = "/apis/acme.com/v1beta1/namespaces/default/widgets";
    for url in [WIDGETS, beta] {
        let mut made = widget("a", json!({}));
        made["apiVersion"] = json!(if url == beta { "acme.com/v1beta1" } else { "acme.com/v1" });
        let dry = s.ok("POST", &format!("{url}?dryRun=All"), made.clone()).await;
        let real = s.ok("POST", url, made).await;
        for shown in [&dry, &real] {
            assert_eq!(shown["status"], json!({"replicas": 0}), "{url}");
            assert_eq!(shown["spec"], json!({"color": "red", "replicas": 3}), "{url}");
        }
        assert!(dry["metadata"].get("resourceVersion").is_none());
        let mut changed = real.clone();
        changed["spec"] = json!({"color": "blue"});
        let dry = s.ok("PUT", &format!("{url}/a?dryRun=All"), changed).await;
        assert_eq!(dry["spec"], json!({"color": "blue", "replicas": 3}), "{url}");
        assert_eq!(dry["status"], json!({"replicas": 0}), "{url}");
        assert_eq!(dry["metadata"]["resourceVersion"], real["metadata"]["resourceVersion"]);
        s.ok("DELETE", &format!("{url}/a"), Value::Null).await;
    }
}

#[tokio::test]
async fn a_null_that_is_applied_must_not_be_taken_for_absence() {
    let s = defined().await;
    let apply = async |name: &str, spec: Value| {
        let target = format!("{WIDGETS}/{name}?fieldManager=me");
        s.patch(&target, "apply-patch+yaml", widget(name, spec)).await
    };
    assert_eq!(apply("there", json!({"replicas": 1})).await.code, 201);
    for (name, spec, why) in [
        ("new", json!(null), "spec in body must be of type object: \"null\""),
        ("new", json!({"replicas": null}), "spec.replicas in body must be of type integer: \"null\""),
        ("new", json!({"ports": null}), "spec.ports in body must be of type array: \"null\""),
        ("there", json!({"replicas": null}), "spec.replicas in body must be of type integer: \"null\""),
        ("there", json!({"ports": null}), "spec.ports in body must be of type array: \"null\""),
    ] {
        let refused = apply(name, spec).await;
        let text = refused.body["message"].as_str().unwrap_or_default();
        assert!(refused.code == 422 && text.contains(why), "{name}: {} {text}", refused.code);
    }
    // Of an object with parts only its owner's go, and others' stay.
    let emptied = apply("there", json!(null)).await;
    assert_eq!((emptied.code, &emptied.body["spec"]), (200, &json!({"color": "red"})));
    let other = widget("there", json!({"ports": [{"port": 1}]}));
    let other = s.patch(&format!("{WIDGETS}/there?fieldManager=other"), "apply-patch+yaml", other).await;
    assert_eq!(other.code, 200);
    for spec in [json!(null), json!({"ports": null})] {
        let kept = apply("there", spec).await;
        assert_eq!(kept.body["spec"], json!({"color": "red", "ports": [{"port": 1}]}));
    }
    // A default stands in for it, and a POST drops it.
    let defaulted = apply("red", json!({"color": null})).await;
    assert_eq!((defaulted.code, &defaulted.body["spec"]), (201, &json!({"color": "red"})));
    let posted = s.ok("POST", WIDGETS, widget("posted", json!({"replicas": null}))).await;
    assert_eq!(posted["spec"], json!({"color": "red"}));
}

#[tokio::test]
async fn items_of_a_list_must_not_lose_what_they_are() {
    let s = defined().await;
    s.ok("POST", WIDGETS, widget("a", json!({}))).await;
    let beta = "/apis/acme.com/v1beta1/namespaces/default/widgets";
    for (path, version) in
        [(WIDGETS, "acme.com/v1"), (beta, "acme.com/v1beta1"), ("/apis/acme.com/v1/widgets", "acme.com/v1")]
    {
        for query in ["", "?resourceVersion=0", "?limit=1", "?pretty=true"] {
            let list = s.get(&format!("{path}{query}")).await;
            let item = &list["items"][0];
            assert_eq!(
                (&item["apiVersion"], &item["kind"]),
                (&json!(version), &json!("Widget")),
                "{path}{query}"
            );
        }
    }
    let (_, _, yaml) = asked(&s, "GET", WIDGETS, "application/yaml").await;
    assert!(String::from_utf8_lossy(&yaml).contains("kind: Widget\n"));
    s.ok("POST", MAPS, config_map("a")).await;
    assert!(s.get(MAPS).await["items"][0].get("kind").is_none(), "those of built-in kinds do not say it");
}

#[tokio::test]
async fn writes_count_and_subresources_are_apart() {
    let s = defined().await;
    let mut made = s.ok("POST", WIDGETS, widget("a", json!({"replicas": 1}))).await;
    made["spec"]["replicas"] = json!(2);
    made["status"] = json!({"replicas": 7});
    let updated = s.ok("PUT", &format!("{WIDGETS}/a"), made.clone()).await;
    assert_eq!((updated["metadata"]["generation"].as_i64(), updated["status"].is_null()), (Some(2), true));
    let mut status = updated.clone();
    status["spec"]["replicas"] = json!(9);
    status["status"] = json!({"replicas": 7});
    let updated = s.ok("PUT", &format!("{WIDGETS}/a/status"), status).await;
    assert_eq!((&updated["spec"]["replicas"], &updated["status"]["replicas"]), (&json!(2), &json!(7)));
    assert_eq!(updated["metadata"]["generation"], 2);
    let scale = s.get(&format!("{WIDGETS}/a/scale")).await;
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["replicas"]), (&json!(2), &json!(7)));
    let scaled =
        s.patch(&format!("{WIDGETS}/a/scale"), "merge-patch+json", json!({"spec": {"replicas": 5}})).await;
    assert_eq!((scaled.code, &scaled.body["spec"]["replicas"]), (200, &json!(5)));
    let patched =
        s.patch(&format!("{WIDGETS}/a"), "merge-patch+json", json!({"spec": {"color": "blue"}})).await;
    assert_eq!((patched.code, &patched.body["spec"]["color"]), (200, &json!("blue")));
    let patched = s
        .patch(&format!("{WIDGETS}/a"), "json-patch+json", json!([{"op": "remove", "path": "/spec/color"}]))
        .await;
    assert_eq!(patched.body["spec"]["color"], "red");
    for kind in ["strategic-merge-patch+json", "another"] {
        let refused = s.patch(&format!("{WIDGETS}/a"), kind, json!({})).await;
        let text = refused.body["message"].as_str().unwrap();
        assert_eq!((refused.code, text.contains("strategic")), (415, false), "{text}");
    }
    let (code, text) = s.refused("PUT", &format!("{WIDGETS}/a"), widget("a", json!({}))).await;
    assert_eq!(code, 422);
    assert!(
        text.starts_with("widgets.")
            && text.ends_with(
                "is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update"
            ),
        "{text}"
    );
}

#[tokio::test]
async fn owners_of_fields_are_told_apart_by_the_schema() {
    let s = defined().await;
    let apply = async |manager: &str, ports: Value, color: Option<&str>| {
        let mut config = widget("a", json!({"ports": ports}));
        if let Some(color) = color {
            config["spec"]["color"] = color.into();
        }
        s.patch(&format!("{WIDGETS}/a?fieldManager={manager}"), "apply-patch+yaml", config).await
    };
    assert_eq!(apply("one", json!([{"port": 80}]), Some("red")).await.code, 201);
    let both = apply("two", json!([{"port": 81}]), None).await;
    assert_eq!((both.code, both.body["spec"]["ports"].as_array().map(Vec::len)), (200, Some(2)));
    let conflict = apply("two", json!([{"port": 81}]), Some("blue")).await;
    assert_eq!(conflict.code, 409, "{}", conflict.body);
}

#[tokio::test]
async fn tables_selectors_and_watches() {
    let s = defined().await;
    for (name, color) in [("a", "red"), ("b", "blue")] {
        s.ok("POST", WIDGETS, widget(name, json!({"color": color}))).await;
    }
    let blue = s.get(&format!("{WIDGETS}?fieldSelector=spec.color%3Dblue")).await;
    assert_eq!(blue["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(blue["items"][0]["metadata"]["name"], "b");
    let (code, text) = s.refused("GET", &format!("{WIDGETS}?fieldSelector=spec.size%3D1"), Value::Null).await;
    assert_eq!((code, text.as_str()), (400, "field label not supported: spec.size"));
    let table = s
        .call("GET", WIDGETS, Value::Null, &[("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")])
        .await
        .body;
    assert_eq!(table["columnDefinitions"][1]["name"], "Color");
    assert_eq!(table["rows"][1]["cells"], json!(["b", "blue"]));
}

#[tokio::test]
async fn a_definition_takes_its_objects_with_it() {
    let s = defined().await;
    let mut held = widget("held", json!({}));
    held["metadata"]["finalizers"] = json!(["acme.com/hold"]);
    s.ok("POST", WIDGETS, held).await;
    s.ok("POST", WIDGETS, widget("free", json!({}))).await;
    let going = s.ok("DELETE", &format!("{CRDS}/widgets.acme.com"), Value::Null).await;
    assert_eq!(going["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    assert_eq!(condition(&going, "Terminating"), "True");
    for _ in 0..200 {
        let left = s.get(WIDGETS).await;
        if left["items"].as_array().is_some_and(|i| i.len() == 1) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let (code, text) = s.refused("POST", WIDGETS, widget("new", json!({}))).await;
    assert_eq!(code, 403, "{text}");
    assert!(text.contains("create not allowed while custom resource definition is terminating"), "{text}");
    let freed = s
        .patch(&format!("{WIDGETS}/held"), "merge-patch+json", json!({"metadata": {"finalizers": null}}))
        .await;
    assert_eq!(freed.code, 200);
    until(&s, |_, body| body["code"] == 404).await;
    // What is served follows the definition's end by a watch of its own.
    until_at(&s, WIDGETS, |_, body| body["code"] == 404).await;
    // The same definition again begins with nothing.
    s.ok("POST", CRDS, crd()).await;
    until(&s, |_, crd| condition(&crd, "Established") == "True").await;
    assert_eq!(s.get(WIDGETS).await["items"], json!([]));
}

#[tokio::test]
async fn discovery_and_openapi_follow_definitions() {
    let s = defined().await;
    let source: Arc<dyn crate::discovery::Source> =
        Arc::new(crate::discovery::CustomResources(s.registry.clone()));
    let catalog = Arc::new(crate::discovery::Catalog::new(vec![source.clone()]));
    let groups = catalog.groups();
    let group = groups.iter().find(|g| g.name == "acme.com").unwrap();
    assert_eq!(group.versions.iter().map(|v| v.name.as_str()).collect::<Vec<_>>(), ["v1", "v1beta1"]);
    let swagger = crate::openapi::swagger::document(&catalog);
    let definition = &swagger["definitions"]["com.acme.v1.Widget"];
    assert_eq!(definition["properties"]["spec"]["properties"]["replicas"]["minimum"], 0);
    assert_eq!(
        swagger["definitions"]["com.acme.v1.WidgetList"]["properties"]["items"]["items"]["$ref"],
        "#/definitions/com.acme.v1.Widget"
    );
    assert!(
        swagger["paths"]["/apis/acme.com/v1/namespaces/{namespace}/widgets/{name}/status"]["put"].is_object()
    );
    let before = source.generation();
    s.ok("DELETE", &format!("{CRDS}/widgets.acme.com"), Value::Null).await;
    until(&s, |_, body| body["code"] == 404).await;
    // The table follows the definition's end by a watch of its own.
    for _ in 0..200 {
        if source.groups().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert!(source.groups().is_empty() && source.generation() > before);
}

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// What an answer's bytes are.
async fn asked(s: &Server, method: &str, target: &str, accept: &str) -> (u16, String, Vec<u8>) {
    let response = s.send(method, target, "", &[("accept", accept)], admin()).await;
    let media = response.headers()["content-type"].to_str().unwrap().to_owned();
    let code = response.status().as_u16();
    (code, media, response.into_body().collect().await.unwrap().to_bytes().to_vec())
}

#[tokio::test]
async fn a_custom_resource_must_not_be_refused_for_a_form_it_does_not_have() {
    let s = defined().await;
    s.ok("POST", WIDGETS, widget("a", json!({"replicas": 1}))).await;
    let either = format!("{PROTOBUF},application/json");
    for path in ["", "/a", "/a/status", "/a/scale"] {
        let (code, media, body) = asked(&s, "GET", &format!("{WIDGETS}{path}"), &either).await;
        assert_eq!((code, media.as_str()), (200, "application/json"), "{path}");
        assert!(serde_json::from_slice::<Value>(&body).unwrap().is_object());
        let (code, media, body) = asked(&s, "GET", &format!("{WIDGETS}{path}"), PROTOBUF).await;
        assert_eq!((code, media.as_str()), (406, PROTOBUF), "{path}: errors are encoded as asked for");
        assert!(body.starts_with(b"k8s\0"));
    }
    // Metadata has a form of its own.
    let partial = format!("{PROTOBUF};as=PartialObjectMetadata;v=v1;g=meta.k8s.io");
    let (code, media, _) = asked(&s, "GET", &format!("{WIDGETS}/a"), &partial).await;
    assert_eq!((code, media.as_str()), (200, PROTOBUF));
    let table =
        format!("{PROTOBUF};as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1;g=meta.k8s.io");
    let (code, _, body) = asked(&s, "GET", WIDGETS, &table).await;
    assert_eq!(code, 200);
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["kind"], "Table");
    let response = s
        .send("GET", &format!("{WIDGETS}?watch=true&timeoutSeconds=1"), "", &[("accept", &either)], admin())
        .await;
    assert_eq!(response.headers()["content-type"], "application/json");
    let mut body = response.into_body();
    let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&frame).unwrap()["object"]["metadata"]["name"], "a");
    let refused = s.send("GET", &format!("{WIDGETS}?watch=true"), "", &[("accept", PROTOBUF)], admin()).await;
    assert_eq!(refused.status().as_u16(), 406);
}

#[tokio::test]
async fn a_failure_must_be_encoded_as_it_was_asked_for() {
    let s = Server::start().await;
    for target in [format!("{PODS}/none"), format!("{MAPS}/none"), "/apis/none/v1/nones".to_owned()] {
        let (code, media, body) = asked(&s, "GET", &target, PROTOBUF).await;
        assert_eq!((code, media.as_str()), (404, PROTOBUF), "{target}");
        let status = machinery::codec::proto::decode(machinery::schema::builtin(), &body, None).unwrap();
        assert_eq!((&status["kind"], &status["code"]), (&json!("Status"), &json!(404)));
        let (_, media, body) = asked(&s, "GET", &target, "application/yaml").await;
        assert_eq!(media, "application/yaml");
        assert!(String::from_utf8_lossy(&body).contains("code: 404"));
        // A table of an error there is not; what cannot be had is JSON.
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
        for accept in [table, "text/html", "*/*"] {
            let (code, media, body) = asked(&s, "GET", &target, accept).await;
            assert_eq!(media, "application/json");
            assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["code"], code);
        }
    }
}

#[tokio::test]
async fn a_custom_resource_in_protobuf_must_not_be_taken() {
    let s = defined().await;
    let kept = machinery::codec::proto::encode(machinery::schema::builtin(), &config_map("a")).unwrap();
    let refused = answer(s.send("POST", WIDGETS, kept, &[("content-type", PROTOBUF)], admin()).await).await;
    assert_eq!(refused.code, 400);
    assert_eq!(
        refused.body["message"],
        "Widget in version \"v1\" cannot be handled as a Widget: object *unstructured.Unstructured does not implement \
         the protobuf marshalling interface and cannot be encoded to a protobuf message"
    );
}
