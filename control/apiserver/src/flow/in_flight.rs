//! Without priority and fairness: so many requests at once, those that read and those that write apart.
//! Upstream: `apiserver/pkg/server/filters/maxinflight.go`.

use crate::context::{RequestInfo, User};
use crate::request::is_read_only;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Who is never refused.
const MASTERS: &str = "system:masters";

/// Places for requests; as many as there are requests where a number is zero.
pub(super) struct InFlight {
    reading: Option<Arc<Semaphore>>,
    writing: Option<Arc<Semaphore>>,
}

/// All places are taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl InFlight {
    pub(super) fn new(reading: usize, writing: usize) -> Self {
        let places =
            |many: usize| (many > 0).then(|| Arc::new(Semaphore::new(many.min(Semaphore::MAX_PERMITS))));
        Self { reading: places(reading), writing: places(writing) }
    }

    /// A place, where one is needed.
    pub(super) fn admit(
        &self,
        info: &RequestInfo,
        user: &User,
    ) -> Result<Option<OwnedSemaphorePermit>, Full> {
        let places = if is_read_only(info) { &self.reading } else { &self.writing };
        let Some(places) = places else { return Ok(None) };
        match places.clone().try_acquire_owned() {
            Ok(place) => Ok(Some(place)),
            Err(_) if user.groups.iter().any(|group| group == MASTERS) => Ok(None),
            Err(_) => Err(Full),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(verb: &str) -> RequestInfo {
        RequestInfo { verb: verb.to_owned(), ..RequestInfo::default() }
    }

    #[test]
    fn readers_must_not_take_the_places_of_writers() {
        let places = InFlight::new(1, 1);
        let (alice, root) = (User::default(), User { groups: vec![MASTERS.to_owned()], ..User::default() });
        let held = places.admit(&info("list"), &alice).unwrap();
        assert_eq!(places.admit(&info("get"), &alice).unwrap_err(), Full);
        assert!(places.admit(&info("get"), &root).is_ok());
        assert!(places.admit(&info("create"), &alice).unwrap().is_some());
        drop(held);
        assert!(places.admit(&info("get"), &alice).unwrap().is_some());
        let endless = InFlight::new(0, 0);
        assert!(endless.admit(&info("get"), &alice).unwrap().is_none());
    }
}
