use super::*;
use proptest::prelude::*;
use serde_json::json;

fn value(text: &str) -> Value {
    decode(text.as_bytes()).unwrap_or_else(|e| panic!("{text}: {e}")).value
}

#[test]
fn scalars_are_those_of_yaml_1_1() {
    for (text, expected) in [
        ("yes", json!(true)),
        ("Off", json!(false)),
        ("'yes'", json!("yes")),
        ("~", json!(null)),
        ("", json!(null)),
        ("1", json!(1)),
        ("-7", json!(-7)),
        ("+7", json!(7)),
        ("010", json!(8)),
        ("0o10", json!(8)),
        ("08", json!(8)),
        ("0x1F", json!(31)),
        ("0b101", json!(5)),
        ("1_000", json!(1000)),
        ("1.5", json!(1.5)),
        ("1e3", json!(1000)),
        (".5", json!(0.5)),
        ("1.", json!(1)),
        ("18446744073709551615", json!(18_446_744_073_709_551_615_u64)),
        ("1.2.3", json!("1.2.3")),
        ("10Gi", json!("10Gi")),
        ("100m", json!("100m")),
        ("2024-01-01", json!("2024-01-01")),
        ("2024-01-01T00:00:00Z", json!("2024-01-01T00:00:00Z")),
        ("!!str 1", json!("1")),
        ("!!int '1'", json!(1)),
        ("!!binary aGk=", json!("hi")),
        ("-", json!([null])),
        ("nope", json!("nope")),
        ("\"a\\nb\"", json!("a\nb")),
        ("|\n  a\n  b\n", json!("a\nb\n")),
    ] {
        assert_eq!(value(text), expected, "{text:?}");
    }
}

#[test]
fn keys_become_strings_and_merges_fill_in() {
    assert_eq!(value("1: a\ntrue: b\n1.5: c\non: d"), json!({"1": "a", "true": "d", "1.5": "c"}));
    let text = "base: &b {x: 1, w: 2}\nmore: &m {w: 3, z: 4}\nuse:\n  <<: [*b, *m]\n  x: 9\nsame: *b";
    assert_eq!(
        value(text),
        json!({"base": {"x": 1, "w": 2}, "more": {"w": 3, "z": 4}, "use": {"x": 9, "w": 2, "z": 4}, "same": {"x": 1, "w": 2}})
    );
    assert_eq!(decode(b"{[a]: b}"), Err(Error::Key("slice")));
    assert_eq!(decode(b"<<: 1"), Err(Error::Merge));
}

#[test]
fn the_first_of_several_documents_is_read() {
    let text = b"a: 1\n---\n---\nb: 2\n";
    assert_eq!(decode(text).unwrap().value, json!({"a": 1}));
    assert_eq!(decode_all(text).unwrap(), [json!({"a": 1}), json!({"b": 2})]);
    assert_eq!(decode_all(b"").unwrap(), Vec::<Value>::new());
}

#[test]
fn keys_given_twice_are_told_with_their_line() {
    let decoded = decode(b"a: 1\nb:\n  c: 1\n  c: 2\na: 3\n").unwrap();
    assert_eq!(decoded.value, json!({"a": 3, "b": {"c": 2}}));
    assert_eq!(
        decoded.duplicates,
        [
            "yaml: unmarshal errors:\n  line 4: key \"c\" already set in map\n  line 5: key \"a\" already set in map"
        ]
    );
}

#[test]
fn what_json_lacks_and_what_grows_is_refused() {
    assert_eq!(
        decode(b"a: .nan").unwrap_err().to_string(),
        "error converting YAML to JSON: json: unsupported value: NaN"
    );
    assert!(
        decode(b"a: b: c")
            .unwrap_err()
            .to_string()
            .starts_with("error converting YAML to JSON: yaml: line 1: ")
    );
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        let refs = vec![format!("*a{}", i - 1); 10].join(", ");
        bomb.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
    }
    assert_eq!(decode(bomb.as_bytes()), Err(Error::Aliasing));
    assert!(decode("[".repeat(5000).as_bytes()).is_err());
    assert_eq!(decode("- ".repeat(200).as_bytes()), Err(Error::Depth));
}

#[test]
fn objects_are_written_in_block_style() {
    let object = json!({"a": {"b": [{"c": "d", "e": [1, 2]}, "yes"]}, "empty": {}, "none": null, "text": "x\ny", "n": "1e3"});
    let text = "a:\n  b:\n  - c: d\n    e:\n    - 1\n    - 2\n  - \"yes\"\nempty: {}\n\"n\": \"1e3\"\nnone: null\ntext: \"x\\ny\"\n";
    assert_eq!(encode(&object), text);
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[ -~\n]{0,12}".prop_map(Value::from),
        "(yes|no|0[0-9]|[0-9]e[0-9]|~|<<|[a-z/._-]{0,6})".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-zA-Z0-9<~. -]{0,5}", inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_reads_back(value in values()) {
        let text = encode(&value);
        prop_assert_eq!(decode(text.as_bytes()).unwrap().value, value, "{}", text);
    }

    #[test]
    fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80), near in "[-:{}\\[\\],&*!|>'\"#a0 \n<%@`?]{0,60}") {
        let _ = (decode(&bytes), decode_all(near.as_bytes()));
    }
}
