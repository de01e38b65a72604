//! Pods bound to this node, watched.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::watch;

use super::{Known, Pods};

/// Follows the API's pods until cancelled from outside; errors are retried with backoff for ever, and what was known
/// stays known: a server that is away stops no pod.
pub async fn follow(client: kube::Client, node: String, tell: watch::Sender<Known>) {
    let config = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
    let stream = watcher(Api::<Pod>::all(client), config).default_backoff();
    let mut stream = std::pin::pin!(stream);
    let mut pods = Pods::new();
    let mut listing = Pods::new();
    while let Some(event) = stream.next().await {
        match event {
            Err(error) => {
                tracing::warn!(%error, "watching this node's pods");
                continue;
            }
            Ok(watcher::Event::Init) => {
                listing = BTreeMap::new();
                continue;
            }
            Ok(watcher::Event::InitApply(pod)) => {
                keep(&mut listing, pod);
                continue;
            }
            Ok(watcher::Event::InitDone) => pods = std::mem::take(&mut listing),
            Ok(watcher::Event::Apply(pod)) => keep(&mut pods, pod),
            Ok(watcher::Event::Delete(pod)) => {
                pods.remove(crate::pod::uid(&pod));
            }
        }
        tell.send_replace(Known { pods: Some(Arc::new(pods.clone())) });
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
    pods.insert(uid, Arc::new(pod));
}
