use super::*;
use serde_json::json;

fn props(rules: Value) -> Value {
    json!({"type": "object", "properties": {"spec": {"type": "object", "x-kubernetes-validations": rules, "properties": {
        "x": {"type": "integer"}, "max": {"type": "integer"}, "mode": {"type": "string", "maxLength": 20},
        "big": {"type": "array", "items": {"type": "integer"}},
        "list": {"type": "array", "maxItems": 10, "items": {"type": "string", "maxLength": 5}}}}}})
}

fn found(rules: Value, new: Value, old: Option<Value>) -> Vec<String> {
    let schema = Schema::from_props(&props(rules));
    let object =
        |spec: Value| json!({"apiVersion": "a/v1", "kind": "K", "metadata": {"name": "n"}, "spec": spec});
    let (new, old) = (object(new), old.map(object));
    check(&schema, &new, old.as_ref(), &Path::root()).iter().map(ToString::to_string).collect()
}

#[test]
fn broken_rules_are_told_of() {
    let rule = json!([{"rule": "self.x <= self.max"}]);
    assert_eq!(found(rule.clone(), json!({"x": 1, "max": 2}), None), Vec::<String>::new());
    assert_eq!(
        found(rule.clone(), json!({"x": 3, "max": 2}), None),
        ["spec: Invalid value: failed rule: self.x <= self.max"]
    );
    assert_eq!(
        found(rule, json!({"x": 3}), None),
        ["spec: Invalid value: \"object\": no such key: max evaluating rule: self.x <= self.max"]
    );
    let said = json!([{"rule": "self.x > 0", "message": "x must be positive", "fieldPath": ".x", "reason": "FieldValueForbidden"}]);
    assert_eq!(found(said, json!({"x": 0}), None), ["spec.x: Forbidden: x must be positive"]);
    let made = json!([{"rule": "self.x > 0", "messageExpression": "'x is ' + string(self.x)"}]);
    assert_eq!(found(made, json!({"x": 0}), None), ["spec: Invalid value: x is 0"]);
}

#[test]
fn transitions_are_asked_where_there_is_an_old_self() {
    let rule = json!([{"rule": "self.x >= oldSelf.x"}]);
    assert!(found(rule.clone(), json!({"x": 1}), None).is_empty());
    assert!(found(rule.clone(), json!({"x": 2}), Some(json!({"x": 1}))).is_empty());
    assert_eq!(found(rule, json!({"x": 0}), Some(json!({"x": 1}))).len(), 1);
    let optional = json!([{"rule": "oldSelf.hasValue() || self.x == 1", "optionalOldSelf": true}]);
    assert_eq!(found(optional.clone(), json!({"x": 2}), None).len(), 1);
    assert!(found(optional, json!({"x": 2}), Some(json!({"x": 5}))).is_empty());
    // What did not change is not held against its author.
    let plain = json!([{"rule": "self.x > 10"}]);
    assert!(found(plain.clone(), json!({"x": 1}), Some(json!({"x": 1}))).is_empty());
    assert_eq!(found(plain, json!({"x": 2}), Some(json!({"x": 1}))).len(), 1);
}

#[test]
fn an_evaluation_is_bounded() {
    let rule = json!([{"rule": "self.big.all(x, self.big.all(y, x == y))"}]);
    let big: Vec<i32> = vec![1; 725];
    let errors = found(rule, json!({"big": big}), None);
    assert!(errors[0].contains("call cost exceeds limit for rule"), "{errors:?}");
}

fn refused(rules: Value) -> Vec<String> {
    let props = props(rules);
    let mut budget = Budget::default();
    compile_all(props.at("properties.spec"), false, &Path::new("s"), None, false, &mut budget)
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn rules_are_compiled_when_they_are_defined() {
    assert_eq!(
        refused(json!([{"rule": "self.x > 0 && self.list.all(l, l.size() > 1)"}])),
        Vec::<String>::new()
    );
    for (rule, part) in [
        ("self.z == 100", "undefined field 'z'"),
        ("self = 42", "Syntax error"),
        ("self.x", "must evaluate to a bool"),
        ("self.x == 'a'", "no matching overload"),
        (
            "self.big.all(x, self.big.all(y, self.big.all(z, x == y)))",
            "exceeds budget by factor of more than 100x",
        ),
    ] {
        let errors = refused(json!([{"rule": rule}]));
        assert!(errors.iter().any(|e| e.contains(part)), "{rule}: {errors:?}");
    }
    let errors = refused(json!([{"rule": "self.x > 0", "messageExpression": "self.x"}]));
    assert!(errors[0].contains("messageExpression must evaluate to a string"));
}

#[test]
fn names_that_cannot_be_written_are_escaped() {
    for (name, escaped) in [
        ("a-b", Some("a__dash__b")),
        ("if", Some("__if__")),
        ("a__b", Some("a__underscores__b")),
        ("a b", None),
    ] {
        assert_eq!(crate::cel::words::field_name(name).as_deref(), escaped);
    }
}

fn of_lists(rule: &str, object: Value) -> Vec<String> {
    let item = json!({"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer"}}});
    let map = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": item});
    let set = json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}});
    let schema = Schema::from_props(&json!({"type": "object", "x-kubernetes-validations": [{"rule": rule}],
        "properties": {"a": map, "b": map, "s": set, "t": set, "l": {"type": "array", "items": {"type": "string"}}}}));
    check(&schema, &object, None, &Path::root()).iter().map(ToString::to_string).collect()
}

#[test]
fn the_order_of_sets_and_maps_must_not_matter() {
    let object = json!({"a": [{"k": "x", "v": 1}, {"k": "y", "v": 2}], "b": [{"k": "y", "v": 3}, {"k": "z", "v": 4}],
        "s": ["a", "b"], "t": ["b", "a"], "l": ["b", "a"]});
    for rule in [
        "self.s == self.t && self.s == ['b', 'a'] && self.s == self.l && self.l == self.s && self.l != ['a', 'b']",
        "self.a == [self.a[1], self.a[0]] && [self.a[1], self.a[0]] == self.a",
        "self.s + self.t == self.s && (self.s + ['c', 'a']).size() == 3 && 'c' in self.s + ['c']",
        "(self.a + self.b).size() == 3 && (self.a + self.b)[1].v == 3 && (self.a + self.b)[0].v == 1",
        "self.a != self.b && self.a + self.b == [self.b[1], self.b[0], self.a[0]]",
        "self.l + self.l == ['b', 'a', 'b', 'a']",
    ] {
        assert_eq!(of_lists(rule, object.clone()), Vec::<String>::new(), "{rule}");
    }
}
