//! Pods bound to this node, watched.

use std::collections::BTreeSet;
use std::sync::Arc;

use client::{Event, Source, mirror};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;

use super::{ApiPods, Pods};

/// Follows the API's pods until cancelled from outside; errors are retried with backoff forever, and what was known
/// stays known: a server that is away stops no pod.
pub async fn follow(client: kube::Client, node: String, tell: watch::Sender<ApiPods>) {
    let source = Source::all::<Pod>(&client).fields(&format!("spec.nodeName={node}"));
    let mut events = mirror::<Pod>(source);
    let (mut pods, mut unreadable, mut complete) = (Pods::new(), BTreeSet::new(), false);
    while let Some(event) = events.next().await {
        match event {
            Event::Set(_, pod) => {
                unreadable.remove(crate::pod::uid(&pod));
                keep(&mut pods, pod);
            }
            Event::Gone(gone) => {
                unreadable.remove(&*gone.uid);
                pods.remove(&*gone.uid);
            }
            Event::Unreadable(pod) => drop(unreadable.insert(pod.uid.as_ref().to_owned())),
            Event::Synced => complete = true,
            Event::Failed(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "watching this node's pods");
                continue;
            }
        }
        // Until the list is complete, what it did not name yet is not gone.
        if complete {
            let (pods, unreadable) = (Some(Arc::new(pods.clone())), Arc::new(unreadable.clone()));
            tell.send_replace(ApiPods { pods, unreadable });
        }
    }
}

fn keep(pods: &mut Pods, mut pod: Pod) {
    // What is never read again and can be large.
    pod.metadata.managed_fields = None;
    let uid = crate::pod::uid(&pod).to_owned();
    if uid.is_empty() {
        tracing::warn!(pod = crate::pod::name(&pod), "the API sent a pod without a UID: ignored");
        return;
    }
    fit(&mut pod);
    pods.insert(uid, Arc::new(pod));
}

/// Gives up what lists have room for and do not hold: a decoded list has room for four of anything, and a volume or a
/// condition takes hundreds of bytes. The pod may be kept for months.
fn fit(pod: &mut Pod) {
    if let Some(spec) = &mut pod.spec {
        for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
            container.env.iter_mut().for_each(Vec::shrink_to_fit);
            container.ports.iter_mut().for_each(Vec::shrink_to_fit);
            container.volume_mounts.iter_mut().for_each(Vec::shrink_to_fit);
        }
        for projected in spec.volumes.iter_mut().flatten().filter_map(|v| v.projected.as_mut()) {
            projected.sources.iter_mut().for_each(Vec::shrink_to_fit);
        }
        spec.containers.shrink_to_fit();
        spec.init_containers.iter_mut().for_each(Vec::shrink_to_fit);
        spec.volumes.iter_mut().for_each(Vec::shrink_to_fit);
        spec.tolerations.iter_mut().for_each(Vec::shrink_to_fit);
    }
    if let Some(status) = &mut pod.status {
        status.conditions.iter_mut().for_each(Vec::shrink_to_fit);
        status.container_statuses.iter_mut().for_each(Vec::shrink_to_fit);
        status.init_container_statuses.iter_mut().for_each(Vec::shrink_to_fit);
    }
    pod.metadata.owner_references.iter_mut().for_each(Vec::shrink_to_fit);
}
