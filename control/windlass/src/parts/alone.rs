//! A part as the only one of its process: its client, its lease, its port, its tasks.

use super::leading::{self, OnLoss};
use super::serving::Port;
use crate::flags::Flags;
use crate::signals::Signals;
use anyhow::{Context as _, bail};
use client::leader::{Elector, Settings};
use client::recorder::Recorder;
use supervise::{Supervisor, Task};
use tokio_util::sync::CancellationToken;

/// Runs a part that needs no leadership until a signal, and what renews its client.
pub(crate) async fn run(renewal: Option<Task>, part: impl FnOnce(&Supervisor) -> Task) -> anyhow::Result<()> {
    run_all(renewal, |supervisor| vec![part(supervisor)]).await
}

/// The same for a part of several tasks.
pub(crate) async fn run_all(
    renewal: Option<Task>,
    parts: impl FnOnce(&Supervisor) -> Vec<Task>,
) -> anyhow::Result<()> {
    let signals = Signals::take().context("take over signals")?;
    let (supervisor, shutdown) = (Supervisor::default(), CancellationToken::new());
    let running = async {
        let tasks: Vec<Task> = parts(&supervisor).into_iter().chain(renewal).collect();
        supervisor.run(tasks, &shutdown).await;
        Ok(())
    };
    signals.until_done(&shutdown, Box::pin(running)).await
}

/// What a part alone is made with.
pub(crate) struct Alone {
    signals: Signals,
    pub(crate) client: kube::Client,
    pub(crate) supervisor: Supervisor,
    pub(crate) elector: Option<Elector>,
    events: Task,
    port: Option<Port>,
    lost: CancellationToken,
}

impl Alone {
    /// Opens its port and prepares to contend for `lease` as `component`, the source of events. `tolerant`: [`Port::open`].
    pub(crate) async fn prepare(
        flags: &Flags,
        client: kube::Client,
        lease: Option<Settings>,
        component: &'static str,
        (name, port, tolerant): (&'static str, u16, bool),
    ) -> anyhow::Result<Self> {
        super::gates::check(flags)?.iter().for_each(|warning| tracing::warn!("{warning}"));
        let signals = Signals::take().context("take over signals")?;
        let supervisor = Supervisor::default();
        let (recorder, writer) = Recorder::new(Some(client.clone()), None);
        let identity = leading::identity()?;
        let elector =
            lease.map(|lease| Elector::new(lease, client.clone(), &identity, component, recorder.clone()));
        let shown = elector.clone().map(|elector| (name, elector));
        let port = Port::open(flags, (port, tolerant), &client, &supervisor, shown).await?;
        let events = writer.task("leadership-events");
        Ok(Self { signals, client, supervisor, elector, events, port, lost: CancellationToken::new() })
    }

    /// What the part does when it lost its lease: its process ends.
    pub(crate) fn on_loss(&self) -> OnLoss {
        OnLoss::End(self.lost.clone())
    }

    /// Runs the part's tasks until a signal, or until its lease is lost, which is an error.
    pub(crate) async fn run(self, mut tasks: Vec<Task>) -> anyhow::Result<()> {
        let Self { signals, supervisor, events, port, lost, .. } = self;
        tasks.push(events);
        tasks.extend(port.into_iter().flat_map(Port::tasks));
        let shutdown = CancellationToken::new();
        let work = async {
            let running = supervisor.run(tasks, &shutdown);
            tokio::pin!(running);
            tokio::select! {
                () = &mut running => {}
                () = lost.cancelled() => {
                    shutdown.cancel();
                    running.await;
                }
            }
            if lost.is_cancelled() {
                bail!("leaderelection lost");
            }
            Ok(())
        };
        signals.until_done(&shutdown, Box::pin(work)).await
    }
}
