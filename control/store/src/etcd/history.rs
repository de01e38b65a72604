//! The past, for one watch on the hub that catches up: a watch of etcd's own, of everything, so that it is seen to have come far enough
//! although nothing happened under its prefix.

use super::response::{Ended, Parts, revision};
use super::{Core, follow};
use crate::hub::{Changes, History};
use crate::{Error, Revision};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use supervise::Backoff;
use tokio::time::Instant;

/// How many changes end a page.
const PAGE: usize = 512;
/// How long a watch may bring nothing, though more is known to have happened.
const SILENCE: Duration = Duration::from_secs(5);
/// How long members are tried.
const PATIENCE: Duration = Duration::from_secs(30);

impl History for Core {
    fn changes(
        self: Arc<Self>,
        prefix: Arc<str>,
        after: Revision,
        until: Revision,
    ) -> BoxFuture<'static, Result<Changes, Error>> {
        async move {
            let give_up = Instant::now() + PATIENCE;
            let mut pauses = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
            loop {
                match self.page(&prefix, after, until).await {
                    Ok(page) => return page,
                    Err(why) if Instant::now() >= give_up => {
                        let what = format!("watch {prefix} after {after}");
                        return Err(Error::Unavailable { what, source: why.into() });
                    }
                    Err(_) => pauses.pause().await,
                }
            }
        }
        .boxed()
    }
}

impl Core {
    /// One page; the outer error is the member's.
    async fn page(
        &self,
        prefix: &str,
        after: Revision,
        until: Revision,
    ) -> Result<Result<Changes, Error>, String> {
        let opened = self.client.watch(follow::after(after)).await;
        let mut stream = opened.map_err(|status| status.message().to_owned())?;
        let (mut parts, mut page) = (Parts::default(), Changes { events: Vec::new(), scanned: after });
        while page.scanned < until && page.events.len() < PAGE {
            let next = tokio::time::timeout(SILENCE, stream.next()).await;
            let response = match next
                .map_err(|_| "it brings nothing".to_owned())
                .and_then(|r| r.map_err(|status| status.message().to_owned()))
            {
                Ok(response) => response,
                Err(why) => {
                    self.client.abandon(&stream, &why);
                    return Err(why);
                }
            };
            let batch = match parts.take(response, page.scanned) {
                Ok(Some(batch)) => batch,
                Ok(None) => continue,
                Err(Ended::Refused(why)) => return Err(why),
                Err(Ended::Compacted(oldest)) => {
                    self.hub.forget(oldest);
                    return Ok(Err(Error::Compacted { asked: after, oldest }));
                }
            };
            for event in batch.events {
                let ours = event.kv.as_ref().and_then(|kv| self.keys.named(&kv.key));
                if !ours.is_some_and(|key| key.starts_with(prefix)) {
                    continue;
                }
                let at = revision(&event);
                match self.event(event).await {
                    Ok(event) => page.events.push(event),
                    // What came before its revision is handed on first; the next page begins with what fails.
                    Err(error) => {
                        page.events.retain(|event| event.revision() < at);
                        if page.events.is_empty() {
                            return Ok(Err(error));
                        }
                        page.scanned = at - 1;
                        return Ok(Ok(page));
                    }
                }
            }
            page.scanned = batch.revision;
        }
        Ok(Ok(page))
    }
}
