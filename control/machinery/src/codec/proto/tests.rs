use super::*;
use crate::schema::builtin;
use proptest::prelude::*;
use serde_json::json;
use std::path::PathBuf;

/// Golden objects lie beside the repository, where they exist at all.
fn golden() -> Vec<(Gvk, Value, Vec<u8>)> {
    let folder =
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/kubernetes-1.36/golden"));
    let Ok(entries) = std::fs::read_dir(&folder) else {
        println!("skipped: no golden objects at ../shared/kubernetes-1.36/golden");
        return Vec::new();
    };
    let names = entries.filter_map(|e| e.ok()?.file_name().into_string().ok());
    let mut out = Vec::new();
    for name in names.filter_map(|n| n.strip_suffix(".json").map(str::to_owned)) {
        let (group_version, kind) = name.rsplit_once('.').unwrap();
        let (group, version) = group_version.rsplit_once('.').unwrap();
        let gvk = Gvk::new(if group == "core" { "" } else { group }, version, kind);
        let json = std::fs::read(folder.join(format!("{name}.json"))).unwrap();
        let proto = std::fs::read(folder.join(format!("{name}.pb"))).unwrap();
        out.push((gvk, serde_json::from_slice(&json).unwrap(), proto));
    }
    out
}

#[test]
fn every_golden_object_survives_both_codecs_unchanged() {
    let mut failures = Vec::new();
    let golden = golden();
    for (gvk, json, proto) in &golden {
        let Some(id) = builtin().kind(gvk) else {
            failures.push(format!("{gvk}: no such kind"));
            continue;
        };
        match builtin().normalize(id, json.clone()) {
            Ok(normalized) => {
                if normalized.value != *json || !normalized.unknown.is_empty() {
                    failures.push(format!(
                        "{gvk}: normalize changed it: {:?} {}",
                        normalized.unknown,
                        difference(json, &normalized.value)
                    ));
                }
            }
            Err(error) => failures.push(format!("{gvk}: normalize: {error}")),
        }
        match decode(builtin(), proto, Some(gvk)) {
            Ok(decoded) if decoded != *json => {
                failures.push(format!("{gvk}: decoded differs: {}", difference(json, &decoded)))
            }
            Err(error) => failures.push(format!("{gvk}: decode: {error}")),
            Ok(_) => {}
        }
        match encode_as(builtin(), id, json) {
            Ok(bytes) if bytes != *proto => {
                let at = bytes.iter().zip(proto).take_while(|(a, b)| a == b).count();
                failures.push(format!(
                    "{gvk}: encoded differs at byte {at}: {} and {} bytes",
                    bytes.len(),
                    proto.len()
                ));
            }
            Err(error) => failures.push(format!("{gvk}: encode: {error}")),
            Ok(_) => {}
        }
    }
    assert!(failures.is_empty(), "{} golden objects\n{}", golden.len(), failures.join("\n"));
    println!("{} golden objects", golden.len());
}

/// The first path at which two values differ.
fn difference(a: &Value, b: &Value) -> String {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: Vec<_> = a.keys().chain(b.keys()).collect();
            keys.sort();
            keys.dedup();
            let differing = keys.into_iter().find(|k| a.get(*k) != b.get(*k)).unwrap();
            let (a, b) = (a.get(differing), b.get(differing));
            format!(
                ".{differing}{}",
                difference(a.unwrap_or(&json!("<absent>")), b.unwrap_or(&json!("<absent>")))
            )
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let at = a.iter().zip(b).position(|(a, b)| a != b).unwrap();
            format!("[{at}]{}", difference(&a[at], &b[at]))
        }
        (a, b) => format!(": {a} became {b}"),
    }
}

#[test]
fn a_minimal_pod_keeps_gos_zero_values() {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}});
    let bytes = encode(builtin(), &pod).unwrap();
    assert_eq!(
        decode(builtin(), &bytes, None).unwrap(),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
               "spec": {"containers": [{"name": "c", "resources": {}}]}, "status": {}})
    );
}

#[test]
fn zero_and_absent_differ_for_pointers_only() {
    let scale = json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 0, "minReadySeconds": 0,
        "selector": null, "template": {}}});
    let id = builtin().named("apps/v1", "Deployment").unwrap();
    let decoded = decode(builtin(), &encode_as(builtin(), id, &scale).unwrap(), None).unwrap();
    assert_eq!(decoded["spec"]["replicas"], json!(0));
    assert_eq!(decoded["spec"].get("minReadySeconds"), None);
    assert_eq!(decoded["spec"]["selector"], Value::Null);
}

#[test]
fn watch_frames_hold_enveloped_objects() {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": null}, "status": {}});
    let frame = watch_frame("ADDED", &encode(builtin(), &pod).unwrap());
    assert!(frame.starts_with(b"\x0a\x05ADDED"), "the event itself has no envelope: {frame:?}");
    // an envelope of our own, which no stream has, to read it back by
    let framed = encode::envelope("", "", &frame);
    let event = decode(builtin(), &framed, Some(&Gvk::new("", "v1", "WatchEvent"))).unwrap();
    assert_eq!(event, json!({"type": "ADDED", "object": pod}));
}

#[test]
fn lists_hold_items_without_type_meta() {
    let list = json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "7"},
        "items": [{"metadata": {"name": "a"}, "data": {"b": "c", "a": ""}}]});
    assert_eq!(decode(builtin(), &encode(builtin(), &list).unwrap(), None).unwrap(), list);
}

#[test]
fn errors_name_what_is_wrong() {
    assert_eq!(decode(builtin(), b"{}", None), Err(Error::Magic));
    let unknown = encode(builtin(), &json!({"apiVersion": "x/v1", "kind": "Y"})).unwrap_err();
    assert_eq!(unknown.to_string(), "no kind \"Y\" is registered for version \"x/v1\"");
    let wrong = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": 7}});
    assert_eq!(encode(builtin(), &wrong), Err(Error::Encode { message: "PodSpec", field: "containers" }));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let pod = Gvk::new("", "v1", "Pod");
        let _ = decode(builtin(), &bytes, Some(&pod));
        let mut enveloped = encode::envelope("v1", "Pod", &bytes);
        let _ = decode(builtin(), &enveloped, None);
        enveloped.truncate(bytes.len());
        let _ = decode(builtin(), &enveloped, None);
    }

    #[test]
    fn damaged_objects_never_panic(at in 0..4000_usize, byte: u8) {
        static CRDS: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
            let crd = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                "spec": {"versions": [{"schema": {"openAPIV3Schema": {"items": [{"type": "a"}], "additionalProperties": true,
                    "default": {"a": 1}, "dependencies": {"x": ["y"]}, "maximum": 1.5}}}]}});
            encode(builtin(), &crd).unwrap()
        });
        let mut bytes = CRDS.clone();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = decode(builtin(), &bytes, None);
    }
}
