//! The shell of the scheduler.
//!
//! Woken by: pods, nodes and what else filters read (watches), finished writes, and the queue's clock. Reads only its own
//! [`Cluster`] and [`Queue`], which this one task alone changes. Writes bindings, events, conditions, and deletes victims. Promises:
//! a pod is decided on with everything seen so far, counted on its node from that moment, and bound at most once at a time; a
//! binding that fails is taken back and tried again after a backoff; a pod that fits nowhere is tried again when something
//! changed that may help it, at the latest after a while ([`crate::profile::Waits`]). While extenders are asked about a pod, no other is decided on (as
//! upstream's cycle has it; each question ends by its `httpTimeout`), but bindings, watches and the queue's clock go on. It keeps nothing
//! that a restart would lose.

use crate::attempt::{Attempt, attempt};
use crate::cache::Cluster;
use crate::extended::Extended;
use crate::extender::{Extender, Raw};
use crate::fit::Plugin;
use crate::model::storage::Needs;
use crate::model::{Pod, Snapshot};
use crate::profile::Config;
use crate::queue::Queue;
use crate::report::{Failure, Reporter};
use crate::schedule::Change;
use crate::volumes::VolumeWriter;
use crate::watch::{Parsed, SOURCES, Source, WatchEvent, Watches, watches};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use futures::{FutureExt, future};
use kube::Client;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use supervise::{Scope, Supervisor};
use tokio_util::sync::CancellationToken;

/// Writes in flight at once.
const WRITES: usize = 64;
/// Pods that wait for their volumes at once.
const WAITS: usize = 4096;
/// A write that takes longer has failed: it must not hold its place forever.
const LONGEST_WRITE: Duration = Duration::from_secs(30);
/// Changes taken in before the next pod is scheduled.
const INPUTS: usize = 512;

/// Why the scheduler stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Every watch ended, which they do not do by themselves.
    #[error("scheduler: the watches ended")]
    WatchesEnded,
    /// An extender cannot be asked.
    #[error(transparent)]
    Extender(#[from] crate::extender::Unusable),
}

/// Schedules until cancelled.
pub async fn run(
    client: Client,
    config: Arc<Config>,
    supervisor: &Supervisor,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let scope = Scope::new(supervisor, "scheduler/", &shutdown);
    let extenders = config.extenders.iter().cloned().map(Extender::new).collect::<Result<Vec<_>, _>>()?;
    let mut inputs = watches(&client, !extenders.is_empty());
    let mut scheduler = Scheduler {
        reporter: Reporter::new(client.clone(), config.clone(), &scope),
        queue: Queue::new(config.waits),
        config,
        cluster: Cluster::default(),
        synced: HashSet::new(),
        deciding: FuturesUnordered::new(),
        writes: FuturesUnordered::new(),
        waits: FuturesUnordered::new(),
        volumes: VolumeWriter::new(client),
        extenders: extenders.into(),
        raw: Arc::default(),
        round: 0,
    };
    loop {
        scheduler.take_in(&mut inputs)?;
        if scheduler.schedule_one() {
            // One pod at a time: what its binding or the watches bring meanwhile counts for the next.
            if shutdown.is_cancelled() {
                return Ok(());
            }
            tokio::task::yield_now().await;
            continue;
        }
        let wake = scheduler.queue.next_flush().map(tokio::time::Instant::from_std);
        let clock = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at).await,
                None => future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            input = inputs.next() => match input {
                Some((source, event)) => scheduler.take(source, event),
                None => return Err(Error::WatchesEnded),
            },
            Some(decided) = scheduler.deciding.next() => scheduler.decided(decided),
            Some(done) = scheduler.writes.next() => scheduler.written(done),
            Some(done) = scheduler.waits.next() => scheduler.written(done),
            () = clock => {}
        }
    }
}

