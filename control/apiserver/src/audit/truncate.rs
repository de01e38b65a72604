//! Events and batches of bounded size. Upstream: `apiserver/plugin/pkg/audit/truncate`.

use super::backend::Backend;
use super::counters::Counters;
use super::event::Event;
use super::level::Level;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;

const PLUGIN: &str = "truncate";
const ANNOTATION: &str = "audit.k8s.io/truncated";

/// Bytes as JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncate {
    /// An event that is larger loses its objects; one that still is, is lost.
    pub event: u64,
    /// Batches of more are divided.
    pub batch: u64,
}

type Batch = Vec<Arc<Event>>;

impl Truncate {
    /// The batches events go on in, and those that are lost with the reason of each.
    fn divide(self, events: Batch) -> (Vec<Batch>, Vec<String>, Batch) {
        let (mut batches, mut reasons, mut lost) = (Vec::new(), Vec::new(), Vec::new());
        let (mut batch, mut held) = (Vec::new(), 0);
        for event in events {
            let (event, size) = match self.fit(event) {
                Ok(fitting) => fitting,
                Err((event, why)) => {
                    reasons.push(why);
                    lost.push(event);
                    continue;
                }
            };
            if !batch.is_empty() && held + size > self.batch {
                batches.push(std::mem::take(&mut batch));
                held = 0;
            }
            held += size;
            batch.push(event);
        }
        batches.extend(Some(batch).filter(|batch| !batch.is_empty()));
        (batches, reasons, lost)
    }

    /// The event, without its objects where it is too large with them, and its size.
    fn fit(self, event: Arc<Event>) -> Result<(Arc<Event>, u64), (Arc<Event>, String)> {
        let measured = |event: &Event| event.json_line().map(|line| line.len() as u64);
        let mut event = event;
        let mut size = measured(&event);
        if matches!(size, Ok(size) if size > self.event) && event.level >= Level::Request {
            let mut smaller = (*event).clone();
            (smaller.request_object, smaller.response_object) = (None, None);
            smaller.annotations.insert(ANNOTATION.to_owned(), "true".to_owned());
            size = measured(&smaller);
            event = Arc::new(smaller);
        }
        match size {
            Ok(size) if size > self.event => {
                Err((event, "event is too large even after truncating".to_owned()))
            }
            Ok(size) => Ok((event, size)),
            Err(e) => Err((event, e.to_string())),
        }
    }
}

/// What stands before a backend.
pub(super) struct Truncated {
    backend: Box<dyn Backend>,
    bounds: Truncate,
    counters: Arc<Counters>,
}

impl Truncated {
    pub(super) fn new(backend: Box<dyn Backend>, bounds: Truncate, counters: &Arc<Counters>) -> Self {
        Self { backend, bounds, counters: counters.clone() }
    }
}

impl Backend for Truncated {
    fn process(&self, events: Batch) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let (batches, reasons, lost) = self.bounds.divide(events);
            let mut kept = true;
            for batch in batches {
                kept &= self.backend.process(batch).await;
            }
            if !lost.is_empty() {
                self.counters.lost(PLUGIN, &reasons.join(", "), &lost);
            }
            kept
        })
    }

    fn finish(&self, patience: Duration) -> BoxFuture<'_, ()> {
        self.backend.finish(patience)
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::Json;
    use super::*;
    use jiff::Timestamp;
    use serde_json::json;

    fn event(level: Level, object: usize, id: usize) -> Arc<Event> {
        let mut event = Event::new(level, "i".repeat(id), Timestamp::UNIX_EPOCH);
        event.request_object = Json::of(&json!("x".repeat(object)));
        Arc::new(event)
    }

    #[test]
    fn a_large_event_loses_its_objects_and_says_so() {
        let bounds = Truncate { event: 1000, batch: 10_000 };
        let events = vec![
            event(Level::Request, 2000, 1),
            event(Level::Request, 10, 1),
            event(Level::RequestResponse, 0, 2000),
            event(Level::Metadata, 2000, 1),
        ];
        let (batches, reasons, lost) = bounds.divide(events);
        assert_eq!((batches.len(), batches[0].len(), lost.len()), (1, 2, 2));
        assert_eq!(reasons, ["event is too large even after truncating"; 2]);
        assert!(batches[0][0].request_object.is_none() && batches[0][1].request_object.is_some());
        assert_eq!(batches[0][0].annotations[ANNOTATION], "true");
        assert!(batches[0][1].annotations.is_empty());
    }

    #[test]
    fn a_batch_must_not_outgrow_its_bound() {
        let bounds = Truncate { event: 1000, batch: 1000 };
        let (batches, _, lost) = bounds.divide((0..5).map(|_| event(Level::Request, 200, 1)).collect());
        assert!(lost.is_empty());
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
    }
}
