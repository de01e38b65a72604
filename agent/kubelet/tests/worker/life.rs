//! One pod's life under one trap: it is made, comes to its goal, is deleted, and leaves nothing.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cri_proto::client::{Deadlines, Runtime};
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::Pod;
use kubelet::node::Health;
use kubelet::{ApiPods, Cgroups, Config, Context, Desired, Kubelet, Machine, Reports, Worker};
use serde_json::{Value, json};
use supervise::{Scope, Supervisor};
use tokio::net::UnixListener;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::api::merge;
use crate::runtime::{Fake, Trap};
use crate::world::World;

/// No life lasts longer: the longest pause after a failed call is ten seconds, but the machine may be busy.
const LONGEST: Duration = Duration::from_secs(120);
static MACHINE: std::sync::OnceLock<Machine> = std::sync::OnceLock::new();
const UID: &str = "4b1f2b1e-0000-4000-8000-000000000001";

/// A pod and what becomes of it.
#[derive(Clone)]
pub struct Case {
    pub name: &'static str,
    pub spec: Value,
    /// The codes with which a container's processes end at once, in order.
    pub exits: &'static [(&'static str, &'static [i32])],
    pub goal: Goal,
    /// What is started, in order.
    pub started: &'static [&'static str],
    /// What the status says of restarts in the end.
    pub restarts: &'static [(&'static str, i64)],
}

/// Where a pod stays until it is deleted.
#[derive(Clone, Copy)]
pub enum Goal {
    /// Its phase is Running, and these containers run (sorted by name).
    Runs(&'static [&'static str]),
    /// It is over, with this phase.
    Ends(&'static str),
}

/// The API server: the pod as stored, `None` once deleted.
struct Api(watch::Sender<Option<Value>>);

impl Api {
    fn client(self: &Arc<Self>) -> kube::Client {
        let api = Arc::clone(self);
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let api = Arc::clone(&api);
            async move {
                let method = request.method().clone();
                let body = request.into_body().collect().await?.to_bytes();
                let stored = api.take(&method, &body);
                let (code, answer) = match stored {
                    Some(pod) => (200, pod),
                    None => (404, json!({"kind": "Status", "code": 404, "reason": "NotFound"})),
                };
                let body = kube::client::Body::from(serde_json::to_vec(&answer).unwrap());
                Ok::<_, kube::Error>(Response::builder().status(code).body(body).unwrap())
            }
        });
        kube::Client::new(service, "default")
    }

    fn take(&self, method: &Method, body: &[u8]) -> Option<Value> {
        let before = self.0.borrow().clone()?;
        if *method == Method::DELETE {
            self.0.send_replace(None);
            return Some(before);
        }
        let patch: Value = serde_json::from_slice(body).unwrap();
        self.0.send_modify(|pod| {
            let Some(pod) = pod else { return };
            merge(pod, &patch["status"]);
            let version = pod["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
            pod["metadata"]["resourceVersion"] = json!((version + 1).to_string());
        });
        self.0.borrow().clone()
    }

    /// The pod's status as text.
    fn shown(&self) -> String {
        self.0.borrow().as_ref().map_or_else(|| "no pod".to_owned(), |pod| pod["status"].to_string())
    }

    fn delete(&self) {
        self.0.send_if_modified(|pod| match pod {
            Some(pod) if pod["metadata"].get("deletionTimestamp").is_none() => {
                pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:01Z");
                pod["metadata"]["deletionGracePeriodSeconds"] = json!(1);
                true
            }
            _ => false,
        });
    }
}

fn context(dir: &Path) -> Arc<Context> {
    let mut config = Config::new("node", vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    config.root_dir = dir.join("root");
    config.pod_logs_dir = dir.join("logs");
    config.container_logs_dir = dir.join("links");
    config.cgroups_per_qos = false;
    config.container_runtime_endpoint = format!("unix://{}", dir.join("socket").display());
    let runtime = Runtime::connect(&config.container_runtime_endpoint, Deadlines::default()).unwrap();
    let scope = Arc::new(Scope::new(&Supervisor::default(), "kubelet/", &CancellationToken::new()));
    let machine = MACHINE.get_or_init(|| Machine::read(&config)).clone();
    let cgroups = Cgroups::new(&config);
    let kubelet = Kubelet::assemble(config, (runtime, "fake".into()), (machine, cgroups), None, scope);
    let ready = watch::Sender::new(Health { network_error: None, ..Health::default() });
    Arc::new(Context { health: ready.subscribe(), ..(*kubelet.context()).clone() })
}

/// Lives `case`. Answers how often the runtime was called
/// to change something and to tell something, or what went wrong.
pub async fn live(case: &Case, trap: Trap) -> Result<(usize, usize), String> {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::default();
    world.exits = case
        .exits
        .iter()
        .map(|(name, codes)| ((*name).to_owned(), codes.iter().copied().collect()))
        .collect();
    let fake = Fake::new(world, trap);
    let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "spec": case.spec, "status": {"phase": "Pending"},
        "metadata": {"name": "p", "namespace": "n", "uid": UID, "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z"},
    });
    let api = Arc::new(Api(watch::Sender::new(Some(pod))));
    let lived = async {
        tokio::select! {
            () = fake.clone().serve(listener) => unreachable!("the runtime serves on"),
            () = kubelets(case, &fake, &api, dir.path()) => {}
        }
    };
    let lived = tokio::time::timeout(LONGEST, lived).await;
    let mut wrongs = fake.world.lock().wrongs.clone();
    if lived.is_err() {
        wrongs.push(format!("it does not end; the API has {}", api.shown()));
    }
    wrongs.extend(judged(case, &fake, dir.path(), trap));
    match wrongs.is_empty() {
        true => Ok(fake.calls()),
        false => Err(format!("{}, {trap:?}: {wrongs:?} after {:?}", case.name, fake.log())),
    }
}

