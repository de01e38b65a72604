//! Operators of others: kopf and lightkube (PyPI), and ours on the kube crate with webhooks of admission and conversion. Each goes through
//! create, change, a stored-version migration and deletion with a finalizer.

use crate::harness::{Namespace, cluster, eventually, on_node};
use crate::python;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Output;

const DEFINITION: &str = "gadgets.operator.windlass.dev";

/// A kubeconfig for programs that run on the first node, where the API server reaches their webhooks by the loopback.
fn kubeconfig() -> PathBuf {
    cluster();
    let windlass = program("windlass");
    let out = on_node("n1", &[&windlass.to_string_lossy(), "kubeconfig"]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let path = cluster().kubeconfig().with_extension("on-node");
    std::fs::write(&path, out.stdout).unwrap();
    path
}

fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_lab")).with_file_name(name)
}

fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// The kube operator, running on the first node.
struct Operator {
    pid: String,
    log: PathBuf,
}

impl Operator {
    fn start(kubeconfig: &Path) -> Self {
        let log = kubeconfig.with_extension("operator-log");
        let command = format!(
            "setsid {} --kubeconfig {} run </dev/null >{} 2>&1 & echo $!",
            program("operator").display(),
            kubeconfig.display(),
            log.display()
        );
        let out = on_node("n1", &["sh", "-c", &command]);
        let operator = Self { pid: String::from_utf8_lossy(&out.stdout).trim().to_owned(), log };
        eventually("the operator runs", 40, || {
            let log = operator.log();
            if log.contains("running") { Ok(()) } else { Err(log) }
        });
        operator
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn kill(&self) {
        on_node("n1", &["kill", "-9", &self.pid]);
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the operator said:\n{}", self.log());
        }
        self.kill();
    }
}

fn gadget(name: &str, version: &str, spec: &Value, labels: &Value) -> String {
    json!({"apiVersion": format!("operator.windlass.dev/{version}"), "kind": "Gadget",
        "metadata": {"name": name, "labels": labels}, "spec": spec})
    .to_string()
}

/// Waits until a path of an object says something.
fn becomes(namespace: &Namespace<'_>, object: &str, path: &str, wanted: &str) {
    eventually(&format!("{path} of {object}"), 30, || {
        let out = namespace.kubectl_output(&["get", object, "-o", &format!("jsonpath={path}")]);
        match said(&out) {
            text if out.status.success() && text == wanted => Ok(()),
            text => Err(text),
        }
    });
}

fn is_gone(namespace: &Namespace<'_>, object: &str) {
    eventually(&format!("{object} is gone"), 40, || {
        let out = namespace.kubectl_output(&["get", object, "--ignore-not-found", "-o", "yaml"]);
        if out.status.success() && out.stdout.is_empty() { Ok(()) } else { Err(said(&out)) }
    });
}

fn clean() {
    for kind in ["mutatingwebhookconfiguration", "validatingwebhookconfiguration", "crd"] {
        cluster().kubectl(&["delete", kind, DEFINITION, "--ignore-not-found", "--wait"]);
    }
}

