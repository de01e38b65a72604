//! Pressure: what the machine has left of memory, disk and process ids, against the hard eviction thresholds.
//!
//! Woken every [`PERIOD`]. Reads the kernel's counters, the filesystems of the kubelet's root and of the runtime's images,
//! and `evictionHard`. Writes the pressure conditions into what is [`Reported`] of the node; the scheduler keeps new pods
//! away by the taints that follow. Promises: a condition rises with the first observation below a threshold, and falls
//! only when none was seen for `evictionPressureTransitionPeriod`; a signal that cannot be read says nothing.
//! Pods are not evicted yet.
//!
//! - [`threshold`]: the thresholds, as configured; [`signal`]: what is observed

pub mod signal;
pub mod threshold;

use std::path::PathBuf;
use std::time::Duration;

use cri_proto::client::Runtime;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::node::Reported;
use signal::Observations;
use threshold::{Pressure, Signal, Thresholds};

/// The machine is looked at this often, as upstream's eviction manager does.
const PERIOD: Duration = Duration::from_secs(10);
/// The runtime is asked where its images live this often.
const IMAGES_PERIOD: Duration = Duration::from_secs(60);

/// When each pressure was last observed.
#[derive(Clone, Debug, Default)]
pub struct Verdicts([Option<Instant>; Pressure::ALL.len()]);

impl Verdicts {
    /// Takes in an observation and gives the pressures that are reported, in the order of [`Pressure::ALL`].
    pub fn judge(
        &mut self,
        thresholds: &Thresholds,
        observed: &Observations,
        now: Instant,
        transition: Duration,
    ) -> [bool; Pressure::ALL.len()] {
        for (signal, left) in observed {
            if thresholds.is_met(*signal, *left) {
                self.0[signal.pressure() as usize] = Some(now);
            }
        }
        self.0.map(|seen| seen.is_some_and(|at| at == now || now.duration_since(at) < transition))
    }
}

/// Keeps the pressure conditions in `reported` true until `stop`.
pub async fn watch(
    config: &Config,
    runtime: &Runtime,
    reported: &watch::Sender<Reported>,
    stop: &CancellationToken,
) {
    let mut verdicts = Verdicts::default();
    let mut images = Images { dirs: Vec::new(), asked: None };
    loop {
        images.refresh(runtime, &config.eviction_hard).await;
        let (root, dirs) = (config.root_dir.clone(), images.dirs.clone());
        // A filesystem may be a slow one.
        let observed = tokio::task::spawn_blocking(move || signal::observe(&root, &dirs)).await;
        let observed = observed.unwrap_or_default();
        let pressed = verdicts.judge(
            &config.eviction_hard,
            &observed,
            Instant::now(),
            config.eviction_pressure_transition_period,
        );
        reported.send_if_modified(|reported| {
            let [memory, disk, pid] = pressed;
            let before = (reported.memory_pressure, reported.disk_pressure, reported.pid_pressure);
            if before == (memory, disk, pid) {
                return false;
            }
            tracing::warn!(memory, disk, pid, ?observed, "pressure on the node changed");
            (reported.memory_pressure, reported.disk_pressure, reported.pid_pressure) = (memory, disk, pid);
            true
        });
        if stop.run_until_cancelled(tokio::time::sleep(PERIOD)).await.is_none() {
            return;
        }
    }
}

/// Where the runtime keeps images.
struct Images {
    dirs: Vec<PathBuf>,
    asked: Option<Instant>,
}

impl Images {
    async fn refresh(&mut self, runtime: &Runtime, thresholds: &Thresholds) {
        let wanted = [Signal::ImagefsAvailable, Signal::ImagefsInodesFree];
        let fresh = self.asked.is_some_and(|at| at.elapsed() < IMAGES_PERIOD);
        if fresh || !wanted.into_iter().any(|s| thresholds.watches(s)) {
            return;
        }
        match runtime.image_fs_info().await {
            Ok(info) => {
                let named = info.image_filesystems.into_iter().filter_map(|f| f.fs_id);
                self.dirs = named.map(|id| id.mountpoint.into()).collect();
                self.asked = Some(Instant::now());
            }
            Err(error) => tracing::debug!(%error, "ask where images live"),
        }
    }
}

#[cfg(test)]
mod tests;
