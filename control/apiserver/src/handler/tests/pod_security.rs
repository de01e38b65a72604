use super::*;

const NAMESPACES: &str = "/api/v1/namespaces";

fn labelled(name: &str, labels: Value) -> Value {
    json!({"metadata": {"name": name, "labels": labels}})
}

fn warnings(answer: &Received) -> Vec<String> {
    answer.headers.get_all("warning").iter().map(|v| v.to_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_namespace_says_what_its_pods_may_ask_for() {
    let s = Server::start().await;
    let (code, text) = s
        .refused("POST", NAMESPACES, labelled("bad", json!({"pod-security.kubernetes.io/enforce": "strict"})))
        .await;
    assert_eq!(
        (code, text.as_str()),
        (
            422,
            "Namespace \"bad\" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": must be one of privileged, baseline, restricted"
        )
    );
    s.ok("POST", NAMESPACES, labelled("base", json!({"pod-security.kubernetes.io/enforce": "baseline"})))
        .await;
    s.ok("POST", "/api/v1/namespaces/base/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    let mut privileged = pod("p");
    privileged["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
    let pods = "/api/v1/namespaces/base/pods";
    let (code, text) = s.refused("POST", pods, privileged.clone()).await;
    assert_eq!(
        (code, text.as_str()),
        (
            403,
            "pods \"p\" is forbidden: violates PodSecurity \"baseline:latest\": privileged (container \"c\" must not set securityContext.privileged=true)"
        )
    );
    s.ok("POST", pods, pod("q")).await;
    let workload = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": privileged["spec"]}}});
    let made = s.ask("POST", "/apis/apps/v1/namespaces/base/deployments", workload).await;
    assert_eq!(made.code, 201);
    assert_eq!(
        warnings(&made),
        [
            "299 - \"would violate PodSecurity \\\"baseline:latest\\\": privileged (container \\\"c\\\" must not set securityContext.privileged=true)\""
        ]
    );
    let stricter = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/enforce-version": "v1.30"}}});
    let answer = s.patch("/api/v1/namespaces/base", "merge-patch+json", stricter).await;
    let warned = warnings(&answer);
    assert_eq!(warned.len(), 2, "{warned:?}");
    assert!(warned[0].contains("existing pods in namespace \\\"base\\\" violate the new PodSecurity enforce level \\\"restricted:v1.30\\\""), "{warned:?}");
    assert!(warned[1].contains("q: allowPrivilegeEscalation != false, unrestricted capabilities, runAsNonRoot != true, seccompProfile"), "{warned:?}");
}
