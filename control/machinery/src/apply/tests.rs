use super::structure::Deduced;
use super::*;
use crate::schema::builtin;
use crate::schema::node::Builtin;
use proptest::prelude::*;
use serde_json::json;

mod model;
mod versions;

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

/// [`super::apply`] of a kind of one version.
fn apply<S: Structure>(
    structure: S,
    live: &Value,
    config: &Value,
    owners: &Managed,
    write: &Write<'_>,
) -> Result<Applied, Status> {
    super::apply(structure, live, config, owners, write, &()).map_err(refusal)
}

/// [`super::update`] of a kind of one version.
fn update<S: Structure>(
    structure: S,
    live: &Value,
    new: &Value,
    owners: &Managed,
    write: &Write<'_>,
) -> Managed {
    super::update(structure, live, new, owners, write, &()).unwrap()
}

fn refusal(halt: Halt) -> Status {
    match halt {
        Halt::Refused(status) => status,
        Halt::Wants { api_version, .. } => panic!("nobody says what it is in {api_version}"),
    }
}

/// An unforced write at [`NOW`] that resets nothing.
fn write(manager: &Manager) -> Write<'_> {
    static NOTHING: std::sync::LazyLock<Set> = std::sync::LazyLock::new(Set::default);
    Write { manager, now: NOW, force: false, reset: &NOTHING }
}

fn applied(
    live: &Value,
    config: &Value,
    owners: &Managed,
    name: &str,
    force: bool,
) -> Result<Applied, Status> {
    let manager = applier(name);
    apply(deployment(), live, config, owners, &Write { force, ..write(&manager) })
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
    let owners = update(deployment(), &first.object, &scaled, &first.managed, &write(&updater("hpa")));
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
        &Write { now: "2025-01-01T00:00:00Z", ..write(&applier("one")) },
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
    let owners = update(deployment(), &zero, &new, &Managed::default(), &write(&updater("kubectl")));
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
        json!([{"name": "x"}, {"name": "b", "image": "2"}, {"name": "y"}, {"name": "n"}])
    );
}

