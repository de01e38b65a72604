//! What a watch of etcd's says: parts put together, so that a revision is handed on whole or not at all.

use crate::Revision;
use ::etcd::v3::{Event, WatchResponse};

/// Changes of whole revisions, in order.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Batch {
    pub(super) events: Vec<Event>,
    /// The newest of them.
    pub(super) revision: Revision,
}

/// Why a watch is over.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The history it asked for is gone; this is the oldest there is.
    Compacted(Revision),
    /// The member will not go on, and says why.
    Refused(String),
}

/// Responses so far that are part of one.
#[derive(Default)]
pub(super) struct Parts {
    events: Vec<Event>,
}

impl Parts {
    /// Takes a response; `Ok(None)` where it brings nothing, or not all yet. Changes up to `seen` are left out.
    pub(super) fn take(&mut self, response: WatchResponse, seen: Revision) -> Result<Option<Batch>, Ended> {
        if response.compact_revision > 0 {
            return Err(Ended::Compacted(super::unsigned(response.compact_revision)));
        }
        if response.canceled {
            return Err(Ended::Refused(response.cancel_reason));
        }
        self.events.extend(response.events.into_iter().filter(|event| revision(event) > seen));
        if response.fragment {
            return Ok(None);
        }
        let events = std::mem::take(&mut self.events);
        let Some(last) = events.last() else { return Ok(None) };
        Ok(Some(Batch { revision: revision(last), events }))
    }
}

/// When a change happened.
pub(super) fn revision(event: &Event) -> Revision {
    event.kv.as_ref().map_or(0, |kv| super::unsigned(kv.mod_revision))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::etcd::v3::KeyValue;

    fn event(revision: i64) -> Event {
        Event { kv: Some(KeyValue { mod_revision: revision, ..KeyValue::default() }), ..Event::default() }
    }

    fn response(revisions: &[i64], fragment: bool) -> WatchResponse {
        WatchResponse {
            events: revisions.iter().copied().map(event).collect(),
            fragment,
            ..WatchResponse::default()
        }
    }

    #[test]
    fn a_revision_in_parts_must_not_be_handed_on_before_its_last_part() {
        let mut parts = Parts::default();
        assert_eq!(parts.take(response(&[4, 5], true), 3), Ok(None));
        assert_eq!(parts.take(response(&[5], true), 3), Ok(None));
        let whole = parts.take(response(&[5, 6], false), 3).unwrap().unwrap();
        assert_eq!(whole.events.iter().map(revision).collect::<Vec<_>>(), [4, 5, 5, 5, 6]);
        assert_eq!(whole.revision, 6);
        assert_eq!(parts.take(response(&[], false), 6), Ok(None));
    }

    #[test]
    fn what_was_seen_before_must_not_come_twice() {
        let mut parts = Parts::default();
        let rest = parts.take(response(&[7, 8], false), 7).unwrap().unwrap();
        assert_eq!(rest.events.len(), 1);
        assert_eq!(parts.take(response(&[7, 8], false), 8), Ok(None));
    }

    #[test]
    fn an_end_says_whether_history_is_gone() {
        let mut parts = Parts::default();
        let gone = WatchResponse { canceled: true, compact_revision: 9, ..WatchResponse::default() };
        assert_eq!(parts.take(gone, 0), Err(Ended::Compacted(9)));
        let refused =
            WatchResponse { canceled: true, cancel_reason: "no leader".into(), ..WatchResponse::default() };
        assert_eq!(parts.take(refused, 0), Err(Ended::Refused("no leader".into())));
    }
}
