use super::*;
use proptest::prelude::*;
use serde_json::json;
use std::path::{Path, PathBuf};

fn round_trip(key: &str, object: &Value) -> Decoded {
    let value = stored::encode(object).unwrap();
    let at_rest = Upstream.encode(key, value).unwrap();
    Upstream.decode(key, at_rest).map_err(|_| "unreadable").unwrap()
}

fn value(decoded: &Decoded) -> Value {
    serde_json::from_slice(&decoded.value).unwrap()
}

#[test]
fn keys_name_their_resource() {
    let name = |key| resource(key).map(Resource::qualified_name);
    assert_eq!(name("/registry/pods/d/a").as_deref(), Some("pods"));
    assert_eq!(name("/registry/minions/a").as_deref(), Some("nodes"));
    assert_eq!(name("/registry/services/specs/d/a").as_deref(), Some("services"));
    assert_eq!(name("/registry/services/endpoints/d/a").as_deref(), Some("endpoints"));
    assert_eq!(name("/registry/events/d/a").as_deref(), Some("events"));
    let crd = "/registry/apiextensions.k8s.io/customresourcedefinitions/a";
    assert_eq!(name(crd).as_deref(), Some("customresourcedefinitions.apiextensions.k8s.io"));
    assert_eq!(name("/registry/example.com/widgets/d/a"), None);
    assert_eq!(name("/registry/ranges/serviceips"), None);
}

#[test]
fn what_api_servers_share_beside_resources_is_protobuf_as_theirs() {
    let ports = json!({"apiVersion": "v1", "kind": "RangeAllocation", "metadata": {}, "range": "30000-32767", "data": "AgIB"});
    let lease = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"generation": 7},
        "subsets": [{"addresses": [{"ip": "192.0.2.1"}]}]});
    let (of_ports, of_lease) = ("/registry/ranges/servicenodeports", "/registry/masterleases/192.0.2.1");
    for (key, object) in [(of_ports, &ports), (of_lease, &lease)] {
        let at_rest = Upstream.encode(key, stored::encode(object).unwrap()).unwrap();
        assert!(at_rest.starts_with(proto::MAGIC), "{key}");
        let decoded = round_trip(key, object);
        assert!(!decoded.stale, "{key}");
        let read = value(&decoded);
        for field in ["apiVersion", "kind", "range", "data", "subsets"] {
            assert_eq!(read.get(field), object.get(field), "{key} {field}");
        }
        assert_eq!(object::generation(&read), object::generation(object), "{key}");
        // Another server may have written JSON.
        let json = stored::encode(object).unwrap();
        assert_eq!(Upstream.decode(key, json.clone()).map_err(|_| "unreadable").unwrap().value, json);
    }
    assert_eq!(group_resource(of_ports), Some(("", "services")));
    assert_eq!(group_resource(of_lease), Some(("", "apiServerIPInfo")));
}

/// What upstream's serializer wrote for each stored kind, found beside the checkout.
fn golden() -> Vec<(PathBuf, &'static Resource, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/kubernetes-1.36/golden");
    let mut found = Vec::new();
    for resource in BY_PREFIX.values().filter(|r| !r.is_stored_as_json()) {
        let group = if resource.group.is_empty() { "core" } else { resource.group };
        let file = dir.join(format!("{group}.{}.{}.pb", resource.storage_version, resource.kind));
        if file.exists() {
            found.push((file, *resource, resource.key("d", "a")));
        }
    }
    found
}

