use super::*;
use crate::schema::builtin;
use proptest::prelude::*;
use serde_json::json;

fn merged(api_version: &str, kind: &str, object: Value, patch: Value) -> Result<Value, Error> {
    let id = builtin().named(api_version, kind).unwrap();
    let Value::Object(patch) = patch else { panic!("a patch is an object") };
    merge(builtin(), id, object, patch)
}

fn pod(object: Value, patch: Value) -> Result<Value, Error> {
    merged("v1", "Pod", object, patch)
}

fn containers(names: &[&str]) -> Value {
    json!({"spec": {"containers": names.iter().map(|n| json!({"name": n, "image": "i"})).collect::<Vec<_>>()}})
}

fn names(object: &Value) -> Vec<&str> {
    object["spec"]["containers"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect()
}

#[test]
fn maps_merge_and_nulls_delete() {
    let object = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"nodeSelector": {"x": "y"}}});
    let patch = json!({"metadata": {"labels": {"a": null, "c": "3", "z": null}}, "spec": {"nodeSelector": {"n": "m"}}});
    assert_eq!(
        pod(object, patch).unwrap(),
        json!({"metadata": {"labels": {"b": "2", "c": "3"}}, "spec": {"nodeSelector": {"x": "y", "n": "m"}}})
    );
}

#[test]
fn lists_of_objects_merge_by_key() {
    let object = json!({"spec": {"containers": [
        {"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}], "ports": [{"containerPort": 80}]},
        {"name": "b", "image": "1"},
    ]}});
    let patch = json!({"spec": {"containers": [
        {"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}], "ports": [{"containerPort": 80, "name": "http"}]},
        {"name": "c", "image": "3"},
    ]}});
    let out = pod(object, patch).unwrap();
    let a = out["spec"]["containers"].as_array().unwrap().iter().find(|c| c["name"] == "a").unwrap();
    assert_eq!(
        *a,
        json!({"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}],
               "ports": [{"containerPort": 80, "name": "http"}]})
    );
    assert_eq!(names(&out), ["a", "c", "b"]);
}

#[test]
fn lists_without_a_strategy_are_replaced() {
    let object = json!({"spec": {"tolerations": [{"key": "a"}], "containers": [{"name": "a", "command": ["x", "y"]}]}});
    let patch =
        json!({"spec": {"tolerations": [{"key": "b"}], "containers": [{"name": "a", "command": ["z"]}]}});
    assert_eq!(
        pod(object, patch).unwrap(),
        json!({"spec": {"tolerations": [{"key": "b"}], "containers": [{"name": "a", "command": ["z"]}]}})
    );
}

#[test]
fn items_and_maps_take_directives() {
    let delete = json!({"spec": {"containers": [{"name": "b", "$patch": "delete"}]}});
    assert_eq!(names(&pod(containers(&["a", "b", "c"]), delete).unwrap()), ["a", "c"]);
    let replace = json!({"spec": {"containers": [{"name": "x"}, {"$patch": "replace"}]}});
    assert_eq!(names(&pod(containers(&["a", "b"]), replace).unwrap()), ["x"]);
    let object = json!({"metadata": {"labels": {"a": "1"}, "annotations": {"a": "1"}}});
    let patch =
        json!({"metadata": {"labels": {"$patch": "replace", "b": "2"}, "annotations": {"$patch": "delete"}}});
    assert_eq!(pod(object, patch).unwrap(), json!({"metadata": {"labels": {"b": "2"}, "annotations": {}}}));
}

#[test]
fn set_element_order_rules() {
    let object = containers(&["a", "b", "c", "d"]);
    let patch = json!({"spec": {"$setElementOrder/containers": [{"name": "d"}, {"name": "a"}]}});
    // b and c stood before d on the server, so they stay before it.
    assert_eq!(names(&pod(object.clone(), patch).unwrap()), ["b", "c", "d", "a"]);
    let added = json!({"spec": {
        "$setElementOrder/containers": [{"name": "n"}, {"name": "a"}, {"name": "b"}, {"name": "c"}, {"name": "d"}],
        "containers": [{"name": "n", "image": "i"}],
    }});
    assert_eq!(names(&pod(object.clone(), added).unwrap()), ["n", "a", "b", "c", "d"]);
    let wrong =
        json!({"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "n"}]}});
    assert_eq!(
        pod(object, wrong).unwrap_err().to_string(),
        "The order in patch list:\n[map[name:n]]\n doesn't match $setElementOrder list:\n[map[name:a]]\n"
    );
}

#[test]
fn scalars_merge_and_are_deleted_by_value() {
    let object = json!({"metadata": {"finalizers": ["a", "b", "c"]}});
    let add = json!({"metadata": {"finalizers": ["d", "a"]}});
    assert_eq!(pod(object.clone(), add).unwrap()["metadata"]["finalizers"], json!(["d", "a", "b", "c"]));
    let delete = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["b"],
        "$setElementOrder/finalizers": ["a", "c"]}});
    assert_eq!(pod(object, delete).unwrap()["metadata"]["finalizers"], json!(["a", "c"]));
    let nothing = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["b"]}});
    assert_eq!(pod(json!({"metadata": {}}), nothing).unwrap(), json!({"metadata": {}}));
}

