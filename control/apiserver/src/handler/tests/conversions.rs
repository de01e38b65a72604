//! A definition of three versions whose objects a live webhook converts, from the first of them to a stored-version migration.

use super::definitions::until;
use super::watches::open;
use super::webhooks::{configure, webhook};
use super::*;
use ::extension::{Extension, Settings, reviews};

const CRD: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const NAME: &str = "gadgets.acme.com";

fn gadgets(version: &str) -> String {
    format!("/apis/acme.com/{version}/namespaces/default/gadgets")
}

fn gadget(version: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": format!("acme.com/{version}"), "kind": "Gadget", "metadata": {"name": name}, "spec": spec})
}

/// Three versions: `size: 2x3`, `width` and `height`, and a `box` of both.
fn definition(theirs: &Extension, storage: &str) -> Value {
    let sides = json!({"width": {"type": "integer"}, "height": {"type": "integer"}});
    let specs = [
        ("v1", json!({"size": {"type": "string"}})),
        ("v2", sides.clone()),
        ("v3", json!({"box": {"type": "object", "properties": sides}})),
    ];
    let versions = specs.map(|(name, spec)| {
        json!({"name": name, "served": true, "storage": name == storage, "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": spec}}}}})
    });
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": NAME}, "spec": {
        "group": "acme.com", "scope": "Namespaced", "names": {"plural": "gadgets", "kind": "Gadget"}, "versions": versions,
        "conversion": {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": client(theirs, "/convert")}}}})
}

fn client(theirs: &Extension, path: &str) -> Value {
    json!({"url": format!("https://localhost:{}{path}", theirs.address().port()), "caBundle": theirs.bundle()})
}

/// The version that objects are stored in from now on.
fn storage(s: &Server) -> Option<&'static str> {
    let serving = s.registry.custom.slot(NAME).serving()?;
    serving.outline.established.then_some(serving.outline.storage)
}

async fn world() -> (Server, Extension) {
    let front = pki::Authority::generate("front", jiff::Timestamp::now()).unwrap();
    let settings =
        Settings { names: vec!["localhost".into()], front: front.cert_pem(), ..Settings::default() };
    let theirs = Extension::start(settings).await.unwrap();
    let s = Server::start().await;
    s.ok("POST", CRD, definition(&theirs, "v1")).await;
    until(|| storage(&s) == Some("v1")).await;
    (s, theirs)
}

