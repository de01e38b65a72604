use super::*;
use serde_json::json;

fn texts(schema: &Value, value: &Value) -> Vec<String> {
    check(&Schema::from_props(schema), value, None, &Path::root()).iter().map(ToString::to_string).collect()
}

fn spec(of: Value) -> Value {
    json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"x": of}}}})
}

#[track_caller]
fn refused(of: Value, value: Value, text: &str) {
    assert_eq!(texts(&spec(of), &json!({"spec": {"x": value}})), [text]);
}

#[test]
fn a_pattern_must_not_match_what_go_s_does_not() {
    for (pattern, good, bad) in [
        (r"^\d+$", "12", "1٣"),
        (r"^\w$", "_", "é"),
        (r"^[^()[\]]+$", "ab", "a]"),
        ("^a{,5}$", "a{,5}", "aaa"),
        ("^.$", "é", "\n"),
    ] {
        let schema = spec(json!({"type": "string", "pattern": pattern}));
        let told = |text: &str| texts(&schema, &json!({"spec": {"x": text}})).len();
        assert_eq!((told(good), told(bad)), (0, 1), "{pattern}");
    }
}

#[test]
fn errors_are_upstreams() {
    refused(
        json!({"type": "string"}),
        json!(1),
        "spec.x: Invalid value: \"integer\": spec.x in body must be of type string: \"integer\"",
    );
    refused(
        json!({"type": "string"}),
        json!(null),
        "spec.x: Invalid value: \"null\": spec.x in body must be of type string: \"null\"",
    );
    refused(
        json!({"type": "integer", "maximum": 5}),
        json!(6),
        "spec.x: Invalid value: 6: spec.x in body should be less than or equal to 5",
    );
    refused(
        json!({"type": "number", "minimum": 1.5, "exclusiveMinimum": true}),
        json!(1.5),
        "spec.x: Invalid value: 1.5: spec.x in body should be greater than 1.5",
    );
    refused(
        json!({"type": "string", "enum": ["b", "a"]}),
        json!("c"),
        "spec.x: Unsupported value: \"c\": supported values: \"b\", \"a\"",
    );
    refused(
        json!({"type": "string", "enum": ["None", "All", "Same"]}),
        json!(""),
        "spec.x: Unsupported value: \"\": supported values: \"None\", \"All\", \"Same\"",
    );
    refused(
        json!({"type": "integer", "enum": [10, 9]}),
        json!(1),
        "spec.x: Unsupported value: 1: supported values: \"10\", \"9\"",
    );
    refused(
        json!({"type": "string", "maxLength": 2}),
        json!("abc"),
        "spec.x: Too long: may not be more than 2 bytes",
    );
    refused(
        json!({"type": "string", "pattern": "^a"}),
        json!("b"),
        "spec.x: Invalid value: \"b\": spec.x in body should match '^a'",
    );
    refused(
        json!({"type": "array", "maxItems": 1, "items": {"type": "string"}}),
        json!(["a", "b"]),
        "spec.x: Too many: 2: must have at most 1 item",
    );
    refused(
        json!({"type": "array", "minItems": 1, "items": {"type": "string"}}),
        json!([]),
        "spec.x: Invalid value: 0: spec.x in body should have at least 1 items",
    );
    refused(
        json!({"type": "array", "items": {"type": "object", "required": ["a"]}}),
        json!([{}]),
        "spec.x[0].a: Required value",
    );
    refused(
        json!({"type": "string", "format": "date-time"}),
        json!("now"),
        "spec.x: Invalid value: \"now\": spec.x in body must be of type date-time: \"now\"",
    );
    refused(
        json!({"type": "integer", "format": "int32"}),
        json!(4_294_967_296_u64),
        "<nil>: Invalid value: \"\": Checked value must be of type integer with format int32 in spec.x",
    );
    refused(
        json!({"x-kubernetes-int-or-string": true}),
        json!(true),
        "spec.x: Invalid value: \"boolean\": spec.x in body must be of type integer,string: \"boolean\"",
    );
}

#[test]
fn combinations_tell_of_the_closest_schema() {
    let schema =
        spec(json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}));
    assert_eq!(
        texts(&schema, &json!({"spec": {"x": {}}})),
        [
            "<nil>: Invalid value: \"\": \"spec.x\" must validate one and only one schema (oneOf). Found none valid",
            "spec.x.a: Required value"
        ]
    );
    assert_eq!(
        texts(&schema, &json!({"spec": {"x": {"a": "", "b": ""}}})),
        [
            "<nil>: Invalid value: \"\": \"spec.x\" must validate one and only one schema (oneOf). Found 2 valid alternatives"
        ]
    );
    assert!(texts(&schema, &json!({"spec": {"x": {"a": ""}}})).is_empty());
    let not = spec(json!({"type": "string", "not": {"enum": ["bad"]}}));
    assert_eq!(
        texts(&not, &json!({"spec": {"x": "bad"}})),
        ["<nil>: Invalid value: \"\": \"spec.x\" must not validate the schema (not)"]
    );
}

#[test]
fn what_did_not_change_is_not_held_against_its_author() {
    let schema = Schema::from_props(&spec(json!({"type": "object", "properties": {
        "a": {"type": "string", "maxLength": 1}, "b": {"type": "string", "maxLength": 1},
        "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "string", "maxLength": 1}}}}}})));
    let object =
        |a: &str, b: &str, v: &str| json!({"spec": {"x": {"a": a, "b": b, "list": [{"k": "1", "v": v}]}}});
    let count = |new: Value, old: Value| check(&schema, &new, Some(&old), &Path::root()).len();
    assert_eq!(count(object("long", "x", "long"), object("long", "y", "long")), 0);
    assert_eq!(count(object("long", "long", "long"), object("long", "y", "long")), 1);
    assert_eq!(count(object("longer", "x", "longer"), object("long", "y", "long")), 2);
    assert_eq!(check(&schema, &object("long", "x", "x"), None, &Path::root()).len(), 1);
}

#[test]
fn a_status_is_told_of_under_its_own_path() {
    let schema = Schema::from_props(
        &json!({"type": "object", "required": ["a"], "properties": {"b": {"type": "string"}}}),
    );
    let found: Vec<String> = check(&schema, &json!({"b": 1}), None, &Path::new("status"))
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        found,
        [
            "status.b: Invalid value: \"integer\": b in body must be of type string: \"integer\"",
            "status.a: Required value"
        ]
    );
}
