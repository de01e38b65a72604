//! How many requests may be worked on at once: reads and writes apart, as upstream's max-in-flight limits.

use crate::authz::MASTERS;
use crate::context::{RequestInfo, Response, User};
use crate::request::{is_long_running, is_read_only};
use crate::{answer, metrics::Metrics};
use http::StatusCode;
use http::header::{HeaderValue, RETRY_AFTER};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The two bounds.
pub struct InFlight {
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

/// A place among the requests worked on; given back when dropped.
pub struct Place {
    _permit: Option<OwnedSemaphorePermit>,
    gauge: Option<prometheus_client::metrics::gauge::Gauge>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(gauge) = &self.gauge {
            gauge.dec();
        }
    }
}

impl InFlight {
    /// Bounds on requests that read and that write.
    #[must_use]
    pub fn new(reads: usize, writes: usize, metrics: Arc<Metrics>) -> Self {
        InFlight { reads: Arc::new(Semaphore::new(reads)), writes: Arc::new(Semaphore::new(writes)), metrics }
    }

    /// A place for the request, or the answer to one too many. Long-running requests and `system:masters` need none: who
    /// repairs an overloaded cluster must get in.
    pub fn admit(&self, info: &RequestInfo, user: &User) -> Result<Place, Box<Response>> {
        if is_long_running(info) {
            return Ok(Place { _permit: None, gauge: None });
        }
        let read = is_read_only(info);
        let gauge = self.metrics.inflight(if read { "readOnly" } else { "mutating" });
        let semaphore = if read { &self.reads } else { &self.writes };
        let permit = match semaphore.clone().try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) if user.groups.iter().any(|g| g == MASTERS) => None,
            Err(_) => return Err(Box::new(too_many())),
        };
        gauge.inc();
        Ok(Place { _permit: permit, gauge: Some(gauge) })
    }
}

fn too_many() -> Response {
    let mut response =
        answer::text(StatusCode::TOO_MANY_REQUESTS, "Too many requests, please try again later.\n");
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(verb: &str) -> RequestInfo {
        RequestInfo {
            is_resource: true,
            verb: verb.into(),
            resource: "pods".into(),
            ..RequestInfo::default()
        }
    }

    #[test]
    fn one_too_many_is_told_when_to_come_back() {
        let limits = InFlight::new(1, 1, Arc::new(Metrics::default()));
        let user = User::default();
        let held = limits.admit(&info("get"), &user).map_err(|_| ()).unwrap();
        let refused = limits.admit(&info("list"), &user).err().unwrap();
        assert_eq!(
            (refused.status().as_u16(), &refused.headers()["retry-after"]),
            (429, &HeaderValue::from_static("1"))
        );
        assert!(limits.admit(&info("create"), &user).is_ok(), "writes have their own bound");
        assert!(limits.admit(&info("watch"), &user).is_ok(), "watches are not counted");
        let master = User { groups: vec![MASTERS.into()], ..User::default() };
        assert!(limits.admit(&info("get"), &master).is_ok());
        drop(held);
        assert!(limits.admit(&info("get"), &user).is_ok());
    }
}
