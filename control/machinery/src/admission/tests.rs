use super::*;
use crate::object::Gvk;
use serde_json::{Value, json};
use std::sync::Arc;

/// All there is, and `variables` of these names.
fn compiled_with(source: &str, variables: &Variables) -> Expression {
    let declarations =
        Declarations { params: true, authorizer: true, variables: Some(variables), patches: true };
    compile(source, &declarations, &[]).unwrap_or_else(|e| panic!("{source}: {e}"))
}

fn compiled(source: &str) -> Expression {
    compiled_with(source, &Variables::new())
}

fn evaluate(source: &str, object: &Value) -> Result<Value, EvaluationError> {
    let expression = compiled(source);
    let mut evaluator = Evaluator::default();
    evaluator.bind("object", object);
    evaluator.evaluate(&expression)
}

fn failed(text: &str) -> EvaluationError {
    EvaluationError::Failed(text.to_owned())
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
    assert_eq!(evaluate("object.spec.nothing > 1", &object), Err(failed("no such key: nothing")));
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

#[test]
fn literals_are_asked_for_their_fields() {
    for source in [
        "Object{list: [1, 2, 3]}.list.sum() == 6",
        "Object{spec: Object.spec{n: 3}} == Object{spec: Object.spec{n: 1 + 2}}",
        "Object{spec: Object.spec{}} != Object{spec: Object.status{}}",
        "Object{}.a == null && !has(Object{}.a) && !Object{}.?a.hasValue()",
        "Object{?a: optional.none(), ?b: optional.of(1)} == Object{b: 1}",
        "!optional.ofNonZeroValue(Object.spec{}).hasValue()",
        "JSONPatch{op: 'add'}.op == 'add' && JSONPatch{}.path == '' && !has(JSONPatch{}.path)",
        "JSONPatch{value: 1} == JSONPatch{value: 1} && JSONPatch{value: 1} != JSONPatch{value: 2}",
        "'/metadata/labels/' + jsonpatch.escapeKey('k8s.io/my~label') == '/metadata/labels/k8s.io~1my~0label'",
    ] {
        assert_eq!(evaluate(source, &json!({})), Ok(json!(true)), "{source}");
    }
}

fn refused(source: &str, results: &[ResultType]) -> String {
    refused_with(source, &Declarations { authorizer: true, ..Declarations::default() }, results)
}

fn refused_with(source: &str, declarations: &Declarations<'_>, results: &[ResultType]) -> String {
    match compile(source, declarations, results) {
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
    assert!(refused("params.a == 1", &[]).contains("undeclared reference to 'params'"));
    assert!(refused("variables.a == 1", &[]).contains("undeclared reference to 'variables'"));
    assert_eq!(refused("'text'", &[ResultType::Bool]), "must evaluate to bool but got string");
    assert_eq!(
        refused("1", &[ResultType::String, ResultType::Null]),
        "must evaluate to one of [string null_type] but got int"
    );
}

#[test]
fn a_value_of_any_type_must_not_stand_for_a_bool() {
    for (source, kind) in [
        ("object.spec.paused", "dyn"),
        ("object.spec.?paused.orValue(false)", "dyn"),
        ("request.userInfo.groups", "list(string)"),
        ("duration('1s')", "google.protobuf.Duration"),
        ("{'a': 1}", "map(string, int)"),
        ("authorizer", "kubernetes.authorization.Authorizer"),
    ] {
        assert_eq!(refused(source, &[ResultType::Bool]), format!("must evaluate to bool but got {kind}"));
    }
    let bools = ["!object.spec.paused", "request.dryRun", "object.spec.paused || false", "object.a == null"];
    for source in bools {
        assert!(compile(source, &Declarations::default(), &[ResultType::Bool]).is_ok(), "{source}");
    }
}

/// As they are in upstream's documentation.
#[test]
fn what_authors_write_compiles() {
    let (_, variables) = composed(&[
        ("containers", "object.spec.template.spec.containers"),
        ("exempt", "has(object.metadata.labels) && 'exempt' in object.metadata.labels"),
        ("env", "object.metadata.?labels['env'].orValue('none')"),
    ]);
    let declarations =
        Declarations { params: true, authorizer: true, variables: Some(&variables), patches: false };
    for source in [
        "!(request.resource.group == 'coordination.k8s.io' && request.resource.resource == 'leases')",
        "!('system:nodes' in request.userInfo.groups)",
        "request.userInfo.username.startsWith('system:serviceaccount:')",
        "request.userInfo.extra.all(k, v, v.all(x, x != k))",
        "!authorizer.group('admissionregistration.k8s.io').resource('validatingwebhookconfigurations').name('w').check('breakglass').allowed()",
        "variables.exempt || variables.containers.all(c, c.image.startsWith('example.com/'))",
        "variables.containers.filter(c, !has(c.resources) || size(c.resources) == 0).size() == 0",
        "variables.env == 'prod' ? object.spec.replicas >= params.minReplicas : true",
        "request.operation != 'UPDATE' || object.spec.selector == oldObject.spec.selector",
        "oldObject == null || params == null || int(params.data.most) > 1",
        "namespaceObject.metadata.labels['env'] == 'prod' && has(namespaceObject.metadata.annotations)",
        "namespaceObject.metadata.?labels['env'].orValue('') == 'prod'",
        "timestamp(object.metadata.creationTimestamp) < timestamp('2030-01-01T00:00:00Z')",
        "object.spec.containers.map(c, c.name) + object.spec.initContainers.map(c, c.name) == []",
        "type(object.spec.port) == int && cidr('10.0.0.0/8').containsIP(object.spec.ip)",
        "quantity(object.spec.size).isLessThan(quantity('1Gi')) || request.options.?dryRun.hasValue()",
        "object.metadata.ownerReferences.exists_one(o, o.?controller.orValue(false) == true)",
    ] {
        let found = compile(source, &declarations, &[ResultType::Bool]);
        assert!(found.is_ok(), "{source}: {found:?}");
    }
    for source in [
        "'object.spec.replicas must be no greater than ' + string(params.maxReplicas)",
        "object.metadata.name + ' has ' + variables.env",
        "'%s: %d'.format([object.metadata.name, size(variables.containers)])",
    ] {
        let found = compile(source, &declarations, &[ResultType::String]);
        assert!(found.is_ok(), "{source}: {found:?}");
    }
}

#[test]
fn the_request_and_its_namespace_have_types() {
    let undefined = |field: &str| format!("undefined field '{field}'");
    for (source, error) in [
        ("request.object", undefined("object")),
        ("request.userInfo.name", undefined("name")),
        ("request.kind.resource", undefined("resource")),
        ("namespaceObject.metadata.uid", undefined("uid")),
        (
            "request.operation == 1",
            "found no matching overload for '_==_' applied to '(string, int)'".to_owned(),
        ),
        (
            "namespaceObject.metadata.labels.all(k, k > 1)",
            "found no matching overload for '_>_' applied to '(string, int)'".to_owned(),
        ),
        (
            "authorizer.allowed()",
            "found no matching overload for 'allowed' applied to 'kubernetes.authorization.Authorizer.()'"
                .to_owned(),
        ),
        (
            "authorizer.user",
            "unexpected failed resolution of 'kubernetes.authorization.Authorizer'".to_owned(),
        ),
    ] {
        let found = refused(source, &[]);
        assert!(found.contains(&error), "{source}: {found}");
    }
}

#[test]
fn literals_of_patches_are_checked() {
    let patches = Declarations { patches: true, ..Declarations::default() };
    for (source, error) in [
        (
            "JSONPatch{op: 1}",
            "ERROR: <input>:1:13: expected type of field 'op' is 'string' but provided type is 'int'",
        ),
        ("JSONPatch{pathway: ''}", "undefined field 'pathway'"),
        ("Invalid{}", "ERROR: <input>:1:8: undeclared reference to 'Invalid' (in container '')"),
        ("Object{?a: 1}", "expected type 'optional_type(int)' but found 'int'"),
        ("JSONPatch{value: Objects{}}", "undeclared reference to 'Objects'"),
    ] {
        let found = refused_with(source, &patches, &[]);
        assert!(found.contains(error), "{source}: {found}");
    }
    for source in [
        "[JSONPatch{op: 'add'}]",
        "object.a == 1 ? [JSONPatch{op: 'add'}] : []",
        "(object.a == 1 ? [] : [JSONPatch{}]) + [JSONPatch{value: Object.spec{}}] + []",
        "object.l.map(x, JSONPatch{op: 'remove', path: '/l/' + x})",
    ] {
        assert!(compile(source, &patches, &[ResultType::Patches]).is_ok(), "{source}");
    }
    let but = |given: &str| format!("must evaluate to list(JSONPatch) but got {given}");
    assert_eq!(refused_with("[]", &patches, &[ResultType::Patches]), but("list(dyn)"));
    assert_eq!(refused_with("[Object{}]", &patches, &[ResultType::Patches]), but("list(Object)"));
    let but = "must evaluate to Object but got Object.spec";
    assert_eq!(refused_with("Object.spec{}", &patches, &[ResultType::Object]), but);
    assert!(
        refused("jsonpatch.escapeKey('a')", &[]).contains("undeclared reference"),
        "only where patches are made"
    );
}

/// An evaluator of variables `a` and so on, each with the ones before it; and what they are.
fn composing<'e>(expressions: &'e [(&'e str, Expression)]) -> Evaluator<'e> {
    let mut evaluator = Evaluator::default();
    for (name, expression) in expressions {
        evaluator.compose(name, Ok(expression));
    }
    evaluator
}

fn composed(sources: &[(&'static str, &str)]) -> (Vec<(&'static str, Expression)>, Variables) {
    let mut variables = Variables::new();
    let mut expressions = Vec::new();
    for (name, source) in sources {
        let expression = compiled_with(source, &variables);
        variables.insert((*name).to_owned(), expression.kind());
        expressions.push((*name, expression));
    }
    (expressions, variables)
}

#[test]
fn composed_variables_are_evaluated_once_and_when_needed() {
    let sources = [
        ("a", "object.n * 2"),
        ("b", "variables.a + 1"),
        ("broken", "object.none"),
        ("worse", "variables.broken"),
    ];
    let (expressions, variables) = composed(&sources);
    let mut evaluator = composing(&expressions);
    evaluator.bind("object", &json!({"n": 5}));
    let mut value = |source: &str| {
        let before = evaluator.left();
        (evaluator.evaluate(&compiled_with(source, &variables)), before - evaluator.left())
    };
    assert_eq!(value("variables.b == 11 && has(variables.a)"), (Ok(json!(true)), 10));
    assert_eq!(value("variables.b == 11 && has(variables.a)"), (Ok(json!(true)), 4), "kept");
    let broken = "composited variable \"broken\" fails to evaluate: no such key: none";
    assert_eq!(value("variables.broken").0, Err(failed(broken)));
    let worse = format!("composited variable \"worse\" fails to evaluate: {broken}");
    assert_eq!(value("variables.worse").0, Err(failed(&worse)));
    assert_eq!(value("variables.worse == 1 || true").0, Ok(json!(true)));
    assert_eq!(value("[1].all(variables, variables == 1)").0, Ok(json!(true)), "shadowed");
}

#[test]
fn composed_variables_have_the_types_of_their_expressions() {
    let (_, variables) =
        composed(&[("n", "size(object.list)"), ("any", "object.a"), ("user", "request.userInfo")]);
    let declarations = Declarations { variables: Some(&variables), ..Declarations::default() };
    let found = refused_with("variables.n == 'a'", &declarations, &[]);
    assert!(found.contains("'_==_' applied to '(int, string)'"), "{found}");
    assert!(refused_with("variables.m", &declarations, &[]).contains("undefined field 'm'"));
    for source in ["variables.any == 'a'", "variables.user.whatever == 1"] {
        assert!(compile(source, &declarations, &[ResultType::Bool]).is_ok(), "{source}");
    }
}

#[test]
fn a_variable_that_does_not_compile_must_not_be_taken_for_absent() {
    let variables = Variables::from([("a".to_owned(), Type::Dyn), ("b".to_owned(), Type::Dyn)]);
    let itself = compiled_with("variables.b + 1", &variables);
    let mut evaluator = Evaluator::default();
    evaluator.compose("a", Err("compilation failed: ..."));
    evaluator.compose("b", Ok(&itself));
    assert_eq!(
        evaluator.evaluate(&compiled_with("variables.a == 1", &variables)),
        Err(failed("composited variable \"a\" fails to compile: compilation failed: ..."))
    );
    let of_itself = "composited variable \"b\" fails to evaluate: no such key: b";
    assert_eq!(evaluator.evaluate(&compiled_with("variables.b == 1", &variables)), Err(failed(of_itself)));
}

#[test]
fn an_expression_that_would_run_for_ever_is_stopped() {
    let list: Vec<i64> = (0..2000).collect();
    let object = json!({"l": list});
    let source = "object.l.all(a, object.l.all(b, object.l.all(c, a + b + c >= 0)))";
    assert_eq!(evaluate(source, &object), Err(failed("operation cancelled: actual cost limit exceeded")));
}

#[test]
fn expressions_together_must_not_cost_more_than_the_budget() {
    let object = json!({"l": (0..200_000).collect::<Vec<i64>>()});
    let dear = compiled("object.l.exists(x, x < 0)");
    let mut evaluator = Evaluator::default();
    evaluator.bind("object", &object);
    evaluator.restart(CONDITIONS_BUDGET);
    let within = failed("operation cancelled: actual cost limit exceeded");
    assert_eq!(evaluator.evaluate(&dear), Err(within.clone()), "each alone");
    assert_eq!(evaluator.evaluate(&dear), Err(within));
    let over = "validation failed due to running out of cost budget, no further validation rules will be run";
    assert_eq!(evaluator.evaluate(&dear).unwrap_err().to_string(), over);
    // What composed variables cost is paid for by who reads them.
    let (expressions, variables) = composed(&[("dear", "object.l.exists(x, x < 0)")]);
    let mut evaluator = composing(&expressions);
    evaluator.bind("object", &object);
    evaluator.restart(999_999);
    let reading = compiled_with("variables.dear || true", &variables);
    assert_eq!(evaluator.evaluate(&reading), Err(EvaluationError::OutOfBudget));
    evaluator.restart(2_000_000);
    assert_eq!(evaluator.evaluate(&reading), Ok(json!(true)));
}

fn asking(source: &str) -> (Result<Value, EvaluationError>, u64) {
    let decide = |check: &Check| {
        let of = |text: &Option<String>| text.clone().unwrap_or_default();
        let allowed = check.verb == "get" && (check.resource == "pods" || check.path.is_some());
        let seen = [&of(&check.account), &of(&check.path), &check.namespace, &check.subresource, &check.name];
        (allowed, seen.map(String::as_str).join("|") + &check.fields)
    };
    let request =
        Check { resource: "pods".into(), namespace: "n".into(), name: "x".into(), ..Check::default() };
    let mut evaluator = Evaluator::default();
    evaluator.authorize(Some(&Authorizer::new(Arc::new(decide), request)));
    let value = evaluator.evaluate(&compiled(source));
    (value, BUDGET - evaluator.left())
}

#[test]
fn the_authorizer_decides() {
    for (source, value) in [
        ("authorizer.group('').resource('pods').namespace('a').check('get').allowed()", json!(true)),
        ("authorizer.group('').resource('pods').check('delete').allowed()", json!(false)),
        (
            "authorizer.group('').resource('pods').subresource('log').name('p').check('get').reason()",
            json!("|||log|p"),
        ),
        (
            "authorizer.group('').resource('pods').fieldSelector('a=b').labelSelector('c').check('get').reason()",
            json!("||||a=b"),
        ),
        ("authorizer.requestResource.check('get').reason()", json!("||n||x")),
        ("authorizer.path('/healthz').check('get').allowed()", json!(true)),
        (
            "authorizer.serviceAccount('ns', 'sa').group('').resource('pods').check('get').reason()",
            json!("system:serviceaccount:ns:sa||||"),
        ),
        (
            "authorizer.requestResource.check('get').errored() || authorizer.requestResource.check('get').error() != ''",
            json!(false),
        ),
    ] {
        assert_eq!(asking(source).0, Ok(value), "{source}");
    }
    for (source, error) in [
        ("authorizer.path(' ').check('get').allowed()", "path must not be empty"),
        ("authorizer.group('').resource('').check('get').allowed()", "resource must not be empty"),
        ("authorizer.serviceAccount('n/s', 'a') == authorizer", "Invalid service account namespace"),
        ("authorizer.serviceAccount('ns', '@') == authorizer", "Invalid service account name"),
    ] {
        assert_eq!(asking(source).0, Err(failed(error)), "{source}");
    }
}

#[test]
fn an_expression_must_not_ask_more_than_twice() {
    let ask = "authorizer.requestResource.check('get').allowed()";
    assert_eq!(asking(ask), (Ok(json!(true)), 350_002));
    assert_eq!(asking(&format!("{ask} && {ask}")).0, Ok(json!(true)));
    let thrice = asking(&format!("{ask} && {ask} && {ask}"));
    assert_eq!(thrice.0, Err(failed("operation cancelled: actual cost limit exceeded")));
    // A list, the text's length, and a list and a struct for every second character.
    let selected = "authorizer.requestResource.fieldSelector('spec.nodeName=a').check('get').allowed()";
    assert_eq!(asking(selected).1, 350_002 + 10 + 2 + 8 * 50);
}

#[test]
fn an_authorizer_taken_away_is_not_there() {
    let request = Check::default();
    let mut evaluator = Evaluator::default();
    evaluator.authorize(Some(&Authorizer::new(Arc::new(|_: &Check| (true, String::new())), request)));
    let ask = compiled("authorizer.requestResource.check('get').allowed()");
    assert_eq!(evaluator.evaluate(&ask), Ok(json!(true)));
    evaluator.authorize(None);
    assert_eq!(evaluator.evaluate(&ask), Err(failed("no such attribute(s): authorizer.requestResource")));
}

fn errors(source: &str, gvk: &Gvk, variables: &[(&str, &str)]) -> String {
    let object = kinds::builtin(gvk).unwrap();
    Typed::new(&object, None, variables.iter().copied()).problems(source).unwrap_or_default()
}

#[test]
fn types_of_built_in_kinds_are_checked() {
    let deployment = Gvk::new("apps", "v1", "Deployment");
    let errors = |source: &str| errors(source, &deployment, &[("replicas", "object.spec.replicas")]);
    for source in [
        "object.spec.replicas > 1 && object.metadata.labels['a'] == 'b'",
        "has(object.spec.paused) && object.spec.strategy.rollingUpdate == null",
        "object.metadata.creationTimestamp < timestamp('2024-01-01T00:00:00Z')",
        "object.spec.template.spec.containers.all(c, c.resources.limits['cpu'] == '1')",
        "object.spec.strategy.rollingUpdate.maxSurge == 1 || oldObject == null",
        "object.kind == 'Deployment' && object.apiVersion.startsWith('apps/')",
        "variables.replicas > 1 && request.operation == 'CREATE'",
        "authorizer.group('').resource('endpoints').check('create').allowed()",
    ] {
        assert_eq!(errors(source), "", "{source}");
    }
    assert_eq!(
        errors("object.spec.replicas > '1'"),
        "ERROR: <input>:1:22: found no matching overload for '_>_' applied to '(int, string)'\n | object.spec.replicas > '1'\n | .....................^"
    );
    for (source, error) in [
        ("'got ' + object.spec.replicas", "'_+_' applied to '(string, int)'"),
        ("object.spec.template.spec.containers.all(c, c.picture != '')", "undefined field 'picture'"),
        ("variables.replicas == 'a'", "'_==_' applied to '(int, string)'"),
        ("variables.count == 1", "undefined field 'count'"),
        ("oldObject.spec.paused == 1", "'_==_' applied to '(bool, int)'"),
        ("authorizer.allowed()", "'allowed' applied to 'kubernetes.authorization.Authorizer.()'"),
        ("params.a == 1", "undeclared reference to 'params'"),
    ] {
        let found = errors(source);
        assert!(found.contains(error), "{source}: {found}");
    }
}

#[test]
fn types_of_custom_kinds_are_checked() {
    let props = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "maxRetries": {"type": "integer"}, "mode": {"type": "string"}, "port": {"x-kubernetes-int-or-string": true}}}}});
    let schema = crate::custom::schema::Schema::from_props(&props);
    let typed = Typed::new(&crate::custom::rules::object_type(Some(&schema)), None, []);
    for source in [
        "object.spec.maxRetries > 3 && object.spec.mode != ''",
        "object.metadata.labels['a'] == object.kind",
        "object.spec.port == 1 || object.spec.port == 'http'",
    ] {
        assert_eq!(typed.problems(source), None, "{source}");
    }
    for (source, error) in [
        ("object.spec.maxRetires > 3", "undefined field 'maxRetires'"),
        ("object.spec.maxRetries > '3'", "'_>_' applied to '(int, string)'"),
        ("object.metadata.labelled", "undefined field 'labelled'"),
    ] {
        let found = typed.problems(source).unwrap();
        assert!(found.contains(error), "{source}: {found}");
    }
}

#[test]
fn parameters_are_typed_where_their_kind_is_known() {
    let object = kinds::builtin(&Gvk::new("", "v1", "Pod")).unwrap();
    let params = kinds::builtin(&Gvk::new("", "v1", "ConfigMap")).unwrap();
    let typed = Typed::new(&object, Some(params), []);
    assert_eq!(typed.problems("object.metadata.name == params.data.name"), None);
    assert!(typed.problems("params.dada == {}").unwrap().contains("undefined field 'dada'"));
    let unknown = Typed::new(&object, Some(Type::Dyn), []);
    assert_eq!(unknown.problems("params.dada == 1"), None);
}
