//! Network policies, with real packets between pods of one node and of two.

use crate::harness::{Namespace, cluster, eventually, guest, on_node};

/// A pod that serves HTTP and an echo at port 9000, ready once its node reaches it.
pub fn server(namespace: &Namespace<'_>, name: &str, node: &str) {
    namespace.apply(&format!(
        "apiVersion: v1
kind: Pod
metadata: {{ name: {name}, labels: {{ pod: {name} }} }}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: 'lab.local/echo:1'
    command: [sh, -c, 'nc -ll -p 9000 -e cat & exec /guest serve']
    ports: [{{ name: web, containerPort: 8080 }}]
    readinessProbe: {{ tcpSocket: {{ port: 8080 }}, periodSeconds: 1 }}
"
    ));
}

pub fn ready(namespace: &Namespace<'_>, pods: &[&str]) {
    let pods: Vec<String> = pods.iter().map(|pod| format!("pod/{pod}")).collect();
    let mut args = vec!["wait", "--for=condition=Ready", "--timeout=60s"];
    args.extend(pods.iter().map(String::as_str));
    namespace.kubectl(&args);
}

pub fn address(namespace: &Namespace<'_>, pod: &str) -> String {
    namespace.path(&format!("pod/{pod}"), "{.status.podIP}")
}

pub fn policy(namespace: &Namespace<'_>, name: &str, spec: &str) {
    let manifest = format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{ name: {name} }}\nspec: {spec}\n"
    );
    namespace.apply(&manifest);
}

/// Whether a pod gets an answer there within two seconds.
pub fn reaches(namespace: &Namespace<'_>, pod: &str, at: &str) -> bool {
    let command = format!("timeout 2 /guest get http://{at}/");
    namespace.kubectl_output(&["exec", pod, "--", "sh", "-c", &command]).status.success()
}

