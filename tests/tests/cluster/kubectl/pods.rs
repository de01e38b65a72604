//! What goes through a node's kubelet: logs, exec, copies, attaching, forwarded ports, debugging.

use super::{fails, group, has, is, works};
use crate::harness::{cluster, eventually};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

const PODS: &str = "apiVersion: v1
kind: Pod
metadata: {name: p, labels: {app: p}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: 'lab.local/echo:1', env: [{name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: once}
spec:
  restartPolicy: Never
  containers: [{name: c, image: 'lab.local/echo:1', command: [sh, -c, 'echo one; echo two; echo three; exit 3']}]
";

#[test]
fn kubectl_reads_logs_and_runs_commands() {
    group(
        "exec",
        &[
            is("apply -f -", "pod/p created\npod/once created").input(PODS),
            is("wait --for=condition=Ready pod/p --timeout=60s", "pod/p condition met"),
            is("exec p -- echo hi", "hi"),
            is("exec -i p -- cat", "in and out").input("in and out"),
            is("exec p -c c -- sh -c 'echo $POD'", "p"),
            fails("exec p -- sh -c 'exit 3'", "command terminated with exit code 3"),
            fails("exec p -- sh -c 'echo bad >&2; exit 4'", "bad\ncommand terminated with exit code 4"),
            fails("exec nope -- true", "Error from server (NotFound): pods \"nope\" not found"),
            has("logs p", &["p listens on port 8080"]),
            has("logs -l app=p", &["p listens on port 8080"]),
            is("logs once", "one\ntwo\nthree"),
            is("logs once --tail=1", "three"),
            is("logs once --limit-bytes=3", "one"),
            is("logs -f once", "one\ntwo\nthree"),
            is("logs once --tail=2 --prefix", "[pod/once/c] two\n[pod/once/c] three"),
            fails("logs once -p", "Error from server (BadRequest): previous terminated container \"c\" in pod \"once\" not found"),
            fails("logs nope", "Error from server (NotFound): pods \"nope\" not found").debian(),
            fails("logs nope", "error: error from server (NotFound): pods \"nope\" not found in namespace \"{ns}\"").current(),
            has("get pod once", &["0/1     Error"]),
            has("describe pod once", &["Exit Code:    3", "Reason:       Error", "Successfully assigned {ns}/once to n", "Container started"]),
            has("describe pod p", &["Service Account:  default", "QoS Class:                   BestEffort", "kube-api-access-", "node.kubernetes.io/not-ready:NoExecute op=Exists for 300s"]).current(),
            works("cp /etc/hostname p:/tmp/there"),
            is("exec p -- sh -c 'test -s /tmp/there && echo copied'", "copied"),
            works("debug p --image=lab.local/echo:1 --container=dbg --target=c -- sh -c 'echo debugging; sleep 600'").current(),
            is("wait pod/p --for=jsonpath={.status.ephemeralContainerStatuses[0].name}=dbg --timeout=30s", "pod/p condition met").current(),
            is("logs p -c dbg", "debugging").current(),
            has("exec p -c dbg -- ps", &["/guest serve"]).current(),
            is("delete pod p once --force --grace-period=0", "pod \"p\" force deleted\npod \"once\" force deleted"),
        ],
    );
}

#[test]
fn kubectl_run_attaches_and_cleans_up() {
    group(
        "run",
        &[
            has(
                "run r --rm -i --restart=Never --image=lab.local/echo:1 --command -- cat",
                &["through the pod", "pod \"r\" deleted"],
            )
            .input("through the pod\n"),
            fails("get pod r", "Error from server (NotFound): pods \"r\" not found"),
            is("run s --image=lab.local/echo:1 --labels=x=y --env=A=B", "pod/s created"),
            is(
                "get pod s -o jsonpath={.metadata.labels}{.spec.containers[0].env}",
                "{\"x\":\"y\"}[{\"name\":\"A\",\"value\":\"B\"}]",
            ),
            is("wait --for=condition=Ready pod/s --timeout=60s", "pod/s condition met"),
            is("delete pod -l x=y --now", "pod \"s\" deleted"),
        ],
    );
}

#[test]
fn kubectl_forwards_ports_and_watches() {
    let namespace = cluster().namespace("kubectl-streams");
    namespace.apply(PODS);
    namespace.kubectl(&["wait", "--for=condition=Ready", "pod/p", "--timeout=60s"]);
    // it is Ready as soon as it runs: the port may open later
    eventually("the server in the pod", 30, || {
        let log = namespace.kubectl(&["logs", "p"]);
        if log.contains("listens on port 8080") { Ok(()) } else { Err(log) }
    });
    for debian in [false, true] {
        let mut forward = cluster()
            .kubectl_command(debian, &["-n", &namespace.name, "port-forward", "pod/p", ":8080"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        // kept open: kubectl goes on to say what it forwards, and dies of a closed pipe
        let mut said = BufReader::new(forward.stdout.take().unwrap());
        said.read_line(&mut line).unwrap();
        let port =
            line.strip_prefix("Forwarding from 127.0.0.1:").and_then(|rest| rest.strip_suffix(" -> 8080\n"));
        let port: u16 = port.unwrap_or_else(|| panic!("{line}")).parse().unwrap();
        for attempt in 0..3 {
            let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
            connection.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            connection.write_all(b"GET / HTTP/1.1\r\nHost: p\r\nConnection: close\r\n\r\n").unwrap();
            let mut answer = String::new();
            connection
                .read_to_string(&mut answer)
                .unwrap_or_else(|e| panic!("try {attempt}, debian {debian}: {e}"));
            assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\r\n\r\np "), "{answer}");
        }
        forward.kill().unwrap();
        forward.wait().unwrap();

        let mut watching = cluster()
            .kubectl_command(debian, &["-n", &namespace.name, "get", "cm", "-w", "-o", "name"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "configmap/kube-root-ca.crt");
        let late = format!("late-{debian}");
        namespace.kubectl(&["create", "configmap", &late]);
        // what an earlier round made is listed before
        assert!(lines.any(|line| line.unwrap() == format!("configmap/{late}")));
        watching.kill().unwrap();
        watching.wait().unwrap();
    }
    eventually("the pod that ended", 30, || {
        let phase = namespace.path("pod/once", "{.status.phase}");
        if phase == "Failed" { Ok(()) } else { Err(phase) }
    });
}