#[test]
fn without_a_schema_lists_are_atomic() {
    let live = json!({"spec": {"list": [1, 2], "map": {"a": 1}}});
    let config = json!({"spec": {"list": [3], "map": {"b": 2}}});
    let out = apply(Deduced, &live, &config, &Managed::default(), &write(&applier("me"))).unwrap();
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
            &Write {
                now: &format!("2024-01-{:02}T00:00:00Z", i + 1),
                ..write(&updater(&format!("m{i:02}")))
            },
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

#[test]
fn a_field_the_server_resets_must_not_be_owned_nor_lost() {
    let reset = Set::of_fields(&["status", "metadata.labels"]);
    let me = applier("me");
    let write = Write { reset: &reset, ..write(&me) };
    let mut config = config(Some(1), "i");
    config["status"] = json!({"replicas": 3});
    let out = apply(deployment(), &json!({}), &config, &Managed::default(), &write).unwrap();
    let fields = out.managed.get(&me).unwrap().fields.paths();
    assert!(fields.contains(&".spec.replicas".to_owned()), "{fields:?}");
    assert!(
        !fields.iter().any(|f| f.starts_with(".status") || f.starts_with(".metadata.labels")),
        "{fields:?}"
    );
    // An updater resets it as well: whoever wrote it where it may be written keeps it.
    let live = json!({"status": {"replicas": 3}});
    let owners = update(
        deployment(),
        &json!({}),
        &live,
        &Managed::default(),
        &Write { ..self::write(&updater("hpa")) },
    );
    let owners =
        update(deployment(), &live, &json!({}), &owners, &Write { manager: &updater("me"), ..write });
    assert_eq!(owners.entries().len(), 1);
    assert!(owners.entries()[0].fields.has(&["f:status", "f:replicas"]));
}

#[test]
fn one_key_twice_must_not_be_applied() {
    let twice = |containers: Value| json!({"spec": {"template": {"spec": {"containers": containers}}}});
    assert_eq!(
        untypable(deployment(), &twice(json!([{"name": "a"}, {"name": "b"}, {"name": "a"}]))),
        [".spec.template.spec.containers: duplicate entries for key [name=\"a\"]"]
    );
    // The default of a key counts as the key.
    let ports =
        json!([{"name": "a", "ports": [{"containerPort": 1}, {"containerPort": 1, "protocol": "TCP"}]}]);
    assert_eq!(
        untypable(deployment(), &twice(ports)),
        [
            ".spec.template.spec.containers[name=\"a\"].ports: duplicate entries for key [containerPort=1,protocol=\"TCP\"]"
        ]
    );
    assert_eq!(
        untypable(deployment(), &json!({"metadata": {"finalizers": ["x", "x"]}})),
        [".metadata.finalizers: duplicate entries for key [=\"x\"]"]
    );
    // The key Go always writes is empty where it is missing, and validation refuses that.
    assert!(untypable(deployment(), &twice(json!([{"image": "i"}]))).is_empty());
    assert_eq!(
        untypable(deployment(), &twice(json!([{"image": "i"}, {"image": "j"}]))),
        [".spec.template.spec.containers: duplicate entries for key [name=\"\"]"]
    );
    assert!(untypable(deployment(), &json!({"metadata": {"ownerReferences": [{"name": "x"}]}})).is_empty());
    assert!(untypable(deployment(), &config(None, "i")).is_empty());
}

#[test]
fn a_null_must_not_take_away_what_others_put_there() {
    let live = json!({"metadata": {"labels": {"a": "b"}, "finalizers": ["f"]},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": {"spec": {"containers": [{"name": "c"}]}}}});
    let nulls = json!({"metadata": {"labels": null, "finalizers": null},
        "spec": {"template": {"spec": {"containers": null}}}});
    let out = applied(&live, &nulls, &Managed::default(), "me", false).unwrap();
    assert_eq!(out.object, live);
    let template = applied(&live, &json!({"spec": {"template": null}}), &Managed::default(), "me", false);
    assert_eq!(template.unwrap().object, live);
    // What merges as a whole is replaced, and what was this manager's own goes.
    let whole = json!({"spec": {"replicas": null, "selector": null}});
    let out = applied(&live, &whole, &Managed::default(), "me", true).unwrap();
    assert_eq!(
        (&out.object["spec"]["replicas"], &out.object["spec"]["selector"]),
        (&Value::Null, &Value::Null)
    );
    let first = applied(&json!({}), &live, &Managed::default(), "me", false).unwrap();
    let again = applied(&first.object, &nulls, &first.managed, "me", false).unwrap();
    assert_eq!(again.object["metadata"]["labels"], json!({}));
}

#[test]
fn what_is_a_schema_or_something_else_must_not_be_asked_for_its_keys() {
    let definition = Builtin::new(
        builtin(),
        builtin().named("apiextensions.k8s.io/v1", "CustomResourceDefinition").unwrap(),
    );
    let of = |schema: Value| json!({"spec": {"versions": [{"schema": {"openAPIV3Schema": schema}}]}});
    let twice = json!({"x-kubernetes-validations": [{"rule": "true"}, {"rule": "true"}]});
    for schema in [
        json!({"properties": {"list": {"items": twice}}}),
        json!({"properties": {"map": {"additionalProperties": twice}}}),
        json!({"items": {"properties": {"a": twice}}}),
    ] {
        assert!(untypable(definition, &of(schema.clone())).is_empty(), "{schema}");
    }
    let errors = untypable(definition, &of(json!({"properties": {"a": twice}})));
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(
        errors[0].ends_with("x-kubernetes-validations: duplicate entries for key [rule=\"true\"]"),
        "{errors:?}"
    );
}

#[test]
fn a_stored_list_with_one_key_twice_must_not_lose_its_other_items() {
    let env =
        |list: Value| json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "env": list}]}}}});
    let live =
        env(json!([{"name": "x", "value": "1"}, {"name": "x", "value": "2"}, {"name": "y", "value": "3"}]));
    let out =
        applied(&live, &env(json!([{"name": "z", "value": "4"}])), &Managed::default(), "me", false).unwrap();
    let names = |object: &Value| -> Vec<Value> {
        let list = object["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap();
        list.iter().map(|e| e["value"].clone()).collect()
    };
    assert_eq!(names(&out.object), ["1", "2", "3", "4"]);
    let one =
        applied(&live, &env(json!([{"name": "x", "value": "5"}])), &Managed::default(), "me", false).unwrap();
    assert_eq!(names(&one.object), ["5", "3"]);
}

#[test]
fn who_comes_to_own_what_is_there_must_not_be_noted_as_changing_it() {
    let first = applied(&json!({}), &config(Some(1), "i"), &Managed::default(), "one", false).unwrap();
    let later = |manager: &Manager, config: &Value| {
        let write = Write { now: "2025-01-01T00:00:00Z", ..write(manager) };
        apply(deployment(), &first.object, config, &first.managed, &write).unwrap()
    };
    let time = |applied: &Applied, name: &str| applied.managed.get(&applier(name)).unwrap().time.clone();
    let same = later(&applier("two"), &config(Some(1), "i"));
    assert!(same.changed && same.object == first.object);
    assert_eq!((time(&same, "one").as_str(), time(&same, "two").as_str()), (NOW, ""));
    // One who gives a field up that another could still hold changes the object, and is noted.
    let less = later(&applier("one"), &config(None, "i"));
    assert_eq!(time(&less, "one"), "2025-01-01T00:00:00Z");
}

