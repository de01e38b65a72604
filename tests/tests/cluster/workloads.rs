//! What a pod's spec asks for, seen from inside its containers.

use crate::harness::{Namespace, cluster, eventually, on_node};
use std::collections::BTreeSet;

fn wait(namespace: &Namespace<'_>, pod: &str, condition: &str) {
    namespace.kubectl(&["wait", &format!("--for={condition}"), "--timeout=90s", &format!("pod/{pod}")]);
}

#[test]
fn configuration_reaches_a_container_and_follows_its_changes() {
    let namespace = cluster().namespace("work-config");
    namespace.apply(
        "apiVersion: v1
kind: ConfigMap
metadata: { name: settings }
data: { color: blue, mode: fast }
---
apiVersion: v1
kind: Secret
metadata: { name: keys }
stringData: { password: hunter2 }
---
apiVersion: v1
kind: Pod
metadata: { name: p, labels: { role: test }, annotations: { note: hello } }
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - { name: first, image: 'lab.local/echo:1', command: [sh, -c, 'echo from-init > /data/init'], volumeMounts: [{ name: work, mountPath: /data }] }
  containers:
  - name: c
    image: lab.local/echo:1
    env:
    - { name: COLOR, valueFrom: { configMapKeyRef: { name: settings, key: color } } }
    - { name: PASSWORD, valueFrom: { secretKeyRef: { name: keys, key: password } } }
    - { name: POD, valueFrom: { fieldRef: { fieldPath: metadata.name } } }
    - { name: HOST_IP, valueFrom: { fieldRef: { fieldPath: status.hostIP } } }
    - { name: CPUS, valueFrom: { resourceFieldRef: { resource: limits.cpu } } }
    - { name: BOTH, value: '$(COLOR)-$(POD)-$$(POD)' }
    envFrom: [{ prefix: S_, configMapRef: { name: settings } }]
    resources: { limits: { cpu: '1', memory: 64Mi } }
    volumeMounts:
    - { name: work, mountPath: /data }
    - { name: settings, mountPath: /etc/settings }
    - { name: keys, mountPath: /etc/keys, readOnly: true }
    - { name: me, mountPath: /etc/me }
    - { name: settings, mountPath: /etc/single, subPath: color }
  volumes:
  - { name: work, emptyDir: {} }
  - { name: settings, configMap: { name: settings } }
  - { name: keys, secret: { secretName: keys, defaultMode: 256 } }
  - name: me
    downwardAPI: { items: [{ path: labels, fieldRef: { fieldPath: metadata.labels } }] }
",
    );
    wait(&namespace, "p", "condition=Ready");
    let sh = |script: &str| namespace.kubectl(&["exec", "p", "-c", "c", "--", "sh", "-c", script]);
    assert_eq!(
        sh("echo $COLOR $PASSWORD $POD $CPUS $BOTH $S_mode").trim(),
        "blue hunter2 p 1 blue-p-$(POD) fast"
    );
    assert!(sh("echo $HOST_IP").starts_with("192.168.77."));
    assert_eq!(
        sh("cat /data/init /etc/settings/mode /etc/keys/password /etc/single"),
        "from-init\nfasthunter2blue"
    );
    assert_eq!(sh("stat -L -c %a /etc/keys/password").trim(), "400");
    assert!(sh("cat /etc/me/labels").contains("role=\"test\""));
    let memory =
        sh("cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max");
    assert_eq!(memory.trim(), "67108864");
    namespace.kubectl(&["patch", "configmap", "settings", "-p", r#"{"data":{"color":"green"}}"#]);
    eventually("the mounted file changes", 90, || {
        let color = sh("cat /etc/settings/color");
        if color == "green" { Ok(()) } else { Err(color) }
    });
    assert_eq!(
        sh("cat /etc/single; echo $COLOR"),
        "blueblue\n",
        "a subPath and the environment stay what they were"
    );
    assert!(sh("cat /etc/hosts").contains("# Kubernetes-managed hosts file"));
    assert!(
        sh("cat /etc/resolv.conf").contains(&format!(
            "search {}.svc.cluster.local svc.cluster.local cluster.local",
            namespace.name
        ))
    );
}

#[test]
fn a_pod_speaks_to_the_api_as_its_service_account() {
    let namespace = cluster().namespace("work-token");
    namespace.kubectl(&["run", "p", "--image=lab.local/echo:1"]);
    wait(&namespace, "p", "condition=Ready");
    let dir = "/var/run/secrets/kubernetes.io/serviceaccount";
    let token = namespace.kubectl(&["exec", "p", "--", "cat", &format!("{dir}/token")]);
    assert_eq!(namespace.kubectl(&["exec", "p", "--", "cat", &format!("{dir}/namespace")]), namespace.name);
    assert!(
        namespace
            .kubectl(&["exec", "p", "--", "cat", &format!("{dir}/ca.crt")])
            .contains("BEGIN CERTIFICATE")
    );
    // kubectl would prefer the administrator's client certificate: a kubeconfig with the token alone
    let whoami = |args: &[&str]| {
        let config = std::fs::read_to_string(cluster().kubeconfig()).unwrap();
        let bare: String = config
            .lines()
            .filter(|l| !l.contains("client-certificate-data") && !l.contains("client-key-data"))
            .fold(String::new(), |text, line| text + &line.replace("user: {}", "user:") + "\n");
        let path = cluster().kubeconfig().with_extension("bare");
        std::fs::write(&path, bare).unwrap();
        let path = path.to_string_lossy().into_owned();
        let mut all = vec!["--kubeconfig", path.as_str(), "--token", token.as_str()];
        all.extend_from_slice(args);
        std::process::Command::new("kubectl").args(&all).output().unwrap()
    };
    let out = whoami(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]);
    assert_eq!(
        String::from_utf8_lossy(&out.stdout),
        format!("system:serviceaccount:{}:default", namespace.name),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let out = whoami(&["-n", &namespace.name, "get", "pods"]);
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    let user = format!("system:serviceaccount:{}:default", namespace.name);
    assert!(
        text.contains(&format!("pods is forbidden: User \"{user}\" cannot list resource \"pods\"")),
        "{text}"
    );
    namespace.kubectl(&[
        "create",
        "rolebinding",
        "see",
        "--clusterrole=view",
        &format!("--serviceaccount={}:default", namespace.name),
    ]);
    eventually("the role counts", 20, || {
        let out = whoami(&["-n", &namespace.name, "get", "pods"]);
        if out.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&out.stderr).into_owned()) }
    });
}

