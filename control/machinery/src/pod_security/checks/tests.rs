use super::*;
use serde_json::json;

fn rule(level: Level) -> Rule {
    Rule { level, version: None }
}

#[test]
fn a_plain_pod_is_baseline_and_not_restricted() {
    let pod = json!({"spec": {"containers": [{"name": "nginx", "image": "nginx"}]}});
    assert!(violations(&rule(Level::Baseline), &pod).is_empty());
    assert_eq!(
        violations(&rule(Level::Restricted), &pod).join(", "),
        "allowPrivilegeEscalation != false (container \"nginx\" must set securityContext.allowPrivilegeEscalation=false), \
         unrestricted capabilities (container \"nginx\" must set securityContext.capabilities.drop=[\"ALL\"]), \
         runAsNonRoot != true (pod or container \"nginx\" must set securityContext.runAsNonRoot=true), \
         seccompProfile (pod or container \"nginx\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
    );
}

#[test]
fn what_baseline_forbids_is_named() {
    let pod = json!({"spec": {
        "hostNetwork": true, "hostIPC": true,
        "securityContext": {"sysctls": [{"name": "kernel.msgmax"}], "seLinuxOptions": {"user": "u"}},
        "volumes": [{"name": "a", "hostPath": {"path": "/"}}, {"name": "b", "emptyDir": {}}],
        "initContainers": [{"name": "i", "ports": [{"hostPort": 80}]}],
        "containers": [{"name": "c", "ports": [{"hostPort": 81}], "livenessProbe": {"httpGet": {"host": "h"}},
            "securityContext": {"privileged": true, "procMount": "Unmasked", "capabilities": {"add": ["NET_RAW", "KILL"]},
                "seccompProfile": {"type": "Unconfined"}}}],
    }});
    assert_eq!(
        violations(&rule(Level::Baseline), &pod),
        [
            "non-default capabilities (container \"c\" must not include \"NET_RAW\" in securityContext.capabilities.add)",
            "host namespaces (hostNetwork=true, hostIPC=true)",
            "hostPath volumes (volume \"a\")",
            "hostPorts (containers \"i\", \"c\" use hostPorts 80, 81)",
            "probe or lifecycle host (container \"c\" uses probe or lifecycle host \"h\")",
            "privileged (container \"c\" must not set securityContext.privileged=true)",
            "procMount (container \"c\" must not set securityContext.procMount to \"Unmasked\")",
            "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: user may not be set)",
            "seccompProfile (container \"c\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
            "forbidden sysctls (kernel.msgmax)",
        ]
    );
    let strict = reasons(&rule(Level::Restricted), &pod);
    assert!(!strict.contains(&"hostPath volumes".to_owned()), "replaced: {strict:?}");
    assert!(strict.contains(&"restricted volume types".to_owned()), "{strict:?}");
    assert!(violations(&rule(Level::Privileged), &pod).is_empty());
}

#[test]
fn a_careful_pod_is_restricted_and_old_rules_are_looser() {
    let pod = json!({"spec": {
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "c", "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
    }});
    assert!(violations(&rule(Level::Restricted), &pod).is_empty());
    let mut root = pod;
    root["spec"]["securityContext"]["runAsUser"] = json!(0);
    assert_eq!(violations(&rule(Level::Restricted), &root), ["runAsUser=0 (pod must not set runAsUser=0)"]);
    assert!(violations(&Rule { level: Level::Restricted, version: Some(22) }, &root).is_empty());
}

#[test]
fn a_pod_in_its_own_user_namespace_must_not_be_refused_what_is_harmless_there() {
    let pod = |host_users: Value| json!({"spec": {"hostUsers": host_users, "containers": [{"name": "c", "securityContext": {"procMount": "Unmasked"}}]}});
    let at = |level: Level, version: Option<u32>| Rule { level, version };
    let baseline = |version, pod: &Value| violations(&at(Level::Baseline, version), pod);
    assert_eq!(baseline(None, &pod(json!(false))), [""; 0]);
    assert_eq!(baseline(Some(35), &pod(json!(false))), [""; 0]);
    let refused = ["procMount (container \"c\" must not set securityContext.procMount to \"Unmasked\")"];
    assert_eq!(baseline(Some(34), &pod(json!(false))), refused, "older rules know no user namespaces");
    assert_eq!(baseline(None, &pod(json!(true))), refused);
    assert_eq!(baseline(None, &pod(Value::Null)), refused);
    let strict = reasons(&at(Level::Restricted, None), &pod(json!(false)));
    assert_eq!(
        strict,
        ["allowPrivilegeEscalation != false", "unrestricted capabilities", "procMount", "seccompProfile"],
        "root is harmless there, an unmasked /proc is still not restricted"
    );
    let older = reasons(&at(Level::Restricted, Some(34)), &pod(json!(false)));
    assert!(older.contains(&"runAsNonRoot != true".to_owned()), "{older:?}");
}

#[test]
fn an_old_restricted_level_must_not_lose_what_baseline_forbids() {
    let pod = json!({"spec": {"containers": [{"name": "c", "securityContext": {
        "runAsNonRoot": true, "allowPrivilegeEscalation": false, "capabilities": {"add": ["NET_RAW"]}}}]}});
    let old = Rule { level: Level::Restricted, version: Some(18) };
    assert_eq!(reasons(&old, &pod), ["non-default capabilities"]);
    let newer = Rule { level: Level::Restricted, version: Some(22) };
    assert_eq!(reasons(&newer, &pod), ["unrestricted capabilities", "seccompProfile"]);
}
