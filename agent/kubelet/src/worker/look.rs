//! What a worker sees of its pod, and which containers are to be probed by that.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::{Error, Worker};
use crate::pod::addresses;
use crate::pod::observed::{Observed, State};
use crate::probe::{self, Target};

impl Worker {
    /// Asks the runtime, and sets the probes going.
    pub(super) async fn look(&mut self, pod: &Arc<Pod>) -> Result<Observed, Error> {
        let mut observed = Box::pin(self.observer.look(&self.context.runtime, crate::pod::uid(pod))).await?;
        let node = self.context.config.node_ips.first().copied();
        for sandbox in &mut observed.sandboxes {
            sandbox.ips = addresses::of_pod(&sandbox.ips, node);
        }
        let running = |id: &str| observed.containers.iter().any(|c| c.id == id && c.state == State::Running);
        self.verdicts.retain(running);
        self.hooks_pending.retain(|id| running(id));
        self.restarting.retain(|id| observed.containers.iter().any(|c| c.id == *id));
        let alive = |name: &str| observed.latest(name).is_some_and(|c| c.state == State::Running);
        self.record.lagging.retain(|name, _| alive(name));
        let ips = match crate::pod::host_network(pod) {
            true => self.context.host_ips(),
            false => observed.sandbox().map(|s| s.ips.clone()).unwrap_or_default(),
        };
        let mut targets = Vec::new();
        for container in &observed.containers {
            if container.state == State::Exited
                && let Some(ended) = container.finished_at
            {
                self.backoffs.seed(&container.name, container.attempt, ended);
            }
            let Some((_, spec)) = crate::pod::container(pod, &container.name) else { continue };
            if container.state != State::Running {
                continue;
            }
            self.verdicts.begin(&spec, &container.id, self.reported_of(&container.name, &container.id));
            if probe::has_any(&spec) && !self.hooks_pending.contains(&container.id) {
                targets.push(Arc::new(Target {
                    pod: Arc::clone(pod),
                    container: spec.into_owned(),
                    id: container.id.clone(),
                    ips: ips.clone(),
                    started_at: container.started_at,
                    ending: pod.metadata.deletion_timestamp.is_some(),
                }));
            }
        }
        let same = {
            let now = self.targets.borrow();
            now.len() == targets.len()
                && now
                    .iter()
                    .zip(&targets)
                    .all(|(a, b)| a.id == b.id && a.ips == b.ips && a.ending == b.ending)
        };
        if !same {
            self.targets.send_replace(targets);
        }
        Ok(observed)
    }

    /// What was reported of this very container: `(started, ready)`.
    fn reported_of(&self, name: &str, id: &str) -> Option<(bool, bool)> {
        let all = [&self.reported.init_container_statuses, &self.reported.container_statuses];
        let status = all.into_iter().flatten().flatten().find(|s| s.name == name)?;
        let same = status.container_id.as_deref()?.rsplit("://").next() == Some(id);
        same.then(|| (status.started.unwrap_or(false), status.ready))
    }
}
