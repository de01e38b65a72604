//! One of several leads: by a Lease, as upstream's components agree on it, so that ours and theirs exclude each other.
//!
//! Woken by: a period. Reads and writes: the lease, by compare-and-swap on its resource version. Promises: while [`Elector::lead`] runs its
//! work, nobody else who follows the rules leads; work whose lease could not be renewed in time, or is another's, is stopped before
//! anybody else may take it; a clean stop gives the lease back when the work has ended, so that the next need not wait.
//! [`Election`] decides.

mod election;

pub use election::{Election, Record};

use crate::recorder::{Recorder, Severity};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use supervise::jittered;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

/// How long a leader may be late before its health check says so (upstream's components all allow as much).
const TOLERANCE: Duration = Duration::from_secs(20);

/// How long work that is stopped may take before it is dropped; the lease itself may be over sooner.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// What is contended for, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where the lease is.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// How long a lease is good for.
    pub lease: Duration,
    /// How long its holder tries to renew it before it gives up.
    pub renew_deadline: Duration,
    /// Pause between two attempts.
    pub retry: Duration,
}

impl Settings {
    /// Upstream's defaults, for a component's lease.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            namespace: "kube-system".to_owned(),
            name: name.to_owned(),
            lease: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// Leadership was lost: the lease could not be renewed in time, or somebody else has it.
#[derive(Debug, thiserror::Error)]
#[error("leaderelection lost")]
pub struct Lost;

/// A contender for a lease.
#[derive(Clone)]
pub struct Elector {
    settings: Settings,
    client: Client,
    component: &'static str,
    identity: String,
    recorder: Recorder,
    state: Arc<Mutex<State>>,
}

struct State {
    election: Election,
    /// The lease as it was last read or written.
    lease: Option<Lease>,
}

/// A request about the lease failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error("no answer in time")]
    Late,
}

impl Elector {
    /// A contender of this identity, which nobody else alive may have: upstream's are `HOST_UUID`. `component` is who events are of.
    #[must_use]
    pub fn new(
        settings: Settings,
        client: Client,
        identity: &str,
        component: &'static str,
        recorder: Recorder,
    ) -> Self {
        let state = State { election: Election::new(identity, settings.lease), lease: None };
        let (identity, state) = (identity.to_owned(), Arc::new(Mutex::new(state)));
        Self { settings, client, component, identity, recorder, state }
    }

