//! What Services hold, repaired: after a crash, a write whose outcome nobody heard of, or a hand that changed what is the allocator's.
//!
//! Woken by: the start, every three minutes, an IPAddress that goes or is changed. Reads: Services, ServiceCIDRs, IPAddresses, the
//! allocation of node ports. Writes: IPAddresses (`addresses`), the allocation (`ports`), and events that say what was wrong. Promises:
//! what a stored Service holds is taken a moment after somebody took it away; what no Service holds is free again after a while, which is
//! longer than a claim can be under way. Every server does this: whoever looks first mends, and the others find nothing.
//! Upstream: `core/service/ipallocator/controller/repairip.go`, `portallocator/controller/repair.go`.

mod addresses;
mod ports;

use super::{StartError, Stop};
use crate::registry::kind::Kind;
use crate::write::Writer;
use crate::write::service::GRACE;
use addresses::Suspects;
use futures::future::BoxFuture;
use machinery::status::Status;
use ports::Leaks;
use std::sync::Arc;
use std::time::Duration;
use supervise::{Backoff, Task};
use tokio::time::Instant;

/// How often everything is looked at.
const EVERY: Duration = Duration::from_secs(180);
/// How long the first look may take.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSES: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));

/// Starts what hands numbers out, mends what is wrong, and goes on doing so until `stop`.
pub(super) async fn start(writer: &Arc<Writer>, stop: &Stop) -> Result<(), StartError> {
    let serving = writer.registry.serving(&stop.drained);
    let of = writer.clone();
    serving.keep(Task::new("node-ports", move |stop| {
        let writer = of.clone();
        async move {
            writer.ports.keep(&writer.registry, &stop).await;
            Ok(())
        }
    }));
    let of = writer.clone();
    serving.keep(Task::new("leftover-addresses", move |stop| {
        let writer = of.clone();
        async move {
            writer.clear_leftovers(&stop).await;
            Ok(())
        }
    }));
    let tasks = writer.registry.tasks(&stop.begun);
    for (group, plural) in [("networking.k8s.io", "servicecidrs"), ("networking.k8s.io", "ipaddresses")] {
        // What was just made is among what addresses are given from.
        if let Some(kind) = Kind::of(group, plural) {
            first(|| Box::pin(async move { writer.registry.fresh(&kind).await.map(drop) })).await?;
        }
    }
    first(|| Box::pin(async move { ports::round(writer, &mut Leaks::default()).await })).await?;
    first(|| Box::pin(async move { addresses::round(writer, &mut Suspects::default()).await.map(drop) }))
        .await?;
    let of = writer.clone();
    tasks.keep(Task::endless("service-repair", move || {
        let writer = of.clone();
        async move { rounds(&writer).await }
    }));
    let of = writer.clone();
    tasks.keep(Task::endless("service-repair/ipaddresses", move || {
        let writer = of.clone();
        async move { addresses::follow(&writer).await }
    }));
    Ok(())
}

/// Does what is to be done before the server answers; again where the store or a cache is late, for as long as upstream has patience.
async fn first<'a>(done: impl Fn() -> BoxFuture<'a, Result<(), Status>> + Send) -> Result<(), StartError> {
    let (begun, mut pauses) = (Instant::now(), PAUSES);
    loop {
        match done().await {
            Ok(()) => return Ok(()),
            Err(error) if begun.elapsed() > PATIENCE => return Err(StartError::Services(error)),
            Err(error) => tracing::warn!(%error, "the first look at what Services hold"),
        }
        pauses.pause().await;
    }
}

async fn rounds(writer: &Writer) {
    let (mut leaks, mut suspects) = (Leaks::default(), Suspects::default());
    let mut ports_due = Instant::now() + EVERY;
    let mut next = GRACE;
    loop {
        tokio::time::sleep(next).await;
        next = EVERY;
        match addresses::round(writer, &mut suspects).await {
            Ok(ripe) => next = ripe.unwrap_or(EVERY).min(EVERY),
            Err(error) => tracing::warn!(%error, "repair cluster IPs"),
        }
        // What leaks is told by how often it was seen: not more often than it is looked at.
        if Instant::now() >= ports_due {
            ports_due = Instant::now() + EVERY;
            if let Err(error) = ports::round(writer, &mut leaks).await {
                tracing::warn!(%error, "repair node ports");
            }
        }
    }
}

#[cfg(test)]
mod tests;
