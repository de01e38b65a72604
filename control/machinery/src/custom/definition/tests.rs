use super::*;
use crate::custom::Sketch;
use serde_json::json;

fn outline(crd: &Value) -> Outline {
    let sketch = Sketch::read(crd.to_string().as_bytes()).unwrap();
    Outline::of(&sketch, &sketch.crd).unwrap()
}

fn crd() -> Value {
    let names = json!({"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList", "shortNames": ["wd"]});
    let version = |name: &str, storage: bool, deprecated: bool| {
        json!({"name": name, "served": true, "storage": storage, "deprecated": deprecated,
            "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
            "selectableFields": [{"jsonPath": ".spec.color"}],
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "properties": {"color": {"type": "string", "default": "red"}}}}}}})
    };
    json!({"metadata": {"name": "widgets.acme.com", "uid": "u"},
        "spec": {"group": "acme.com", "scope": "Namespaced", "names": names,
            "versions": [version("v1beta1", false, true), version("v1", true, false)]},
        "status": {"acceptedNames": names, "conditions": [{"type": "Established", "status": "True"}]}})
}

#[test]
fn a_definition_is_read_whole() {
    let outline = outline(&crd());
    let definition = Definition::of(&outline, &crd());
    assert_eq!((definition.storage, outline.established, outline.terminating), ("v1", true, false));
    let [v1, beta] = definition.versions.as_slice() else { panic!("two versions") };
    assert_eq!((v1.name, v1.resource.key_prefix.as_str()), ("v1", "/registry/acme.com/widgets/"));
    assert_eq!(v1.resource.subresources.iter().map(|s| s.name).collect::<Vec<_>>(), ["status", "scale"]);
    assert!(v1.resource.selects_by("spec.color") && v1.resource.serves("create"));
    assert_eq!(
        beta.warning.as_deref(),
        Some("acme.com/v1beta1 Widget is deprecated; use acme.com/v1 Widget")
    );
    // The same definition again needs no more memory.
    let again = self::outline(&crd());
    assert!(std::ptr::eq(again.versions[0].resource, v1.resource));
    assert!(again.same_storage(&outline));
}

#[test]
fn objects_are_brought_to_their_schema() {
    let definition = Definition::of(&outline(&crd()), &crd());
    let version = definition.version("v1").unwrap();
    let mut object = json!({"apiVersion": "acme.com/v1", "kind": "Widget", "extra": 1,
        "metadata": {"name": "x", "nonsense": 1}, "spec": {"color": null, "size": 2}});
    let unknown = definition.coerce(version, &mut object, Origin::Sent).unwrap();
    assert_eq!(
        unknown,
        ["unknown field \"metadata.nonsense\"", "unknown field \"extra\"", "unknown field \"spec.size\""]
    );
    definition.default(version, &mut object);
    assert_eq!(object["spec"], json!({"color": "red"}));
    assert_eq!(object["metadata"], json!({"name": "x"}));
    let mut large = json!({"metadata": {}, "spec": {"color": [9_223_372_036_854_775_807_u64, 9_223_372_036_854_775_808_u64]}});
    definition.coerce(version, &mut large, Origin::Sent).unwrap();
    let numbers = large["spec"]["color"].as_array().unwrap();
    assert!(numbers[0].is_i64() && numbers[1].is_f64());
    let mut wrong = json!({"metadata": {"labels": "no"}});
    let error = definition.coerce(version, &mut wrong, Origin::Sent).unwrap_err();
    assert!(error.contains("ObjectMeta.labels of type map[string]string"), "{error}");
}