/// A pod that could not be bound.
#[derive(Debug, thiserror::Error)]
enum BindError {
    #[error("running Bind plugin \"DefaultBinder\": {}", client::message_of(.0))]
    Api(kube::Error),
    #[error("{0}")]
    Volumes(String),
    /// What an extender said that was to bind it.
    #[error("{0}")]
    Extender(String),
}

/// Binds a pod, or has an extender do so: `binder`.
async fn bind(
    reporter: &Reporter,
    binder: Option<&Extender>,
    pod: &Pod,
    node: &str,
) -> Result<(), BindError> {
    if let Some(extender) = binder {
        match extender.bind(pod, node).await {
            Ok(()) => {
                reporter.bound(pod, node);
                return Ok(());
            }
            Err(why) if extender.is_ignorable() => {
                tracing::info!(error = why, "scheduler: skipped an extender that failed to bind");
            }
            Err(why) => return Err(BindError::Extender(why)),
        }
    }
    let bound = tokio::time::timeout(LONGEST_WRITE, reporter.bind(pod, node)).await;
    bound.unwrap_or_else(|late| Err(kube::Error::Service(late.into()))).map_err(BindError::Api)
}

enum Done {
    Bound {
        uid: String,
        result: Result<(), BindError>,
        /// What was assumed of its volumes.
        needs: Needs,
    },
    /// The failure of an attempt is reported; `refused` is `None` where no filter refused the pod.
    Reported { uid: String, refused: Option<Vec<Plugin>> },
}

/// What became of an attempt.
struct Decided {
    pod: Arc<Pod>,
    snapshot: Snapshot,
    /// Which extender binds the pod.
    binder: Option<usize>,
    /// The error is an extender's that counts.
    outcome: Result<Attempt, String>,
}

struct Scheduler {
    config: Arc<Config>,
    cluster: Cluster,
    queue: Queue,
    reporter: Reporter,
    /// Watches that have listed once, or could not.
    synced: HashSet<Source>,
    /// The attempt that waits for extenders; there is one at a time.
    deciding: FuturesUnordered<BoxFuture<'static, Decided>>,
    writes: FuturesUnordered<BoxFuture<'static, Done>>,
    /// Pods that wait for their volumes to be bound.
    waits: FuturesUnordered<BoxFuture<'static, Done>>,
    volumes: VolumeWriter,
    extenders: Arc<[Extender]>,
    raw: Arc<Raw>,
    round: u64,
}

impl Scheduler {
    /// Takes in what has arrived, without waiting.
    fn take_in(&mut self, inputs: &mut Watches) -> Result<(), Error> {
        for _ in 0..INPUTS {
            match inputs.next().now_or_never() {
                Some(Some((source, event))) => self.take(source, event),
                Some(None) => return Err(Error::WatchesEnded),
                None => break,
            }
        }
        while let Some(Some(decided)) = self.deciding.next().now_or_never() {
            self.decided(decided);
        }
        while let Some(Some(done)) = self.writes.next().now_or_never() {
            self.written(done);
        }
        while let Some(Some(done)) = self.waits.next().now_or_never() {
            self.written(done);
        }
        self.queue.flush(Instant::now());
        Ok(())
    }

    fn take(&mut self, source: Source, event: WatchEvent) {
        match event {
            WatchEvent::Set(key, parsed) => self.set(source, key, parsed),
            WatchEvent::Gone(key) => self.gone(source, &key),
            WatchEvent::Synced => drop(self.synced.insert(source)),
            // Pods and nodes are the ground: without them there is nothing to decide. The others must not stop everything.
            WatchEvent::Failed if !matches!(source, Source::Pods | Source::Nodes) => {
                self.synced.insert(source);
            }
            WatchEvent::Failed => {}
        }
    }

