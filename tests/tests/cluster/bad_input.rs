//! Bad input costs a clear error and nothing else: each gets the words upstream has for it, and a neighbour goes on.

use crate::harness::{Cluster, Namespace, cluster, eventually, lab_output, on_node};
use serde_json::Value;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// The API server as curl reaches it.
struct Raw {
    server: String,
    dir: PathBuf,
}

struct HttpResponse {
    code: u16,
    body: Value,
    headers: String,
}

impl HttpResponse {
    fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }
}

impl Raw {
    fn new(cluster: &Cluster) -> Self {
        let dir = cluster.kubeconfig().with_extension("raw");
        std::fs::create_dir_all(&dir).unwrap();
        let shown = cluster.kubectl(&["config", "view", "--raw", "-o", "json"]);
        let config: Value = serde_json::from_str(&shown).unwrap();
        let (info, user) = (&config["clusters"][0]["cluster"], &config["users"][0]["user"]);
        let files = [
            ("ca", &info["certificate-authority-data"]),
            ("cert", &user["client-certificate-data"]),
            ("key", &user["client-key-data"]),
        ];
        for (name, text) in files {
            let mut decode = Command::new("base64");
            let mut child =
                decode.arg("-d").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("base64");
            child.stdin.take().unwrap().write_all(text.as_str().unwrap().as_bytes()).unwrap();
            std::fs::write(dir.join(name), child.wait_with_output().unwrap().stdout).unwrap();
        }
        Raw { server: info["server"].as_str().unwrap().to_owned(), dir }
    }

    fn address(&self) -> &str {
        self.server.trim_start_matches("https://")
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(name).to_string_lossy().into_owned()
    }

    /// curl as the administrator.
    fn send(&self, method: &str, path: &str, content_type: &str, body: &[u8]) -> HttpResponse {
        let credentials = ["--cert".into(), self.file("cert"), "--key".into(), self.file("key")];
        self.send_as(&credentials, method, path, content_type, body)
    }

    fn send_as(
        &self,
        credentials: &[String],
        method: &str,
        path: &str,
        content_type: &str,
        body: &[u8],
    ) -> HttpResponse {
        let mut command = Command::new("curl");
        command.args(["-sS", "-i", "--max-time", "60", "-X", method, "--cacert", &self.file("ca")]);
        command.args(credentials);
        if !content_type.is_empty() {
            command.args(["-H", &format!("content-type: {content_type}"), "-H", "expect:"]);
            command.args(["--data-binary", "@-"]);
        }
        command.arg(format!("{}{path}", self.server));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the suite needs curl");
        // A server that refuses early does not read it all.
        let _ = child.stdin.take().unwrap().write_all(body);
        let out = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(!text.is_empty(), "{method} {path}: {}", String::from_utf8_lossy(&out.stderr));
        let (headers, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let code = headers.split(' ').nth(1).and_then(|c| c.parse().ok()).unwrap_or(0);
        HttpResponse {
            code,
            body: serde_json::from_str(body).unwrap_or(Value::Null),
            headers: headers.to_owned(),
        }
    }
}

fn stderr(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

fn maps(namespace: &Namespace<'_>) -> String {
    format!("/api/v1/namespaces/{}/configmaps", namespace.name)
}

/// A pod of the lab's image, pinned to a node.
fn pod(name: &str, node: &str, image: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{ name: {name} }}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 1
  containers: [{{ name: c, image: '{image}' }}]
"
    )
}

fn ready(namespace: &Namespace<'_>, pod: &str) {
    namespace.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", &format!("pod/{pod}")]);
}

fn restarts(namespace: &Namespace<'_>, pod: &str) -> String {
    namespace.path(&format!("pod/{pod}"), "{.status.containerStatuses[0].restartCount}")
}

const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
const OPERATIONS: &str = "application/json-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

