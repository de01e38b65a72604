use super::*;
use crate::context::User;
use serde_json::json;

fn ask(method: &str, url: &str, object: &Value) -> Result<Target, Status> {
    let uri: Uri = url.parse().unwrap();
    let query = query::parse(uri.query().unwrap_or_default());
    let info = crate::request::parse(&method.parse().unwrap(), uri.path(), &query).unwrap();
    let context = Context { info, user: User::default(), query, ..Context::default() };
    target(&context, &uri, object)
}

fn pod() -> Value {
    json!({
        "metadata": {"namespace": "a", "name": "p"},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"containerPort": 8080}]}]},
        "status": {"podIP": "10.1.0.2"},
    })
}

fn kubelet(url: &str) -> String {
    match ask("POST", &format!("/api/v1/namespaces/a/pods/p/{url}"), &pod()).unwrap() {
        Target::Kubelet { node, path } if node == "n1" => path,
        other => panic!("{other:?}"),
    }
}

#[test]
fn options_become_the_kubelets_parameters() {
    assert_eq!(
        kubelet(
            "exec?command=sh&command=-c&command=a%20b&stdin=true&stdout=true&stderr=false&tty=true&container=c"
        ),
        "/exec/a/p/c?command=sh&command=-c&command=a%20b&input=1&output=1&tty=1"
    );
    assert_eq!(kubelet("attach?stdout=1&stderr=1"), "/attach/a/p/c?error=1&output=1");
    assert_eq!(kubelet("portforward"), "/portForward/a/p");
    assert_eq!(kubelet("portforward?ports=80&ports=81"), "/portForward/a/p?port=80%2C81");
    assert_eq!(
        kubelet(
            "log?follow=true&previous=false&tailLines=5&timestamps=true&sinceTime=2026-01-01T00%3A00%3A00Z"
        ),
        "/containerLogs/a/p/c?follow=true&sinceTime=2026-01-01T00%3A00%3A00Z&tailLines=5&timestamps=true"
    );
}

#[test]
fn a_pod_without_a_node_has_no_kubelet() {
    let mut pod = pod();
    pod["spec"]["nodeName"] = json!(null);
    let error = ask("POST", "/api/v1/namespaces/a/pods/p/exec", &pod).unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (400, "pod p does not have a host assigned"));
    assert_eq!(ask("GET", "/api/v1/namespaces/a/pods/p/log", &pod).unwrap(), Target::Nothing);
}

#[test]
fn log_options_are_checked() {
    let message =
        |q: &str| ask("GET", &format!("/api/v1/namespaces/a/pods/p/log?{q}"), &pod()).unwrap_err().message;
    assert_eq!(
        message("tailLines=-1"),
        "PodLogOptions \"p\" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0"
    );
    assert!(message("sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z").contains("at most one of"));
    assert!(message("limitBytes=x").contains("invalid syntax"));
}

#[test]
fn proxies_keep_the_raw_path() {
    let at = |url: &str, object: &Value| ask("GET", url, object);
    assert_eq!(
        at("/api/v1/namespaces/a/pods/p/proxy/x%2Fy/?q=1", &pod()).unwrap(),
        Target::Pod(Destination {
            host: "10.1.0.2".into(),
            port: 8080,
            trust: Trust::Plain,
            path: "/x%2Fy/?q=1".into()
        })
    );
    let Target::Pod(tls) = at("/api/v1/namespaces/a/pods/https:p:9/proxy/", &pod()).unwrap() else {
        panic!()
    };
    assert_eq!((tls.port, tls.trust, tls.path.as_str()), (9, Trust::Unverified, "/"));
    assert_eq!(
        at("/api/v1/namespaces/a/services/https:s:api/proxy/z", &json!({})).unwrap(),
        Target::Service {
            namespace: "a".into(),
            name: "s".into(),
            scheme: "https".into(),
            port: "api".into(),
            path: "/z".into()
        }
    );
    assert_eq!(
        at("/api/v1/nodes/n1:10250/proxy/logs/", &json!({})).unwrap(),
        Target::Node {
            node: "n1".into(),
            scheme: String::new(),
            port: "10250".into(),
            path: "/logs/".into()
        }
    );
    assert_eq!(
        at("/api/v1/namespaces/a/pods/p/proxy?x=1", &pod()).unwrap(),
        Target::Redirect("/api/v1/namespaces/a/pods/p/proxy/?x=1".into())
    );
    assert_eq!(at("/api/v1/namespaces/a/pods/ftp:p:1/proxy/", &pod()).unwrap_err().code, 400);
}
