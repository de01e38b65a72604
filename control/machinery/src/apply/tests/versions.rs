//! Owners that wrote through another version than the write's: `size: 2x3` in v1 is `width` and `height` in v2.

use super::*;
use crate::custom::node::Custom;
use crate::custom::schema::Schema;
use std::sync::LazyLock;

fn schema(spec: &Value) -> Schema {
    Schema::from_props(
        &json!({"type": "object", "properties": {"spec": {"type": "object", "properties": spec}}}),
    )
}

static V1: LazyLock<Schema> =
    LazyLock::new(|| schema(&json!({"size": {"type": "string"}, "colour": {"type": "string"}})));
static V2: LazyLock<Schema> = LazyLock::new(|| {
    schema(
        &json!({"width": {"type": "integer"}, "height": {"type": "integer"}, "colour": {"type": "string"}}),
    )
});

fn structure(version: &str) -> Custom<'static> {
    let schema: &Schema = if version == "acme.com/v1" { &V1 } else { &V2 };
    Custom::Object(Some(schema))
}

fn converted(object: &Value, version: &str) -> Value {
    let spec = object.get("spec").cloned().unwrap_or_default();
    let side = |name: &str| spec[name].as_i64().map(|side| side.to_string());
    let of_size =
        |at: usize| spec["size"].as_str().and_then(|size| size.split('x').nth(at)?.parse::<i64>().ok());
    let size = || Some(Value::from(format!("{}x{}", side("width")?, side("height")?)));
    let fields = match version {
        "acme.com/v1" => vec![("size", spec.get("size").cloned().or_else(size))],
        _ => [("width", 0), ("height", 1)]
            .map(|(name, at)| (name, spec.get(name).cloned().or_else(|| of_size(at).map(Value::from))))
            .to_vec(),
    };
    let mut out = object.clone();
    out["apiVersion"] = version.into();
    out["spec"] = json!({});
    for (name, value) in fields.into_iter().chain([("colour", spec.get("colour").cloned())]) {
        if let Some(value) = value {
            out["spec"][name] = value;
        }
    }
    out
}

/// Two versions, told apart by a function.
struct Two;

impl Versions<Custom<'static>> for Two {
    fn structure(&self, version: &str) -> Option<Custom<'static>> {
        ["acme.com/v1", "acme.com/v2"].contains(&version).then(|| structure(version))
    }

    fn objects(&self, objects: &[&Value], version: &str) -> Result<Vec<Value>, Halt> {
        Ok(objects.iter().map(|object| converted(object, version)).collect())
    }
}

/// The object as it is in v1, and its owners.
type State = (Value, Managed);

fn manager(name: &str, version: &str, applies: bool) -> Manager {
    Manager {
        name: name.into(),
        applies,
        api_version: format!("acme.com/{version}"),
        subresource: String::new(),
    }
}

fn config(version: &str, spec: &Value) -> Value {
    json!({"apiVersion": format!("acme.com/{version}"), "kind": "Gadget", "metadata": {"name": "g"}, "spec": spec})
}

fn applies(state: &State, who: &str, version: &str, spec: &Value, force: bool) -> Result<State, Status> {
    let manager = manager(who, version, true);
    let live = converted(&state.0, &manager.api_version);
    let write = Write { force, ..write(&manager) };
    let structure = structure(&manager.api_version);
    let out = super::super::apply(structure, &live, &config(version, spec), &state.1, &write, &Two);
    out.map(|out| (converted(&out.object, "acme.com/v1"), out.managed)).map_err(refusal)
}

fn nothing() -> State {
    (json!({"apiVersion": "acme.com/v1", "kind": "Gadget"}), Managed::default())
}

fn owned(state: &State) -> Vec<(String, String, Vec<String>)> {
    let of = |entry: &managed::Entry| {
        (entry.manager.name.clone(), entry.manager.api_version.clone(), entry.fields.paths())
    };
    state.1.entries().iter().map(of).collect()
}

#[test]
fn the_same_value_in_another_version_must_not_conflict() {
    let one = applies(&nothing(), "a", "v1", &json!({"size": "2x3", "colour": "red"}), false).unwrap();
    let two = applies(&one, "b", "v2", &json!({"width": 2, "height": 3}), false).unwrap();
    assert_eq!(two.0, one.0);
    assert_eq!(
        owned(&two),
        [
            ("a".into(), "acme.com/v1".into(), vec![".spec.colour".into(), ".spec.size".into()]),
            ("b".into(), "acme.com/v2".into(), vec![".spec.height".into(), ".spec.width".into()]),
        ]
    );
    let colour = applies(&one, "b", "v2", &json!({"colour": "red"}), false).unwrap();
    assert_eq!(colour.0, one.0);
}