#[test]
fn an_operator_on_kube_goes_through_a_migration_and_must_not_lose_what_it_is_to_forget() {
    let kubeconfig = kubeconfig();
    clean();
    let operator = Operator::start(&kubeconfig);
    let namespace = cluster().namespace("operator-kube");
    let apply = |manifest: &str| cluster().feed(&["-n", &namespace.name, "apply", "-f", "-"], manifest);
    // a webhook that was just made is asked a moment later
    let made = eventually("a gadget", 20, || {
        let out = apply(&gadget("a", "v1", &json!({"size": "2x3"}), &json!({})));
        if out.status.success() { Ok(out) } else { Err(said(&out)) }
    });
    assert!(said(&made).contains("Warning: looked at"), "{}", said(&made));
    let seen = r"{.metadata.labels.example\.windlass\.dev/seen}";
    becomes(&namespace, "gadget/a", seen, "yes");
    becomes(&namespace, "configmap/a", "{.data.area}", "6");
    for version in ["v1", "v2", "v3"] {
        let object = format!("gadgets.{version}.operator.windlass.dev/a");
        becomes(&namespace, &object, "{.status.area}", "6");
        becomes(&namespace, &object, "{.apiVersion}", &format!("operator.windlass.dev/{version}"));
    }
    becomes(&namespace, "gadgets.v3.operator.windlass.dev/a", "{.spec}", r#"{"box":{"height":3,"width":2}}"#);
    let refused = apply(&gadget("b", "v2", &json!({"width": 1, "height": 1}), &json!({"forbidden": "yes"})));
    assert!(said(&refused).contains("its label says so"), "{}", said(&refused));
    let refused = apply(&gadget("b", "v2", &json!({"width": 0, "height": 1}), &json!({})));
    assert!(said(&refused).contains("spec.width"), "{}", said(&refused));

    let migrate = |to: &str| {
        let program = program("operator").to_string_lossy().into_owned();
        let out =
            on_node("n1", &[&program, "--kubeconfig", &kubeconfig.to_string_lossy(), "migrate", "--to", to]);
        assert!(out.status.success(), "{}", said(&out));
        said(&out)
    };
    let stored = || cluster().kubectl(&["get", "crd", DEFINITION, "-o", "jsonpath={.status.storedVersions}"]);
    assert_eq!(stored(), r#"["v1"]"#);
    assert_eq!(migrate("v3"), "1 gadgets are stored as v3\n");
    assert_eq!(stored(), r#"["v3"]"#);
    let wider =
        ["patch", "gadgets.v2.operator.windlass.dev/a", "--type=merge", "-p", r#"{"spec":{"width":5}}"#];
    namespace.kubectl(&wider);
    becomes(&namespace, "configmap/a", "{.data.area}", "15");
    becomes(&namespace, "gadgets.v1.operator.windlass.dev/a", "{.spec.size}", "5x3");
    let without = r#"[{"op":"test","path":"/spec/versions/0/name","value":"v1"},{"op":"remove","path":"/spec/versions/0"}]"#;
    cluster().kubectl(&["patch", "crd", DEFINITION, "--type=json", "-p", without]);
    eventually("v1 is not served", 20, || {
        let out = cluster().kubectl_output(&["get", "--raw", "/apis/operator.windlass.dev/v1/gadgets"]);
        if out.status.success() { Err("it is".to_owned()) } else { Ok(()) }
    });

    // what is to be forgotten waits for who forgets it
    operator.kill();
    namespace.kubectl(&["delete", "gadgets.v3.operator.windlass.dev/a", "--wait=false"]);
    let refused = apply(&gadget("b", "v3", &json!({"box": {"width": 1, "height": 1}}), &json!({})));
    assert!(said(&refused).contains("failed calling webhook"), "{}", said(&refused));
    namespace.kubectl(&["get", "configmap/a-ledger", "configmap/a"]);
    let finalizers = namespace.path("gadgets.v3.operator.windlass.dev/a", "{.metadata.finalizers}");
    assert_eq!(finalizers, r#"["operator.windlass.dev/ledger"]"#);
    drop(operator);
    let _operator = Operator::start(&kubeconfig);
    for object in ["gadgets.v3.operator.windlass.dev/a", "configmap/a-ledger", "configmap/a"] {
        is_gone(&namespace, object);
    }

    // a definition takes its gadgets along, each with its finalizer
    namespace.apply(&gadget("c", "v2", &json!({"width": 2, "height": 2}), &json!({})));
    becomes(&namespace, "configmap/c-ledger", "{.metadata.name}", "c-ledger");
    becomes(&namespace, "configmap/c", "{.data.area}", "4");
    clean();
    for object in ["configmap/c-ledger", "configmap/c"] {
        is_gone(&namespace, object);
    }
}

/// Runs a script of Python on the first node, which prints `done` at its end.
fn runs(package: &str, script: &str) {
    let Some(python) = python::interpreter("kubernetes").and_then(|_| python::interpreter(package)) else {
        return;
    };
    let kubeconfig = kubeconfig();
    let namespace = cluster().namespace(&format!("operator-{package}"));
    let (python, kubeconfig) = (python.to_string_lossy(), kubeconfig.to_string_lossy());
    let out = on_node("n1", &["timeout", "240", &python, "-c", script, &kubeconfig, &namespace.name]);
    assert!(out.status.success() && out.stdout == b"done\n", "{}", said(&out));
}

#[test]
fn an_operator_on_kopf_goes_through_a_migration() {
    runs("kopf", include_str!("operators/with_kopf.py"));
}

#[test]
fn an_operator_on_lightkube_goes_through_a_migration() {
    runs("lightkube", include_str!("operators/with_lightkube.py"));
}