    /// Whether it leads, as far as it knows.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.state.lock().election.leads()
    }

    /// Upstream's health check `leaderElection`: fails while we hold a lease that should have been renewed long ago.
    ///
    /// # Errors
    /// What the check says.
    pub fn check(&self) -> Result<(), String> {
        match self.state.lock().election.overdue(Instant::now(), TOLERANCE) {
            true => Err(format!("failed election to renew leadership on lease {}", self.settings.name)),
            false => Ok(()),
        }
    }

    /// Waits for the lease, then does the work for as long as it is ours. `None` where `shutdown` came first.
    ///
    /// # Errors
    /// [`Lost`], with the work stopped.
    pub async fn lead<F: Future>(
        &self,
        shutdown: &CancellationToken,
        work: impl FnOnce(CancellationToken) -> F,
    ) -> Result<Option<F::Output>, Lost> {
        let lease = format!("{}/{}", self.settings.namespace, self.settings.name);
        if shutdown.run_until_cancelled(self.acquire(&lease)).await.is_none() {
            // The write that was under way may have got there.
            self.release(&lease).await;
            return Ok(None);
        }
        tracing::info!(lease, identity = self.identity, "leading");
        self.tell("became leader");
        let stop = shutdown.child_token();
        let mut work = Box::pin(work(stop.clone()));
        let ended = tokio::select! {
            done = &mut work => Ok(Some(done)),
            () = self.hold(&lease) => Err(Lost),
            () = shutdown.cancelled() => Ok(None),
        };
        stop.cancel();
        let ended = match ended {
            Ok(None) => Ok(timeout_at(self.deadline(STOP_PATIENCE), work).await.ok()),
            Err(Lost) => {
                tracing::error!(lease, "leadership is lost");
                if timeout_at(self.deadline(STOP_PATIENCE), work).await.is_err() {
                    tracing::warn!("the work does not stop; dropped");
                }
                Err(Lost)
            }
            done => done,
        };
        if ended.is_ok() {
            self.release(&lease).await;
        }
        self.tell("stopped leading");
        ended
    }

    /// How long the work may take to stop after the lease is given up for lost.
    fn patience(&self) -> Duration {
        let Settings { lease, renew_deadline, retry, .. } = self.settings;
        lease.saturating_sub(renew_deadline).saturating_sub(retry)
    }

    /// When our lease is over, `most` from now at the latest; now, where it is not ours.
    fn deadline(&self, most: Duration) -> Instant {
        let now = Instant::now();
        self.state.lock().election.until().map_or(now, |until| until.min(now + most))
    }

    /// Tries until the lease is ours.
    async fn acquire(&self, lease: &str) {
        tracing::debug!(lease, "contending");
        let mut holder = None;
        loop {
            match self.attempt().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::warn!(lease, %error, "cannot take the lease; tried again"),
            }
            let seen = self.state.lock().election.holder().cloned();
            if seen != holder && seen.is_some() {
                tracing::info!(lease, leader = seen, "somebody else leads");
            }
            holder = seen;
            sleep(self.pause()).await;
        }
    }

    /// Until the next attempt: a period, or less where the lease that another has is over before that, unless it is renewed.
    fn pause(&self) -> Duration {
        let period = jittered(self.settings.retry);
        let left =
            self.state.lock().election.runs_out().map(|at| at.saturating_duration_since(Instant::now()));
        // One that is over was tried for just now.
        left.filter(|left| !left.is_zero()).map_or(period, |left| left.min(period))
    }

    /// Renews the lease; ends when it is lost.
    async fn hold(&self, lease: &str) {
        loop {
            sleep(self.settings.retry).await;
            // Counted from the last renewal, so that there is time left to stop before others may lead.
            let deadline = self.deadline(self.settings.lease) - self.patience();
            let renewed = async {
                loop {
                    match self.attempt().await {
                        Ok(renewed) => return renewed,
                        Err(error) => tracing::warn!(lease, %error, "cannot renew the lease; tried again"),
                    }
                    sleep(self.settings.retry).await;
                }
            };
            if !timeout_at(deadline, renewed).await.unwrap_or(false) {
                return;
            }
        }
    }

    /// Takes or renews the lease; false while it is another's.
    async fn attempt(&self) -> Result<bool, Error> {
        // Nobody but us writes a lease of ours that is good: it need not be read.
        let ours = {
            let State { election, lease } = &*self.state.lock();
            let good = election.leads() && election.valid(Instant::now());
            good.then(|| election.claim(Instant::now(), Timestamp::now()).zip(lease.clone())).flatten()
        };
        if let Some((record, lease)) = ours
            && self.write(record, Some(lease)).await.is_ok()
        {
            return Ok(true);
        }
        let present = self.ask(|api| async move { api.get_opt(&self.settings.name).await }).await?;
        let claim = {
            let State { election, lease } = &mut *self.state.lock();
            let spec = present.as_ref().map(|lease| lease.spec.clone().unwrap_or_default());
            election.see(spec.as_ref().map(Record::of), Instant::now());
            lease.clone_from(&present);
            election.claim(Instant::now(), Timestamp::now())
        };
        match claim {
            Some(record) => self.write(record, present).await.map(|()| true),
            None => Ok(false),
        }
    }

    /// Writes the lease over the one that is `present`.
    async fn write(&self, record: Record, present: Option<Lease>) -> Result<(), Error> {
        let (name, namespace) = (self.settings.name.clone(), self.settings.namespace.clone());
        let metadata = ObjectMeta { name: Some(name), namespace: Some(namespace), ..ObjectMeta::default() };
        let (exists, began) = (present.is_some(), Instant::now());
        let mut lease = present.unwrap_or(Lease { metadata, spec: None });
        lease.spec = Some(record.spec());
        let written = self
            .ask(|api| async move {
                match exists {
                    true => api.replace(&self.settings.name, &PostParams::default(), &lease).await,
                    false => api.create(&PostParams::default(), &lease).await,
                }
            })
            .await?;
        let State { election, lease } = &mut *self.state.lock();
        election.wrote(record, began);
        *lease = Some(written);
        Ok(())
    }

    /// One request about the lease, which may take half of the time there is to renew it.
    async fn ask<T, F>(&self, request: impl FnOnce(Api<Lease>) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, kube::Error>>,
    {
        let api = Api::namespaced(self.client.clone(), &self.settings.namespace);
        match timeout(self.settings.renew_deadline / 2, request(api)).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Error::Late),
        }
    }

    /// Gives the lease back, where it is ours.
    async fn release(&self, lease: &str) {
        let released = async {
            let present = self.ask(|api| async move { api.get_opt(&self.settings.name).await }).await?;
            let record = {
                let election = &mut self.state.lock().election;
                let spec = present.as_ref().and_then(|lease| lease.spec.as_ref());
                election.see(spec.map(Record::of), Instant::now());
                election.release(Timestamp::now())
            };
            match record {
                Some(record) => self.write(record, present).await,
                None => Ok(()),
            }
        };
        if let Err(error) = released.await {
            tracing::warn!(
                lease,
                error = supervise::chain(&error as &dyn std::error::Error),
                "release the lease"
            );
        }
    }

    fn tell(&self, what: &str) {
        let lease = self.state.lock().lease.clone();
        if let Some(lease) = lease {
            let message = format!("{} {what}", self.identity);
            self.recorder.record(self.component, &lease, Severity::Normal, "LeaderElection", message);
        }
    }
}

#[cfg(test)]
mod tests;