/// A golden object has every field set, its resourceVersion too, which nothing at rest has: decoded, it loses that and gains defaults; what
/// is then written is upstream's own encoding of the same object, so it reads back as the same and is not stale.
#[test]
fn what_upstream_wrote_is_read_and_written_as_it_writes() {
    let golden = golden();
    if golden.is_empty() {
        println!("skipped: no golden objects beside the checkout");
        return;
    }
    assert!(golden.len() > 30, "{} golden kinds", golden.len());
    let mut exact = 0;
    for (file, resource, key) in golden {
        let theirs = Bytes::from(std::fs::read(&file).unwrap());
        let read = Upstream.decode(&key, theirs.clone()).map_err(|_| file.clone()).unwrap();
        assert!(!read.stale, "{file:?}");
        let object = value(&read);
        assert_eq!(object::api_version(&object), resource.storage_api_version());
        let ours = Upstream.encode(&key, read.value.clone()).unwrap();
        let again = Upstream.decode(&key, ours.clone()).map_err(|_| file.clone()).unwrap();
        assert_eq!(value(&again), object, "{file:?}");
        // What defaulting added aside, it is theirs byte for byte; at rest nothing has a resourceVersion, the golden objects do.
        let golden = proto::decode(schema::builtin(), &theirs, None).unwrap();
        let mut dressed = proto::decode(schema::builtin(), &ours, None).unwrap();
        object::set_resource_version(&mut dressed, object::resource_version(&golden));
        exact += usize::from(proto::encode(schema::builtin(), &dressed).unwrap() == theirs);
    }
    assert!(exact >= 10, "only {exact} are theirs byte for byte");
}

#[test]
fn other_forms_of_an_object_are_read_and_are_stale() {
    let scaler = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "a", "namespace": "d"}, "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 70,
        "scaleTargetRef": {"kind": "Deployment", "name": "x", "apiVersion": "apps/v1"}}});
    let key = "/registry/horizontalpodautoscalers/d/a";
    let old = proto::encode(schema::builtin(), &scaler).unwrap();
    let read = Upstream.decode(key, old.into()).map_err(|_| "unreadable").unwrap();
    let now = value(&read);
    assert!(read.stale);
    assert_eq!(now["apiVersion"], "autoscaling/v2");
    assert_eq!(now["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 70);

    // As `--storage-media-type=application/json` left it.
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "d"}, "data": {"k": "v"}});
    let read = Upstream.decode("/registry/configmaps/d/a", serde_json::to_vec(&map).unwrap().into());
    let read = read.map_err(|_| "unreadable").unwrap();
    assert!(read.stale && value(&read)["data"]["k"] == "v");

    // The other group that stores events.
    let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "a", "namespace": "d"},
        "regarding": {"kind": "Pod", "name": "p"}, "reason": "R", "note": "said", "eventTime": null});
    let old = proto::encode(schema::builtin(), &event).unwrap();
    let read = Upstream.decode("/registry/events/d/a", old.into()).map_err(|_| "unreadable").unwrap();
    let now = value(&read);
    assert_eq!(
        (&now["apiVersion"], &now["involvedObject"]["name"], &now["message"]),
        (&json!("v1"), &json!("p"), &json!("said"))
    );
}

#[test]
fn a_value_that_is_none_must_not_pass_for_an_object() {
    let read = |key: &str, bytes: &'static [u8]| Upstream.decode(key, Bytes::from_static(bytes)).is_err();
    assert!(read("/registry/pods/d/a", b"k8s\0\x0a"));
    assert!(read("/registry/pods/d/a", b"k8s:enc:aescbc:v1:k:\x00\x01"));
    assert!(read("/registry/pods/d/a", b"{\"apiVersion\":\"v9\",\"kind\":\"Pod\"}"));
}

#[test]
fn a_key_names_group_and_plural() {
    assert_eq!(group_resource("/registry/secrets/d/a"), Some(("", "secrets")));
    assert_eq!(group_resource("/registry/events/d/a"), Some(("", "events")));
    assert_eq!(group_resource("/registry/example.com/widgets/d/a"), Some(("example.com", "widgets")));
    assert_eq!(group_resource("/registry/ranges/serviceips"), Some(("", "services")));
    assert_eq!(group_resource("/registry/others/serviceips"), None);
}

#[test]
fn custom_objects_lie_as_they_are() {
    let widget = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a"}, "any": {"b": [1.5]}});
    let bytes = stored::encode(&widget).unwrap();
    let key = "/registry/example.com/widgets/d/a";
    assert_eq!(Upstream.encode(key, bytes.clone()).unwrap(), bytes);
    assert_eq!(value(&round_trip(key, &widget)), widget);
}

fn definition(versions: Value) -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget", "singular": "widget",
        "listKind": "WidgetList"}, "conversion": {"strategy": "Webhook", "webhook": {"clientConfig": {"url": "https://x"},
        "conversionReviewVersions": ["v1"]}}, "versions": versions},
        "status": {"conditions": [], "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": ["v1"]}})
}

