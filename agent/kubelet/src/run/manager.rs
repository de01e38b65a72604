//! The manager of pods: it owns their workers.
//!
//! What wakes it: a change of a source's pods, a runtime event, a changed object, a
//! worker that ended, and a slow audit. What it reads: the sources' newest maps and the runtime's lists. What it writes:
//! each worker's desired pod. What it promises: one worker a pod UID; pods the sources do not name any more are ended
//! and cleaned up, but only once every source was read; a source that is away ends nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use cri_proto::events::{Event, Events, Kind};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::Pod;
use supervise::{Scope, Work};
use tokio::sync::{Notify, mpsc, watch};

use super::Pulse;
use crate::admit;
use crate::meters::{PLEG_DURATION, PLEG_INTERVAL, PLEG_SEEN};
use crate::objects::Changed;
use crate::pod::spec::labels;
use crate::pod::{allocation, is_critical};
use crate::recorder::Subject;
use crate::report::Reports;
use crate::source::{self, ApiPods};
use crate::worker::context::Context;
use crate::worker::{Desired, Worker};

mod classes;
mod grant;
mod keeping;
mod orphans;
mod room;

use keeping::Keeping;
use room::Verdict;

/// How often everything is listed though events report changes.
const AUDIT: Duration = Duration::from_secs(60);
/// Events of unknown containers cause a list, at most this often.
const RELIST_PAUSE: Duration = Duration::from_millis(250);
/// After a list that failed.
const RELIST_AGAIN: Duration = Duration::from_secs(1);
/// containerd 1.6 reports a container's end before CRI shows it (the dead shim is cleaned up first): its worker looks
/// again after these.
const LOOK_AGAIN: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(150),
    Duration::from_millis(400),
    Duration::from_millis(1000),
    Duration::from_millis(3000),
];

struct Handle {
    desired: watch::Sender<Desired>,
    wake: Arc<Notify>,
    /// The pod as its source has it: it may ask for other resources than the desired one shows.
    asked: Arc<Pod>,
}

/// Something that happens a little later.
enum Later {
    /// The pod of this container looks again.
    Look(String),
    Relist,
}

type Delayed = std::pin::Pin<Box<dyn Future<Output = Later> + Send>>;

/// One sandbox or container of the last list.
#[derive(Clone, PartialEq, Eq)]
struct Seen {
    uid: String,
    state: i32,
}

pub(super) struct Manager {
    context: Arc<Context>,
    client: Option<kube::Client>,
    reports: Reports,
    events: Events,
    workers: HashMap<String, Handle>,
    keeping: Keeping,
    ended: mpsc::UnboundedReceiver<String>,
    index: HashMap<String, Seen>,
    listed: bool,
    /// When everything was last listed.
    relisted: Option<tokio::time::Instant>,
    statics: watch::Receiver<Option<Arc<source::Pods>>>,
    known: watch::Receiver<ApiPods>,
    changed: mpsc::UnboundedReceiver<Changed>,
    evicted: mpsc::UnboundedReceiver<String>,
    later: FuturesUnordered<Delayed>,
    pulse: Pulse,
    /// A list is under way to be made.
    relist_due: bool,
    /// What burstable pods ask for may have changed.
    share_due: bool,
    /// The kernel enforces AppArmor profiles.
    apparmor: bool,
}

/// What the manager listens to beside the runtime.
pub(super) struct Sources {
    /// Pods of manifests.
    pub(super) statics: watch::Receiver<Option<Arc<source::Pods>>>,
    /// Pods of the API.
    pub(super) known: watch::Receiver<ApiPods>,
    /// ConfigMaps and Secrets that changed.
    pub(super) changed: mpsc::UnboundedReceiver<Changed>,
    /// UIDs of pods that are evicted.
    pub(super) evicted: mpsc::UnboundedReceiver<String>,
}

impl Manager {
    /// A manager whose workers are pieces of `workers`.
    pub(super) fn new(
        context: Arc<Context>,
        client: Option<kube::Client>,
        reports: Reports,
        sources: Sources,
        workers: Work,
        scope: &Scope,
        pulse: Pulse,
    ) -> Self {
        let (ends, ended) = mpsc::unbounded_channel();
        let Sources { statics, known, changed, evicted } = sources;
        let (work, stop) = (scope.vital("pod-workers"), scope.stop().clone());
        Self {
            events: Events::new(context.runtime.clone()),
            context,
            client,
            reports,
            workers: HashMap::new(),
            keeping: Keeping { tasks: workers, work, stop, ends },
            ended,
            index: HashMap::new(),
            listed: false,
            relisted: None,
            statics,
            known,
            changed,
            evicted,
            later: FuturesUnordered::new(),
            pulse,
            relist_due: false,
            share_due: true,
            apparmor: admit::has_apparmor(),
        }
    }

