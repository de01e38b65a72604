//! A machine that shuts down, by a logind of the tests' own.

use super::*;
use crate::dbus::fake::{Bus, Reply};
use crate::dbus::wire::Value;
use crate::pod::observed::Observed;
use crate::pods::View;
use crate::until::until;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::mpsc::UnboundedReceiver;

const PATH: &str = "/org/freedesktop/login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";

/// What a logind of the tests' own knows.
struct State {
    /// How long it waits, in seconds,
    waits: AtomicU64,
    /// and how long once it has read its settings again.
    settings: AtomicU64,
    /// The machine shuts down; it gives no lock then.
    preparing: AtomicBool,
}

impl State {
    fn new(waits: u64, settings: u64, preparing: bool) -> Arc<Self> {
        let (waits, settings) = (AtomicU64::new(waits), AtomicU64::new(settings));
        Arc::new(Self { waits, settings, preparing: AtomicBool::new(preparing) })
    }
}

/// A logind that waits for `seconds`, and for a minute once it has read its settings again.
fn logind(seconds: u64) -> Bus {
    logind_of(&State::new(seconds, 60, false))
}

fn logind_of(state: &Arc<State>) -> Bus {
    let state = Arc::clone(state);
    Bus::start(move |call| match call.member.as_str() {
        "Get" => {
            let value = match call.body.get(1).and_then(Value::as_text) {
                Some("PreparingForShutdown") => Value::Bool(state.preparing.load(Ordering::SeqCst)),
                _ => Value::U64(state.waits.load(Ordering::SeqCst) * 1_000_000),
            };
            vec![Reply::Return(vec![Value::Variant(Box::new(value))])]
        }
        "KillUnit" => {
            state.waits.store(state.settings.load(Ordering::SeqCst), Ordering::SeqCst);
            vec![Reply::Return(Vec::new())]
        }
        "Inhibit" if state.preparing.load(Ordering::SeqCst) => {
            vec![Reply::Error("org.freedesktop.login1.OperationInProgress", "it is under way")]
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
    let machine = Machine {
        bus: bus.path().to_owned(),
        drop_ins: dir.path().join("logind.conf.d"),
        asks: Duration::from_millis(10),
        reloads: (Duration::from_millis(1), Duration::from_millis(2)),
    };
    let config = Arc::new(config);
    let parts = Parts { config, pods, evictions, recorder, meters: Meters::default(), machine };
    Node { parts, woken, dir }
}

#[tokio::test]
async fn pods_end_in_order_before_the_machine_goes_on() {
    let state = State::new(40, 60, false);
    let bus = logind_of(&state);
    let Node { parts, mut woken, dir } = node(&bus);
    let reported = watch::Sender::new(Reported::default());
    let (evictions, config) = (parts.evictions.clone(), Arc::clone(&parts.config));
    let shuts_down = |is: bool| {
        state.preparing.store(is, Ordering::SeqCst);
        bus.tell(PATH, MANAGER, "PrepareForShutdown", vec![Value::Bool(is)]);
    };
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
async fn a_lock_that_gives_pods_too_little_time_must_not_be_taken() {
    let bus = logind_of(&State::new(5, 20, false));
    let Node { parts, dir: _dir, .. } = node(&bus);
    let failed = parts.follow(&watch::Sender::new(Reported::default())).await.unwrap_err();
    let (longest, wanted) = (Duration::from_secs(20), Duration::from_secs(30));
    let Error::TooShort { longest: told, wanted: needed } = failed else { panic!("{failed}") };
    assert_eq!((told, needed), (longest, wanted));
    assert_eq!(failed.to_string(), "logind waits for 20s at most, and 30s are needed");
    assert!(bus.calls("Inhibit").is_empty());
}

#[tokio::test]
async fn a_cancellation_that_was_not_heard_must_not_leave_the_node_as_one_that_shuts_down() {
    let state = State::new(60, 60, false);
    let bus = logind_of(&state);
    let Node { parts, dir, .. } = node(&bus);
    let (evictions, config) = (parts.evictions.clone(), Arc::clone(&parts.config));
    let reported = watch::Sender::new(Reported::default());
    let story = async {
        until("the lock is taken", || bus.is_held()).await;
        for uid in ["usual", "critical"] {
            std::fs::remove_dir(config.pod_dir(uid)).unwrap();
        }
        state.preparing.store(true, Ordering::SeqCst);
        bus.tell(PATH, MANAGER, "PrepareForShutdown", vec![Value::Bool(true)]);
        until("pods have ended", || Record::read(dir.path()).is_ok_and(|record| record.end.is_some())).await;
        until("the machine may go on", || !bus.is_held()).await;
        assert!(reported.borrow().shutting_down);
        // Nothing is said of it.
        state.preparing.store(false, Ordering::SeqCst);
        until("the lock is taken again", || bus.is_held()).await;
        assert!(!reported.borrow().shutting_down && !evictions.is_shutting_down());
    };
    tokio::select! {
        () = watch(parts, reported.clone()) => panic!("it goes on for ever"),
        () = story => {}
    }
}

#[tokio::test]
async fn a_shutdown_that_began_before_anybody_listened_must_not_be_missed() {
    let bus = logind_of(&State::new(5, 5, true));
    let Node { parts, mut woken, dir: _dir } = node(&bus);
    let reported = watch::Sender::new(Reported::default());
    tokio::select! {
        () = watch(parts, reported.clone()) => panic!("it goes on for ever"),
        uid = woken.recv() => assert_eq!(uid.as_deref(), Some("usual")),
    }
    assert!(reported.borrow().shutting_down);
    assert!(bus.calls("Inhibit").is_empty(), "it is too late for a lock");
}

#[tokio::test]
async fn a_stranger_must_not_have_pods_ended() {
    let bus = logind(60);
    let mut logind = Logind::open(bus.path()).await.unwrap();
    logind.listen().await.unwrap();
    bus.tell_as(":1.99", PATH, MANAGER, "PrepareForShutdown", vec![Value::Bool(true)]);
    bus.tell(PATH, MANAGER, "PrepareForShutdown", vec![Value::Bool(false)]);
    assert!(!logind.event().await.unwrap());
}

#[tokio::test]
async fn a_pod_that_no_worker_has_looked_at_yet_must_not_be_left_out() {
    let bus = logind(60);
    let Node { parts, mut woken, dir: _dir } = node(&bus);
    for uid in ["usual", "critical"] {
        parts.pods.forget(uid);
        std::fs::remove_dir(parts.config.pod_dir(uid)).unwrap();
    }
    parts.pods.take(&pod("new", 0));
    let pods = parts.pods.clone();
    let story = async {
        assert_eq!(woken.recv().await.as_deref(), Some("new"));
        tokio::time::sleep(2 * LOOK).await;
        // It has no directory, and may have one at any moment.
        pods.forget("new");
    };
    let mut ended = std::pin::pin!(parts.end_pods(None));
    tokio::select! {
        () = ended.as_mut() => panic!("it is waited for"),
        () = story => {}
    }
    tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap();
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
