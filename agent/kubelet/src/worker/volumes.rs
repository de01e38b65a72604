//! A pod's volumes, and when mounting is tried again after a failure.

use super::wait::must_end;
use super::{MOUNT_LAST, MOUNT_UNKNOWN, RETRY_FIRST, Worker};
use crate::pod::observed::Observed;
use crate::volume::{self, Mounted};
use crate::worker::execute;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use std::sync::Arc;

impl Worker {
    pub(super) async fn volumes(
        &mut self,
        pod: &Arc<Pod>,
        observed: &Observed,
    ) -> Result<Mounted, Timestamp> {
        let ips = match crate::pod::host_network(pod) {
            true => self.context.host_ips(),
            false => observed.sandbox().map(|s| s.ips.clone()).unwrap_or_default(),
        };
        let mut desired = self.desired.clone();
        let ending = std::pin::pin!(must_end(&mut desired));
        let facts = self.context.facts(ips);
        match Box::pin(volume::set_up(&self.context.volumes, pod, &facts, ending)).await {
            Ok(mounted) => {
                self.failed_volume = None;
                self.mount_held = None;
                Ok(mounted)
            }
            // What is desired has changed, which is seen at once.
            Err(failure) if failure.is_given_up() => Err(Timestamp::now()),
            Err(failure) => {
                let text = failure.to_string();
                if self.failed_volume.as_ref() != Some(&text) {
                    self.context.recorder.warning(pod, None, "FailedMount", text.clone());
                    self.failed_volume = Some(text);
                }
                self.report(pod, observed);
                Err(self.hold_mount(&failure, Timestamp::now()))
            }
        }
    }

    /// When mounting is tried again: each failure doubles the pause, but for a try that something else brought on early.
    fn hold_mount(&mut self, failure: &volume::Failure, now: Timestamp) -> Timestamp {
        if !matches!(failure, volume::Failure::SetUp { .. }) {
            return execute::retry_at(now, MOUNT_UNKNOWN);
        }
        let (until, delay) = match self.mount_held {
            Some(held) if now < held.0 => held,
            Some((_, delay)) => {
                let delay = (delay * 2).min(MOUNT_LAST);
                (execute::retry_at(now, delay), delay)
            }
            None => (execute::retry_at(now, RETRY_FIRST), RETRY_FIRST),
        };
        self.mount_held = Some((until, delay));
        until
    }
}
