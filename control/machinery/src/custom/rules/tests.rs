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

fn estimate(properties: Value, rule: &str) -> u64 {
    let schema = Schema::from_props(&json!({"type": "object", "properties": properties}));
    let names = [("self", types::of(&schema, false).unwrap())];
    Program::compile(rule, &Environment::of(&names)).unwrap().1.cost
}

/// Upstream keeps places as Go slices. `x`, an item of `self.list`, has room behind it: what is read of `x` later overwrites what
/// was read before, and the range of a loop is asked for its size after its body was visited.
#[test]
fn a_loop_must_not_be_estimated_by_a_place_of_its_own() {
    let item = json!({"type": "object", "properties": {
        "few": {"type": "array", "maxItems": 2, "items": {"type": "integer"}},
        "many": {"type": "array", "maxItems": 50, "items": {"type": "integer"}}}});
    let of = |rule: &str| {
        let properties = json!({"list": {"type": "array", "maxItems": 1, "items": item}});
        estimate(properties, rule)
    };
    // Item: read (2), condition (2), accumulator (1).
    let loops = |items: u64, each: u64| items * (each + 3) + 1;
    assert_eq!(of("self.list.all(x, x.few.all(y, y > 0))"), 2 + loops(1, 2 + loops(2, 2)));
    assert_eq!(
        of("self.list.all(x, x.few.all(y, y > x.many.size()))"),
        2 + loops(1, 2 + loops(50, 1 + 3 + 1)),
        "the loop over `few` is as long as `many`"
    );
    assert_eq!(
        of("self.list.all(x, x.many.all(y, y > x.few.size()))"),
        2 + loops(1, 2 + loops(2, 1 + 3 + 1)),
        "and the other way round"
    );
    // At a place that is full there is no room: nothing is shared.
    let properties = json!({"few": {"type": "array", "maxItems": 2, "items": {"type": "integer"}},
        "many": {"type": "array", "maxItems": 50, "items": {"type": "integer"}}});
    assert_eq!(estimate(properties, "self.few.all(y, y > self.many.size())"), 2 + loops(2, 1 + 3 + 1));
}

#[test]
fn a_date_must_not_be_taken_to_be_as_long_as_a_time() {
    let properties = json!({"day": {"type": "string", "format": "date"}, "at": {"type": "string", "format": "date-time"},
        "text": {"type": "string", "format": "datetime", "maxLength": 1}});
    assert_eq!(estimate(properties.clone(), "self.day == self.day"), 4 + 2);
    assert_eq!(estimate(properties.clone(), "self.at == self.at"), 4 + 4);
    assert_eq!(estimate(properties, "self.text == 'a'"), 2 + 1, "`datetime` is a text like any other");
}

#[test]
fn objects_at_two_places_must_not_be_of_one_type() {
    let properties = json!({"a": {"type": "object", "properties": {"x": {"type": "string"}}},
        "b": {"type": "object", "properties": {"x": {"type": "string"}}}});
    let schema = Schema::from_props(&json!({"type": "object", "properties": properties}));
    let names = [("self", types::of(&schema, false).unwrap())];
    let compile = |rule: &str| Program::compile(rule, &Environment::of(&names));
    assert!(compile("self.a == self.a && self.a.x == self.b.x").is_ok());
    let found = compile("self.a == self.b").unwrap_err().to_string();
    assert!(
        found.contains("found no matching overload for '_==_' applied to '(selfType.a, selfType.b)'"),
        "{found}"
    );
    assert!(compile("[self.a, self.b].size() == 2").is_err());
}

#[test]
fn fields_named_like_reserved_words_must_not_be_out_of_reach() {
    let words = ["namespace", "if", "package", "function", "true", "in", "a.b", "a-b", "a/b", "a__b"];
    let properties: serde_json::Map<String, Value> =
        words.iter().map(|word| ((*word).to_owned(), json!({"type": "string"}))).collect();
    let schema = Schema::from_props(&json!({"type": "object", "properties": properties}));
    let names = [("self", types::of(&schema, false).unwrap())];
    let compile = |rule: &str| Program::compile(rule, &Environment::of(&names));
    for field in [
        "namespace",
        "__namespace__",
        "if",
        "__if__",
        "package",
        "function",
        "__in__",
        "__true__",
        "a__dot__b",
        "a__dash__b",
        "a__slash__b",
        "a__underscores__b",
    ] {
        assert!(compile(&format!("has(self.{field}) && self.{field} == ''")).is_ok(), "{field}");
    }
    for field in ["in", "true", "null"] {
        assert!(compile(&format!("self.{field} == ''")).is_err(), "{field}");
    }
}

