//! The end of a pod: what must be gone before its source may forget it, and after.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::wait::less_grace;
use super::{Desired, Error, Next, RETRY_FIRST, Worker};
use crate::pod::observed::Observed;
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
            let plan = self.plan(pod, &observed, true);
            let mut newer = self.desired.clone();
            let grace = crate::pod::grace_seconds(pod);
            let (context, before) = (Arc::clone(&self.context), observed.clone());
            // A deletion with less grace than the one under way stops it sooner.
            let mut stopping = Box::pin(execute::end(
                context,
                Arc::clone(pod),
                before,
                plan.actions,
                self.grace(pod),
                less_grace(&mut newer, grace),
            ));
            let ended = loop {
                tokio::select! {
                    ended = &mut stopping => break ended?,
                    // What takes its time goes on being probed: whoever sends it traffic must know.
                    () = self.wake.notified() => if let Ok(now) = self.look(pod).await {
                        self.report(pod, &now);
                    },
                }
            };
            drop(stopping);
            if !ended {
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
            self.tear_down(pod).await?;
            self.torn_down = true;
        }
        self.report(pod, &observed);
        if !desired.removed {
            return Ok(Next::Wait(None));
        }
        for container in &observed.containers {
            self.context.runtime.remove_container(&container.id).await?;
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

    async fn tear_down(&self, pod: &Pod) -> Result<(), Error> {
        Box::pin(volume::csi::tear_down(&self.context.volumes, crate::pod::uid(pod))).await?;
        let dir = self.context.config.pod_dir(crate::pod::uid(pod));
        volume::blocking(move || volume::cleanup::remove(&dir)).await?;
        self.context.cgroups.remove(crate::pod::uid(pod)).await?;
        Ok(())
    }
}
