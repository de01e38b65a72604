//! Agents and servers of other releases beside each other: what an upgrade passes through, machine by machine. A node says which release its agent is
//! of; one a minor older or newer joins, keeps its pods and gets new ones; and so it goes on when its server is restarted. As upstream's, the API server
//! refuses no kubelet for its release: what may be apart is a promise to operators (docs/backup-and-upgrade.md).

use crate::harness::{Namespace, cluster, echo, eventually, lab, lab_output, on_node};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder of an unpacked release, or of its programs, that the suite is to be run with, too.
const OTHER: &str = "WINDLASS_OTHER_DIST";
/// What our own programs call themselves to the API server, but for the version of ours after it.
const OURS: &str = "v1.36.0+windlass";

/// The words that a node's `windlass` runs by.
fn line(node: &str, role: &str) -> Vec<String> {
    // in brackets, so that grep does not find itself
    let (first, rest) = role.split_at(1);
    let script = format!("tr '\\0' '\\n' <$(grep -lszx '[{first}]{rest}' /proc/[0-9]*/cmdline | head -n 1)");
    let out = on_node(node, &["sh", "-c", &script]);
    let words: Vec<String> = String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned).collect();
    assert!(words.len() > 1, "{node}: no {role}: {}", String::from_utf8_lossy(&out.stderr));
    words
}

/// A node's `windlass` by another program, until it is dropped.
struct Replaced {
    node: &'static str,
    own: Vec<String>,
}

impl Replaced {
    fn by(program: &Path, node: &'static str, role: &str) -> Self {
        let own = line(node, role);
        let mut words = own.clone();
        words[0] = program.to_str().unwrap().to_owned();
        run(node, &words);
        Self { node, own }
    }
}

impl Drop for Replaced {
    fn drop(&mut self) {
        run(self.node, &self.own);
    }
}

fn run(node: &str, words: &[String]) {
    let mut start = vec!["start", node, "windlass"];
    start.extend(words.iter().map(String::as_str));
    for ask in [&["stop", node, "windlass"][..], &start] {
        let done = lab_output(ask);
        // after a surprise, the first one is what is told
        assert!(
            done.status.success() || std::thread::panicking(),
            "{ask:?}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
    }
}

/// The node is ready and of a release that begins so.
fn is_of(node: &str, release: &str) {
    eventually(&format!("{node} of {release}"), 90, || {
        let path =
            "jsonpath={.status.nodeInfo.kubeletVersion} {.status.conditions[?(@.type=='Ready')].status}";
        let out = cluster().kubectl_output(&["get", "node", node, "-o", path]);
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        if said.starts_with(release) && said.ends_with(" True") {
            Ok(())
        } else {
            Err(said + &String::from_utf8_lossy(&out.stderr))
        }
    });
}

/// Our own programs that say they are of another minor release, in a folder of their own. There is one source only: the name is what differs.
fn renamed(minor: u32) -> PathBuf {
    let own = Path::new(env!("CARGO_BIN_EXE_lab")).parent().unwrap();
    let folder = own.join("other-minor");
    std::fs::create_dir_all(&folder).unwrap();
    for name in ["windlass", "windlass-cni"] {
        let other = OURS.replace("1.36.0", &format!("1.{minor}.0"));
        let script =
            "LC_ALL=C sed \"s/$1/$2/g\" \"$3\" >\"$4.new\" && chmod 755 \"$4.new\" && mv \"$4.new\" \"$4\"";
        let paths = [own.join(name), folder.join(name)].map(|path| path.to_str().unwrap().to_owned());
        let words = [&OURS.replace('.', "\\."), &other, &paths[0], &paths[1]];
        let done = Command::new("sh").args(["-c", script, "sh"]).args(words).status().unwrap();
        assert!(done.success(), "make {}", paths[1]);
    }
    folder.join("windlass")
}

/// A pod on the node starts, answers and goes.
fn runs_pods(namespace: &Namespace<'_>, node: &str, name: &str) {
    namespace.apply(&format!(
        "apiVersion: v1
kind: Pod
metadata: {{ name: {name} }}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 1
  containers: [{{ name: c, image: 'lab.local/echo:1' }}]
"
    ));
    namespace.kubectl(&["wait", "--for=condition=Ready", "--timeout=120s", &format!("pod/{name}")]);
    assert_eq!(namespace.kubectl(&["exec", name, "--", "echo", "works"]), "works\n", "on {node}");
    namespace.kubectl(&["delete", "pod", name]);
}

/// Ids of the containers there are, and how often each was restarted.
fn containers(namespace: &Namespace<'_>) -> Vec<String> {
    let path = "{range .items[*]}{.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}{'\\n'}{end}";
    let mut found: Vec<String> = namespace.path("pods", path).lines().map(str::to_owned).collect();
    found.sort();
    found
}

#[test]
fn an_agent_one_minor_apart_keeps_its_pods_and_gets_new_ones() {
    let namespace = cluster().namespace("skew-minor");
    namespace.apply(&echo("web", 4));
    namespace.kubectl(&["rollout", "status", "deployment/web", "--timeout=120s"]);
    let before = containers(&namespace);
    for minor in [35, 37] {
        let program = renamed(minor);
        let replaced = Replaced::by(&program, "n2", "agent");
        is_of("n2", &format!("v1.{minor}.0+windlass"));
        is_of("n1", OURS);
        runs_pods(&namespace, "n2", &format!("new-{minor}"));
        // the server goes on to its next release
        lab(&["kill", "n1", "windlass"]);
        eventually("the server is back", 60, || {
            let out = cluster().kubectl_output(&["get", "--raw", "/readyz"]);
            if out.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&out.stderr).into_owned()) }
        });
        is_of("n2", &format!("v1.{minor}.0+windlass"));
        runs_pods(&namespace, "n2", &format!("after-{minor}"));
        assert_eq!(containers(&namespace), before, "beside an agent of 1.{minor}");
        drop(replaced);
        is_of("n2", OURS);
    }
    assert_eq!(containers(&namespace), before);
}

