use super::structure::{Builtin, Deduced};
use super::*;
use crate::schema::builtin;
use proptest::prelude::*;
use serde_json::json;

const NOW: &str = "2024-01-01T00:00:00Z";

fn applier(name: &str) -> Manager {
    Manager { name: name.into(), applies: true, api_version: "apps/v1".into(), subresource: String::new() }
}

fn updater(name: &str) -> Manager {
    Manager { applies: false, ..applier(name) }
}

fn deployment() -> Builtin<'static> {
    Builtin::new(builtin(), builtin().named("apps/v1", "Deployment").unwrap())
}

fn config(replicas: Option<i32>, image: &str) -> Value {
    let mut out = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": {"a": "b"}},
        "spec": {"template": {"spec": {"containers": [{"name": "c", "image": image, "ports": [{"containerPort": 80}]}]}}}});
    if let Some(replicas) = replicas {
        out["spec"]["replicas"] = replicas.into();
    }
    out
}

fn applied(
    live: &Value,
    config: &Value,
    owners: &Managed,
    name: &str,
    force: bool,
) -> Result<Applied, Status> {
    apply(deployment(), live, config, owners, &applier(name), NOW, force)
}

#[test]
fn an_apply_owns_what_it_says() {
    let out = applied(&json!({}), &config(Some(1), "i"), &Managed::default(), "me", false).unwrap();
    assert_eq!(
        out.managed.to_value(),
        json!([{"manager": "me", "operation": "Apply", "apiVersion": "apps/v1", "time": NOW, "fieldsType": "FieldsV1",
        "fieldsV1": {
            "f:metadata": {"f:labels": {"f:a": {}}},
            "f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {
                ".": {}, "f:image": {}, "f:name": {},
                "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
            }}}}},
        }}])
    );
    assert_eq!(Managed::from_value(&out.managed.to_value()), Some(out.managed));
}

#[test]
fn other_owners_conflict_by_value_only() {
    let first = applied(&json!({}), &config(Some(1), "i"), &Managed::default(), "one", false).unwrap();
    let same = applied(&first.object, &config(Some(1), "i"), &first.managed, "two", false).unwrap();
    assert_eq!(same.managed.entries().len(), 2);
    let status = applied(&first.object, &config(Some(2), "i"), &first.managed, "two", false).unwrap_err();
    assert_eq!(status.code, 409);
    assert_eq!(status.message, "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas");
    let both = applied(&first.object, &config(Some(2), "j"), &first.managed, "two", false).unwrap_err();
    assert_eq!(
        both.message,
        "Apply failed with 2 conflicts: conflicts with \"one\":\n- .spec.replicas\n- \
         .spec.template.spec.containers[name=\"c\"].image"
    );
    let forced = applied(&first.object, &config(Some(2), "i"), &first.managed, "two", true).unwrap();
    assert!(!forced.managed.get(&applier("one")).unwrap().fields.has(&["f:spec", "f:replicas"]));
    assert_eq!(forced.object["spec"]["replicas"], 2);
}

#[test]
fn what_is_no_longer_applied_goes_unless_somebody_else_owns_it() {
    let first = applied(&json!({}), &config(Some(1), "i"), &Managed::default(), "one", false).unwrap();
    let gone = applied(&first.object, &config(None, "i"), &first.managed, "one", false).unwrap();
    assert_eq!(gone.object["spec"].get("replicas"), None);
    let mut scaled = first.object.clone();
    scaled["spec"]["replicas"] = 5.into();
    let owners = update(deployment(), &first.object, &scaled, &first.managed, &updater("hpa"), NOW);
    assert!(!owners.get(&applier("one")).unwrap().fields.has(&["f:spec", "f:replicas"]));
    let kept = applied(&scaled, &config(None, "i"), &owners, "one", false).unwrap();
    assert_eq!(kept.object["spec"]["replicas"], 5);
    let status = applied(&scaled, &config(Some(1), "i"), &owners, "one", false).unwrap_err();
    assert_eq!(
        status.message,
        "Apply failed with 1 conflict: conflict with \"hpa\" using apps/v1: .spec.replicas"
    );
}