/// Waits until exactly the `open` of `all` are reached; pods are told by name and namespace.
pub fn settles(what: &str, all: &[(&Namespace<'_>, &str, &str)], open: &[bool]) {
    eventually(what, 20, || {
        let got: Vec<bool> = all.iter().map(|(namespace, pod, at)| reaches(namespace, pod, at)).collect();
        if got == open { Ok(()) } else { Err(format!("{got:?}, not {open:?}")) }
    });
}

#[test]
fn policies_must_let_in_whom_they_name_and_nobody_else() {
    let (red, blue) = (cluster().namespace("pol-red"), cluster().namespace("pol-blue"));
    cluster().kubectl(&["label", "namespace", "pol-blue", "team=blue"]);
    server(&red, "web", "n1");
    server(&red, "near", "n1");
    server(&red, "far", "n2");
    server(&blue, "other", "n2");
    ready(&red, &["web", "near", "far"]);
    ready(&blue, &["other"]);
    red.kubectl(&["expose", "pod", "web", "--port=80", "--target-port=8080"]);
    let (pod, service) = (
        format!("{}:8080", address(&red, "web")),
        format!("{}:80", red.path("service/web", "{.spec.clusterIP}")),
    );
    let all: Vec<(&Namespace<'_>, &str, &str)> = [&pod, &service]
        .into_iter()
        .flat_map(|at| {
            [(&red, "near", at.as_str()), (&red, "far", at.as_str()), (&blue, "other", at.as_str())]
        })
        .collect();
    let twice = |open: [bool; 3]| [open, open].concat();
    settles("no policy", &all, &twice([true; 3]));
    policy(&red, "deny", "{ podSelector: {} }");
    settles("default deny", &all, &twice([false; 3]));
    assert!(reaches(&red, "web", &service), "a pod and itself, by its service");
    ready(&red, &["web"]);
    let spec = |from: &str| {
        format!(
            "{{ podSelector: {{ matchLabels: {{ pod: web }} }}, ingress: [{{ from: [{from}], ports: [{{ port: web }}] }}] }}"
        )
    };
    policy(&red, "allow", &spec("{ podSelector: { matchLabels: { pod: near } } }"));
    settles("one pod, by its name for the port", &all, &twice([true, false, false]));
    policy(&red, "allow", &spec("{ podSelector: {} }"));
    settles("the namespace", &all, &twice([true, true, false]));
    policy(&red, "allow", &spec("{ namespaceSelector: { matchLabels: { team: blue } } }"));
    settles("another namespace", &all, &twice([false, false, true]));
    cluster().kubectl(&["label", "--overwrite", "namespace", "pol-blue", "team=green"]);
    settles("whose labels changed", &all, &twice([false; 3]));
    cluster().kubectl(&["label", "--overwrite", "namespace", "pol-blue", "team=blue"]);
    let far = address(&red, "far");
    policy(&red, "allow", &spec(&format!("{{ ipBlock: {{ cidr: 10.244.0.0/16, except: [{far}/32] }} }}")));
    settles("all but one address", &all, &twice([true, false, true]));
    // from outside, by a node: the block is not its address
    let outside = |node: &str| {
        let asked = on_node(node, &["timeout", "2", &guest(), "get", &format!("http://{pod}/")]);
        asked.status.success()
    };
    assert!(outside("n1"), "its own node");
    assert!(!outside("n2"), "another node");
    red.kubectl(&["delete", "networkpolicy", "--all"]);
    settles("no policy any more", &all, &twice([true; 3]));
    // out
    let to = |rule: &str| {
        format!(
            "{{ podSelector: {{ matchLabels: {{ pod: near }} }}, policyTypes: [Egress], egress: [{rule}] }}"
        )
    };
    policy(&red, "out", &to(""));
    settles("nothing goes out", &all, &twice([false, true, true]));
    policy(
        &red,
        "out",
        &to("{ to: [{ podSelector: { matchLabels: { pod: web } } }], ports: [{ port: web }] }"),
    );
    settles("but to one", &all, &twice([true; 3]));
    assert!(!reaches(&red, "near", &format!("{}:8080", far)), "and to no other");
}

#[test]
fn an_open_connection_must_not_outlive_what_allowed_it() {
    let namespace = cluster().namespace("pol-cut");
    for (name, node) in [("web", "n1"), ("near", "n1"), ("far", "n2")] {
        server(&namespace, name, node);
    }
    ready(&namespace, &["web", "near", "far"]);
    let web = address(&namespace, "web");
    let lines = |pod: &str| {
        let text = namespace.kubectl(&["exec", pod, "--", "sh", "-c", "wc -l < /tmp/out"]);
        text.trim().parse::<u32>().unwrap()
    };
    for pod in ["near", "far"] {
        let command = format!(
            "(while true; do echo ping; sleep 0.1; done | nc {web} 9000 > /tmp/out) > /dev/null 2>&1 &"
        );
        namespace.kubectl(&["exec", pod, "--", "sh", "-c", &command]);
        eventually("an open connection", 10, || {
            if lines(pod) > 3 { Ok(()) } else { Err(lines(pod).to_string()) }
        });
    }
    let spec = |from: &str| {
        format!("{{ podSelector: {{ matchLabels: {{ pod: web }} }}, ingress: [{{ from: [{from}] }}] }}")
    };
    policy(&namespace, "some", &spec("{ podSelector: { matchLabels: { pod: near } } }"));
    eventually("the one that is closed is cut", 15, || {
        let before = lines("far");
        std::thread::sleep(std::time::Duration::from_secs(2));
        if lines("far") == before { Ok(()) } else { Err("it goes on".to_owned()) }
    });
    let before = lines("near");
    eventually("the other goes on", 10, || {
        if lines("near") > before + 5 { Ok(()) } else { Err("cut".to_owned()) }
    });
    policy(&namespace, "some", &spec("{ podSelector: { matchLabels: { pod: nobody } } }"));
    eventually("on one node, too", 15, || {
        let before = lines("near");
        std::thread::sleep(std::time::Duration::from_secs(2));
        if lines("near") == before { Ok(()) } else { Err("it goes on".to_owned()) }
    });
}

#[test]
fn a_new_pods_first_packet_must_be_judged() {
    let (red, blue) = (cluster().namespace("pol-first"), cluster().namespace("pol-first-target"));
    server(&blue, "web", "n1");
    ready(&blue, &["web"]);
    let web = address(&blue, "web");
    policy(
        &red,
        "deny",
        "{ podSelector: { matchLabels: { kind: closed } }, policyTypes: [Ingress, Egress] }",
    );
    // known to both nodes, whose pods nobody is to outrun
    server(&red, "known", "n2");
    ready(&red, &["known"]);
    let pod = |index: usize, kind: &str, node: &str| {
        format!(
            "apiVersion: v1
kind: Pod
metadata: {{ name: {kind}{index}, labels: {{ kind: {kind} }} }}
spec:
  nodeName: {node}
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: 'lab.local/echo:1'
    command: [sh, -c, 'for i in 1 2 3 4 5; do timeout 1 /guest get http://{web}:8080/ && echo through $i || echo dropped; done']
---
"
        )
    };
    let manifest: String = (0..4)
        .flat_map(|index| {
            ["closed", "open"].map(|kind| pod(index, kind, if index % 2 == 0 { "n1" } else { "n2" }))
        })
        .collect();
    red.apply(&manifest);
    for index in 0..4 {
        for (kind, through) in [("closed", 0), ("open", 5)] {
            let name = format!("pod/{kind}{index}");
            eventually("its end", 60, || match red.path(&name, "{.status.phase}").as_str() {
                "Succeeded" => Ok(()),
                phase => Err(phase.to_owned()),
            });
            let log = red.kubectl(&["logs", &name]);
            assert_eq!(log.matches("through").count(), through, "{name}: {log}");
        }
    }
}

#[test]
fn foreign_flushes_must_not_open_what_policies_close() {
    let namespace = cluster().namespace("pol-flush");
    for (name, node) in [("web", "n1"), ("far", "n2")] {
        server(&namespace, name, node);
    }
    ready(&namespace, &["web", "far"]);
    let web = format!("{}:8080", address(&namespace, "web"));
    policy(&namespace, "deny", "{ podSelector: {} }");
    let far = [(&namespace, "far", web.as_str())];
    settles("closed", &far, &[false]);
    let flushed = on_node("n1", &["nft", "delete", "table", "inet", "windlass-policy"]);
    assert!(flushed.status.success());
    settles("closed again", &far, &[false]);
    eventually("the table is back", 30, || {
        let out = on_node("n1", &["nft", "list", "table", "inet", "windlass-policy"]);
        if out.status.success() { Ok(()) } else { Err("no table".to_owned()) }
    });
    settles("closed again", &far, &[false]);
    namespace.kubectl(&["delete", "networkpolicy", "deny"]);
    settles("open", &far, &[true]);
}