#[test]
fn containers_end_restart_and_back_off_as_their_policy_says() {
    let namespace = cluster().namespace("work-restart");
    let pod = |name: &str, policy: &str, script: &str| {
        namespace.apply(&format!(
            "apiVersion: v1
kind: Pod
metadata: {{ name: {name} }}
spec:
  restartPolicy: {policy}
  terminationGracePeriodSeconds: 1
  containers: [{{ name: c, image: 'lab.local/echo:1', command: [sh, -c, '{script}'] }}]
"
        ));
    };
    pod("done", "Never", "echo bye > /dev/termination-log");
    pod("broken", "Never", "exit 7");
    pod("loop", "Always", "exit 1");
    wait(&namespace, "done", "jsonpath={.status.phase}=Succeeded");
    wait(&namespace, "broken", "jsonpath={.status.phase}=Failed");
    let ended = ".status.containerStatuses[0].state.terminated";
    assert_eq!(
        namespace.path("pod/done", &format!("{{{ended}.reason}} {{{ended}.message}}")).trim(),
        "Completed bye"
    );
    assert_eq!(namespace.path("pod/broken", &format!("{{{ended}.reason}} {{{ended}.exitCode}}")), "Error 7");
    eventually("it backs off", 60, || {
        let text = namespace.path(
            "pod/loop",
            "{.status.containerStatuses[0].state.waiting.reason} {.status.containerStatuses[0].restartCount}",
        );
        if text.starts_with("CrashLoopBackOff ") { Ok(()) } else { Err(text) }
    });
    let events =
        namespace.kubectl(&["get", "events", "--field-selector", "involvedObject.name=loop,reason=BackOff"]);
    assert!(events.contains("Back-off restarting failed container c in pod loop"), "{events}");
}

#[test]
fn probes_gate_readiness_and_restart_what_hangs() {
    let namespace = cluster().namespace("work-probes");
    namespace.apply(
        "apiVersion: v1
kind: Pod
metadata: { name: p }
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: lab.local/echo:1
    readinessProbe: { exec: { command: [test, -e, /tmp/ready] }, periodSeconds: 1 }
    livenessProbe: { exec: { command: [test, '!', -e, /tmp/dead] }, periodSeconds: 1, failureThreshold: 2 }
",
    );
    wait(&namespace, "p", "jsonpath={.status.phase}=Running");
    assert_eq!(namespace.path("pod/p", "{.status.containerStatuses[0].ready}"), "false");
    namespace.kubectl(&["exec", "p", "--", "touch", "/tmp/ready"]);
    wait(&namespace, "p", "condition=Ready");
    namespace.kubectl(&["exec", "p", "--", "touch", "/tmp/dead"]);
    eventually("it is restarted", 60, || {
        let count = namespace.path("pod/p", "{.status.containerStatuses[0].restartCount}");
        if count == "1" { Ok(()) } else { Err(count) }
    });
    let events = namespace.kubectl(&["get", "events", "--field-selector", "involvedObject.name=p"]);
    assert!(events.contains("Liveness probe failed") && events.contains("will be restarted"), "{events}");
}

