//! A service that keeps the events it is sent, for tests.

use super::{Auditor, Batches, Config, Delivery, Mode, Policy, Receiver, Webhook};
use crate::metrics::Metrics;
use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use supervise::Supervisor;

/// The service; how often it is to refuse what it is sent.
#[derive(Default)]
pub(crate) struct Fake {
    lists: Mutex<Vec<Vec<Value>>>,
    refusals: Mutex<usize>,
}

impl Receiver for Fake {
    fn post(&self, list: Bytes) -> BoxFuture<'_, Result<(), String>> {
        let list: Value = serde_json::from_slice(&list).unwrap();
        assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("EventList"), &json!("audit.k8s.io/v1")));
        let refused = {
            let mut refusals = self.refusals.lock();
            let refused = *refusals > 0;
            *refusals = refusals.saturating_sub(1);
            refused
        };
        if !refused {
            self.lists.lock().push(list["items"].as_array().unwrap().clone());
        }
        Box::pin(std::future::ready(if refused { Err("refused".to_owned()) } else { Ok(()) }))
    }
}

/// How events get there at once.
pub(crate) fn delivery(mode: Mode) -> Delivery {
    let batches =
        Batches { buffer: 4, size: 2, wait: Duration::from_secs(30), throttle: None, overlapping: false };
    Delivery { mode, batches, truncate: None }
}

impl Fake {
    /// A service that refuses the first `refusals` lists.
    pub(crate) fn refusing(refusals: usize) -> Arc<Self> {
        Arc::new(Self { refusals: Mutex::new(refusals), ..Self::default() })
    }

    /// What it took, list by list.
    pub(crate) fn lists(&self) -> Vec<Vec<Value>> {
        self.lists.lock().clone()
    }

    /// What it took.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.lists().into_iter().flatten().collect()
    }

    /// Waits until there are so many events; they may be written after their answer is read.
    pub(crate) async fn until(&self, count: usize) -> Vec<Value> {
        let enough = async {
            while self.events().len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(10), enough).await;
        let events = self.events();
        assert_eq!(events.len(), count, "{events:#?}");
        events
    }

    /// Audits by these rules.
    pub(crate) fn auditor(
        self: &Arc<Self>,
        rules: &Value,
        delivery: Delivery,
        metrics: &Metrics,
    ) -> Arc<Auditor> {
        let policy = json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules});
        let webhook = Webhook { receiver: self.clone(), initial_backoff: Duration::from_secs(1), delivery };
        let policy = Policy::parse(&policy.to_string()).unwrap();
        let config = Config { policy, log: None, webhook: Some(webhook) };
        Auditor::start(config, &Supervisor::default(), metrics).unwrap().unwrap()
    }
}