fn between(schema: &Value, new: &Value, old: &Value) -> Vec<String> {
    let schema = Schema::from_props(schema);
    check(&schema, new, Some(old), &Path::root()).iter().map(ToString::to_string).collect()
}

#[test]
fn an_old_self_must_not_be_lost_below_an_atomic_map() {
    let schema = |kind: &str| {
        json!({"type": "object", "properties": {"m": {"type": "object", "x-kubernetes-map-type": kind, "properties": {
            "x": {"type": "integer", "x-kubernetes-validations": [{"rule": "self >= oldSelf"}]}}}}})
    };
    let of = |x: i64| json!({"m": {"x": x}});
    for kind in ["atomic", "granular"] {
        assert_eq!(between(&schema(kind), &of(1), &of(2)).len(), 1, "{kind}");
        assert!(between(&schema(kind), &of(2), &of(1)).is_empty(), "{kind}");
    }
    let refused = |props: &Value| {
        let mut budget = Budget::default();
        compile_all(props.at("properties.m.properties.x"), false, &Path::new("x"), None, false, &mut budget)
    };
    assert!(refused(&schema("atomic")).is_empty());
}

#[test]
fn what_is_within_what_did_not_change_must_not_be_held_against_its_author() {
    let item = json!({"type": "string", "x-kubernetes-validations": [{"rule": "self != 'bad'"}]});
    for kind in ["atomic", "set"] {
        let schema = json!({"type": "object", "properties": {"other": {"type": "integer"},
            "l": {"type": "array", "x-kubernetes-list-type": kind, "items": item}}});
        let of = |other: i64, l: Value| json!({"other": other, "l": l});
        assert!(between(&schema, &of(1, json!(["bad"])), &of(2, json!(["bad"]))).is_empty(), "{kind}");
        assert_eq!(between(&schema, &of(1, json!(["bad", "c"])), &of(1, json!(["bad"]))).len(), 1, "{kind}");
        assert_eq!(check(&Schema::from_props(&schema), &of(1, json!(["bad"])), None, &Path::root()).len(), 1);
    }
}

#[test]
fn a_rule_must_not_spend_more_than_is_left() {
    // 810,002 each, of ten million: twelve may be run.
    let rule = json!({"rule": "self.contains(self)"});
    let schema = |rules: usize| {
        Schema::from_props(&json!({"type": "string", "x-kubernetes-validations": vec![rule.clone(); rules]}))
    };
    let text = json!("a".repeat(9000));
    assert!(check(&schema(12), &text, None, &Path::root()).is_empty());
    let errors = check(&schema(13), &text, None, &Path::root());
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("validation failed due to running out of cost budget"), "{errors:?}");
}

#[test]
fn a_key_must_not_be_taken_to_be_short_where_upstream_takes_it_for_the_value() {
    let map = json!({"type": "object", "maxProperties": 2, "additionalProperties": {"type": "string", "maxLength": 100}});
    let properties = json!({"m": map, "o": {"type": "object", "properties": {"m": map}}});
    let of = |rule: &str| estimate(properties.clone(), rule);
    // A key's place, then the value's, are made from the map's: with room behind it, the second overwrites the first.
    let loops = |each: u64| 2 * (1 + each + 3) + 1;
    assert_eq!(of("self.o.m.all(k, v, k.matches('a'))"), 3 + loops(41));
    assert_eq!(of("self.o.m.all(k, k.matches('a'))"), 3 + loops(1), "one variable");
    assert_eq!(of("self.m.all(k, v, k.matches('a'))"), 2 + loops(1), "no room");
}
