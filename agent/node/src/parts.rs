//! Credentials of the node's parts beside its kubelet: each speaks to the API server as itself.
//!
//! Woken: at start, by a certificate that is due, by a kubeconfig that changed. Reads: the part's kubeconfig where an administrator gave one;
//! else the part's certificate on disk. Writes: that certificate, asked for with the node's identity
//! (signer `kubernetes.io/kube-apiserver-client`; our control plane approves it, in another an administrator may), a kubeconfig beside it,
//! and an event on the Node that says what is missing. Promises: a part never gets the node's own credentials; without any it waits, and is
//! told why; the request made once is waited for, not made again.

use crate::Config;
use crate::authorities;
use crate::bootstrap;
use crate::certificate;
use crate::client::{self, Slot};
use crate::identity::{Files, Role};
use crate::rotation::{Changed, until_due};
use crate::tasks::until;
use ::client::recorder::{self, Note, Recorder, Severity};
use jiff::Timestamp;
use pki::part::NodePart;
use pki::request::Subject;
use pki::{Certificate, files};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use supervise::{Backoff, Task, chain};

/// How long a part waits for its certificate before it is told that there is none.
const GRACE: Duration = Duration::from_secs(5);
/// First and longest pause after a failure.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// How often a given kubeconfig is read again.
const PERIOD: Duration = Duration::from_secs(60);

/// The clients of the parts, and the tasks that keep their credentials.
pub(crate) struct Parts {
    pub(crate) proxy: kube::Client,
    pub(crate) dns: kube::Client,
    pub(crate) network: kube::Client,
    pub(crate) tasks: Vec<Task>,
}

impl Parts {
    /// `node` is the node's own client, which asks and tells.
    pub(crate) fn new(
        config: &Arc<Config>,
        files: &Arc<Files>,
        node: &kube::Client,
        changed: &Changed,
    ) -> Self {
        let (recorder, writer) = Recorder::new(Some(node.clone()), Some(&config.node_name));
        let mut tasks = vec![writer.task("credential-events")];
        let mut of = |part: NodePart| {
            let (client, slot) = client::awaited();
            let keeper = Keeper {
                part,
                config: config.clone(),
                files: files.clone(),
                node: node.clone(),
                slot,
                recorder: recorder.clone(),
                grace: GRACE,
                changed: changed.clone(),
            };
            tasks.push(Task::new(format!("{}-credentials", part.name()), move |stop| {
                let keeper = keeper.clone();
                until(stop, async move { keeper.run().await })
            }));
            client
        };
        let (proxy, dns, network) = (of(NodePart::Proxy), of(NodePart::Dns), of(NodePart::Network));
        Self { proxy, dns, network, tasks }
    }
}

#[derive(Clone)]
struct Keeper {
    part: NodePart,
    config: Arc<Config>,
    files: Arc<Files>,
    node: kube::Client,
    slot: Slot,
    recorder: Recorder,
    grace: Duration,
    /// Told when the cluster's authorities are others.
    changed: Changed,
}

impl Keeper {
    /// Never returns.
    async fn run(&self) {
        match self.config.part_kubeconfigs.get(&self.part) {
            Some(path) => self.given(path).await,
            None => self.certified().await,
        }
    }

    /// Follows the kubeconfig an administrator gave.
    async fn given(&self, path: &Path) {
        let mut used: Option<String> = None;
        loop {
            match files::read(path) {
                Ok(text) if used.as_ref() == Some(&text) => {}
                Ok(text) => match bootstrap::client_of_file(path).await {
                    Ok(client) => {
                        self.slot.replace(client);
                        tracing::info!(part = self.part.name(), path = %path.display(), "credentials as given");
                        used = Some(text);
                    }
                    Err(error) => self.miss(used.is_some(), &format!("{}: {error}", path.display())),
                },
                Err(error) => self.miss(used.is_some(), &chain(&error)),
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// Keeps a certificate of its own.
    async fn certified(&self) {
        let subject = Subject::user(self.part.user());
        let mut changed = self.changed.clone();
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        loop {
            let current = self.current();
            if let Some(certificate) = &current {
                match self.connect().await {
                    Ok(client) => self.slot.replace(client),
                    // What was not there, or not readable, may be a moment later.
                    Err(error) => {
                        self.miss(self.slot.is_held(), &error);
                        backoff.pause().await;
                        continue;
                    }
                }
                backoff.reset();
                tokio::select! {
                    () = until_due(Some(certificate), &self.files) => {}
                    // Other authorities: another client, of the same certificate unless its own was replaced.
                    Ok(()) = changed.changed() => {
                        if !authorities::is_replaced(certificate, &self.files) {
                            continue;
                        }
                    }
                }
            }
            let asked = self.ask(&subject, current.is_some()).await;
            let held = self.current().is_some();
            match asked {
                Ok(until) if held => {
                    backoff.reset();
                    tracing::info!(part = self.part.name(), %until, "got a client certificate");
                    continue;
                }
                Ok(_) => self.miss(held, "the certificate that was given is of no use"),
                Err(error) => self.miss(held, &chain(&error)),
            }
            backoff.pause().await;
        }
    }

    /// Asks for a certificate and waits for it, however long; `held` says that there is one which still works.
    async fn ask(&self, subject: &Subject, held: bool) -> Result<Timestamp, certificate::Error> {
        let asked = certificate::obtain(&self.node, &self.files, Role::Part(self.part), subject);
        let mut asked = Box::pin(asked);
        let pair = match tokio::time::timeout(self.grace, &mut asked).await {
            Ok(answered) => answered?,
            Err(_) => {
                let user = self.part.user();
                self.miss(
                    held,
                    &format!("nobody has approved the certificate signing request for user {user}"),
                );
                asked.await?
            }
        };
        Ok(pair.certificate.not_after)
    }

    /// The certificate on disk, where it is alive. Those of another cluster went when the node joined this one.
    fn current(&self) -> Option<Certificate> {
        let pair = self.files.read_pair(Role::Part(self.part)).ok().flatten()?;
        let certificate = pair.certificate;
        let ours = certificate.common_name == self.part.user() && certificate.is_valid_at(Timestamp::now());
        ours.then_some(certificate)
    }

    /// A client of the part's own certificate, at the server the node itself speaks to.
    async fn connect(&self) -> Result<kube::Client, String> {
        let written = self.files.write_part_kubeconfig(self.part);
        bootstrap::client_of_file(&written.map_err(|error| chain(&error))?).await
    }

    /// Says what is missing, to the part, in the log and on the Node; where the part has working credentials (`held`), in the log alone.
    fn miss(&self, held: bool, why: &str) {
        let part = self.part.name();
        if held {
            tracing::warn!(part, why, "cannot renew the credentials of a part");
            return;
        }
        let message =
            format!("no credentials of the {part}: {why}; or give a kubeconfig with --{part}-kubeconfig");
        tracing::warn!(part, "{message}");
        self.slot.miss(&message);
        self.recorder.note(Note {
            component: "windlass-agent",
            about: recorder::node(&self.config.node_name),
            severity: Severity::Warning,
            reason: "MissingCredentials".into(),
            message,
            action: None,
        });
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test sees how what it spawns ends")]
mod tests;
