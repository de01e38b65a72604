//! Every task by name: what health checks, a node's condition and metrics read.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long a caught panic of vital work is shown: the work goes on at once, and whoever looks should still see it.
const SHOWN: Duration = Duration::from_secs(1);

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A [`crate::Task`]: it must always run.
    Task,
    /// A [`crate::Work`] whose panics make its owner unhealthy for a second.
    Vital,
    /// A [`crate::Work`] whose panics are counted.
    Work,
}

/// Something that does not run, though it should.
#[derive(Clone, Debug)]
pub struct Down {
    /// Wall clock.
    pub since: SystemTime,
    /// Error or panic message.
    pub reason: Arc<str>,
}

/// How a task or a kind of work is.
#[derive(Clone, Debug)]
pub struct Report {
    /// Prefixed by its scope, `kubelet/server`.
    pub name: Arc<str>,
    /// Task, vital work or other work.
    pub kind: Kind,
    /// Lives or pieces that run now.
    pub running: usize,
    /// Set while it is not running; of several lives the one that is down the longest.
    pub down: Option<Down>,
    /// Lives after the first.
    pub restarts: u64,
    /// Panics caught since the process started.
    pub panics: u64,
    /// Why a life or piece last ended badly.
    pub last: Option<Arc<str>>,
}

/// All tasks of a process, or of a part of it that is asked how it is. A cheap handle.
#[derive(Clone, Default)]
pub struct Supervisor(Arc<Mutex<BTreeMap<Arc<str>, Arc<Entry>>>>);

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.lock().keys()).finish()
    }
}

impl Supervisor {
    /// How everything is, by name.
    #[must_use]
    pub fn reports(&self) -> Vec<Report> {
        self.0.lock().values().map(|entry| entry.report()).collect()
    }

    /// What is down now.
    #[must_use]
    pub fn down(&self) -> Vec<Report> {
        let mut all = self.reports();
        all.retain(|report| report.down.is_some());
        all
    }

    /// How one is, or `None` where there is none of that name.
    #[must_use]
    pub fn report(&self, name: &str) -> Option<Report> {
        self.0.lock().get(name).map(|entry| entry.report())
    }

    /// Makes a task panic where it waits, or the next piece of work that is polled: how tests see that nothing else notices.
    /// False when there is none of that name.
    #[must_use]
    pub fn inject_panic(&self, name: &str) -> bool {
        let entry = self.0.lock().get(name).cloned();
        entry.inspect(|entry| entry.injected.notify_one()).is_some()
    }

    /// The entry of a name, made where there is none.
    pub(crate) fn entry(&self, name: &Arc<str>, kind: Kind) -> Arc<Entry> {
        let mut entries = self.0.lock();
        let entry = entries.entry(name.clone()).or_insert_with(|| Arc::new(Entry::new(name.clone(), kind)));
        entry.inner.lock().owners += 1;
        entry.clone()
    }

    /// Forgets an entry with its last owner.
    pub(crate) fn release(&self, entry: &Arc<Entry>) {
        let mut entries = self.0.lock();
        let mut inner = entry.inner.lock();
        inner.owners -= 1;
        if inner.owners == 0 && entries.get(&entry.name).is_some_and(|present| Arc::ptr_eq(present, entry)) {
            entries.remove(&entry.name);
        }
    }
}

pub(crate) struct Entry {
    pub(crate) name: Arc<str>,
    kind: Kind,
    inner: Mutex<Inner>,
    injected: Notify,
}

#[derive(Default)]
struct Inner {
    owners: usize,
    running: usize,
    begun: u64,
    down: BTreeMap<u64, Down>,
    fault: Option<(Instant, Down)>,
    restarts: u64,
    panics: u64,
    last: Option<Arc<str>>,
}

impl Entry {
    fn new(name: Arc<str>, kind: Kind) -> Self {
        Self { name, kind, inner: Mutex::default(), injected: Notify::new() }
    }

    fn report(&self) -> Report {
        let inner = self.inner.lock();
        let fault = inner.fault.iter().filter(|(at, _)| self.kind == Kind::Vital && at.elapsed() < SHOWN);
        let down = inner.down.values().chain(fault.map(|(_, down)| down)).min_by_key(|down| down.since);
        Report {
            name: self.name.clone(),
            kind: self.kind,
            running: inner.running,
            down: down.cloned(),
            restarts: inner.restarts,
            panics: inner.panics,
            last: inner.last.clone(),
        }
    }

    /// A number for a new owner's lives.
    pub(crate) fn number(&self) -> u64 {
        let mut inner = self.inner.lock();
        inner.begun += 1;
        inner.begun
    }

    /// A life or piece begins.
    pub(crate) fn begins(&self, number: u64) {
        let mut inner = self.inner.lock();
        inner.running += 1;
        if inner.down.remove(&number).is_some() {
            inner.restarts += 1;
        }
    }

    /// A life or piece ended as it should.
    pub(crate) fn ends(&self) {
        self.inner.lock().running -= 1;
    }

    /// A life ended; it is down until the next begins.
    pub(crate) fn falls(&self, number: u64, reason: &str, panicked: bool) {
        let mut inner = self.inner.lock();
        let reason: Arc<str> = reason.into();
        inner.running -= 1;
        inner.panics += u64::from(panicked);
        inner.last = Some(reason.clone());
        inner.down.insert(number, Down { since: SystemTime::now(), reason });
    }

    /// A piece of work panicked.
    pub(crate) fn faults(&self, reason: &str) {
        let mut inner = self.inner.lock();
        let reason: Arc<str> = reason.into();
        inner.running -= 1;
        inner.panics += 1;
        inner.last = Some(reason.clone());
        inner.fault = Some((Instant::now(), Down { since: SystemTime::now(), reason }));
    }

    /// An owner that is down ends.
    pub(crate) fn leaves(&self, number: u64) {
        self.inner.lock().down.remove(&number);
    }

    /// `future`, unless a test wants a panic in its place.
    #[allow(clippy::panic, reason = "it is what the test asks for")]
    pub(crate) async fn or_injected<T>(&self, future: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            () = self.injected.notified() => panic!("injected"),
            output = future => output,
        }
    }
}

/// What a panic said.
pub(crate) fn said(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", text.unwrap_or("without a text"))
}
