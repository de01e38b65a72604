//! The end of a pod: what must be gone before its source may forget it, and after.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::context::Context;
use super::stops::Stopping;
use super::wait::less_grace;
use super::{Desired, Error, Next, RETRY_FIRST, Worker};
use crate::pod::observed::Observed;
use crate::pod::plan::Action;
use crate::volume;
use crate::worker::execute;

impl Worker {
    /// Brings a pod to its end: containers and sandbox stopped, volumes and cgroup gone, and, once its source has
    /// forgotten it, nothing left at all.
    pub(super) async fn end(&mut self, desired: &Desired, observed: Observed) -> Result<Next, Error> {
        let pod = &desired.pod;
        let mut observed = observed;
        if !observed.is_quiet() {
            self.report(pod, &observed);
            if !Box::pin(self.quieten(desired, &observed)).await? {
                return Ok(Next::Again);
            }
            observed = self.look(pod).await?;
            if !observed.is_quiet() {
                return Ok(Next::Wait(Some(execute::retry_at(Timestamp::now(), RETRY_FIRST))));
            }
        }
        self.finished = true;
        self.backing_off.clear();
        self.failures.clear();
        if !self.torn_down {
            self.report(pod, &observed);
            tear_down(&self.context, pod).await?;
            self.torn_down = true;
        }
        self.report(pod, &observed);
        if !desired.removed {
            return Ok(Next::Wait(None));
        }
        for container in &observed.containers {
            self.context.runtime.remove_container(&container.id).await?;
            execute::unlink_log(&self.context, pod, &container.name, &container.id);
        }
        for sandbox in &observed.sandboxes {
            execute::remove_sandbox(&self.context, &sandbox.id).await?;
        }
        let (namespace, name, uid) =
            (crate::pod::namespace(pod), crate::pod::name(pod), crate::pod::uid(pod));
        let logs = self.context.config.pod_log_dir(namespace, name, uid);
        match std::fs::remove_dir_all(&logs) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Error::Logs(error)),
            _ => {}
        }
        self.context.pods.forget(crate::pod::uid(pod));
        self.context.volumes.forget(crate::pod::uid(pod));
        self.context.evictions.forget(crate::pod::uid(pod));
        self.reports.forget(crate::pod::uid(pod));
        Ok(Next::Done)
    }

    /// Stops containers and sandboxes. `false`: the pod is to end sooner, and the rest was left.
    async fn quieten(&mut self, desired: &Desired, observed: &Observed) -> Result<bool, Error> {
        let pod = &desired.pod;
        let actions = self.plan(pod, observed, true).actions;
        let (context, grace) = (Arc::clone(&self.context), self.grace(pod));
        let mut newer = self.desired.clone();
        let mut stops = std::mem::take(&mut self.stops);
        let stopping = async {
            let mut sooner = std::pin::pin!(less_grace(&mut newer, grace));
            for action in actions {
                match action {
                    Action::StopContainers(of) => {
                        let (context, pod) = (Arc::clone(&context), Arc::clone(pod));
                        let stopping =
                            Stopping { context, pod, observed: observed.clone(), stops: of, grace };
                        if !stops.carry_out(stopping, sooner.as_mut()).await? {
                            return Ok(false);
                        }
                    }
                    // Never cut short: what it takes down of the network would be left half there.
                    Action::StopSandbox(id) => context.runtime.stop_pod_sandbox(&id).await?,
                    other => tracing::warn!(action = ?other, "left undone at a pod's end"),
                }
            }
            Ok::<_, Error>(true)
        };
        // What takes its time goes on being probed: whoever sends it traffic must know.
        let watching = async {
            loop {
                self.wake.notified().await;
                if let Ok(now) = self.look(pod).await {
                    self.report(pod, &now);
                }
            }
        };
        let ended = tokio::select! {
            ended = Box::pin(stopping) => ended,
            () = Box::pin(watching) => Ok(true),
        };
        self.stops = stops;
        ended
    }
}

async fn tear_down(context: &Context, pod: &Pod) -> Result<(), Error> {
    Box::pin(volume::csi::tear_down(&context.volumes, crate::pod::uid(pod))).await?;
    let dir = context.config.pod_dir(crate::pod::uid(pod));
    volume::blocking(move || volume::cleanup::remove(&dir)).await?;
    context.cgroups.remove(crate::pod::uid(pod)).await?;
    Ok(())
}
