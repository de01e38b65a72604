//! Removes requests that are done with. Upstream: `pkg/controller/certificates/cleaner`, which looks once an hour.
//!
//! Woken by: the request, and the end of its time. Reads: it. Writes: its deletion.

use super::{Requests, conditions, issued};
use crate::cluster::Cluster;
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, found};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::DeleteParams;
use kube::{Client, ResourceExt};
use std::sync::Arc;
use std::time::Duration;

/// How long a request stays that was decided on.
const DECIDED: SignedDuration = SignedDuration::from_hours(1);
/// How long one waits for a decision, or for its certificate once it is approved.
const WAITING: SignedDuration = SignedDuration::from_hours(24);

pub(crate) struct Cleaner {
    requests: Requests,
}

impl Cleaner {
    /// Registers for what wakes it.
    #[must_use]
    pub(crate) fn new(cluster: &Cluster, client: Client, queue: &Arc<Queue>) -> Self {
        Self { requests: Requests::new(cluster, client, queue) }
    }
}

impl Reconcile for Cleaner {
    const NAME: &'static str = "csrcleaner";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(request) = self.requests.known.get(key) else { return Ok(None) };
        let Some(end) = end(&request) else { return Ok(None) };
        let left = end.duration_since(Timestamp::now());
        if left.is_positive() {
            return Ok(Some(left.unsigned_abs()));
        }
        found(self.requests.api().delete(&key.name, &DeleteParams::default()).await)
            .map(|_| None)
            .doing(|| format!("delete certificate request {key}"))
    }
}

/// When a request is to go, as far as that is known yet.
fn end(request: &CertificateSigningRequest) -> Option<Timestamp> {
    let issued = issued(request);
    let after = |time: Option<&Time>, keep| time.and_then(|time| time.0.checked_add(keep).ok());
    if conditions(request).is_empty() {
        return after(request.creation_timestamp().as_ref(), WAITING);
    }
    let ends = conditions(request).iter().filter_map(|condition| {
        let keep = match (condition.type_.as_str(), issued) {
            ("Approved", None) => WAITING,
            ("Approved" | "Denied" | "Failed", _) => DECIDED,
            _ => return None,
        };
        after(condition.last_update_time.as_ref(), keep)
    });
    let expired = || {
        let pem = std::str::from_utf8(issued?).ok()?;
        conditions(request).iter().any(|c| c.type_ == "Approved").then_some(())?;
        pki::Certificate::from_pem(pem).ok().map(|certificate| certificate.not_after)
    };
    ends.chain(expired()).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const MADE: &str = "2026-01-01T00:00:00Z";
    const DECIDED_AT: &str = "2026-01-01T05:00:00Z";

    fn end_of(status: Value) -> Option<String> {
        let request = json!({
            "metadata": {"name": "r", "creationTimestamp": MADE}, "status": status,
            "spec": {"request": "", "signerName": "kubernetes.io/kubelet-serving"},
        });
        end(&serde_json::from_value(request).unwrap()).map(|end| end.to_string())
    }

    fn decided(kind: &str) -> Value {
        json!({"conditions": [{"type": kind, "status": "True", "lastUpdateTime": DECIDED_AT}]})
    }

    #[test]
    fn a_request_must_not_go_before_an_hour_after_its_decision() {
        assert_eq!(end_of(json!({})).unwrap(), "2026-01-02T00:00:00Z");
        for kind in ["Denied", "Failed"] {
            assert_eq!(end_of(decided(kind)).unwrap(), "2026-01-01T06:00:00Z", "{kind}");
        }
        assert_eq!(
            end_of(decided("Approved")).unwrap(),
            "2026-01-02T05:00:00Z",
            "it waits for its certificate"
        );
        let mut issued = decided("Approved");
        issued["certificate"] = json!("eA==");
        assert_eq!(end_of(issued).unwrap(), "2026-01-01T06:00:00Z");
        assert_eq!(end_of(decided("SomethingElse")), None);
    }
}
