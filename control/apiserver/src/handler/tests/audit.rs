//! What the audit log has of objects, answers and admission.

use super::*;
use crate::audit::fake::{Fake, delivery};
use crate::audit::{Arrival, Mode};
use crate::metrics::Metrics;

/// A request that is audited by `rules`, and its last event.
async fn event(
    s: &Server,
    rules: &Value,
    method: &str,
    target: &str,
    body: Value,
    headers: &[(&str, &str)],
) -> Value {
    let log = Fake::refusing(0);
    let auditor = log.auditor(rules, delivery(Mode::Blocking), &Metrics::default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (method, query): (Method, _) = (method.parse().unwrap(), crate::query::parse(query));
    let info = crate::request::parse(&method, path, &query).unwrap();
    let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let mut request = http::Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(full(bytes)).unwrap();
    let id = http::HeaderValue::from_static("id");
    let arrival = Arrival {
        id: &id,
        at: jiff::Timestamp::now(),
        uri: request.uri(),
        headers: request.headers(),
        address: None,
    };
    let audit = auditor.begin(&arrival, Some(&admin()), &info);
    let context = Context { info, user: admin(), query, user_agent: "test/1".into(), audit: audit.clone() };
    audit.answered(handle(&s.writer, context, request).await).await;
    log.events().pop().unwrap()
}

async fn all(s: &Server, method: &str, target: &str, body: Value) -> Value {
    event(s, &json!([{"level": "RequestResponse"}]), method, target, body, &[]).await
}

#[tokio::test]
async fn the_level_says_which_objects_are_written() {
    let s = Server::start().await;
    for (level, request, response) in
        [("Metadata", false, false), ("Request", true, false), ("RequestResponse", true, true)]
    {
        let name = level.to_lowercase();
        let event = event(&s, &json!([{"level": level}]), "POST", MAPS, config_map(&name), &[]).await;
        assert_eq!(event.get("requestObject").is_some(), request, "{event}");
        assert_eq!(event.get("responseObject").is_some(), response, "{event}");
        let object =
            json!({"resource": "configmaps", "namespace": "default", "name": name, "apiVersion": "v1"});
        assert_eq!(event["objectRef"], object);
        assert_eq!(event["responseStatus"], json!({"metadata": {}, "code": 201}));
    }
}

#[tokio::test]
async fn objects_are_as_sent_and_as_answered() {
    let s = Server::start().await;
    let made = all(&s, "POST", MAPS, config_map("m")).await;
    assert_eq!(made["requestObject"]["data"], json!({"a": "1"}));
    assert!(made["requestObject"]["metadata"].get("uid").is_none());
    assert_eq!(made["responseObject"]["kind"], "ConfigMap");
    let uid = made["responseObject"]["metadata"]["uid"].clone();
    assert!(uid.is_string());

    let mut sent = s.get(&format!("{MAPS}/m")).await;
    sent["data"] = json!({"a": "2"});
    let changed = all(&s, "PUT", &format!("{MAPS}/m"), sent.clone()).await;
    assert_eq!(changed["objectRef"]["uid"], uid);
    assert_eq!(changed["objectRef"]["resourceVersion"], sent["metadata"]["resourceVersion"]);

    let rules = json!([{"level": "RequestResponse", "omitManagedFields": true}]);
    let headers = [("content-type", "application/merge-patch+json"), ("accept", "application/yaml")];
    let patched =
        event(&s, &rules, "PATCH", &format!("{MAPS}/m"), json!({"data": {"b": "3"}}), &headers).await;
    assert_eq!(patched["requestObject"], json!({"data": {"b": "3"}}));
    // In JSON, whatever the client gets.
    assert_eq!(patched["responseObject"]["data"], json!({"a": "2", "b": "3"}));
    assert!(patched["responseObject"]["metadata"].get("managedFields").is_none());

    let listed = event(&s, &rules, "GET", MAPS, Value::Null, &[]).await;
    assert_eq!(listed["responseObject"]["kind"], "ConfigMapList");
    assert!(listed["responseObject"]["items"][0]["metadata"].get("managedFields").is_none());
    assert!(listed.get("requestObject").is_none());
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let shown = event(&s, &rules, "GET", MAPS, Value::Null, &table).await;
    assert_eq!(shown["responseObject"]["kind"], "Table");

    let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"});
    let gone = all(&s, "DELETE", &format!("{MAPS}/m"), options.clone()).await;
    assert_eq!(gone["requestObject"], options);
    assert_eq!(
        gone["responseStatus"],
        json!({"metadata": {}, "status": "Success", "details": {"name": "m", "kind": "configmaps", "uid": uid}, "code": 200})
    );
    let missing = all(&s, "GET", &format!("{MAPS}/m"), Value::Null).await;
    assert_eq!(
        (&missing["responseStatus"]["reason"], &missing["responseStatus"]["code"]),
        (&json!("NotFound"), &json!(404))
    );
    assert_eq!(missing["responseObject"]["kind"], "Status");
}

#[tokio::test]
async fn what_is_sent_to_a_subresource_is_written_as_it_is() {
    let s = Server::start().await;
    s.ok("POST", PODS, pod("p")).await;
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    let bound = all(&s, "POST", &format!("{PODS}/p/binding"), binding).await;
    assert_eq!(bound["requestObject"]["target"]["name"], "n");
    assert_eq!(bound["objectRef"]["subresource"], "binding");
    assert_eq!(bound["responseStatus"]["status"], "Success");
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    let evicted = all(&s, "POST", &format!("{PODS}/p/eviction"), eviction).await;
    assert_eq!(evicted["requestObject"]["kind"], "Eviction");
    let deprecated = all(&s, "GET", "/api/v1/namespaces/default/endpoints", Value::Null).await;
    assert_eq!(deprecated["annotations"]["k8s.io/deprecated"], "true");
}

#[tokio::test]
async fn pod_security_says_what_it_enforces_and_what_it_would() {
    let s = Server::start().await;
    let labels = json!({"pod-security.kubernetes.io/audit": "baseline"});
    s.ok("POST", "/api/v1/namespaces", json!({"metadata": {"name": "a", "labels": labels}})).await;
    s.ok("POST", "/api/v1/namespaces/a/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    let mut privileged = pod("p");
    privileged["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
    let event = all(&s, "POST", "/api/v1/namespaces/a/pods", privileged).await;
    assert_eq!(event["responseStatus"]["code"], 201);
    assert_eq!(event["annotations"]["pod-security.kubernetes.io/enforce-policy"], "privileged:latest");
    assert_eq!(
        event["annotations"]["pod-security.kubernetes.io/audit-violations"],
        "would violate PodSecurity \"baseline:latest\": privileged (container \"c\" must not set securityContext.privileged=true)"
    );
}

#[tokio::test]
async fn what_the_configuration_exempts_is_not_judged_and_the_log_says_so() {
    use machinery::pod_security::configuration::Configuration;
    let pod_security = Configuration::parse(&json!({"defaults": {"enforce": "restricted"},
        "exemptions": {"namespaces": ["free"], "runtimeClasses": ["kata"]}}))
    .unwrap();
    let s = Server::with(Config { pod_security, ..Config::default() }).await;
    let made = s
        .ask(
            "POST",
            "/api/v1/namespaces",
            json!({"metadata": {"name": "free",
        "labels": {"pod-security.kubernetes.io/enforce": "baseline"}}}),
        )
        .await;
    assert!(
        made.headers["warning"].to_str().unwrap().contains(
            "is exempt from Pod Security, and the policy (enforce=baseline:latest) will be ignored"
        ),
        "{:?}",
        made.headers
    );
    s.ok("POST", "/api/v1/namespaces/free/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    let event = all(&s, "POST", "/api/v1/namespaces/free/pods", pod("p")).await;
    assert_eq!(event["responseStatus"]["code"], 201);
    assert_eq!(event["annotations"]["pod-security.kubernetes.io/exempt"], "namespace");
    // The defaults hold elsewhere.
    let (code, text) = s.refused("POST", PODS, pod("p")).await;
    assert!(code == 403 && text.contains("violates PodSecurity \"restricted:latest\""), "{text}");
}

#[tokio::test]
async fn what_is_limited_needs_a_quota_that_covers_it() {
    use machinery::resources::quota::limited;
    let limited_resources = limited::parse(&json!({"limitedResources": [
        {"resource": "configmaps", "matchContains": ["count/"]}]}))
    .unwrap();
    let s = Server::with(Config { limited_resources, ..Config::default() }).await;
    let (code, text) = s.refused("POST", MAPS, config_map("m")).await;
    assert_eq!(
        (code, text.as_str()),
        (403, "configmaps \"m\" is forbidden: insufficient quota to consume: count/configmaps")
    );
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    let hard = json!({"count/configmaps": "5"});
    s.ok("POST", quotas, json!({"metadata": {"name": "q"}, "spec": {"hard": hard}})).await;
    let mut quota = s.get(&format!("{quotas}/q")).await;
    quota["status"] = json!({"hard": hard, "used": {"count/configmaps": "0"}});
    s.ok("PUT", &format!("{quotas}/q/status"), quota).await;
    s.ok("POST", MAPS, config_map("m")).await;
}

#[tokio::test]
async fn policies_say_what_failed_and_what_they_note() {
    let s = Server::start().await;
    let api = "/apis/admissionregistration.k8s.io/v1";
    let spec = json!({
        "matchConstraints": {"resourceRules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]},
        "validations": [{"expression": "true"}, {"expression": "object.metadata.name == 'x'", "message": "not x"}],
        "auditAnnotations": [{"key": "named", "valueExpression": "'it is ' + object.metadata.name"},
            {"key": "nothing", "valueExpression": "null"}],
    });
    let binding = json!({"policyName": "p.example.com", "validationActions": ["Audit", "Warn"]});
    for (kind, plural, name, spec) in [
        ("ValidatingAdmissionPolicy", "validatingadmissionpolicies", "p.example.com", spec),
        ("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", "b", binding),
    ] {
        let object = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec});
        s.ok("POST", &format!("{api}/{plural}"), object).await;
        // A consistent list waits for the watch cache.
        s.get(&format!("{api}/{plural}")).await;
    }
    let event = all(&s, "POST", MAPS, config_map("m")).await;
    assert_eq!(
        event["annotations"],
        json!({
            "p.example.com/named": "it is m",
            "validation.policy.admission.k8s.io/validation_failure":
                r#"[{"message":"not x","policy":"p.example.com","binding":"b","expressionIndex":1,"validationActions":["Audit","Warn"]}]"#,
        })
    );
}

#[tokio::test]
async fn webhooks_say_what_they_note_and_the_server_what_they_changed() {
    use super::webhooks::{Hook, configure, webhook};
    use base64::Engine as _;
    let s = Server::start().await;
    let hook = Hook::start(|path, _| match path.starts_with("/change") {
        true => {
            let patch = r#"[{"op":"add","path":"/data/b","value":"2"}]"#;
            let patch = base64::engine::general_purpose::STANDARD.encode(patch);
            json!({"allowed": true, "patchType": "JSONPatch", "patch": patch, "auditAnnotations": {"seen": "yes"}})
        }
        false => json!({"allowed": true, "auditAnnotations": {"looked": "at"}}),
    })
    .await;
    let maps = json!(["configmaps"]);
    let mut gone = webhook("gone", json!({"url": "https://localhost:1/"}), &maps);
    gone["failurePolicy"] = "Ignore".into();
    configure(&s, true, "m", json!([webhook("one", hook.by_url("/change"), &maps), gone])).await;
    configure(&s, false, "v", json!([webhook("two", hook.by_url("/look"), &maps)])).await;
    let mut expected = json!({
        "one.example.com/seen": "yes",
        "two.example.com/looked": "at",
        "mutation.webhook.admission.k8s.io/round_0_index_0": r#"{"configuration":"m","webhook":"one.example.com","mutated":true}"#,
        "mutation.webhook.admission.k8s.io/round_0_index_1": r#"{"configuration":"m","webhook":"gone.example.com","mutated":false}"#,
        "failed-open.mutation.webhook.admission.k8s.io/round_0_index_1": "gone.example.com",
    });
    let rules = json!([{"level": "Metadata"}]);
    let seen = event(&s, &rules, "POST", MAPS, config_map("a"), &[]).await;
    assert_eq!(seen["annotations"], expected);
    // How it changed may be as secret as the object.
    let patch = "patch.webhook.admission.k8s.io/round_0_index_0";
    expected[patch] = r#"{"configuration":"m","webhook":"one.example.com","patch":[{"op":"add","path":"/data/b","value":"2"}],"patchType":"JSONPatch"}"#.into();
    assert_eq!(all(&s, "POST", MAPS, config_map("b")).await["annotations"], expected);
}
