//! The cluster every test uses, and how tests talk to it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The lab's name: apart from the one a developer may have up.
pub const LAB: &str = "suite";

pub struct Cluster {
    kubeconfig: PathBuf,
}

/// The cluster, brought up by the first test that asks.
pub fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let kubeconfig = std::env::temp_dir().join(format!("windlass-{LAB}-kubeconfig"));
        let cluster = Cluster { kubeconfig };
        let path = cluster.kubeconfig.to_string_lossy().into_owned();
        lab(&["up", "--nodes", "2", "--no-example", "--kubeconfig", &path]);
        cluster
    })
}

/// Runs the lab's command; its failure is the test's.
pub fn lab(args: &[&str]) -> String {
    let out = lab_output(args);
    assert!(out.status.success(), "lab {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// As [`lab`], whatever comes of it. A test that cannot make namespaces fails: what has not run has not passed. `WINDLASS_LAB` names another lab's
/// command, which has the same words: that of virtual machines.
pub fn lab_output(args: &[&str]) -> Output {
    let other = std::env::var_os("WINDLASS_LAB");
    assert!(other.is_some() || nix::unistd::geteuid().is_root(), "the lab needs root");
    Command::new(other.unwrap_or_else(|| env!("CARGO_BIN_EXE_lab").into()))
        .args(["--lab", LAB])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// A lab of a test's own, beside the one of all tests; it goes with this.
pub struct Lab {
    name: &'static str,
    pub cluster: Cluster,
}

impl Lab {
    /// Brings it up with these further arguments.
    pub fn up(name: &'static str, arguments: &[&str]) -> Self {
        let kubeconfig = std::env::temp_dir().join(format!("windlass-{name}-kubeconfig"));
        let this = Self { name, cluster: Cluster { kubeconfig } };
        let path = this.cluster.kubeconfig.to_string_lossy().into_owned();
        let out =
            this.output(&[&["up", "--no-example", "--kubeconfig", path.as_str()][..], arguments].concat());
        assert!(out.status.success(), "{name}: {}", String::from_utf8_lossy(&out.stderr));
        this
    }

    /// Its command, whatever comes of it.
    pub fn output(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
        command.args(["--lab", self.name]).args(args).stdin(Stdio::null()).output().unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let out = self.output(&["down"]);
        if !std::thread::panicking() {
            assert!(out.status.success(), "{}: {}", self.name, String::from_utf8_lossy(&out.stderr));
        }
    }
}

/// The guest program on this machine.
pub fn guest() -> String {
    env!("CARGO_BIN_EXE_guest").to_owned()
}

/// Runs a command inside a node, whatever comes of it.
pub fn on_node(node: &str, argv: &[&str]) -> Output {
    let mut args = vec!["exec", node, "--"];
    args.extend_from_slice(argv);
    lab_output(&args)
}

/// How long between two tries: a twentieth of what has passed, so that looking does not take the processor from what is waited for.
fn pause(passed: Duration) -> Duration {
    (passed / 20).clamp(Duration::from_millis(100), Duration::from_secs(2))
}

/// Tries until `probe` gives something, at most `seconds`; a failure says what was last wrong.
pub fn eventually<T>(what: &str, seconds: u64, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        match probe() {
            Ok(found) => return found,
            Err(last) if started.elapsed() > Duration::from_secs(seconds) => {
                panic!("{what}: not within {seconds} s: {last}")
            }
            Err(_) => std::thread::sleep(pause(started.elapsed())),
        }
    }
}

impl Cluster {
    /// One that somebody else brought up.
    pub fn by(kubeconfig: PathBuf) -> Self {
        Self { kubeconfig }
    }

    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A kubectl command of the installed version, or of Debian's.
    pub fn kubectl_command(&self, debian: bool, args: &[&str]) -> Command {
        let tools =
            Path::new(env!("CARGO_BIN_EXE_lab")).ancestors().nth(2).unwrap().join("tools/kubectl-debian");
        let program = if debian { tools } else { PathBuf::from("kubectl") };
        let mut command = Command::new(program);
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(args).stdin(Stdio::null());
        // discovery cached for another cluster on the same address must not be used
        command.env("HOME", self.kubeconfig.with_extension("home"));
        command
    }

    /// kubectl, whatever comes of it.
    pub fn kubectl_output(&self, args: &[&str]) -> Output {
        self.kubectl_command(false, args).output().unwrap()
    }

    /// kubectl; its failure is the test's.
    pub fn kubectl(&self, args: &[&str]) -> String {
        succeed(args, self.kubectl_output(args))
    }

    /// kubectl with a manifest on its standard input, whatever comes of it.
    pub fn feed(&self, args: &[&str], input: &str) -> Output {
        use std::io::Write;
        let mut command = self.kubectl_command(false, args);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// Applies a manifest; its failure is the test's.
    pub fn apply(&self, namespace: &str, manifest: &str) -> String {
        let args = ["-n", namespace, "apply", "-f", "-"];
        succeed(&args, self.feed(&args, manifest))
    }

    /// A fresh namespace that is deleted at the end of the test.
    pub fn namespace(&self, name: &str) -> Namespace<'_> {
        self.kubectl(&["delete", "namespace", name, "--ignore-not-found", "--wait"]);
        self.kubectl(&["create", "namespace", name]);
        eventually("the default service account", 60, || {
            let out = self.kubectl_output(&["-n", name, "get", "serviceaccount", "default"]);
            if out.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&out.stderr).into_owned()) }
        });
        Namespace { cluster: self, name: name.to_owned() }
    }
}

fn succeed(args: &[&str], out: Output) -> String {
    assert!(
        out.status.success(),
        "kubectl {args:?}: {}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// A namespace of one test.
pub struct Namespace<'a> {
    cluster: &'a Cluster,
    pub name: String,
}

impl Namespace<'_> {
    /// kubectl in the namespace.
    pub fn kubectl(&self, args: &[&str]) -> String {
        let mut all = vec!["-n", self.name.as_str()];
        all.extend_from_slice(args);
        self.cluster.kubectl(&all)
    }

    /// kubectl in the namespace, whatever comes of it.
    pub fn kubectl_output(&self, args: &[&str]) -> Output {
        let mut all = vec!["-n", self.name.as_str()];
        all.extend_from_slice(args);
        self.cluster.kubectl_output(&all)
    }

    pub fn apply(&self, manifest: &str) -> String {
        self.cluster.apply(&self.name, manifest)
    }

    /// A JSON path of an object.
    pub fn path(&self, object: &str, path: &str) -> String {
        self.kubectl(&["get", object, "-o", &format!("jsonpath={path}")])
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let all = self.kubectl_output(&["get", "all,events", "-o", "wide"]);
            eprintln!("what was in {}:\n{}", self.name, String::from_utf8_lossy(&all.stdout));
        }
        let _ = self.cluster.kubectl_output(&["delete", "namespace", &self.name, "--wait=false"]);
    }
}

/// A Deployment of the lab's echo server with a Service of the same name.
pub fn echo(name: &str, replicas: u32) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{ name: {name} }}
spec:
  replicas: {replicas}
  selector: {{ matchLabels: {{ app: {name} }} }}
  template:
    metadata: {{ labels: {{ app: {name} }} }}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: echo
        image: lab.local/echo:1
        ports: [{{ containerPort: 8080 }}]
---
apiVersion: v1
kind: Service
metadata: {{ name: {name} }}
spec:
  type: NodePort
  selector: {{ app: {name} }}
  ports: [{{ port: 80, targetPort: 8080 }}]
"
    )
}