#[test]
fn another_value_must_conflict_in_the_owners_own_words() {
    let one = applies(&nothing(), "a", "v1", &json!({"size": "2x3"}), false).unwrap();
    let refused = applies(&one, "b", "v2", &json!({"width": 4}), false).unwrap_err();
    assert_eq!(refused.message, "Apply failed with 1 conflict: conflict with \"a\": .spec.size");
    let two = applies(&one, "b", "v2", &json!({"width": 2}), false).unwrap();
    let refused = applies(&two, "c", "v1", &json!({"size": "4x3"}), false).unwrap_err();
    assert_eq!(
        refused.message,
        "Apply failed with 2 conflicts: conflicts with \"a\":\n- .spec.size\nconflicts with \"b\":\n- .spec.width"
    );
    let forced = applies(&two, "c", "v1", &json!({"size": "4x3"}), true).unwrap();
    assert_eq!(owned(&forced), [("c".into(), "acme.com/v1".into(), vec![".spec.size".into()])]);
    assert_eq!(forced.0["spec"]["size"], "4x3");
}

#[test]
fn what_is_given_up_must_stay_while_another_versions_owner_has_it() {
    let spec = json!({"size": "2x3", "colour": "red"});
    let one = applies(&nothing(), "a", "v1", &spec, false).unwrap();
    let two = applies(&one, "b", "v2", &json!({"width": 2, "height": 3}), false).unwrap();
    let less = applies(&two, "a", "v1", &json!({}), false).unwrap();
    assert_eq!(less.0["spec"], json!({"size": "2x3"}), "b has it, as width and height");
    assert_eq!(
        owned(&less),
        [
            ("a".into(), "acme.com/v1".into(), vec![".spec".into()]),
            ("b".into(), "acme.com/v2".into(), vec![".spec.height".into(), ".spec.width".into()])
        ]
    );
    let nobody = applies(&less, "b", "v2", &json!({"colour": "red"}), false).unwrap();
    assert_eq!(nobody.0["spec"], json!({"colour": "red"}));
}

#[test]
fn an_applier_that_moves_to_another_version_gives_up_what_it_had() {
    let one = applies(&nothing(), "a", "v1", &json!({"size": "2x3", "colour": "red"}), false).unwrap();
    let moved = applies(&one, "a", "v2", &json!({"width": 2, "height": 3}), false).unwrap();
    assert_eq!(moved.0["spec"], json!({"size": "2x3"}), "only its colour is given up");
    assert_eq!(
        owned(&moved),
        [("a".into(), "acme.com/v2".into(), vec![".spec.height".into(), ".spec.width".into()])]
    );
    assert!(!moved.1.same_but_times(&one.1));
    let back = applies(&moved, "a", "v1", &json!({"size": "2x3"}), false).unwrap();
    assert_eq!(back.0, moved.0);
    assert!(!back.1.same_but_times(&moved.1), "the version it writes through is part of what is noted");
}

#[test]
fn an_update_through_another_version_takes_what_it_changes() {
    let one = applies(&nothing(), "a", "v1", &json!({"size": "2x3", "colour": "red"}), false).unwrap();
    let who = manager("hpa", "v2", false);
    let live = converted(&one.0, "acme.com/v2");
    let changed = |spec: Value| {
        let new = config("v2", &spec);
        let owners = super::super::update(structure("acme.com/v2"), &live, &new, &one.1, &write(&who), &Two);
        owned(&(new, owners.unwrap()))
    };
    let a = |fields: &[&str]| -> (String, String, Vec<String>) {
        ("a".into(), "acme.com/v1".into(), fields.iter().map(|f| (*f).into()).collect())
    };
    let hpa = |field: &str| ("hpa".into(), "acme.com/v2".into(), vec![field.into()]);
    let wider = json!({"width": 4, "height": 3, "colour": "red"});
    assert_eq!(changed(wider), [a(&[".spec.colour"]), hpa(".spec.width")]);
    assert_eq!(changed(json!({"width": 2, "height": 3})), [a(&[".spec.size"])]);
    let same = json!({"width": 2, "height": 3, "colour": "red"});
    assert_eq!(changed(same), [a(&[".spec.colour", ".spec.size"])]);
}

