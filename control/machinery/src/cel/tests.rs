use super::authorizer::{Authorizer, Check};
use super::{
    CompileError, Declarations, EvaluationError, Evaluator, Expression, ResultType, compile, type_errors,
};
use crate::object::Gvk;
use serde_json::{Value, json};
use std::sync::Arc;

const OBJECT: Declarations<'static> =
    Declarations { variables: &["object", "authorizer", "variables"], composed: None, patch_types: true };

fn compiled(source: &str) -> Expression {
    compile(source, &OBJECT, &[]).unwrap_or_else(|e| panic!("{source}: {e}"))
}

fn evaluate(source: &str, object: &Value) -> Result<Value, EvaluationError> {
    let expression = compiled(source);
    let mut evaluator = Evaluator::default();
    evaluator.bind("object", object);
    evaluator.evaluate(&expression)
}

#[test]
fn expressions_over_objects() {
    let object = json!({"metadata": {"name": "x", "labels": {"a": "b"}}, "spec": {"replicas": 3,
        "containers": [{"image": "a/b:1"}, {"image": "c"}]}});
    for (source, value) in [
        ("object.spec.replicas > 1", json!(true)),
        ("object.metadata.name != 'skip-me'", json!(true)),
        ("has(object.spec.nothing)", json!(false)),
        ("object.spec.containers.all(c, c.image.contains('/'))", json!(false)),
        ("object.spec.containers.map(c, c.image)", json!(["a/b:1", "c"])),
        ("object.spec.?nothing.orValue(7)", json!(7)),
        ("object.?nothing.?deeper.hasValue()", json!(false)),
        ("object.?metadata.name.orValue('')", json!("x")),
        ("object.?nothing.name.orValue('none')", json!("none")),
        ("has(object.?nothing.name)", json!(false)),
        ("object.spec.containers[?0].image.orValue('')", json!("a/b:1")),
        ("'a' in object.metadata.labels", json!(true)),
        ("quantity('1Ki').isGreaterThan(quantity('1k'))", json!(true)),
        ("'%s has %d'.format([object.metadata.name, object.spec.replicas])", json!("x has 3")),
        ("object.spec.replicas + 1 == 4 ? 'yes' : 'no'", json!("yes")),
    ] {
        assert_eq!(evaluate(source, &object), Ok(value), "{source}");
    }
    assert_eq!(
        evaluate("object.spec.nothing > 1", &object),
        Err(EvaluationError("no such key: nothing".into()))
    );
}

#[test]
fn literals_of_objects_are_maps_that_know_their_type() {
    let source = "Object{spec: Object.spec{replicas: object.n + 1}}";
    assert_eq!(
        evaluate(source, &json!({"n": 1})),
        Ok(json!({"@type": "Object", "spec": {"@type": "Object.spec", "replicas": 2}}))
    );
    let source = "[JSONPatch{op: 'add', path: '/a', value: 1}]";
    assert_eq!(
        evaluate(source, &json!({})),
        Ok(json!([{"@type": "JSONPatch", "op": "add", "path": "/a", "value": 1}]))
    );
}

fn refused(source: &str, wanted: &[ResultType]) -> String {
    let declarations = Declarations { variables: &["object"], ..Declarations::default() };
    match compile(source, &declarations, wanted) {
        Err(CompileError(text)) => text,
        Ok(_) => panic!("{source} compiles"),
    }
}

#[test]
fn what_is_not_there_is_found_before_it_is_evaluated() {
    assert_eq!(
        refused("object.a && nobody.b", &[]),
        "compilation failed: ERROR: <input>:1:13: undeclared reference to 'nobody' (in container '')\n | object.a && nobody.b\n | ............^"
    );
    assert!(refused("object.frobnicate()", &[]).contains("undeclared reference to 'frobnicate'"));
    assert!(refused("Object{}", &[]).contains("undeclared reference to 'Object'"));
    assert!(refused("... [] bad expression", &[]).starts_with("compilation failed: ERROR: <input>:1:"));
    assert_eq!(refused("'text'", &[ResultType::Bool]), "must evaluate to bool but got string");
    assert_eq!(
        refused("1", &[ResultType::String, ResultType::Null]),
        "must evaluate to one of [string null_type] but got int"
    );
}

#[test]
fn composed_variables_are_evaluated_once_and_when_needed() {
    let (a, b, broken) = (compiled("object.n * 2"), compiled("variables.a + 1"), compiled("object.none"));
    let mut evaluator = Evaluator::default();
    evaluator.bind("object", &json!({"n": 5}));
    evaluator.compose("a", &a);
    evaluator.compose("b", &b);
    evaluator.compose("broken", &broken);
    assert_eq!(evaluator.evaluate(&compiled("variables.b == 11")), Ok(json!(true)));
    assert_eq!(
        evaluator.evaluate(&compiled("variables.broken")),
        Err(EvaluationError("composited variable \"broken\" fails to evaluate: no such key: none".into()))
    );
}

#[test]
fn an_expression_that_would_run_for_ever_is_stopped() {
    let list: Vec<i64> = (0..2000).collect();
    let object = json!({"l": list});
    let source = "object.l.all(a, object.l.all(b, object.l.all(c, a + b + c >= 0)))";
    assert_eq!(
        evaluate(source, &object),
        Err(EvaluationError("operation cancelled: actual cost limit exceeded".into()))
    );
}

#[test]
fn the_authorizer_decides() {
    let decide =
        |check: &Check| (check.verb == "get" && check.resource == "pods", format!("in {}", check.namespace));
    let request = Check { resource: "pods".into(), namespace: "n".into(), ..Check::default() };
    let mut evaluator = Evaluator::default();
    evaluator.authorize(&Authorizer::new(Arc::new(decide), request));
    for (source, value) in [
        ("authorizer.group('').resource('pods').namespace('a').check('get').allowed()", json!(true)),
        ("authorizer.group('').resource('pods').check('delete').allowed()", json!(false)),
        ("authorizer.requestResource.check('get').reason()", json!("in n")),
    ] {
        assert_eq!(evaluator.evaluate(&compiled(source)), Ok(value), "{source}");
    }
}

#[test]
fn types_of_built_in_kinds_are_checked() {
    let deployment = Gvk::new("apps", "v1", "Deployment");
    let errors = |source: &str| type_errors(source, &deployment);
    assert_eq!(
        errors("object.spec.replicas > 1 && object.metadata.labels['a'] == 'b'"),
        Vec::<String>::new()
    );
    assert_eq!(
        errors("object.spec.replicas > '1'"),
        [
            "ERROR: <input>:1:22: found no matching overload for '_>_' applied to '(int, string)'\n | object.spec.replicas > '1'\n | .....................^"
        ]
    );
    assert_eq!(errors("'got ' + object.spec.replicas").len(), 1);
    let unknown = errors("object.spec.template.spec.containers.all(c, c.picture != '')");
    assert!(unknown[0].contains("undefined field 'picture'"), "{unknown:?}");
    assert_eq!(
        errors("has(object.spec.paused) && object.spec.strategy.rollingUpdate == null"),
        Vec::<String>::new()
    );
}
