use super::*;
use proptest::prelude::*;
use serde_json::json;
use std::time::Instant;

fn pod() -> TypeId {
    builtin().named("v1", "Pod").unwrap()
}

fn normal(value: Value) -> Value {
    builtin().normalize(pod(), value).unwrap().value
}

#[test]
fn structures_are_atomic_in_the_versions_that_say_so() {
    let atomic = |package: &str, name: &str| {
        let found = builtin().types().find(|(_, t)| t.package.ends_with(package) && t.name == name);
        found.map(|(_, t)| t.is_atomic)
    };
    for (package, name, expected) in [
        ("autoscaling.v1", "CrossVersionObjectReference", true),
        ("autoscaling.v2", "CrossVersionObjectReference", false),
        ("admissionregistration.v1", "Variable", true),
        ("admissionregistration.v1beta1", "Variable", true),
        ("admissionregistration.v1alpha1", "Variable", false),
        ("core.v1", "ObjectReference", true),
    ] {
        assert_eq!(atomic(package, name).unwrap_or_default(), expected, "{package} {name}");
    }
    assert_eq!(atomic("autoscaling.v2", "CrossVersionObjectReference"), Some(false));
}

#[test]
fn the_table_is_complete() {
    let schema = builtin();
    let unresolved: Vec<String> = schema
        .types()
        .flat_map(|(_, t)| t.fields.iter().map(move |f| (t, f)))
        .filter(|(_, f)| {
            let mut shape = &f.shape;
            while let Shape::List(inner) | Shape::Map(inner) = shape {
                shape = inner;
            }
            *shape == Shape::Any && !f.go_type.ends_with("interface{}")
        })
        .map(|(t, f)| format!("{}.{}.{} {}", t.package, t.name, f.name, f.go_type))
        .collect();
    assert!(unresolved.is_empty(), "{unresolved:#?}");
    assert!(schema.len() > 700, "{}", schema.len());
}

#[test]
fn parsing_takes_milliseconds() {
    let start = Instant::now();
    let schema = parse::table(include_str!("../../data/fields.txt"));
    let elapsed = start.elapsed();
    let fields: usize = schema.types().map(|(_, t)| t.fields.len()).sum();
    let bytes = fields * size_of::<Field>() + schema.len() * size_of::<Type>();
    println!("{} types, {fields} fields parsed in {elapsed:?}, about {} KiB", schema.len(), bytes / 1024);
    assert!(bytes < 1 << 20, "the table is meant to be small: {bytes} bytes");
}

#[test]
fn kinds_are_found_by_version() {
    let schema = builtin();
    for (api_version, kind) in [
        ("v1", "Pod"),
        ("v1", "PodList"),
        ("v1", "Status"),
        ("v1", "DeleteOptions"),
        ("apps/v1", "DeleteOptions"),
        ("v1", "WatchEvent"),
        ("meta.k8s.io/v1", "Table"),
        ("meta.k8s.io/v1", "PartialObjectMetadata"),
        ("autoscaling/v1", "Scale"),
        ("policy/v1", "Eviction"),
        ("v1", "List"),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
        ("apiregistration.k8s.io/v1", "APIService"),
        ("metrics.k8s.io/v1beta1", "NodeMetrics"),
    ] {
        assert!(schema.named(api_version, kind).is_some(), "{api_version} {kind}");
    }
    assert_eq!(schema.named("v1", "Nonsense"), None);
    assert_eq!(schema.named("example.com/v1", "Pod"), None);
}

#[test]
fn inlined_fields_are_the_parents() {
    let schema = builtin();
    let volume = schema.types().find(|(_, t)| t.name == "Volume").map(|(id, _)| id).unwrap();
    assert!(schema.field(volume, "emptyDir").is_some());
    assert!(schema.field(volume, "volumeSource").is_none());
    let containers =
        schema.field(schema.field(pod(), "spec").unwrap().struct_type().unwrap(), "containers").unwrap();
    assert_eq!(containers.patch.merge_key, Some("name"));
    assert_eq!(containers.list, Some(ListType::Map(["name"].into())));
}

#[test]
fn the_canonical_form_is_gos() {
    assert_eq!(
        normal(json!({
            "kind": "Pod", "apiVersion": "v1",
            "metadata": {"name": "a", "labels": {}, "creationTimestamp": null, "annotations": null},
            "spec": {
                "hostNetwork": false, "terminationGracePeriodSeconds": 0, "nodeName": "", "volumes": [],
                "containers": [{"name": "c", "resources": {"limits": {"cpu": 1, "memory": "1024Ki"}},
                                "env": [{"name": "x", "value": ""}], "securityContext": {}}],
            },
        })),
        json!({
            "kind": "Pod", "apiVersion": "v1",
            "metadata": {"name": "a"},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "c", "resources": {"limits": {"cpu": "1", "memory": "1Mi"}},
                                "env": [{"name": "x"}], "securityContext": {}}],
            },
            "status": {},
        })
    );
    assert_eq!(
        normal(json!({"spec": {}})),
        json!({"metadata": {}, "spec": {"containers": null}, "status": {}})
    );
}

#[test]
fn a_null_in_a_map_or_a_list_must_not_be_stored_as_null() {
    let of = |kind: &str, object: Value| {
        let id = builtin().named("v1", kind).unwrap();
        builtin().normalize(id, object).unwrap().value
    };
    assert_eq!(
        of("Secret", json!({"data": {"a": null, "b": "Yg=="}}))["data"],
        json!({"a": "", "b": "Yg=="})
    );
    assert_eq!(of("ConfigMap", json!({"binaryData": {"a": null}}))["binaryData"], json!({"a": ""}));
    assert_eq!(of("ConfigMap", json!({"data": {"a": null}}))["data"], json!({"a": ""}));
    let pod = json!({"spec": {"containers": [{"name": "c", "args": [null, "x"]}]}});
    assert_eq!(of("Pod", pod)["spec"]["containers"][0]["args"], json!(["", "x"]));
}