#[test]
fn bodies_that_are_no_objects_are_refused() {
    let namespace = cluster().namespace("bad-bodies");
    let (raw, path) = (Raw::new(cluster()), maps(&namespace));
    let deep = format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","x":{}{}}}"#,
        "[".repeat(20_000),
        "]".repeat(20_000)
    );
    let unrecognised = "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: ";
    let cases: [(&str, &[u8], u16, &str); 9] = [
        (JSON, b"{\"kind\":", 400, &format!("{unrecognised}unexpected end of JSON input")),
        (JSON, b"", 400, &format!("{unrecognised}unexpected end of JSON input")),
        (JSON, deep.as_bytes(), 400, &format!("{unrecognised}exceeded max depth")),
        (
            "application/yaml",
            b"a: b: c\n\t-",
            400,
            &format!("{unrecognised}error converting YAML to JSON: yaml: "),
        ),
        (
            "application/vnd.kubernetes.protobuf",
            b"k8s nothing",
            400,
            "the object provided is unrecognized (must be of type ConfigMap): provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]",
        ),
        (
            "text/plain",
            b"{}",
            415,
            "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf",
        ),
        (
            JSON,
            br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"data":{"a":1}}"#,
            400,
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ConfigMap.data of type string",
        ),
        (
            JSON,
            br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x"}}"#,
            400,
            "Pod in version \"v1\" cannot be handled as a ConfigMap",
        ),
        (
            JSON,
            br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"A"}}"#,
            422,
            "ConfigMap \"A\" is invalid: metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of",
        ),
    ];
    for (content_type, body, code, message) in cases {
        let answer = raw.send("POST", &path, content_type, body);
        assert_eq!(answer.code, code, "{}", answer.body);
        assert!(answer.message().starts_with(message), "{}", answer.message());
    }
    let strict = br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"data":{"a":"1","a":"2"},"datas":1}"#;
    let answer = raw.send("POST", &format!("{path}?fieldValidation=Strict"), JSON, strict);
    assert_eq!(
        (answer.code, answer.message()),
        (
            400,
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: duplicate field \"data.a\", unknown field \"datas\""
        )
    );
    // Refused before the body is read: the answer arrives all the same.
    let answer = raw.send("POST", &format!("{path}?fieldValidation=Loose"), JSON, strict);
    assert_eq!(answer.code, 422, "{}", answer.body);
    assert!(
        answer.message().contains("fieldValidation: Unsupported value: \"Loose\""),
        "{}",
        answer.message()
    );
    let answer = raw.send("POST", &format!("{path}?fieldValidation=Warn"), JSON, strict);
    assert_eq!(answer.code, 201);
    for warning in ["299 - \"duplicate field \\\"data.a\\\"\"", "299 - \"unknown field \\\"datas\\\"\""] {
        let found = answer.headers.replace("\\\"", "\"").contains(&warning.replace("\\\"", "\""));
        assert!(found, "{warning} in {}", answer.headers);
    }
    let again = String::from_utf8_lossy(strict).replace("\"x\"", "\"y\"");
    let answer = raw.send("POST", &format!("{path}?fieldValidation=Ignore"), JSON, again.as_bytes());
    assert!(answer.code == 201 && !answer.headers.contains("warning:"), "{}", answer.headers);
}

#[test]
fn bodies_are_bounded_and_slow_clients_wait_alone() {
    let namespace = cluster().namespace("bad-sizes");
    let (raw, path) = (Raw::new(cluster()), maps(&namespace));
    let answer = raw.send("POST", &path, JSON, &vec![b'a'; (3 << 20) + 1]);
    assert_eq!(
        (answer.code, answer.message(), answer.body["reason"].as_str()),
        (413, "Request entity too large: limit is 3145728", Some("RequestEntityTooLarge"))
    );
    // Connections that say nothing, and a body that never ends, hold nobody up.
    let silent: Vec<TcpStream> = (0..300).map(|_| TcpStream::connect(raw.address()).unwrap()).collect();
    let mut endless = Command::new("curl")
        .args([
            "-sS",
            "--max-time",
            "30",
            "--limit-rate",
            "1k",
            "-X",
            "POST",
            "-H",
            "content-type: application/json",
        ])
        .args([
            "--cacert",
            &raw.file("ca"),
            "--cert",
            &raw.file("cert"),
            "--key",
            &raw.file("key"),
            "-T",
            "/dev/zero",
        ])
        .arg(format!("{}{path}", raw.server))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    for round in 0..5 {
        namespace.kubectl(&["create", "configmap", &format!("through-{round}")]);
    }
    drop(silent);
    endless.kill().unwrap();
    endless.wait().unwrap();
    assert_eq!(cluster().kubectl(&["get", "--raw", "/readyz"]), "ok");
}