    fn set(&mut self, source: Source, key: String, parsed: Parsed) {
        let rest = &mut self.cluster.rest;
        let change = match parsed {
            Parsed::Pod(pod, raw) => {
                if let Some(raw) = raw {
                    self.raw.set_pod(&pod.uid, raw);
                }
                return self.set_pod(Arc::new(*pod));
            }
            Parsed::Node(node, raw) => {
                if let Some(raw) = raw {
                    self.raw.set_node(&node.name, raw);
                }
                self.cluster.set_node(*node)
            }
            Parsed::Namespace(labels) => {
                Arc::make_mut(&mut rest.namespaces).insert(key, labels);
                Some(Change::PodPlaced)
            }
            Parsed::Claim(claim) => {
                if let Some(claim) = claim {
                    Arc::make_mut(&mut rest.storage.claims).insert(key, Arc::new(*claim));
                }
                Some(Change::VolumesChanged)
            }
            Parsed::Volume(disk) => {
                if let Some(disk) = disk {
                    Arc::make_mut(&mut rest.storage.volumes).insert(key, Arc::new(*disk));
                }
                Some(Change::VolumesChanged)
            }
            Parsed::Class(class) => {
                Arc::make_mut(&mut rest.storage.classes).insert(key, *class);
                Some(Change::VolumesChanged)
            }
            Parsed::Grouping(grouping) => {
                Arc::make_mut(&mut rest.groupings).insert((kind(source), key), *grouping);
                None
            }
            Parsed::Budget(budget) => {
                Arc::make_mut(&mut rest.budgets).insert(key, *budget);
                None
            }
        };
        self.announce(change);
    }

    fn gone(&mut self, source: Source, key: &str) {
        let rest = &mut self.cluster.rest;
        match source {
            Source::Pods => {
                self.raw.remove_pod(key);
                self.queue.remove(key);
                let change = self.cluster.remove_pod(key);
                self.announce(change);
            }
            Source::Nodes => {
                self.raw.remove_node(key);
                self.cluster.remove_node(key);
                self.announce(Some(Change::NodeGone));
            }
            Source::Namespaces => drop(Arc::make_mut(&mut rest.namespaces).remove(key)),
            Source::Claims => drop(Arc::make_mut(&mut rest.storage.claims).remove(key)),
            Source::Volumes => drop(Arc::make_mut(&mut rest.storage.volumes).remove(key)),
            Source::Classes => drop(Arc::make_mut(&mut rest.storage.classes).remove(key)),
            Source::Budgets => drop(Arc::make_mut(&mut rest.budgets).remove(key)),
            _ => drop(Arc::make_mut(&mut rest.groupings).remove(&(kind(source), key.to_owned()))),
        }
    }

    fn set_pod(&mut self, mut pod: Arc<Pod>) {
        if pod.gated && self.config.profile(&pod.scheduler).is_some_and(|profile| !profile.gates) {
            Arc::make_mut(&mut pod).gated = false;
        }
        let ignored = self.config.extenders.iter().flat_map(|extender| &extender.ignored);
        let ignored: Vec<&String> = ignored.filter(|name| pod.requests.scalar.contains_key(*name)).collect();
        if pod.node.is_none() && !ignored.is_empty() {
            let pod = Arc::make_mut(&mut pod);
            for name in ignored {
                pod.requests.scalar.remove(name);
                pod.scored.scalar.remove(name);
            }
        }
        if pod.node.is_some() {
            self.queue.remove(&pod.uid);
            let change = self.cluster.set_pod(pod);
            self.announce(change);
        } else if self.config.profile(&pod.scheduler).is_none() || pod.terminating {
            self.queue.remove(&pod.uid);
        } else {
            self.queue.set(pod, Instant::now());
        }
    }

    fn announce(&mut self, change: Option<Change>) {
        if let Some(change) = change {
            self.queue.changed(change, Instant::now());
        }
    }