#[test]
fn unknown_fields_are_named_and_dropped() {
    let object = json!({"spec": {"containers": [{"name": "a"}, {"name": "b", "foo": 1}], "bar": {}}, "baz": 2,
        "metadata": {"labels": {"any": "thing"}}});
    let normalized = builtin().normalize(pod(), object.clone()).unwrap();
    let mut unknown = normalized.unknown;
    unknown.sort();
    let expected =
        ["unknown field \"baz\"", "unknown field \"spec.bar\"", "unknown field \"spec.containers[1].foo\""];
    assert_eq!(unknown, expected);
    let mut pruned = object;
    let mut names = builtin().prune(pod(), &mut pruned);
    names.sort();
    assert_eq!(names, expected);
    assert_eq!(
        pruned,
        json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}, "metadata": {"labels": {"any": "thing"}}})
    );
}

#[test]
fn type_errors_are_gos() {
    let error = |value: Value| builtin().normalize(pod(), value).unwrap_err().to_string();
    assert_eq!(
        error(json!({"spec": {"containers": [{"name": "a", "image": {}}]}})),
        "json: cannot unmarshal object into Go struct field Container.spec.containers.image of type string"
    );
    assert_eq!(
        error(json!({"spec": {"containers": "x"}})),
        "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type []v1.Container"
    );
    assert_eq!(
        error(json!({"spec": {"restartPolicy": true}})),
        "json: cannot unmarshal bool into Go struct field PodSpec.spec.restartPolicy of type v1.RestartPolicy"
    );
    assert_eq!(
        error(json!({"metadata": {"labels": {"a": 1}}})),
        "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string"
    );
    assert_eq!(
        error(json!({"spec": {"priority": 1.5}})),
        "json: cannot unmarshal number 1.5 into Go struct field PodSpec.spec.priority of type int32"
    );
    assert_eq!(
        error(json!({"spec": {"priority": 3_000_000_000_i64}})),
        "json: cannot unmarshal number 3000000000 into Go struct field PodSpec.spec.priority of type int32"
    );
    assert_eq!(error(json!([])), "json: cannot unmarshal array into Go value of type v1.Pod");
    assert_eq!(
        error(json!({"spec": {"overhead": {"cpu": "x"}}})),
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    );
}

fn json_values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z0-9.:-]{0,6}".prop_map(Value::from),
    ];
    let names = prop_oneof![
        Just("metadata"),
        Just("spec"),
        Just("status"),
        Just("containers"),
        Just("name"),
        Just("labels"),
        Just("volumes"),
        Just("conditions"),
        Just("resources"),
        Just("limits"),
        Just("cpu"),
        Just("emptyDir"),
        Just("creationTimestamp"),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(names.clone().prop_map(str::to_owned), inner, 0..5)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn the_canonical_form_is_a_fixed_point_and_never_panics(value in json_values()) {
        if let Ok(once) = builtin().normalize(pod(), value) {
            let twice = builtin().normalize(pod(), once.value.clone()).unwrap();
            prop_assert_eq!(&twice.value, &once.value);
            prop_assert!(twice.unknown.is_empty());
            let bytes = crate::codec::proto::encode_as(builtin(), pod(), &once.value);
            prop_assert!(bytes.is_ok(), "{:?}", bytes);
        }
    }
}

#[test]
fn an_enumeration_is_found_behind_lists_maps_and_other_packages() {
    let values = |api: &str, kind: &str, path: &[&str]| -> Vec<&str> {
        let mut id = builtin().named(api, kind).unwrap();
        let (last, above) = path.split_last().unwrap();
        for name in above {
            id = builtin().field(id, name).and_then(Field::struct_type).unwrap();
        }
        let constraints = builtin().field(id, last).unwrap().constraints.as_ref();
        constraints.map(|constraints| constraints.values().collect()).unwrap_or_default()
    };
    assert_eq!(values("v1", "Pod", &["spec", "restartPolicy"]), ["Always", "OnFailure", "Never"]);
    assert_eq!(
        values("networking.k8s.io/v1", "NetworkPolicy", &["spec", "policyTypes"]),
        ["Ingress", "Egress"]
    );
    assert_eq!(values("v1", "PersistentVolumeClaim", &["status", "allocatedResourceStatuses"]).len(), 5);
    let policy = "admissionregistration.k8s.io/v1beta1";
    assert_eq!(
        values(policy, "MutatingAdmissionPolicy", &["spec", "reinvocationPolicy"]),
        ["Never", "IfNeeded"]
    );
    assert_eq!(values("v1", "Pod", &["spec", "schedulerName"]), [""; 0]);
}

#[test]
fn bytes_that_are_null_must_not_stay_null() {
    for (kind, field) in [("Secret", "data"), ("ConfigMap", "binaryData")] {
        let id = builtin().named("v1", kind).unwrap();
        let kept = |bytes: Value| {
            let object = Value::Object([(field.to_owned(), bytes)].into_iter().collect());
            builtin().normalize(id, object).unwrap().value[field].clone()
        };
        assert_eq!(kept(json!({"a": null, "b": "aGk="})), json!({"a": "", "b": "aGk="}), "{kind}");
        assert_eq!(kept(Value::Null), Value::Null, "{kind}");
    }
}