#[test]
fn what_kubectl_applied_on_its_side_must_not_conflict_with_kubectl() {
    let last = config(Some(1), "i");
    let mut live = last.clone();
    live["metadata"]["annotations"] = json!({ LAST_APPLIED: last.to_string() });
    let client_side = updater("kubectl-client-side-apply");
    let owners = update(deployment(), &json!({}), &live, &Managed::default(), &write(&client_side));
    let next = config(Some(2), "i");
    let taken = applied(&live, &next, &owners, "kubectl", false).unwrap();
    assert_eq!(taken.object["spec"]["replicas"], 2);
    assert_eq!(taken.object["metadata"]["annotations"][LAST_APPLIED], format!("{next}\n"));
    assert_eq!(applied(&live, &next, &owners, "another", false).unwrap_err().code, 409);
    // What somebody else changed since is theirs.
    let mut scaled = live.clone();
    scaled["spec"]["replicas"] = 5.into();
    let theirs = update(deployment(), &live, &scaled, &owners, &write(&updater("hpa")));
    assert_eq!(
        applied(&scaled, &next, &theirs, "kubectl", false).unwrap_err().message,
        "Apply failed with 1 conflict: conflict with \"hpa\" using apps/v1: .spec.replicas"
    );
    // A configuration of another version says nothing of this one.
    let mut other = live.clone();
    other["metadata"]["annotations"][LAST_APPLIED] =
        last.to_string().replace("apps/v1", "apps/v1beta1").into();
    assert_eq!(applied(&other, &next, &owners, "kubectl", false).unwrap_err().code, 409);
}

#[test]
fn an_empty_list_of_items_must_not_be_owned() {
    let ports = |ports: Value| json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "ports": ports}]}}}});
    let item = ".spec.template.spec.containers[name=\"c\"]";
    let owned = |config: &Value| field_set(deployment(), config).paths();
    assert_eq!(owned(&ports(json!([]))), [item.to_owned(), format!("{item}.name")]);
    assert_eq!(
        owned(&ports(Value::Null)),
        [item.to_owned(), format!("{item}.name"), format!("{item}.ports")]
    );
    let whole =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "args": [], "resources": {}}]}}}});
    assert_eq!(
        owned(&whole),
        [item.to_owned(), format!("{item}.args"), format!("{item}.name"), format!("{item}.resources")]
    );
}

#[test]
fn a_field_nobody_declared_must_be_named_where_it_stands() {
    let containers = |container: Value| json!({"spec": {"template": {"spec": {"containers": [container]}}}});
    for (container, want) in [
        (json!({"name": "c", "odd": 1}), ".spec.template.spec.containers[name=\"c\"].odd"),
        (
            json!({"name": "c", "envFrom": [{}, {"secretRef": {"odd": 1}}]}),
            ".spec.template.spec.containers[name=\"c\"].envFrom[1].secretRef.odd",
        ),
        (
            json!({"name": "c", "resources": {"limits": {"any": 1}, "odd": 1}}),
            ".spec.template.spec.containers[name=\"c\"].resources.odd",
        ),
    ] {
        let want = format!("{want}: field not declared in schema");
        assert_eq!(untypable(deployment(), &containers(container)), [want]);
    }
}

#[test]
fn a_value_of_another_type_must_not_be_applied() {
    let container = |field: &str, value: Value| {
        let container = json!({"name": "c", field: value});
        untypable(deployment(), &json!({"spec": {"template": {"spec": {"containers": [container]}}}}))
    };
    let at = ".spec.template.spec.containers[name=\"c\"]";
    for (field, value, why) in [
        ("image", json!(1), "image: expected string, got &value.valueUnstructured{Value:1}"),
        (
            "image",
            json!({"a": ["b"]}),
            "image: expected string, got &value.valueUnstructured{Value:map[string]interface {}{\"a\":[]interface {}{\"b\"}}}",
        ),
        ("tty", json!("yes"), "tty: expected boolean, got &{yes}"),
        ("args", json!("a"), "args: expected list, got &{a}"),
        ("resources", json!([1]), "resources: expected map, got &{[1]}"),
        (
            "ports",
            json!([{"containerPort": "80"}]),
            "ports[containerPort=\"80\",protocol=\"TCP\"].containerPort: expected numeric (int or float), got string",
        ),
        (
            "resources",
            json!({"limits": {"cpu": {}}}),
            "resources.limits.cpu: expected any scalar, got &{map[]}",
        ),
    ] {
        assert_eq!(container(field, value), [format!("{at}.{why}")]);
    }
    for fine in [json!({"limits": {"cpu": 0.5, "memory": "1Gi"}}), Value::Null] {
        assert_eq!(container("resources", fine), [""; 0]);
    }
}

#[test]
fn owners_are_compared_without_their_times() {
    let first =
        applied(&json!({}), &config(Some(1), "i"), &Managed::default(), "one", false).unwrap().managed;
    let mut later = first.clone();
    later.put(applier("one"), first.entries()[0].fields.clone(), Some("2030-01-01T00:00:00Z"));
    assert!(first.same_but_times(&later) && first != later);
    later.put(applier("two"), Set::of_fields(&["spec.replicas"]), None);
    assert!(!first.same_but_times(&later));
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