    /// Decides on the next pod, or has extenders asked about it; false where there is none, or too much is under way.
    fn schedule_one(&mut self) -> bool {
        let busy = !self.deciding.is_empty() || self.writes.len() >= WRITES || self.waits.len() >= WAITS;
        if self.synced.len() < SOURCES || busy {
            return false;
        }
        let Some(pod) = self.queue.pop(Instant::now()) else { return false };
        self.round += 1;
        let mut nominated = self.queue.nominated();
        // A pod that is being bound counts on its node already.
        nominated.values_mut().for_each(|pods| pods.retain(|p| !self.cluster.has_pod(&p.uid)));
        let mut snapshot = self.cluster.snapshot(nominated);
        if let Some(profile) = self.config.profile(&pod.scheduler) {
            snapshot.profile = profile.clone();
        }
        let all = self.extenders.iter().enumerate();
        let interested: Vec<usize> = all
            .filter(|(_, extender)| extender.is_interested(&self.raw, &pod.uid))
            .map(|(at, _)| at)
            .collect();
        let binds = |at: &usize| self.extenders.get(*at).is_some_and(Extender::binds);
        let binder = interested.iter().copied().find(binds);
        if interested.is_empty() {
            let outcome = Ok(attempt(&snapshot, &pod, self.round));
            self.decided(Decided { pod, snapshot, binder, outcome });
            return true;
        }
        let (extenders, raw, round) = (self.extenders.clone(), self.raw.clone(), self.round);
        self.deciding.push(
            async move {
                let asked = interested.into_iter().filter_map(|at| extenders.get(at)).collect();
                let extended = Extended { extenders: asked, raw: &raw };
                let outcome = Box::pin(extended.attempt(&snapshot, &pod, round)).await;
                Decided { pod, snapshot, binder, outcome }
            }
            .boxed(),
        );
        true
    }

