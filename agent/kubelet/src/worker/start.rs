//! What follows the start of a container: its hook, or why it waits.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::wait::must_end;
use super::{Worker, execute};
use crate::meters::{CONTAINERS_FAILED, CONTAINERS_STARTED};
use crate::pod::observed::Observed;
use crate::pod::{Role, plan};

impl Worker {
    /// After a start: its hook, or what to say about its failure.
    pub(super) async fn started(
        &mut self,
        pod: &Arc<Pod>,
        observed: &Observed,
        name: &str,
        started: Result<String, execute::Failure>,
    ) {
        let kind = match crate::pod::container(pod, name) {
            Some((Role::Init | Role::Sidecar, _)) => "init_container",
            Some((Role::Ephemeral, _)) => "ephemeral_container",
            _ => "container",
        };
        let meters = &self.context.meters;
        meters.add(&CONTAINERS_STARTED, format!("{{container_type={kind:?}}}"), 1.0);
        if let Err(failure) = &started {
            let code = failure.waiting.reason.as_str();
            meters.add(&CONTAINERS_FAILED, format!("{{code={code:?},container_type={kind:?}}}"), 1.0);
        }
        let outcome = match started {
            Ok(id) => self.hook(pod, observed, name, id).await,
            Err(failure) => Err(failure),
        };
        match outcome {
            Ok(()) => {
                self.failures.remove(name);
            }
            Err(failure) => {
                let until = execute::retry_at(Timestamp::now(), failure.retry);
                self.failures.insert(name.to_owned(), (failure.waiting, until));
            }
        }
    }

    async fn hook(
        &mut self,
        pod: &Arc<Pod>,
        observed: &Observed,
        name: &str,
        id: String,
    ) -> Result<(), execute::Failure> {
        let Some((_, spec)) = crate::pod::container(pod, name) else { return Ok(()) };
        if spec.lifecycle.as_ref().is_none_or(|l| l.post_start.is_none()) {
            return Ok(());
        }
        self.hooks_pending.insert(id.clone());
        let ips = observed.sandbox().map(|s| s.ips.clone()).unwrap_or_default();
        let mut desired = self.desired.clone();
        let outcome = tokio::select! {
            outcome = Box::pin(execute::post_start(&self.context, pod, &spec, &id, &ips)) => outcome,
            // The container is about to be stopped: its hook does not matter any more.
            () = must_end(&mut desired) => Ok(()),
        };
        self.hooks_pending.remove(&id);
        if outcome.is_err() {
            let stop = plan::Stop {
                id,
                name: name.to_owned(),
                message: "FailedPostStartHook".to_owned(),
                grace: None,
                restart: false,
                after: Vec::new(),
            };
            if let Err(error) = self.stop(pod, observed, vec![stop]).await {
                tracing::warn!(%error, "stopping a container whose postStart hook failed");
            }
        }
        outcome
    }
}
