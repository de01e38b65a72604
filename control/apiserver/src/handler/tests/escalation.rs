use super::granting::Granting;
use super::*;
use crate::authz::rbac::PolicyRule;
use crate::context::RequestInfo;

/// Everybody reads pods and may bind the role `loose`; Eve may escalate.
fn modest() -> Arc<Granting> {
    let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
    let reads = PolicyRule {
        verbs: own(&["get", "list"]),
        api_groups: own(&[""]),
        resources: own(&["pods"]),
        ..PolicyRule::default()
    };
    let may = |user: &User, info: &RequestInfo| {
        let binds = info.verb == "bind" && info.resource == "clusterroles" && info.name == "loose";
        binds || info.verb == "escalate" && user.name == "eve"
    };
    Arc::new(Granting { may, rules: vec![reads] })
}

const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
const CLUSTER_ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";

async fn as_user(s: &Server, name: &str, method: &str, target: &str, body: Value) -> (u16, String) {
    let user = User { name: name.into(), groups: vec!["system:authenticated".into()], ..User::default() };
    let headers = [("content-type", if method == "PATCH" { "application/merge-patch+json" } else { "" })];
    let sent = s.send(method, target, serde_json::to_vec(&body).unwrap(), &headers, user).await;
    let answer = answer(sent).await;
    (answer.code, answer.body["message"].as_str().unwrap_or_default().to_owned())
}

fn role(name: &str, verbs: &[&str], resource: &str) -> Value {
    json!({"metadata": {"name": name}, "rules": [{"apiGroups": [""], "resources": [resource], "verbs": verbs}]})
}

fn binding(kind: &str, role: &str) -> Value {
    json!({"metadata": {"name": format!("to-{role}")}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role}})
}

#[tokio::test]
async fn nobody_writes_a_role_beyond_his_own() {
    let s = Server::with_hooks(Config::default(), modest()).await;
    assert_eq!(as_user(&s, "alice", "POST", ROLES, role("r", &["get"], "pods")).await.0, 201);
    let refusal = "user \"alice\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n\
                   {APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\" \"watch\"]}";
    let (code, text) = as_user(&s, "alice", "POST", ROLES, role("s", &["get", "watch"], "secrets")).await;
    let denied = |name: &str| format!("roles.rbac.authorization.k8s.io \"{name}\" is forbidden: {refusal}");
    assert_eq!((code, text), (403, denied("s")));
    let wider = json!({"rules": role("r", &["get", "watch"], "secrets")["rules"]});
    let (code, text) = as_user(&s, "alice", "PATCH", &format!("{ROLES}/r"), wider).await;
    assert_eq!((code, text), (403, denied("r")));
    assert_eq!(as_user(&s, "eve", "POST", ROLES, role("s", &["*"], "secrets")).await.0, 201);
    // What only lets it be collected is no grant, even of a role that holds more.
    let owners = json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "1"}]}});
    assert_eq!(as_user(&s, "alice", "PATCH", &format!("{ROLES}/s"), owners).await.0, 200);
    let all = json!({"metadata": {"name": "all"}, "rules": [], "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}});
    assert_eq!(
        as_user(&s, "alice", "POST", CLUSTER_ROLES, all).await.1,
        "clusterroles.rbac.authorization.k8s.io \"all\" is forbidden: must have cluster-admin privileges to use the aggregationRule"
    );
}

#[tokio::test]
async fn nobody_binds_a_role_beyond_his_own() {
    let s = Server::with_hooks(Config::default(), modest()).await;
    for (name, verb) in [("loose", "delete"), ("tight", "delete"), ("plain", "get")] {
        s.ok("POST", CLUSTER_ROLES, role(name, &[verb], "pods")).await;
    }
    let bind =
        async |kind: &str, name: &str| as_user(&s, "alice", "POST", BINDINGS, binding(kind, name)).await;
    assert_eq!(bind("ClusterRole", "plain").await.0, 201);
    assert_eq!(bind("ClusterRole", "loose").await.0, 201);
    let (code, text) = bind("ClusterRole", "tight").await;
    assert!(
        code == 403
            && text.starts_with(
                "rolebindings.rbac.authorization.k8s.io \"to-tight\" is forbidden: user \"alice\" (groups="
            )
            && text.ends_with("{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}"),
        "{text}"
    );
    assert_eq!(
        bind("Role", "none").await,
        (404, "roles.rbac.authorization.k8s.io \"none\" not found".to_owned())
    );
    assert_eq!(bind("Thing", "x").await, (500, "unsupported role reference kind: \"Thing\"".to_owned()));
    let other = json!({"roleRef": {"name": "loose"}});
    let (code, text) = as_user(&s, "alice", "PATCH", &format!("{BINDINGS}/to-plain"), other).await;
    assert!(code == 422 && text.ends_with("cannot change roleRef"), "{text}");
}
