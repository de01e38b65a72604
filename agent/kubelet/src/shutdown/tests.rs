//! A machine that shuts down, by a logind of the tests' own.

use super::*;
use crate::dbus::fake::{Bus, Reply};
use crate::dbus::wire::Value;
use crate::pod::observed::Observed;
use crate::pods::View;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc::UnboundedReceiver;

const PATH: &str = "/org/freedesktop/login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";

/// A logind that waits for `seconds`, and for a minute once it has read its settings again.
fn logind(seconds: u64) -> Bus {
    let read = AtomicBool::new(false);
    Bus::start(move |call| match call.member.as_str() {
        "Get" => {
            let seconds = if read.load(Ordering::SeqCst) { 60 } else { seconds };
            vec![Reply::Return(vec![Value::Variant(Box::new(Value::U64(seconds * 1_000_000)))])]
        }
        "KillUnit" => {
            read.store(true, Ordering::SeqCst);
            vec![Reply::Return(Vec::new())]
        }
        "Inhibit" => vec![Reply::File],
        _ => vec![Reply::Return(Vec::new())],
    })
}

fn pod(uid: &str, priority: i32) -> Arc<Pod> {
    let metadata = json!({"name": uid, "namespace": "n", "uid": uid});
    let spec = json!({"containers": [], "priority": priority});
    Arc::new(serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap())
}

struct Node {
    parts: Parts,
    woken: UnboundedReceiver<String>,
    dir: tempfile::TempDir,
}

/// A node with a pod of priority zero and a critical one, each of which has a directory.
fn node(bus: &Bus) -> Node {
    let dir = tempfile::tempdir().unwrap();
    let head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
    let text = format!("{head}shutdownGracePeriod: 30s\nshutdownGracePeriodCriticalPods: 10s\n");
    let mut config = Config::parse(&text, "n1", Vec::new()).unwrap();
    config.root_dir = dir.path().to_owned();
    let (evictions, woken) = Evictions::new();
    let (recorder, _) = Recorder::new(None, "n1");
    let pods = Pods::default();
    for (uid, priority) in [("usual", 0), ("critical", 2_000_000_000)] {
        std::fs::create_dir_all(config.pod_dir(uid)).unwrap();
        let (status, observed) = (Arc::default(), Arc::new(Observed::default()));
        pods.publish(View { pod: pod(uid, priority), status, observed });
    }
    let places = Places { bus: bus.path().to_owned(), drop_ins: dir.path().join("logind.conf.d") };
    let config = Arc::new(config);
    let parts = Parts { config, pods, evictions, recorder, meters: Meters::default(), places };
    Node { parts, woken, dir }
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let look = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(10), look).await.is_ok(), "{what}");
}

#[tokio::test]
async fn pods_end_in_order_before_the_machine_goes_on() {
    let bus = logind(40);
    let Node { parts, mut woken, dir } = node(&bus);
    let reported = watch::Sender::new(Reported::default());
    let (evictions, config) = (parts.evictions.clone(), Arc::clone(&parts.config));
    let shuts_down = |is: bool| bus.tell(PATH, MANAGER, "PrepareForShutdown", vec![Value::Bool(is)]);
    let story = async {
        until("the lock is taken", || bus.is_held()).await;
        assert!(evictions.refusal(&pod("new", 2_000_000_000)).is_none());
        shuts_down(true);
        assert_eq!(woken.recv().await.as_deref(), Some("usual"));
        assert!(woken.try_recv().is_err(), "the critical one has its time later");
        let ordered = evictions.of("usual").unwrap();
        assert_eq!((ordered.grace, ordered.cause), (20, Cause::Shutdown));
        assert!(reported.borrow().shutting_down && bus.is_held());
        let refused = evictions.refusal(&pod("new", 2_000_000_000)).unwrap();
        assert_eq!(refused.reason, "NodeShutdown");
        assert_eq!(refused.message, "Pod was rejected: Pod was rejected as the node is shutting down.");
        std::fs::remove_dir(config.pod_dir("usual")).unwrap();
        assert_eq!(woken.recv().await.as_deref(), Some("critical"));
        assert_eq!(evictions.of("critical").unwrap().grace, 10);
        std::fs::remove_dir(config.pod_dir("critical")).unwrap();
        until("the machine may go on", || !bus.is_held()).await;
        assert!(Record::read(dir.path()).unwrap().end.is_some());
        shuts_down(false);
        until("the lock is taken again", || bus.is_held()).await;
        assert!(!reported.borrow().shutting_down);
        assert!(evictions.refusal(&pod("new", 0)).is_none(), "a shutdown that is called off is over");
    };
    tokio::select! {
        () = watch(parts, reported.clone()) => panic!("it goes on for ever"),
        () = story => {}
    }
    assert!(!dir.path().join("logind.conf.d").exists(), "logind waits long enough by itself");
}

#[tokio::test]
async fn a_machine_must_not_be_left_with_less_time_than_pods_have() {
    let bus = logind(5);
    let Node { parts, dir, .. } = node(&bus);
    let reported = watch::Sender::new(Reported::default());
    tokio::select! {
        () = watch(parts, reported) => panic!("it goes on for ever"),
        () = until("the lock is taken", || bus.is_held()) => {}
    }
    let text = std::fs::read_to_string(dir.path().join("logind.conf.d/99-kubelet.conf")).unwrap();
    assert_eq!(text, "# Kubelet logind override\n[Login]\nInhibitDelayMaxSec=30\n");
    let asked = bus.calls("KillUnit").remove(0).body;
    assert_eq!(asked, [Value::text("systemd-logind.service"), Value::text("all"), Value::I32(1)]);
    let words: Vec<Value> = bus.calls("Inhibit").remove(0).body;
    assert_eq!(words[0], Value::text("shutdown"));
    assert_eq!(words[3], Value::text("delay"));
}

#[tokio::test]
async fn a_group_must_not_be_waited_for_longer_than_it_was_promised() {
    let bus = logind(60);
    let Node { parts, mut woken, dir: _dir } = node(&bus);
    tokio::time::pause();
    let began = Instant::now();
    parts.end_pods(None).await;
    let took = began.elapsed();
    assert!((Duration::from_secs(30)..Duration::from_secs(31)).contains(&took), "{took:?}");
    let told: Vec<String> = std::iter::from_fn(|| woken.try_recv().ok()).collect();
    assert_eq!(told, ["usual", "critical"]);
}