#[test]
fn selectors_tokens_and_patches_are_checked() {
    let namespace = cluster().namespace("bad-queries");
    let (raw, path) = (Raw::new(cluster()), maps(&namespace));
    namespace.kubectl(&["create", "configmap", "x", "--from-literal=a=1"]);
    for (query, code, message) in [
        ("labelSelector=a%3D%3D%3Db", 400, "unable to parse requirement: found '=', expected: identifier"),
        (
            "fieldSelector=spec.x%3D1",
            400,
            "\"spec.x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
        ),
        ("fieldSelector=nonsense", 400, "invalid selector: 'nonsense'; can't understand 'nonsense'"),
        ("continue=nonsense&limit=1", 400, "continue key is not valid: "),
        // Upstream: `apimachinery/pkg/runtime/conversion.go`, whose error is the whole message.
        ("limit=x", 400, "strconv.ParseInt: parsing \"x\": invalid syntax"),
        (
            "resourceVersion=abc",
            400,
            "Invalid value: \"abc\": strconv.ParseUint: parsing \"abc\": invalid syntax",
        ),
        ("resourceVersion=99999999999", 504, "Timeout: Too large resource version: 99999999999, current: "),
        (
            "resourceVersionMatch=Exact",
            422,
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
        ),
    ] {
        let answer = raw.send("GET", &format!("{path}?{query}"), "", b"");
        assert_eq!(answer.code, code, "{query}: {}", answer.body);
        assert!(answer.message().starts_with(message), "{query}: {}", answer.message());
    }
    let rejected = "the server rejected our request due to an error in our request";
    let literal = "invalid character 'o' in literal null (expecting 'u')";
    let kind = "json: cannot unmarshal array into Go value of type map[string]interface {}";
    for (format, patch, code, message) in [
        (
            JSON,
            "{}",
            415,
            "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json",
        ),
        (
            OPERATIONS,
            r#"{"op":"x"}"#,
            400,
            "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
        ),
        (OPERATIONS, r#"[{"op":"x","path":"/a"}]"#, 422, rejected),
        (OPERATIONS, r#"[{"op":"remove","path":"/data/none"}]"#, 422, rejected),
        (OPERATIONS, r#"[{"op":"test","path":"/metadata/name","value":"q"}]"#, 422, rejected),
        (MERGE, "nonsense", 400, &format!("error decoding patch: {literal}")),
        (MERGE, "[]", 400, &format!("error decoding patch: {kind}")),
        (STRATEGIC, "nonsense", 400, literal),
        (STRATEGIC, "[]", 400, kind),
        (MERGE, r#"{"data":1}"#, 422, " \"\" is invalid: patch: Invalid value: "),
        (
            MERGE,
            r#"{"metadata":{"resourceVersion":"1"}}"#,
            409,
            "Operation cannot be fulfilled on configmaps \"x\": the object has been modified",
        ),
    ] {
        let answer = raw.send("PATCH", &format!("{path}/x"), format, patch.as_bytes());
        assert_eq!(answer.code, code, "{patch}: {}", answer.body);
        assert!(answer.message().starts_with(message), "{patch}: {}", answer.message());
    }
    assert_eq!(namespace.path("configmap/x", "{.data.a}"), "1", "what was stored is what it was");
}

#[test]
fn invalid_manifests_name_every_fault() {
    let namespace = cluster().namespace("bad-manifests");
    let refuse = |manifest: &str, texts: &[&str]| {
        let out = cluster().feed(&["-n", &namespace.name, "create", "-f", "-"], &format!("---\n{manifest}"));
        let said = stderr(&out);
        assert!(!out.status.success(), "{manifest}");
        texts.iter().for_each(|text| assert!(said.contains(text), "{text:?} is not in {said}"));
    };
    refuse(
        "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {restartPolicy: Perhaps, containers: [{name: C}, {name: c, image: i, ports: [{containerPort: 70000}]}]}}",
        &[
            "The Pod \"p\" is invalid",
            "spec.containers[0].name: Invalid value: \"C\": a lowercase RFC 1123 label must consist of",
            "spec.containers[0].image: Required value",
            "spec.containers[1].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            "spec.restartPolicy: Unsupported value: \"Perhaps\": supported values: \"Always\", \"Never\", \"OnFailure\"",
        ],
    );
    refuse(
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {replicas: -1, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: c}}, spec: {containers: [{name: c, image: i}]}}}}",
        &[
            "The Deployment \"d\" is invalid",
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            "spec.template.metadata.labels: Invalid value: {\"a\":\"c\"}: `selector` does not match template `labels`",
        ],
    );
    refuse(
        "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {type: Sideways, ports: [{port: 0}]}}",
        &[
            "The Service \"s\" is invalid",
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "spec.type: Unsupported value: \"Sideways\"",
        ],
    );
    refuse(
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: m}, data: {'a b': x}}",
        &[
            "The ConfigMap \"m\" is invalid: data[a b]: Invalid value: \"a b\": a valid config key must consist of",
        ],
    );
    refuse(
        "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: i, imagee: j}]}}",
        &["strict decoding error: unknown field \"spec.containers[0].imagee\""],
    );
    refuse(
        "{apiVersion: batch/v1, kind: Job, metadata: {name: j}, spec: {template: {spec: {containers: [{name: c, image: i}]}}}}",
        &["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""],
    );
    assert_eq!(namespace.kubectl(&["get", "pods,deployments,services,jobs", "-o", "name"]), "");
}

