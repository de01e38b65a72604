use super::*;
use proptest::prelude::*;
use serde_json::json;

fn printed(text: &str) -> String {
    Selector::parse(text).unwrap().to_string()
}

#[test]
fn selectors_parse_and_print_canonically() {
    for (text, out) in [
        ("", ""),
        ("x=a,y=b,z=c", "x=a,y=b,z=c"),
        ("z=c,x==a , y!=b", "x==a,y!=b,z=c"),
        ("x in (foo,,baz),y,z notin ()", "x in (,baz,foo),y,z notin ()"),
        ("!x", "!x"),
        ("x=", "x="),
        ("x=,z= ", "x=,z="),
        ("x>1", "x>1"),
        ("x<7,y", "x<7,y"),
        ("in in (in)", "in in (in)"),
        ("a.io/b=c", "a.io/b=c"),
    ] {
        assert_eq!(printed(text), out, "{text}");
    }
}

#[test]
fn errors_are_upstreams() {
    let error = |text: &str| Selector::parse(text).unwrap_err().to_string();
    assert_eq!(error("x=a||y=b").lines().count(), 1);
    assert_eq!(error("x,,y"), "found ',', expected: identifier after ','");
    assert_eq!(error(",x"), "found ',', expected: !, identifier, or 'end of string'");
    assert_eq!(
        error("x y"),
        "unable to parse requirement: found 'y', expected: in, notin, =, ==, !=, gt, lt"
    );
    assert_eq!(error("x in a"), "unable to parse requirement: found 'a' expected: '('");
    assert_eq!(error("x=a b"), "found 'b', expected: ',' or 'end of string'");
    assert_eq!(
        error("x>a"),
        "unable to parse requirement: values[0]: Invalid value: \"a\": for 'Gt', 'Lt' operators, the value must be an integer"
    );
    assert!(
        error("-x")
            .starts_with("unable to parse requirement: <nil>: Invalid value: \"-x\": name part must consist")
    );
    assert!(
        error("x=-")
            .starts_with("unable to parse requirement: values[0][x]: Invalid value: \"-\": a valid label")
    );
}

#[test]
fn requirements_match_as_upstream() {
    let labels = json!({"x": "a", "n": "5"});
    for (text, matches) in [
        ("", true),
        ("x=a", true),
        ("x=b", false),
        ("x!=b", true),
        ("y!=b", true),
        ("y notin (b)", true),
        ("x notin (a)", false),
        ("x in (b,a)", true),
        ("y in (b)", false),
        ("x,!y", true),
        ("!x", false),
        ("n>4", true),
        ("n<5", false),
        ("x>4", false),
    ] {
        assert_eq!(Selector::parse(text).unwrap().matches(&labels), matches, "{text}");
    }
    assert!(!Selector::Nothing.matches(&labels));
}

#[test]
fn label_selector_objects() {
    let of = |v: Value| Selector::from_label_selector(&v);
    assert_eq!(of(Value::Null), Ok(Selector::Nothing));
    assert_eq!(of(json!({})), Ok(Selector::everything()));
    let selector = of(json!({
        "matchLabels": {"a": "b"},
        "matchExpressions": [{"key": "c", "operator": "In", "values": ["d", "e"]}, {"key": "f", "operator": "DoesNotExist"}],
    }));
    assert_eq!(selector.unwrap().to_string(), "a=b,c in (d,e),!f");
    assert_eq!(
        of(json!({"matchExpressions": [{"key": "c", "operator": "X"}]})).unwrap_err().to_string(),
        "\"X\" is not a valid label selector operator"
    );
}

proptest! {
    #[test]
    fn what_is_printed_parses_to_the_same(text in "[a-c]( in \\([a-c,]{0,4}\\)| notin \\([a-c]\\)|=[a-c]?|!=[a-c])?(,!?[d-f])?") {
        let selector = Selector::parse(&text).unwrap();
        prop_assert_eq!(Selector::parse(&selector.to_string()).unwrap(), selector);
    }

    #[test]
    fn no_input_panics(text in any::<String>(), symbols in "[a-c=!(),<> in]{0,20}") {
        let _ = (Selector::parse(&text), Selector::parse(&symbols));
    }
}