#[test]
fn a_static_pod_has_a_mirror_and_comes_back() {
    cluster();
    let manifest = "apiVersion: v1
kind: Pod
metadata: { name: fixed, namespace: default }
spec:
  terminationGracePeriodSeconds: 1
  containers: [{ name: c, image: 'lab.local/echo:1' }]
";
    let write = format!(
        "mkdir -p /etc/windlass/manifests && cat > /etc/windlass/manifests/fixed.yaml <<'E'\n{manifest}E"
    );
    assert!(on_node("n2", &["sh", "-c", &write]).status.success());
    let ready = || {
        eventually("the mirror pod is ready", 60, || {
            let out =
                cluster().kubectl_output(&["wait", "--for=condition=Ready", "--timeout=5s", "pod/fixed-n2"]);
            if out.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&out.stderr).into_owned()) }
        });
    };
    ready();
    let id = || {
        cluster().kubectl(&[
            "get",
            "pod",
            "fixed-n2",
            "-o",
            "jsonpath={.status.containerStatuses[0].containerID}",
        ])
    };
    let before = id();
    cluster().kubectl(&["delete", "pod", "fixed-n2", "--wait=false"]);
    ready();
    assert_eq!(id(), before, "deleting the mirror does not touch the pod");
    assert!(on_node("n2", &["rm", "/etc/windlass/manifests/fixed.yaml"]).status.success());
    eventually("it goes with its manifest", 60, || {
        let out = cluster().kubectl_output(&["get", "pod", "fixed-n2"]);
        if out.status.success() { Err("still there".to_owned()) } else { Ok(()) }
    });
}

#[test]
fn a_deployment_rolls_undoes_and_restarts() {
    let namespace = cluster().namespace("work-rollout");
    namespace.apply(&crate::harness::echo("web", 3));
    namespace.kubectl(&["rollout", "status", "deployment/web", "--timeout=90s"]);
    namespace.kubectl(&["set", "env", "deployment/web", "VERSION=2"]);
    namespace.kubectl(&["rollout", "status", "deployment/web", "--timeout=90s"]);
    let env = || namespace.path("deployment/web", "{.spec.template.spec.containers[0].env[0].value}");
    assert_eq!(env(), "2");
    assert!(namespace.kubectl(&["rollout", "history", "deployment/web"]).contains('2'));
    namespace.kubectl(&["rollout", "undo", "deployment/web"]);
    namespace.kubectl(&["rollout", "status", "deployment/web", "--timeout=90s"]);
    assert_eq!(env(), "");
    namespace.kubectl(&["rollout", "restart", "deployment/web"]);
    namespace.kubectl(&["rollout", "status", "deployment/web", "--timeout=90s"]);
    namespace.kubectl(&["scale", "deployment/web", "--replicas=1"]);
    eventually("one pod is left", 60, || {
        let names = namespace.path("pods", "{.items[*].metadata.name}");
        if names.split_whitespace().count() == 1 { Ok(()) } else { Err(names) }
    });
    let sets = namespace.path("replicasets", "{range .items[*]}{.spec.replicas}{' '}{end}");
    assert_eq!(sets.split_whitespace().filter(|n| *n != "0").count(), 1, "{sets}");
}

#[test]
fn a_job_a_daemon_set_and_a_namespace_come_to_their_ends() {
    let namespace = cluster().namespace("work-kinds");
    namespace.apply(
        "apiVersion: batch/v1
kind: Job
metadata: { name: count }
spec:
  completions: 3
  parallelism: 2
  template: { spec: { restartPolicy: Never, containers: [{ name: c, image: 'lab.local/echo:1', command: ['true'] }] } }
---
apiVersion: apps/v1
kind: DaemonSet
metadata: { name: everywhere }
spec:
  selector: { matchLabels: { app: everywhere } }
  template:
    metadata: { labels: { app: everywhere } }
    spec: { terminationGracePeriodSeconds: 1, containers: [{ name: c, image: 'lab.local/echo:1' }] }
",
    );
    namespace.kubectl(&["wait", "--for=condition=Complete", "--timeout=90s", "job/count"]);
    assert_eq!(namespace.path("job/count", "{.status.succeeded}"), "3");
    namespace.kubectl(&["rollout", "status", "daemonset/everywhere", "--timeout=90s"]);
    let nodes = namespace.path("pods", "{.items[?(@.metadata.labels.app=='everywhere')].spec.nodeName}");
    let all = cluster().kubectl(&["get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"]);
    let sorted = |names: &str| names.split(' ').map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(sorted(&nodes), sorted(&all));
    assert!(nodes.split(' ').count() == all.split(' ').count() && all.contains("n1 n2"), "{nodes}");
    cluster().kubectl(&["delete", "namespace", &namespace.name, "--timeout=90s"]);
    assert!(!cluster().kubectl_output(&["get", "namespace", &namespace.name]).status.success());
}