#[test]
fn bad_credentials_are_nobodys() {
    let raw = Raw::new(cluster());
    let pods = "/api/v1/pods";
    let answer = raw.send_as(&["-H".into(), "authorization: Bearer nonsense".into()], "GET", pods, "", b"");
    assert_eq!((answer.code, answer.message()), (401, "Unauthorized"));
    let (key, cert) = (raw.file("other-key"), raw.file("other-cert"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/O=system:masters/CN=x", "-keyout", &key, "-out", &cert])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", stderr(&made));
    let answer = raw.send_as(&["--cert".into(), cert, "--key".into(), key], "GET", pods, "", b"");
    assert_eq!((answer.code, answer.message()), (401, "Unauthorized"));
    let answer = raw.send_as(&[], "GET", pods, "", b"");
    assert_eq!(
        (answer.code, answer.message()),
        (
            403,
            "pods is forbidden: User \"system:anonymous\" cannot list resource \"pods\" in API group \"\" at the cluster scope"
        )
    );
}

#[test]
fn garbage_on_the_ports_ends_its_own_connection() {
    for port in ["192.168.77.11:6443", "192.168.77.11:10250", "192.168.77.12:10250"] {
        for garbage in [
            "NONSENSE\\r\\n\\r\\n",
            "GET / HTTP/9.9\\r\\n\\r\\n",
            "POST / HTTP/1.1\\r\\nhost: x\\r\\ncontent-length: -1\\r\\n\\r\\n",
            "\\000\\001\\002\\003\\r\\n\\r\\n",
        ] {
            let line = format!(
                "printf '{garbage}' | timeout 10 openssl s_client -quiet -connect {port} 2>/dev/null"
            );
            let out = lab_output(&["net", "--", "sh", "-c", &line]);
            let said = String::from_utf8_lossy(&out.stdout).into_owned();
            assert!(said.is_empty() || said.starts_with("HTTP/1.1 400"), "{port}: {garbage}: {said}");
        }
        let plain = format!(
            "printf 'GET / HTTP/1.1\\r\\n\\r\\n' | timeout 10 bash -c 'exec 3<>/dev/tcp/{}; cat >&3; cat <&3'",
            port.replace(':', "/")
        );
        lab_output(&["net", "--", "sh", "-c", &plain]);
    }
    assert_eq!(cluster().kubectl(&["get", "--raw", "/readyz"]), "ok");
    for node in ["n1", "n2"] {
        assert_eq!(
            cluster().kubectl(&["get", "--raw", &format!("/api/v1/nodes/{node}/proxy/healthz")]),
            "ok"
        );
    }
}

/// Takes a file of a node away, whatever becomes of the test.
struct Planted {
    node: &'static str,
    path: &'static str,
}

impl Planted {
    fn new(node: &'static str, path: &'static str, text: &str) -> Self {
        let out = on_node(node, &["sh", "-c", "printf '%s' \"$1\" > \"$0\"", path, text]);
        assert!(out.status.success(), "{}", stderr(&out));
        Planted { node, path }
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        let _ = on_node(self.node, &["rm", "-f", self.path]);
    }
}

#[test]
fn a_corrupt_static_pod_file_leaves_its_neighbours_alone() {
    cluster();
    let _corrupt = Planted::new(
        "n2",
        "/etc/windlass/manifests/corrupt.yaml",
        "kind: Pod\nmetadata: {name: bad\nspec: [}",
    );
    let _invalid = Planted::new(
        "n2",
        "/etc/windlass/manifests/invalid.yaml",
        "{apiVersion: v1, kind: Pod, metadata: {name: invalid-static}, spec: {containers: [{name: C, image: x}]}}",
    );
    let good = Planted::new(
        "n2",
        "/etc/windlass/manifests/good.yaml",
        "{apiVersion: v1, kind: Pod, metadata: {name: good-static}, spec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: 'lab.local/echo:1'}]}}",
    );
    eventually("the good static pod runs", 40, || {
        let out = cluster().kubectl_output(&[
            "wait",
            "--for=condition=Ready",
            "--timeout=5s",
            "pod/good-static-n2",
        ]);
        if out.status.success() { Ok(()) } else { Err(stderr(&out)) }
    });
    let out = cluster().kubectl_output(&["get", "pod", "invalid-static-n2"]);
    assert!(stderr(&out).contains("pods \"invalid-static-n2\" not found"), "{}", stderr(&out));
    drop(good);
    cluster().kubectl(&["wait", "--for=delete", "--timeout=40s", "pod/good-static-n2"]);
}

#[test]
fn an_unreachable_image_is_backed_off_from_beside_a_good_pod() {
    let namespace = cluster().namespace("bad-image");
    namespace.apply(&format!(
        "{}---\n{}",
        pod("fine", "n2", "lab.local/echo:1"),
        pod("lost", "n2", "unreachable.invalid/x:1")
    ));
    ready(&namespace, "fine");
    eventually("ImagePullBackOff", 60, || {
        let reason = namespace.path("pod/lost", "{.status.containerStatuses[0].state.waiting.reason}");
        if reason == "ImagePullBackOff" { Ok(()) } else { Err(reason) }
    });
    eventually("the events", 20, || {
        let said = namespace.kubectl(&[
            "get",
            "events",
            "--field-selector=involvedObject.name=lost",
            "-o",
            "jsonpath={range .items[*]}{.type} {.reason} {.message}{'\\n'}{end}",
        ]);
        let wanted = [
            "Normal Pulling Pulling image \"unreachable.invalid/x:1\"",
            "Warning Failed Failed to pull image \"unreachable.invalid/x:1\": ",
            "Warning Failed Error: ErrImagePull",
            "Normal BackOff Back-off pulling image \"unreachable.invalid/x:1\"",
            "Warning Failed Error: ImagePullBackOff",
        ];
        match wanted.iter().find(|line| !said.contains(*line)) {
            None => Ok(()),
            Some(missing) => Err(format!("{missing} is not in {said}")),
        }
    });
    assert_eq!(restarts(&namespace, "fine"), "0");
}

#[test]
fn a_typo_in_a_cni_configuration_stops_new_pods_only() {
    let namespace = cluster().namespace("bad-cni");
    namespace.apply(&pod("before", "n2", "lab.local/echo:1"));
    ready(&namespace, "before");
    let typo = Planted::new(
        "n2",
        "/etc/cni/net.d/00-typo.conflist",
        r#"{"cniVersion":"1.0.0","name":"typo","plugins":[{"type":"bridgee"}]}"#,
    );
    let mut made = 0;
    eventually("the event that tells of the typo", 60, || {
        // The runtime reads the folder on its own time: a pod that came through was made too early.
        let name = format!("after-{made}");
        if cluster().kubectl_output(&["-n", &namespace.name, "get", "pod", &name]).status.success() {
            let phase = namespace.path(&format!("pod/{name}"), "{.status.phase}");
            made += u32::from(phase == "Running");
        } else {
            namespace.apply(&pod(&name, "n2", "lab.local/echo:1"));
        }
        let said = namespace.kubectl(&[
            "get",
            "events",
            "--field-selector=reason=FailedCreatePodSandBox",
            "-o",
            "jsonpath={.items[*].message}",
        ]);
        let starts = said.starts_with("Failed to create pod sandbox: rpc error: code = ");
        if starts && said.contains("failed to find plugin \"bridgee\" in path") { Ok(()) } else { Err(said) }
    });
    assert_eq!(namespace.path("pod/before", "{.status.phase}"), "Running");
    assert_eq!(restarts(&namespace, "before"), "0");
    drop(typo);
    ready(&namespace, &format!("after-{made}"));
    assert_eq!(restarts(&namespace, "before"), "0");
}
