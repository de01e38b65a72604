//! A pod's worker and its resources: it takes up what was granted, brings what runs to it, and reports it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::execute;
use super::{Error, RETRY_FIRST, RETRY_LAST, Worker};
use crate::pod::allocation::{self, Allocation, Amounts, Record};
use crate::pod::observed::{Observed, State};
use crate::pod::spec::{labels, resources};
use crate::pod::status;
use crate::volume;
use crate::worker::context::Context;

impl Worker {
    /// Takes up what the pod was granted: from the record on disk at first, from the pod whenever it says something new.
    pub(super) async fn take_up(&mut self, pod: &Arc<Pod>, observed: &Observed) -> Result<(), Error> {
        let dir = self.context.config.pod_dir(crate::pod::uid(pod));
        if self.saved.is_none() {
            let path = dir.clone();
            let read = volume::blocking(move || Ok(Record::read(&path))).await?;
            self.saved = read.as_ref().map(Record::to_text);
            self.record =
                read.unwrap_or_else(|| Record { granted: Allocation::of(pod), ..Record::default() });
            if self.record.is_lagging() {
                self.progress = Some(self.reported_progress(pod));
            }
        }
        let running = |name: &str| observed.latest(name).is_some_and(|c| c.state == State::Running);
        if self.record.grant(pod, running) {
            self.resize_held = None;
            let generation = pod.metadata.generation.unwrap_or(0);
            self.progress = Some(status::Progress { generation, error: None });
        }
        self.record.lagging.retain(|name, _| running(name));
        self.save(dir).await
    }

    /// What was reported of a resize that a kubelet before this one began.
    fn reported_progress(&self, pod: &Pod) -> status::Progress {
        let known = self.reported.conditions.iter().flatten().find(|c| c.type_ == "PodResizeInProgress");
        let generation = known.and_then(|c| c.observed_generation).or(pod.metadata.generation);
        let error = known.filter(|c| c.reason.as_deref() == Some("Error")).and_then(|c| c.message.clone());
        status::Progress { generation: generation.unwrap_or(0), error }
    }

    async fn save(&mut self, dir: std::path::PathBuf) -> Result<(), Error> {
        let text = self.record.to_text();
        if self.saved.as_ref() == Some(&text) {
            return Ok(());
        }
        let written = text.clone();
        volume::blocking(move || {
            Record::write(&written, &dir).map_err(volume::io("write", Record::path(&dir)))
        })
        .await?;
        self.saved = Some(text);
        Ok(())
    }

    /// Gives running containers, and the pod's cgroup, what they were granted.
    pub(super) async fn resize(&mut self, pod: &Arc<Pod>, updates: &[(String, String)]) -> Result<(), Error> {
        match Box::pin(carry_out(&self.context, pod, &self.record, updates)).await {
            Ok(()) => {
                for (_, name) in updates {
                    self.record.settle(name);
                }
                self.record.lagging_pod = None;
                self.resize_held = None;
            }
            Err(message) => {
                let delay = self.resize_held.map_or(RETRY_FIRST, |(_, delay)| (delay * 2).min(RETRY_LAST));
                self.resize_held = Some((execute::retry_at(Timestamp::now(), delay), delay));
                let generation = pod.metadata.generation.unwrap_or(0);
                let progress = self.progress.get_or_insert(status::Progress { generation, error: None });
                if progress.error.as_ref() != Some(&message) {
                    let text = allocation::message("Pod resize error", pod, progress.generation, &message);
                    progress.error = Some(message);
                    self.context.recorder.warning(pod, None, "ResizeError", text);
                }
            }
        }
        self.save(self.context.config.pod_dir(crate::pod::uid(pod))).await
    }

    /// Ends what is reported of a resize once nothing lags behind.
    pub(super) fn note_resized(&mut self, pod: &Pod) {
        if self.record.is_lagging() {
            return;
        }
        if let Some(progress) = self.progress.take() {
            let text = allocation::message("Pod resize completed", pod, progress.generation, "");
            self.context.recorder.normal(pod, None, "ResizeCompleted", text);
        }
    }
}