    /// Works until its scope ends.
    pub(super) async fn work(&mut self) {
        self.relist().await;
        self.reconcile().await;
        let audit = tokio::time::sleep(AUDIT);
        let mut audit = std::pin::pin!(audit);
        loop {
            self.pulse.beat();
            tokio::select! {
                event = self.events.next() => match event {
                    Event::Resync => {
                        self.relist().await;
                        self.reconcile().await;
                    }
                    Event::Container { id, kind } => {
                        if matches!(kind, Kind::Stopped | Kind::Deleted) {
                            for pause in LOOK_AGAIN {
                                self.delay(pause, Later::Look(id.clone()));
                            }
                        }
                        match self.index.get(&id) {
                            Some(seen) => self.wake(&seen.uid),
                            None if !self.relist_due => {
                                self.relist_due = true;
                                self.delay(RELIST_PAUSE, Later::Relist);
                            }
                            None => {}
                        }
                    }
                },
                Some(later) = self.later.next(), if !self.later.is_empty() => match later {
                    Later::Look(id) => {
                        if let Some(seen) = self.index.get(&id) {
                            self.wake(&seen.uid);
                        }
                    }
                    Later::Relist => {
                        self.relist_due = false;
                        self.relist().await;
                        self.reconcile().await;
                    }
                },
                changed = self.statics.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.reconcile().await;
                }
                changed = self.known.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.reconcile().await;
                }
                Some(uid) = self.evicted.recv() => self.evict(&uid),
                Some(changed) = self.changed.recv() => {
                    for uid in self.context.objects.users(&changed) {
                        self.wake(&uid);
                    }
                }
                Some(uid) = self.ended.recv() => {
                    self.workers.remove(&uid);
                    self.share_due = true;
                    self.index.retain(|_, seen| seen.uid != uid);
                    self.reconcile().await;
                }
                () = &mut audit => {
                    self.share_due = true;
                    self.relist().await;
                    self.reconcile().await;
                    audit.as_mut().reset(tokio::time::Instant::now() + AUDIT);
                }
            }
        }
    }

    fn delay(&self, pause: Duration, later: Later) {
        self.later.push(Box::pin(async move {
            tokio::time::sleep(pause).await;
            later
        }));
    }

    fn wake(&self, uid: &str) {
        if let Some(handle) = self.workers.get(uid) {
            handle.wake.notify_one();
        }
    }

    fn evict(&self, uid: &str) {
        if let (Some(handle), Some(eviction)) = (self.workers.get(uid), self.context.evictions.of(uid)) {
            handle.desired.send_modify(|desired| desired.evicted = Some(eviction));
        }
    }

    /// Lists everything, wakes the pods that changed, and records what exists.
    async fn relist(&mut self) {
        let (runtime, meters) = (&self.context.runtime, &self.context.meters);
        let began = tokio::time::Instant::now();
        if let Some(last) = self.relisted.replace(began) {
            meters.observe(&PLEG_INTERVAL, "", began.duration_since(last));
        }
        meters.set(&PLEG_SEEN, jiff::Timestamp::now().as_second() as f64);
        let (sandboxes, containers) =
            tokio::join!(runtime.list_pod_sandboxes(HashMap::new()), runtime.list_containers(HashMap::new()));
        meters.observe(&PLEG_DURATION, "", began.elapsed());
        let (sandboxes, containers) = match (sandboxes, containers) {
            (Ok(sandboxes), Ok(containers)) => (sandboxes, containers),
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(%error, "listing what runs");
                if !self.relist_due {
                    self.relist_due = true;
                    self.delay(RELIST_AGAIN, Later::Relist);
                }
                return;
            }
        };
        let mut index = HashMap::new();
        let entries = sandboxes
            .into_iter()
            .map(|s| (s.id, s.labels, s.state))
            .chain(containers.into_iter().map(|c| (c.id, c.labels, c.state + 16)));
        for (id, mut own, state) in entries {
            // What carries no pod's UID is not ours.
            if let Some(uid) = own.remove(labels::POD_UID) {
                index.insert(id, Seen { uid, state });
            }
        }
        for (id, seen) in &index {
            if self.index.get(id) != Some(seen) {
                self.wake(&seen.uid);
            }
        }
        for (id, seen) in &self.index {
            if !index.contains_key(id) {
                self.wake(&seen.uid);
            }
        }
        self.index = index;
        self.listed = true;
    }

    /// Gives every worker its newest pod, and every pod a worker.
    async fn reconcile(&mut self) {
        let statics = self.statics.borrow_and_update().clone();
        let known = self.known.borrow_and_update().clone();
        let complete = statics.is_some() && known.pods.is_some() && self.listed;
        let mut wanted: BTreeMap<String, Arc<Pod>> = BTreeMap::new();
        wanted.extend(statics.iter().flat_map(|pods| pods.iter()).map(|(u, p)| (u.clone(), Arc::clone(p))));
        let of_api = known.pods.iter().flat_map(|pods| pods.iter());
        let of_api = of_api.filter(|(_, pod)| !crate::pod::is_mirror(pod));
        wanted.extend(of_api.map(|(u, p)| (u.clone(), Arc::clone(p))));
        for (uid, pod) in &wanted {
            match self.workers.get_mut(uid) {
                // One that is ending ends first; its pod gets a new worker afterwards.
                Some(handle) if handle.desired.borrow().removed => {}
                Some(handle) => handle.take(pod),
                // Until the runtime was listed, a pod that runs cannot be told from a new one.
                None if self.listed => self.admit(uid, pod).await,
                None => {}
            }
        }
        self.grant().await;
        self.share().await;
        if !complete {
            return;
        }
        for (uid, handle) in &self.workers {
            if !wanted.contains_key(uid) && !known.unreadable.contains(uid) {
                handle.desired.send_if_modified(|desired| !std::mem::replace(&mut desired.removed, true));
            }
        }
        self.end_orphans(&wanted, &known.unreadable).await;
    }

    async fn admit(&mut self, uid: &str, pod: &Arc<Pod>) {
        let same_name = |handle: &Handle| {
            let other = &handle.desired.borrow().pod;
            crate::pod::name(other) == crate::pod::name(pod)
                && crate::pod::namespace(other) == crate::pod::namespace(pod)
        };
        // A changed static pod waits for its predecessor, which has its name.
        if crate::pod::is_static(pod) && self.workers.values().any(same_name) {
            return;
        }
        let old = self.index.values().any(|seen| seen.uid == uid)
            || pod.metadata.deletion_timestamp.is_some()
            || pod.status.as_ref().is_some_and(|s| s.start_time.is_some());
        // What an old pod was granted, if it asks for something else by now.
        let record = old.then(|| allocation::Record::read(&self.context.config.pod_dir(uid))).flatten();
        let admitted = record.map_or_else(|| Arc::clone(pod), |record| record.granted.put(pod));
        let verdict = if old { Verdict::Taken } else { self.judge(pod).await };
        let rejected = match verdict {
            // Counted first: a shutdown that has begun meanwhile finds it, or it is found here.
            Verdict::Taken => {
                self.context.pods.take(&admitted);
                let refused = self.context.evictions.refusal(pod).filter(|_| !old);
                if refused.is_some() {
                    self.context.pods.forget(uid);
                }
                refused
            }
            Verdict::Refused(outcome) => Some(outcome),
            // It is judged again once others have made room.
            Verdict::Waits => return,
        };
        if let Some(outcome) = &rejected {
            let message = outcome.message.trim_start_matches("Pod was rejected: ").to_owned();
            let (kind, reason) = (crate::recorder::Kind::Warning, outcome.reason.clone());
            self.context.recorder.record(Subject::pod(pod, None), kind, reason, message);
        }
        let evicted = self.context.evictions.of(uid);
        let desired = Desired { pod: admitted, removed: false, rejected, pending: None, evicted };
        self.start(uid, desired, Arc::clone(pod));
    }

    async fn judge(&mut self, pod: &Pod) -> Verdict {
        if let Some(refused) = self.context.evictions.refusal(pod) {
            return Verdict::Refused(refused);
        }
        let allowed = &self.context.config.allowed_unsafe_sysctls;
        if let Some(outcome) = admit::never(pod, &self.node(None), allowed) {
            return Verdict::Refused(outcome);
        }
        let labels = self.labels_for(pod).await;
        let (others, node) = (self.active(crate::pod::uid(pod)), self.node(labels.as_ref()));
        if !is_critical(pod) {
            return admit::refusal(pod, &others, &node).map_or(Verdict::Taken, Verdict::Refused);
        }
        match admit::misplaced(pod, &others, &node) {
            Some(outcome) => Verdict::Refused(outcome),
            None => self.make_room(pod, &others, &node),
        }
    }

    fn start(&mut self, uid: &str, desired: Desired, asked: Arc<Pod>) {
        let wake = Arc::new(Notify::new());
        let (tell, desired) = watch::channel(desired);
        let (context, reports, again) = (Arc::clone(&self.context), self.reports.clone(), Arc::clone(&wake));
        let worker = move || {
            let (context, again) = (Arc::clone(&context), Arc::clone(&again));
            let mut worker = Box::new(Worker::new(context, reports.clone(), desired.clone(), again));
            async move { worker.run().await }
        };
        self.keeping.start(uid, worker);
        self.workers.insert(uid.to_owned(), Handle { desired: tell, wake, asked });
        self.share_due = true;
    }
}