/// What is wrong at the end of a life.
fn judged(case: &Case, fake: &Fake, dir: &Path, trap: Trap) -> Vec<String> {
    let world = fake.world.lock();
    let mut wrongs = Vec::new();
    let mut wrong = |bad: bool, what: String| {
        if bad {
            wrongs.push(what)
        }
    };
    wrong(!world.is_empty(), "it leaves something in the runtime".to_owned());
    wrong(!fake.dropped().is_empty(), format!("dropped {:?}", fake.dropped()));
    // How often a worker looks depends on what wakes it; what it does must not.
    let surely = !matches!(trap, Trap::None | Trap::Blind { .. } | Trap::CrashAsking { .. });
    wrong(surely && !fake.was_sprung(), "the trap was not met".to_owned());
    let (mut started, mut wanted) = (as_str(&world.started), case.started.to_vec());
    match trap {
        Trap::Delete { .. } => wanted.truncate(started.len()),
        // What does not wait for a container that could not be made goes before it.
        Trap::Fail { .. } | Trap::Blind { .. } | Trap::CrashAsking { .. } => {
            started.sort_unstable();
            wanted.sort_unstable();
        }
        Trap::None | Trap::Crash { .. } => {}
    }
    wrong(started != wanted, format!("started {:?}", world.started));
    let left =
        |path: &str| std::fs::read_dir(dir.join(path)).is_ok_and(|mut entries| entries.next().is_some());
    wrong(left("root/pods") || left("logs"), "it leaves directories".to_owned());
    wrongs
}

fn as_str(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

/// One kubelet after the other, each until it dies or the pod is gone.
async fn kubelets(case: &Case, fake: &Fake, api: &Arc<Api>, dir: &Path) {
    let mut reached = false;
    let mut last = Arc::new(Pod::default());
    loop {
        let forgotten =
            matches!(fake.trap, Trap::Crash { act: at, .. } | Trap::CrashAsking { look: at } if at % 2 == 1);
        // What the one before was about to report may be lost with it.
        if forgotten && fake.was_sprung() {
            api.0.send_modify(|pod| {
                if let Some(pod) = pod {
                    pod["status"] = json!({"phase": "Pending"});
                }
            });
        }
        let client = api.client();
        let context = context(dir);
        let reports = Reports::default();
        let known = watch::Sender::new(ApiPods::default());
        let (desired, asked) = watch::channel(desired_of(api, &mut last));
        let wake = Arc::new(Notify::new());
        let mut worker = Worker::new(context, reports.clone(), asked, Arc::clone(&wake));
        let mut worker = Box::pin(worker.run());
        let mut writer = Box::pin(reports.write(client, known.subscribe()));
        let mut shown = api.0.subscribe();
        shown.mark_changed();
        loop {
            tokio::select! {
                () = &mut worker => return,
                () = &mut writer => unreachable!("statuses are written as long as the pods are known"),
                () = fake.sprung.notified() => match fake.trap {
                    Trap::Crash { .. } | Trap::CrashAsking { .. } => break,
                    _ => api.delete(),
                },
                () = fake.changed.notified() => {
                    wake.notify_one();
                    delete_at_goal(case, fake, api, &mut reached);
                }
                changed = shown.changed() => {
                    changed.unwrap();
                    let newer = desired_of(api, &mut last);
                    let pods = BTreeMap::from([(UID.to_owned(), Arc::clone(&newer.pod))]);
                    let pods = if newer.removed { BTreeMap::new() } else { pods };
                    known.send_replace(ApiPods { pods: Some(Arc::new(pods)), ..ApiPods::default() });
                    desired.send_replace(newer);
                    delete_at_goal(case, fake, api, &mut reached);
                }
            }
        }
    }
}

/// What a worker is asked for, by what the API shows; `last` is the pod as it was last shown.
fn desired_of(api: &Api, last: &mut Arc<Pod>) -> Desired {
    let shown = api.0.borrow().clone();
    let removed = shown.is_none();
    if let Some(pod) = shown {
        *last = Arc::new(serde_json::from_value(pod).unwrap());
    }
    Desired { pod: Arc::clone(last), removed, rejected: None, pending: None, evicted: None }
}

/// Deletes the pod the first time that it is where it is to stay.
fn delete_at_goal(case: &Case, fake: &Fake, api: &Api, reached: &mut bool) {
    let Some(pod) = api.0.borrow().clone() else { return };
    let status = &pod["status"];
    let world = fake.world.lock();
    let there = match case.goal {
        Goal::Runs(names) => {
            let ready = status["conditions"].as_array().into_iter().flatten();
            let ready = ready.filter(|c| c["type"] == "Ready" && c["status"] == "True").count() == 1;
            status["phase"] == "Running" && ready && world.running() == names && world.ready_sandboxes() == 1
        }
        Goal::Ends(phase) => {
            status["phase"] == phase && world.running().is_empty() && world.ready_sandboxes() == 0
        }
    };
    drop(world);
    if there && !std::mem::replace(reached, true) {
        let all = ["initContainerStatuses", "containerStatuses"].map(|list| status[list].as_array());
        for (name, count) in case.restarts {
            let told = all.into_iter().flatten().flatten().find(|s| s["name"] == *name);
            if told.is_none_or(|told| told["restartCount"] != *count) {
                fake.world.lock().wrongs.push(format!("{name} is not restarted {count} times: {status}"));
            }
        }
        api.delete();
    }
}