#[test]
fn an_owner_of_a_version_that_is_gone_must_not_be_kept() {
    let one = applies(&nothing(), "a", "v0", &json!({"width": 2, "height": 3}), false).unwrap();
    assert_eq!(owned(&one)[0].1, "acme.com/v0");
    let two = applies(&one, "b", "v2", &json!({"width": 9}), false).unwrap();
    assert_eq!(owned(&two), [("b".into(), "acme.com/v2".into(), vec![".spec.width".into()])]);
    let again = applies(&one, "a", "v1", &json!({"colour": "red"}), false).unwrap();
    assert_eq!(again.0["spec"], json!({"size": "2x3", "colour": "red"}), "nobody knows what it gave up");
}

#[test]
fn what_only_a_webhook_knows_is_asked_for_and_then_the_same() {
    /// Knows what it was told.
    struct Told(Vec<(Value, String)>);

    impl Versions<Custom<'static>> for Told {
        fn structure(&self, version: &str) -> Option<Custom<'static>> {
            Two.structure(version)
        }

        fn objects(&self, objects: &[&Value], api_version: &str) -> Result<Vec<Value>, Halt> {
            let known = |object: &Value| self.0.contains(&(object.clone(), api_version.to_owned()));
            let unknown: Vec<Value> = objects.iter().filter(|o| !known(o)).map(|o| (*o).clone()).collect();
            match unknown.is_empty() {
                true => Two.objects(objects, api_version),
                false => Err(Halt::Wants { objects: unknown, api_version: api_version.to_owned() }),
            }
        }
    }

    let one = applies(&nothing(), "a", "v1", &json!({"size": "2x3", "colour": "red"}), false).unwrap();
    let one = applies(&one, "b", "v1", &json!({"colour": "red"}), false).unwrap();
    let (who, live) = (manager("a", "v2", true), converted(&one.0, "acme.com/v2"));
    let wanted = config("v2", &json!({"width": 2, "height": 3}));
    let mut told = Told(Vec::new());
    let mut rounds = 0;
    let out = loop {
        rounds += 1;
        let out = super::super::apply(structure("acme.com/v2"), &live, &wanted, &one.1, &write(&who), &told);
        let Err(Halt::Wants { objects, api_version }) = out else { break out.unwrap() };
        told.0.extend(objects.into_iter().map(|object| (object, api_version.clone())));
    };
    let want = applies(&one, "a", "v2", &json!({"width": 2, "height": 3}), false).unwrap();
    assert_eq!((converted(&out.object, "acme.com/v1"), out.managed), want);
    assert!(rounds <= 6, "{rounds}");
}

#[test]
fn parts_of_what_merges_as_a_whole_by_now_are_the_whole() {
    let schema = |kind: &Value| {
        let mut list = json!({"type": "array", "items": {"type": "string"}});
        list["x-kubernetes-list-type"] = kind.clone();
        let mut map = json!({"type": "object", "additionalProperties": {"type": "string"}});
        map["x-kubernetes-map-type"] = if kind == "set" { "granular".into() } else { "atomic".into() };
        schema(&json!({"list": list, "map": map, "other": {"type": "string"}}))
    };
    let (parts, whole) = (schema(&json!("set")), schema(&json!("atomic")));
    let object = json!({"spec": {"list": ["x"], "map": {"k": "v"}, "other": "o"}});
    let one =
        apply(Custom::Object(Some(&parts)), &json!({}), &object, &Managed::default(), &write(&applier("a")))
            .unwrap();
    assert_eq!(
        one.managed.get(&applier("a")).unwrap().fields.paths(),
        [".spec.list[=\"x\"]", ".spec.map.k", ".spec.other"]
    );
    let refused = |spec: Value| {
        let config = json!({"spec": spec});
        let out = apply(Custom::Object(Some(&whole)), &object, &config, &one.managed, &write(&applier("b")));
        out.unwrap_err().message
    };
    let conflict = "Apply failed with 1 conflict: conflict with \"a\": ";
    assert_eq!(refused(json!({"list": ["y"]})), format!("{conflict}.spec.list"));
    assert_eq!(refused(json!({"map": {"l": "v"}})), format!("{conflict}.spec.map"));
}