    /// Acts on an attempt. The pod may be gone or placed by somebody else, where it took its time.
    fn decided(&mut self, decided: Decided) {
        let Decided { pod, snapshot, binder, outcome } = decided;
        if self.queue.get(&pod.uid).is_none() {
            return;
        }
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(message) => {
                let failure = Failure { reason: "SchedulerError", message, nominate: None };
                return self.report(pod, failure, None, Room::default());
            }
        };
        match outcome {
            Attempt::Placed(node) => {
                let needs = crate::plugins::volume_needs(&snapshot, &pod, &node);
                drop(snapshot);
                // While extenders were asked, what was decided on may have become another's, or have gone.
                if !self.cluster.has_node(&node) || !self.cluster.rest.storage.holds(&needs) {
                    return self.queue.retry(&pod.uid, Instant::now());
                }
                self.cluster.assume(&pod, &node);
                self.cluster.rest.storage.assume(&needs, &node);
                self.announce(Some(Change::PodPlaced));
                if needs.is_empty() {
                    let (reporter, extenders) = (self.reporter.clone(), self.extenders.clone());
                    self.write(async move {
                        let binder = binder.and_then(|at| extenders.get(at));
                        let result = bind(&reporter, binder, &pod, &node).await;
                        Done::Bound { uid: pod.uid.clone(), result, needs }
                    });
                } else {
                    // Others may learn already where it goes, as it takes a while.
                    self.queue.nominate(&pod.uid, Some(node.clone()));
                    self.bind_with_volumes(pod, node, needs, binder);
                }
            }
            Attempt::Failed { error, nominate, victims } => {
                let displaced = match &nominate {
                    Some(node) if !victims.is_empty() => {
                        self.queue.displace(node, pod.priority, Instant::now())
                    }
                    _ => Vec::new(),
                };
                self.queue.nominate(&pod.uid, nominate.clone());
                let message = error.to_string();
                let failure = Failure { reason: "Unschedulable", message, nominate: Some(nominate) };
                self.report(pod, failure, Some(error.plugins()), Room { victims, displaced });
            }
        }
    }

    /// Binds the pod once its volumes are bound, which may take as long as it takes to make them: such writes wait apart from the
    /// others.
    fn bind_with_volumes(&mut self, pod: Arc<Pod>, node: String, needs: Needs, binder: Option<usize>) {
        let (reporter, volumes) = (self.reporter.clone(), self.volumes.clone());
        let extenders = self.extenders.clone();
        self.waits.push(
            async move {
                let nominating = reporter.nominate(&pod, &node);
                if tokio::time::timeout(LONGEST_WRITE, nominating).await.is_err() {
                    tracing::warn!(pod = pod.key(), "scheduler: naming the pod's node took too long");
                }
                let result = match Box::pin(volumes.bind(&pod, &node, &needs)).await {
                    Ok(()) => bind(&reporter, binder.and_then(|at| extenders.get(at)), &pod, &node).await,
                    Err(why) => {
                        let text = format!("running PreBind plugin \"VolumeBinding\": {why}");
                        Err(BindError::Volumes(text))
                    }
                };
                Done::Bound { uid: pod.uid.clone(), result, needs }
            }
            .boxed(),
        );
    }

    fn report(&mut self, pod: Arc<Pod>, failure: Failure, refused: Option<Vec<Plugin>>, room: Room) {
        let reporter = self.reporter.clone();
        self.write(async move {
            if tokio::time::timeout(LONGEST_WRITE, tell(&reporter, &pod, &failure, room)).await.is_err() {
                tracing::warn!(pod = pod.key(), "scheduler: reporting the attempt timed out");
            }
            Done::Reported { uid: pod.uid.clone(), refused }
        });
    }

    fn write(&mut self, write: impl Future<Output = Done> + Send + 'static) {
        self.writes.push(write.boxed());
    }

    fn written(&mut self, done: Done) {
        let now = Instant::now();
        match done {
            // The watch takes the pod out of the queue when it shows the node.
            Done::Bound { result: Ok(()), .. } => {}
            Done::Bound { uid, result: Err(error), needs } => {
                self.cluster.rest.storage.forget(&needs);
                let change = self.cluster.forget(&uid);
                self.announce(change);
                let gone = matches!(&error, BindError::Api(kube::Error::Api(e)) if e.code == 404);
                let Some(pod) = self.queue.get(&uid).cloned() else { return };
                if gone {
                    // Its deletion is on the way; should it not be, the retry finds out.
                    return self.queue.retry(&uid, now);
                }
                tracing::warn!(pod = pod.key(), %error, "scheduler: bind");
                self.queue.nominate(&uid, None);
                let message = error.to_string();
                let failure = Failure { reason: "SchedulerError", message, nominate: Some(None) };
                self.report(pod, failure, None, Room::default());
            }
            Done::Reported { uid, refused: Some(refused) } => self.queue.unschedulable(&uid, refused, now),
            Done::Reported { uid, refused: None } => self.queue.retry(&uid, now),
        }
    }
}

/// Who makes room for a pod.
#[derive(Default)]
struct Room {
    victims: Vec<Arc<Pod>>,
    /// Pods that waited for the same node.
    displaced: Vec<Arc<Pod>>,
}

/// Makes the victims leave, then says why the pod has no node yet.
async fn tell(reporter: &Reporter, pod: &Pod, failure: &Failure, room: Room) {
    let node = failure.nominate.clone().flatten().unwrap_or_default();
    for displaced in room.displaced {
        reporter.displaced(&displaced).await;
    }
    for victim in room.victims {
        if let Err(error) = reporter.evict(&victim, pod, &node).await {
            tracing::warn!(pod = victim.key(), %error, "scheduler: evict victim");
        }
    }
    reporter.failed(pod, failure).await;
}

/// The kind of controller a watch brings.
fn kind(source: Source) -> &'static str {
    match source {
        Source::Services => "Service",
        Source::ReplicaSets => "ReplicaSet",
        Source::StatefulSets => "StatefulSet",
        Source::ReplicationControllers => "ReplicationController",
        _ => "",
    }
}
