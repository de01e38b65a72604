//! Reads: of one key, and of pages of keys at one revision.

use super::keys::{after, end_of};
use super::{Core, failure, signed, unsigned};
use crate::{Entry, Error, Page, Revision};
use ::etcd::v3::{RangeRequest, RangeResponse};

/// Keys asked for at once where all are wanted.
const CHUNK: usize = 2000;

impl Core {
    /// The entry at `key` now, by quorum.
    pub(super) async fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        let request = RangeRequest { key: self.keys.stored(key), ..RangeRequest::default() };
        let answer = self.client.range(request).await;
        let answer = answer.map_err(|f| failure::of_read(format!("read {key}"), f))?;
        self.heard(shown(&answer));
        match answer.kvs.into_iter().next() {
            Some(kv) => self.entry(kv).await.map(Some),
            None => Ok(None),
        }
    }

    /// Whether the store can be read as it was at `revision`.
    pub(super) async fn is_readable(&self, revision: Revision) -> bool {
        let key = self.keys.stored("/registry/");
        let request =
            RangeRequest { key, revision: signed(revision), count_only: true, ..RangeRequest::default() };
        self.client.range(request).await.is_ok()
    }

    /// As [`crate::Backend::list`].
    pub(super) async fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, Error> {
        let start = self.keys.stored(prefix);
        let range_end = end_of(&start);
        let behind = |key: &str| after(&self.keys.stored(key));
        let mut key = start_after.filter(|last| *last >= prefix).map_or(start, behind);
        // etcd's revision 0 is the newest; its first one, 1, is as empty.
        let mut revision = at.map(|at| at.max(1));
        let mut page = Page::default();
        loop {
            let request = RangeRequest {
                key,
                range_end: range_end.clone(),
                limit: i64::try_from(if limit == 0 { CHUNK } else { limit }).unwrap_or(i64::MAX),
                revision: revision.map_or(0, signed),
                ..RangeRequest::default()
            };
            let answer = self.client.range(request).await.map_err(|f| {
                let asked = revision.unwrap_or_default();
                failure::of_past(format!("list {prefix}"), f, asked, self.known(), self.hub.compacted())
            })?;
            self.heard(shown(&answer));
            let shown = *revision.get_or_insert(shown(&answer));
            let count = answer.kvs.len();
            for kv in answer.kvs {
                page.entries.push(self.entry(kv).await?);
            }
            page.revision = at.unwrap_or(shown);
            page.more = answer.more;
            page.remaining = unsigned(answer.count).saturating_sub(count as u64);
            match page.entries.last().filter(|_| answer.more && limit == 0) {
                Some(last) => key = behind(&last.key),
                None => return Ok(page),
            }
        }
    }
}

/// The store's revision when it answered.
fn shown(answer: &RangeResponse) -> Revision {
    answer.header.map_or(0, |header| unsigned(header.revision))
}