/// The version that an object is stored in now.
async fn stored_in(s: &Server, name: &str) -> String {
    let kind = s.registry.kind("acme.com", "v2", "gadgets").unwrap();
    let entry = s.registry.backend.get(&kind.resource.key("default", name)).await.unwrap().unwrap();
    let stored: Value = serde_json::from_slice(&entry.value).unwrap();
    stored["apiVersion"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_object_says_the_same_in_every_version() {
    let (s, theirs) = world().await;
    s.ok("POST", &gadgets("v1"), gadget("v1", "a", &json!({"size": "2x3"}))).await;
    s.ok("POST", &gadgets("v3"), gadget("v3", "b", &json!({"box": {"width": 4, "height": 5}}))).await;
    assert_eq!(
        (stored_in(&s, "a").await, stored_in(&s, "b").await),
        ("acme.com/v1".into(), "acme.com/v1".into())
    );
    for (version, a, b) in [
        ("v1", json!({"size": "2x3"}), json!({"size": "4x5"})),
        ("v2", json!({"width": 2, "height": 3}), json!({"width": 4, "height": 5})),
        ("v3", json!({"box": {"width": 2, "height": 3}}), json!({"box": {"width": 4, "height": 5}})),
    ] {
        let one = s.get(&format!("{}/a", gadgets(version))).await;
        assert_eq!((&one["apiVersion"], &one["spec"]), (&json!(format!("acme.com/{version}")), &a));
        let list = s.get(&gadgets(version)).await;
        assert_eq!((&list["items"][0]["spec"], &list["items"][1]["spec"]), (&a, &b), "{version}");
        assert_eq!(list["items"][1]["apiVersion"], format!("acme.com/{version}"));
    }
    let before = theirs.seen("/convert").len();
    s.get(&gadgets("v2")).await;
    let asked = theirs.seen("/convert");
    assert_eq!(asked.len(), before + 1, "a list is asked for at once");
    let request = &asked.last().unwrap().body["request"];
    assert_eq!(
        (request["objects"].as_array().unwrap().len(), &request["desiredAPIVersion"]),
        (2, &json!("acme.com/v2"))
    );
    s.get(&gadgets("v1")).await;
    assert_eq!(theirs.seen("/convert").len(), before + 1, "nobody is asked for what is stored so");
}

#[tokio::test]
async fn a_watch_sees_changes_in_its_own_version() {
    let (s, _theirs) = world().await;
    s.ok("POST", &gadgets("v1"), gadget("v1", "a", &json!({"size": "2x3"}))).await;
    let mut watch = open(&s, &format!("{}?watch=true", gadgets("v3")), &[]).await;
    let sides = |width: i64| json!({"box": {"width": width, "height": 3}});
    let (event, object) = watch.next().await.unwrap();
    assert_eq!((event.as_str(), &object["spec"]), ("ADDED", &sides(2)));
    let wider = json!({"spec": {"width": 7}});
    assert_eq!(s.patch(&format!("{}/a", gadgets("v2")), "merge-patch+json", wider).await.code, 200);
    let (event, object) = watch.next().await.unwrap();
    assert_eq!(
        (event.as_str(), &object["spec"], &object["apiVersion"]),
        ("MODIFIED", &sides(7), &json!("acme.com/v3"))
    );
    s.ok("DELETE", &format!("{}/a", gadgets("v1")), Value::Null).await;
    let (event, object) = watch.next().await.unwrap();
    assert_eq!((event.as_str(), &object["spec"]), ("DELETED", &sides(7)));
}

#[tokio::test]
async fn an_object_that_cannot_be_converted_must_not_be_shown_as_it_is() {
    let (s, theirs) = world().await;
    let mut stubborn = gadget("v1", "a", &json!({"size": "2x3"}));
    stubborn["metadata"]["labels"] = json!({"stubborn": "yes"});
    s.ok("POST", &gadgets("v1"), stubborn).await;
    let why = "conversion webhook for acme.com/v1, Kind=Gadget failed: a is stubborn";
    for target in [format!("{}/a", gadgets("v2")), gadgets("v2")] {
        assert_eq!(s.refused("GET", &target, Value::Null).await, (500, why.to_owned()), "{target}");
    }
    s.get(&format!("{}/a", gadgets("v1"))).await;
    theirs.set_healthy(false);
    let why = "conversion webhook for acme.com/v1, Kind=Gadget failed: not now";
    let refused = s.refused("GET", &format!("{}/a", gadgets("v2")), Value::Null).await;
    assert_eq!(refused, (500, why.to_owned()));
}

#[tokio::test]
async fn webhooks_of_another_version_must_not_be_shown_an_object_that_lost_its_fields() {
    let (s, theirs) = world().await;
    for mutating in [true, false] {
        let path = if mutating { "/mutate" } else { "/validate" };
        let mut hook = webhook("size", client(&theirs, path), &json!(["gadgets"]));
        hook["rules"][0]["apiVersions"] = json!(["v2"]);
        configure(&s, mutating, "sizes", json!([hook])).await;
    }
    let made = s.ok("POST", &gadgets("v1"), gadget("v1", "a", &json!({"size": "2x3"}))).await;
    assert_eq!(made["spec"], json!({"size": "2x3"}), "it is in its author's version again");
    assert_eq!(made["metadata"]["labels"][reviews::MARK], "yes");
    for path in ["/mutate", "/validate"] {
        let request = theirs.seen(path).pop().unwrap().body["request"].clone();
        assert_eq!(
            request["kind"],
            json!({"group": "acme.com", "version": "v2", "kind": "Gadget"}),
            "{path}"
        );
        assert_eq!(request["requestKind"]["version"], "v1");
        assert_eq!(request["object"]["spec"], json!({"width": 2, "height": 3}), "{path}");
    }
    let wider = json!({"spec": {"size": "9x3"}});
    assert_eq!(s.patch(&format!("{}/a", gadgets("v1")), "merge-patch+json", wider).await.code, 200);
    let request = theirs.seen("/validate").pop().unwrap().body["request"].clone();
    assert_eq!(
        (&request["object"]["spec"]["width"], &request["oldObject"]["spec"]["width"]),
        (&json!(9), &json!(2))
    );
}

#[tokio::test]
async fn a_version_must_not_go_before_everything_stored_in_it_was_rewritten() {
    let (s, theirs) = world().await;
    for name in ["a", "b"] {
        s.ok("POST", &gadgets("v1"), gadget("v1", name, &json!({"size": "2x3"}))).await;
    }
    let path = format!("{CRD}/{NAME}");
    let mut crd = s.get(&path).await;
    assert_eq!(crd["status"]["storedVersions"], json!(["v1"]));
    crd["spec"]["versions"] = definition(&theirs, "v2")["spec"]["versions"].clone();
    let crd = s.ok("PUT", &path, crd).await;
    assert_eq!(crd["status"]["storedVersions"], json!(["v1", "v2"]));
    until(|| storage(&s) == Some("v2")).await;
    assert_eq!(stored_in(&s, "a").await, "acme.com/v1", "nothing is rewritten by itself");
    assert_eq!(s.get(&format!("{}/a", gadgets("v3"))).await["spec"]["box"]["width"], 2);
    let without = |crd: &Value| {
        let mut versions = crd["spec"]["versions"].as_array().unwrap().clone();
        versions.retain(|version| version["name"] != "v1");
        json!({"spec": {"versions": versions}})
    };
    let refused = s.patch(&path, "merge-patch+json", without(&crd)).await;
    let why = refused.body["message"].as_str().unwrap_or_default();
    assert_eq!(refused.code, 422, "{why}");
    assert!(
        why.contains("status.storedVersions[0]: Invalid value: \"v1\": missing from spec.versions"),
        "{why}"
    );
    for (name, version) in [("a", "v1"), ("b", "v3")] {
        let item = format!("{}/{name}", gadgets(version));
        let as_it_is = s.get(&item).await;
        let rewritten = s.ok("PUT", &item, as_it_is.clone()).await;
        assert_ne!(rewritten["metadata"]["resourceVersion"], as_it_is["metadata"]["resourceVersion"]);
        assert_eq!(rewritten["metadata"]["generation"], as_it_is["metadata"]["generation"]);
        assert_eq!(stored_in(&s, name).await, "acme.com/v2");
        let again = s.ok("PUT", &item, rewritten.clone()).await;
        assert_eq!(again, rewritten, "it is stored as it is to be");
    }
    let migrated = json!({"status": {"storedVersions": ["v2"]}});
    assert_eq!(s.patch(&format!("{path}/status"), "merge-patch+json", migrated).await.code, 200);
    let crd = s.get(&path).await;
    assert_eq!(crd["status"]["storedVersions"], json!(["v2"]));
    assert_eq!(s.patch(&path, "merge-patch+json", without(&crd)).await.code, 200);
    until(|| s.registry.kind("acme.com", "v1", "gadgets").is_none()).await;
    assert_eq!(s.refused("GET", &gadgets("v1"), Value::Null).await.0, 404);
    for (version, field) in [("v2", "/items/1/spec/width"), ("v3", "/items/1/spec/box/width")] {
        assert_eq!(s.get(&gadgets(version)).await.pointer(field), Some(&json!(2)), "{version}");
    }
    let versions = |object: &Value| {
        let owners = object["metadata"]["managedFields"].as_array().unwrap().iter();
        owners.map(|owner| owner["apiVersion"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let item = format!("{}/a", gadgets("v2"));
    assert!(versions(&s.get(&item).await).contains(&"acme.com/v1".to_owned()));
    let wider = json!({"spec": {"width": 9}});
    let changed = s.patch(&format!("{item}?fieldManager=other"), "merge-patch+json", wider).await.body;
    assert_eq!(versions(&changed), ["acme.com/v2"], "who wrote through what is gone owns nothing");
}

async fn apply(s: &Server, who: &str, version: &str, spec: &Value) -> Received {
    let target = format!("{}/a?fieldManager={who}", gadgets(version));
    s.patch(&target, "apply-patch+yaml", gadget(version, "a", spec)).await
}

/// Managers and the versions they wrote through.
fn owners(object: &Value) -> Vec<(String, String)> {
    let text = |owner: &Value, field: &str| owner[field].as_str().unwrap_or_default().to_owned();
    let all = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    all.iter().map(|owner| (text(owner, "manager"), text(owner, "apiVersion"))).collect()
}

#[tokio::test]
async fn owners_that_wrote_through_another_version_must_be_asked_in_their_own() {
    let (s, _theirs) = world().await;
    assert_eq!(apply(&s, "a", "v1", &json!({"size": "2x3"})).await.code, 201);
    let same = apply(&s, "b", "v2", &json!({"width": 2, "height": 3})).await;
    assert_eq!(same.code, 200, "{}", same.body);
    let three = apply(&s, "c", "v3", &json!({"box": {"height": 3}})).await;
    assert_eq!(three.code, 200, "{}", three.body);
    let wider = json!({"size": "9x3"});
    let refused = apply(&s, "d", "v1", &wider).await;
    assert_eq!(
        refused.body["message"],
        "Apply failed with 2 conflicts: conflicts with \"a\":\n- .spec.size\nconflicts with \"b\":\n- .spec.width"
    );
    // Nobody who had it in any version has it any more.
    let target = format!("{}/a?fieldManager=d&force=true", gadgets("v1"));
    let forced = s.patch(&target, "apply-patch+yaml", gadget("v1", "a", &wider)).await.body;
    let left = |who: &str| {
        let all = forced["metadata"]["managedFields"].as_array().unwrap();
        all.iter().find(|owner| owner["manager"] == who).map(|owner| owner["fieldsV1"].clone())
    };
    assert_eq!(left("a"), None);
    assert_eq!(left("b"), Some(json!({"f:spec": {"f:height": {}}})));
    assert_eq!(left("c"), Some(json!({"f:spec": {"f:box": {"f:height": {}}}})));
}

#[tokio::test]
async fn what_one_gives_up_must_stay_while_another_has_it_in_another_version() {
    let (s, _theirs) = world().await;
    apply(&s, "a", "v1", &json!({"size": "2x3"})).await;
    apply(&s, "b", "v3", &json!({"box": {"width": 2, "height": 3}})).await;
    let less = apply(&s, "a", "v1", &json!({})).await.body;
    assert_eq!(less["spec"], json!({"size": "2x3"}), "{less}");
    let moved = apply(&s, "b", "v2", &json!({"width": 2, "height": 3})).await.body;
    assert_eq!(moved["spec"], json!({"width": 2, "height": 3}));
    assert_eq!(
        owners(&moved),
        [("b".into(), "acme.com/v2".into()), ("a".into(), "acme.com/v1".into())],
        "a has an empty spec"
    );
}

#[tokio::test]
async fn an_update_in_the_stored_version_must_not_fail_while_nobody_converts() {
    let (s, theirs) = world().await;
    apply(&s, "a", "v2", &json!({"width": 2, "height": 3})).await;
    theirs.set_healthy(false);
    let patched = s
        .patch(
            &format!("{}/a", gadgets("v1")),
            "merge-patch+json",
            json!({"metadata": {"labels": {"k": "v"}}}),
        )
        .await;
    assert_eq!(patched.code, 200, "{}", patched.body);
    assert_eq!(owners(&patched.body), [], "who owned what cannot be told any more");
    theirs.set_healthy(true);
    let applied = apply(&s, "a", "v2", &json!({"width": 2, "height": 3})).await.body;
    assert_eq!(
        owners(&applied),
        [("a".into(), "acme.com/v2".into()), ("before-first-apply".into(), "acme.com/v2".into())]
    );
}