/// Widens the pod's cgroup, changes the containers, then sets the cgroup to what is to be: at no moment does a container
/// have more than its pod. The error is upstream's text.
async fn carry_out(
    context: &Context,
    pod: &Arc<Pod>,
    record: &Record,
    updates: &[(String, String)],
) -> Result<(), String> {
    let before = record.running_pod(pod);
    feasible(context, pod, &before, updates).await?;
    context.cgroups.widen(&before, pod).await.map_err(|error| error.to_string())?;
    let node = context.node();
    for (id, name) in updates {
        let Some((_, container)) = crate::pod::container(pod, name) else { continue };
        let limits = resources::container(pod, &container, &node);
        let call = context.runtime.update_container_resources(id, limits);
        Box::pin(call).await.map_err(|error| error.runtime_message())?;
    }
    context.cgroups.ensure(pod).await.map_err(|error| error.to_string())
}

/// Memory is not taken from what uses it.
async fn feasible(
    context: &Context,
    pod: &Arc<Pod>,
    before: &Arc<Pod>,
    updates: &[(String, String)],
) -> Result<(), String> {
    let shrinks = |old: i64, new: i64| new > 0 && (old == 0 || new < old);
    let amounts = |pod: &Pod, name: &str| {
        let own = crate::pod::container(pod, name).and_then(|(_, c)| c.resources.clone());
        Amounts::of(pod.spec.as_ref().and_then(|s| s.resources.as_ref()), own.as_ref())
    };
    let mut errors = Vec::new();
    let limit = |pod: &Pod| crate::cgroup::limits::Limits::of_pod(pod, true, 100_000).memory.unwrap_or(0);
    let (old, new) = (limit(before), limit(pod));
    if shrinks(old, new) {
        match context.cgroups.memory_used(pod).await {
            Some(used) if used >= new => errors
                .push(format!("attempting to set pod memory limit ({new}) below current usage ({used})")),
            Some(_) => {}
            None => errors.push("missing pod memory usage".to_owned()),
        }
    }
    let smaller: Vec<(&str, &str, i64)> = updates
        .iter()
        .map(|(id, name)| (id, name, amounts(before, name).memory_limit, amounts(pod, name).memory_limit))
        .filter(|(_, _, old, new)| shrinks(*old, *new))
        .map(|(id, name, _, new)| (id.as_str(), name.as_str(), new))
        .collect();
    if !smaller.is_empty() {
        let all = context.runtime.list_container_stats(labels::of_pod(crate::pod::uid(pod))).await;
        let all = all.map_err(|_| {
            format!(
                "cannot decrease memory limits: unable to read memory usage for pod \"{}\"",
                crate::pod::described(pod)
            )
        })?;
        for (id, name, new) in smaller {
            let own = all.iter().find(|s| s.attributes.as_ref().is_some_and(|a| a.id == id));
            // Containers' memory is the working set where that is all the runtime tells.
            let used = own.and_then(|s| s.memory.as_ref()).and_then(|m| {
                m.usage_bytes.or(m.working_set_bytes).and_then(|used| i64::try_from(used.value).ok())
            });
            match used {
                Some(used) if used >= new => errors.push(format!(
                    "attempting to set container \"{name}\" memory limit ({new}) below current usage ({used})"
                )),
                Some(_) => {}
                None => errors.push(format!("missing container \"{name}\" memory usage")),
            }
        }
    }
    match errors.as_slice() {
        [] => Ok(()),
        [one] => Err(format!("cannot decrease memory limits: {one}")),
        many => Err(format!("cannot decrease memory limits: [{}]", many.join(", "))),
    }
}

/// The moment a failed change is tried again.
pub(super) fn held(held: Option<(Timestamp, Duration)>) -> Option<Timestamp> {
    held.map(|(until, _)| until)
}