#[test]
fn the_same_apply_again_changes_nothing() {
    let first = applied(&json!({}), &config(Some(1), "i"), &Managed::default(), "one", false).unwrap();
    let again = apply(
        deployment(),
        &first.object,
        &config(Some(1), "i"),
        &first.managed,
        &applier("one"),
        "2025-01-01T00:00:00Z",
        false,
    )
    .unwrap();
    assert!(!again.changed);
    assert_eq!((again.object, again.managed), (first.object, first.managed));
}

#[test]
fn a_create_owns_containers_it_adds() {
    let id = builtin().named("apps/v1", "Deployment").unwrap();
    let zero = builtin().normalize(id, json!({})).unwrap().value;
    let new = builtin().normalize(id, config(Some(1), "i")).unwrap().value;
    let owners = update(deployment(), &zero, &new, &Managed::default(), &updater("kubectl"), NOW);
    let fields = &owners.entries()[0].fields;
    assert!(fields.has(&["f:metadata", "f:labels"]) && fields.has(&["f:metadata", "f:labels", "f:a"]));
    assert!(
        !fields.has(&["f:spec"]) && !fields.has(&["f:metadata", "f:name"]) && !fields.has(&["f:metadata"])
    );
    assert!(fields.has(&["f:spec", "f:template", "f:spec", "f:containers", "k:{\"name\":\"c\"}", "f:image"]));
}

#[test]
fn lists_merge_by_key_in_the_configurations_order() {
    let live = json!({"spec": {"template": {"spec": {"containers": [{"name": "x"}, {"name": "b", "image": "1"}, {"name": "y"}]}}}});
    let config =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "b", "image": "2"}, {"name": "n"}]}}}});
    let out = applied(&live, &config, &Managed::default(), "me", false).unwrap();
    assert_eq!(
        out.object["spec"]["template"]["spec"]["containers"],
        json!([{"name": "x"}, {"name": "b", "image": "2"}, {"name": "n"}, {"name": "y"}])
    );
}

#[test]
fn without_a_schema_lists_are_atomic() {
    let live = json!({"spec": {"list": [1, 2], "map": {"a": 1}}});
    let config = json!({"spec": {"list": [3], "map": {"b": 2}}});
    let out = apply(Deduced, &live, &config, &Managed::default(), &applier("me"), NOW, false).unwrap();
    assert_eq!(out.object, json!({"spec": {"list": [3], "map": {"a": 1, "b": 2}}}));
    assert_eq!(field_set(Deduced, &config).paths(), [".spec", ".spec.list", ".spec.map", ".spec.map.b"]);
}

#[test]
fn old_updaters_are_joined() {
    let mut owners = Managed::default();
    let mut live = json!({"metadata": {"labels": {}}});
    for i in 0..14 {
        let mut new = live.clone();
        new["metadata"]["labels"][format!("l{i:02}")] = "x".into();
        owners = update(
            deployment(),
            &live,
            &new,
            &owners,
            &updater(&format!("m{i:02}")),
            &format!("2024-01-{:02}T00:00:00Z", i + 1),
        );
        live = new;
    }
    assert_eq!(owners.entries().len(), managed::MAX_UPDATE_MANAGERS);
    let ancient = owners.entries().iter().find(|e| e.manager.name == "ancient-changes").unwrap();
    assert!(ancient.fields.has(&["f:metadata", "f:labels", "f:l00"]));
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![Just(Value::Null), Just(json!(1)), "[ab]".prop_map(Value::from)];
    let names = proptest::sample::select(vec![
        "metadata",
        "spec",
        "template",
        "containers",
        "name",
        "labels",
        "finalizers",
        "ports",
        "containerPort",
        "replicas",
    ]);
    leaf.prop_recursive(7, 64, 5, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::btree_map(names.clone().prop_map(str::to_owned), inner, 0..5)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn applying_twice_is_applying_once(live in values(), config in values()) {
        let once = applied(&live, &config, &Managed::default(), "me", true).unwrap();
        let twice = applied(&once.object, &config, &once.managed, "me", false).unwrap();
        prop_assert_eq!(&twice.object, &once.object);
        prop_assert!(!twice.changed);
    }

    #[test]
    fn a_set_survives_its_encoding(value in values()) {
        let set = field_set(deployment(), &value);
        prop_assert_eq!(Set::from_value(&set.to_value()), set);
    }
}