#[test]
fn another_build_beside_this_one_keeps_pods_and_objects() {
    let Some(folder) = std::env::var_os(OTHER).map(PathBuf::from) else {
        println!("skipped: {OTHER} names no folder of another build's programs");
        return;
    };
    let bin = if folder.join("bin").is_dir() { folder.join("bin") } else { folder };
    let program = std::path::absolute(bin.join("windlass")).unwrap();
    let said = Command::new(&program).args(["version", "-o", "json"]).output().unwrap();
    let version: Value = serde_json::from_slice(&said.stdout).unwrap();
    println!("beside {version}");
    let release = version["kubernetesVersion"].as_str().unwrap_or("v1.").to_owned();
    let namespace = cluster().namespace("skew-build");
    namespace.apply(&echo("web", 4));
    namespace.kubectl(&["rollout", "status", "deployment/web", "--timeout=120s"]);
    namespace.kubectl(&["create", "configmap", "kept", "--from-literal=a=b"]);
    let before = containers(&namespace);
    for (node, role) in [("n2", "agent"), ("n1", "server")] {
        let replaced = Replaced::by(&program, node, role);
        for node in ["n1", "n2"] {
            is_of(node, &release);
        }
        for node in ["n1", "n2"] {
            runs_pods(&namespace, node, &format!("{role}-{node}"));
        }
        assert_eq!(namespace.path("configmap/kept", "{.data.a}"), "b", "with the other {role}");
        namespace.kubectl(&["create", "configmap", &format!("by-{role}")]);
        drop(replaced);
        for node in ["n1", "n2"] {
            is_of(node, OURS);
        }
        let kept = namespace.kubectl(&["get", "configmaps", "kept", &format!("by-{role}"), "-o", "name"]);
        assert_eq!(kept.lines().count(), 2, "what the other {role} knew");
        assert_eq!(containers(&namespace), before, "after another build as {role}");
    }
}
