//! What a worker tells: the pod's status, and an event for a container that backs off.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};

use super::{Worker, execute};
use crate::meters::POD_START;
use crate::pod::observed::Observed;
use crate::pod::plan::Plan;
use crate::pod::status;
use crate::pods::View;

impl Worker {
    /// Says once for each end of a container that it waits.
    pub(super) fn note_backoff(&mut self, pod: &Pod, observed: &Observed, plan: &Plan) {
        for name in plan.backing_off.keys() {
            let attempt = observed.latest(name).map(|c| c.attempt);
            if self.noted.insert(name.clone(), attempt) == Some(attempt) {
                continue;
            }
            let text =
                format!("Back-off restarting failed container {name} in pod {}", crate::pod::described(pod));
            self.context.recorder.warning(pod, Some(name), "BackOff", text);
        }
    }

    /// Computes, remembers and publishes the status.
    pub(super) fn report(&mut self, pod: &Arc<Pod>, observed: &Observed) {
        self.note_resized(pod);
        let running = self.record.running_pod(pod);
        let mut status = status::compute(&status::Input {
            pod,
            observed,
            verdicts: &self.verdicts.all(),
            hooks_pending: &self.hooks_pending,
            waiting: &execute::waiting(pod, &self.failures, &self.backing_off),
            previous: &self.reported,
            running: &running,
            pending: self.desired.borrow().pending.as_ref(),
            progress: self.progress.as_ref(),
            host_ips: &self.context.host_ips(),
            runtime_name: &self.context.runtime_name,
            recursive: self.context.features(pod).recursive_read_only_mounts == Some(true),
            outcome: self.outcome.as_ref(),
            finished: self.finished,
            now: Timestamp::now(),
        });
        // Told with the end, not before it.
        if let Some(eviction) = &self.evicted
            && status::is_terminal(status.phase.as_deref())
        {
            eviction.mark(&mut status, pod.metadata.generation, Timestamp::now());
        }
        let runs = |status: &PodStatus| status.phase.as_deref() == Some("Running");
        if runs(&status) && !runs(&self.reported) {
            self.context.meters.observe(&POD_START, "", self.seen.elapsed());
        }
        if *self.reported != status {
            self.reported = Arc::new(status);
        }
        let status = Arc::clone(&self.reported);
        let observed = Arc::new(observed.clone());
        self.context.pods.publish(View { pod: Arc::clone(pod), status: Arc::clone(&status), observed });
        self.reports.set(pod, status, self.torn_down);
    }
}