#[test]
fn retain_keys_drops_the_union_s_other_arms() {
    let object = json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}});
    let patch = json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "configMap"], "configMap": {"name": "c"}}]}});
    assert_eq!(
        pod(object, patch).unwrap(),
        json!({"spec": {"volumes": [{"name": "v", "configMap": {"name": "c"}}]}})
    );
    let deployment =
        json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let recreate = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    assert_eq!(
        merged("apps/v1", "Deployment", deployment.clone(), recreate).unwrap(),
        json!({"spec": {"strategy": {"type": "Recreate"}}})
    );
    let stray = json!({"spec": {"strategy": {"$retainKeys": ["type"], "rollingUpdate": {}}}});
    assert_eq!(merged("apps/v1", "Deployment", deployment, stray), Err(Error::RetainKeys));
}

#[test]
fn what_is_new_loses_nulls_and_directives() {
    let patch = json!({"spec": {"$setElementOrder/containers": [{"name": "a"}],
        "containers": [{"name": "a", "image": null, "$setElementOrder/env": [], "env": [{"name": "x", "$patch": "delete"}]}],
        "securityContext": {"runAsUser": null, "$retainKeys": ["runAsGroup"], "runAsGroup": 1}}});
    assert_eq!(
        pod(json!({}), patch).unwrap(),
        json!({"spec": {"containers": [{"name": "a", "env": []}], "securityContext": {"runAsGroup": 1}}})
    );
}

#[test]
fn errors_read_and_answer_as_upstream() {
    let keyless = pod(containers(&["a"]), json!({"spec": {"containers": [{"image": "i"}]}})).unwrap_err();
    assert_eq!(keyless.to_string(), "map: map[image:i] does not contain declared merge key: name");
    assert_eq!(keyless.status().code, 500);
    let directive = pod(json!({}), json!({"$patch": "x"})).unwrap_err();
    assert_eq!(directive.to_string(), "unknown patch type: x in map: map[$patch:x]");
    let mut object = containers(&["a"]);
    let id = builtin().named("v1", "Pod").unwrap();
    assert_eq!(apply(builtin(), id, &mut object, b"[]").unwrap_err().code, 400);
    assert_eq!(apply(builtin(), id, &mut object, br#"{"spec":{"containers":[[]]}}"#).unwrap_err().code, 422);
    assert_eq!(object, containers(&["a"]));
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        Just(json!(1)),
        "[a-c]".prop_map(Value::from),
        Just(json!("delete")),
        Just(json!("replace"))
    ];
    let names = proptest::sample::select(vec![
        "metadata",
        "spec",
        "containers",
        "name",
        "finalizers",
        "volumes",
        "labels",
        "$patch",
        "$retainKeys",
        "$setElementOrder/containers",
        "$deleteFromPrimitiveList/finalizers",
        "env",
    ]);
    leaf.prop_recursive(6, 48, 5, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(names.clone().prop_map(str::to_owned), inner, 0..5)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_patch_panics(object in values(), patch in values()) {
        let id = builtin().named("v1", "Pod").unwrap();
        if let Value::Object(patch) = patch {
            let _ = merge(builtin(), id, object, patch);
        }
    }

    #[test]
    fn an_object_patched_with_itself_is_itself(wanted in proptest::sample::subsequence(vec!["a", "b", "c", "d"], 0..4)) {
        let object = containers(&wanted);
        prop_assert_eq!(pod(object.clone(), object.clone()).unwrap(), object);
    }
}