#[test]
fn definitions_lie_in_v1beta1_and_what_versions_share_stands_once() {
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let columns = json!([{"name": "n", "type": "string", "jsonPath": ".x"}]);
    let version = |name: &str, columns: &Value| {
        json!({"name": name, "served": true, "storage": name == "v1", "schema": schema,
            "additionalPrinterColumns": columns, "subresources": {"status": {}}})
    };
    let key = "/registry/apiextensions.k8s.io/customresourcedefinitions/widgets.example.com";
    let object = definition(json!([
        version("v1", &columns),
        version("v2", &json!([{"name": "n", "type": "string", "jsonPath": ".y"}]))
    ]));
    let at_rest = Upstream.encode(key, stored::encode(&object).unwrap()).unwrap();
    let at_rest: Value = serde_json::from_slice(&at_rest).unwrap();
    assert_eq!(at_rest["apiVersion"], "apiextensions.k8s.io/v1beta1");
    let spec = &at_rest["spec"];
    assert_eq!(
        (&spec["version"], &spec["validation"], &spec["subresources"]),
        (&json!("v1"), &schema, &json!({"status": {}}))
    );
    assert_eq!(
        spec["versions"][1],
        json!({"name": "v2", "served": true, "storage": false,
        "additionalPrinterColumns": [{"name": "n", "type": "string", "JSONPath": ".y"}]})
    );
    assert_eq!(
        spec["conversion"],
        json!({"strategy": "Webhook", "webhookClientConfig": {"url": "https://x"},
        "conversionReviewVersions": ["v1"]})
    );
    assert_eq!(spec["preserveUnknownFields"], false);
    let back = round_trip(key, &object);
    assert!(!back.stale);
    assert_eq!(value(&back)["spec"], object["spec"]);
}

#[test]
fn an_old_definition_that_says_nothing_keeps_unknown_fields() {
    let old = json!({"apiVersion": "apiextensions.k8s.io/v1beta1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"}, "spec": {"group": "example.com", "version": "v1",
        "names": {"plural": "widgets", "kind": "Widget"}}});
    let key = "/registry/apiextensions.k8s.io/customresourcedefinitions/widgets.example.com";
    let read =
        Upstream.decode(key, serde_json::to_vec(&old).unwrap().into()).map_err(|_| "unreadable").unwrap();
    let spec = &value(&read)["spec"];
    assert_eq!((&spec["preserveUnknownFields"], &spec["scope"]), (&json!(true), &json!("Namespaced")));
    assert_eq!(spec["versions"], json!([{"name": "v1", "served": true, "storage": true}]));
}

proptest! {
    #[test]
    fn junk_is_an_error_not_a_panic(bytes: Vec<u8>, magic: bool) {
        let bytes = if magic { [proto::MAGIC.as_slice(), &bytes].concat() } else { bytes };
        let _ = Upstream.decode("/registry/pods/d/a", bytes.into());
    }
}

#[test]
fn what_lies_in_another_form_than_is_set_is_read_and_called_stale() {
    let (key, json) = ("/registry/configmaps/a/b", Form { json: true });
    let value = stored::encode(
        &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b", "namespace": "a"}}),
    );
    let value = value.unwrap();
    let at_rest = json.encode(key, value.clone()).unwrap();
    assert_eq!(at_rest, value);
    let read =
        |form: Form, stored: &Bytes| form.decode(key, stored.clone()).map_err(|_| "unreadable").unwrap();
    let proto = Upstream.encode(key, value.clone()).unwrap();
    for (form, stored, stale) in [
        (json, &at_rest, false),
        (json, &proto, true),
        (Form::default(), &proto, false),
        (Form::default(), &at_rest, true),
    ] {
        let decoded = read(form, stored);
        assert_eq!((decoded.value.clone(), decoded.stale), (value.clone(), stale));
    }
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "x"}, "spec": {"group": "g", "scope": "Cluster", "names": {"plural": "xs", "kind": "X"}, "versions": []}});
    let key = "/registry/apiextensions.k8s.io/customresourcedefinitions/x";
    let value = stored::encode(&definition).unwrap();
    assert_eq!(
        json.encode(key, value.clone()).unwrap(),
        Upstream.encode(key, value).unwrap(),
        "JSON in any case"
    );
}
