//! Writes: one transaction each, that compares the key's mod revision first.
//!
//! What is done about a lost answer is in [`Lost`].

use super::{Core, failure, signed, unsigned};
use crate::{Entry, Error, Expect, Revision};
use ::etcd::v3::compare::{CompareResult, CompareTarget, TargetUnion};
use ::etcd::v3::request_op::Request;
use ::etcd::v3::response_op::Response;
use ::etcd::v3::{
    Compare, DeleteRangeRequest, KeyValue, PutRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse,
};
use ::etcd::{Effect, Failure, Repeat};
use bytes::Bytes;
use std::time::Duration;
use supervise::Backoff;
use tokio::time::Instant;

/// How long a write whose answer was lost is pursued.
const PURSUIT: Duration = Duration::from_secs(10);
/// A write is sent for the last time, and answered or given up, within this.
pub(super) const LONGEST: Duration = PURSUIT.saturating_add(PAUSE).saturating_add(::etcd::LONGEST_CALL);
/// The longest pause before it is sent again.
const PAUSE: Duration = Duration::from_millis(500);

/// What is done about a write that may have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    /// Send it again: no key has the expected revision a second time, so at most one of them succeeds. One that then fails its comparison
    /// leaves it undecided: the first may have succeeded, or somebody else's write.
    Again,
    /// Look whether the key holds the value, which nobody else wrote: new objects have a uid. It is not sent again, since a creation that
    /// succeeded may have been deleted since, and must not come back.
    Look,
}

impl Core {
    /// As [`crate::Backend::put`].
    pub(super) async fn put(
        &self,
        key: &str,
        value: Bytes,
        expect: Expect,
        ttl: Option<Duration>,
    ) -> Result<Entry, Error> {
        let refused = |source| Error::Engine { what: format!("encode {key}"), source };
        let stored = self.encoding.encode(key, value.clone()).map_err(refused)?;
        let lease = match ttl {
            None => 0,
            Some(ttl) => {
                let granted = self.leases.get(&self.client, ttl).await;
                // A lease without a key is no effect.
                granted.map_err(|f| failure::of_read(format!("write {key}: grant a lease"), f))?
            }
        };
        let raw = self.keys.stored(key);
        let size = raw.len() + stored.len();
        let put = PutRequest { key: raw.clone(), value: stored.clone(), lease };
        let mut success = vec![op(Request::RequestPut(put))];
        if expect != Expect::Absent {
            // Tells when the key came to be.
            let own = RangeRequest { key: raw.clone(), keys_only: true, ..RangeRequest::default() };
            success.push(op(Request::RequestRange(own)));
        }
        let lost = if expect == Expect::Absent { Lost::Look } else { Lost::Again };
        let written = |create: Revision, revision: Revision| Entry {
            key: key.into(),
            value: value.clone(),
            create_revision: create,
            mod_revision: revision,
            stale: false,
        };
        match self.swap(transaction(raw.clone(), expect, success), lost).await {
            Ok(answer) if answer.succeeded => {
                let revision = answer.header.map_or(0, |h| unsigned(h.revision));
                let create = ranged(answer).map_or(revision, |kv| unsigned(kv.create_revision));
                Ok(written(create, revision))
            }
            Ok(answer) => Err(self.conflict(key, ranged(answer)).await),
            Err(failure) if failure.effect == Effect::Unknown && lost == Lost::Look => {
                match self.holds(&raw, &stored).await {
                    Some(revision) => Ok(written(revision, revision)),
                    None => Err(failure::of_write("write", key, size, failure)),
                }
            }
            Err(failure) => Err(failure::of_write("write", key, size, failure)),
        }
    }

    /// As [`crate::Backend::delete`].
    pub(super) async fn delete(&self, key: &str, expect: Expect) -> Result<(Entry, Revision), Error> {
        if expect == Expect::Absent {
            let current = self.get(key).await?.map(Box::new);
            return Err(Error::Conflict { key: key.to_owned(), current });
        }
        let raw = self.keys.stored(key);
        let delete = DeleteRangeRequest { key: raw.clone(), prev_kv: true, ..DeleteRangeRequest::default() };
        let transaction = transaction(raw, expect, vec![op(Request::RequestDeleteRange(delete))]);
        let answer = self.swap(transaction, Lost::Again).await;
        let answer = answer.map_err(|f| failure::of_write("delete", key, 0, f))?;
        if !answer.succeeded {
            return Err(self.conflict(key, ranged(answer)).await);
        }
        let revision = answer.header.map_or(0, |h| unsigned(h.revision));
        let removed = answer.responses.into_iter().find_map(|r| match r.response {
            Some(Response::ResponseDeleteRange(removed)) => removed.prev_kvs.into_iter().next(),
            _ => None,
        });
        Ok((self.entry(removed.unwrap_or_default()).await?, revision))
    }

    /// Runs the transaction; once its answer was lost, as `lost` says. A comparison that fails after that is a failure, not an answer.
    async fn swap(&self, transaction: TxnRequest, lost: Lost) -> Result<TxnResponse, Failure> {
        let until = Instant::now() + PURSUIT;
        let mut doubt: Option<Failure> = None;
        let mut pauses = Backoff::new(Duration::from_millis(20), PAUSE);
        loop {
            match self.client.txn(transaction.clone(), Repeat::Unseen).await {
                Ok(answer) => {
                    self.heard(answer.header.map_or(0, |h| unsigned(h.revision)));
                    return match doubt {
                        Some(failure) if !answer.succeeded => Err(failure),
                        _ => Ok(answer),
                    };
                }
                Err(failure) if failure.effect == Effect::None => {
                    return Err(doubt.unwrap_or(failure));
                }
                Err(failure) if lost == Lost::Again && Instant::now() < until => {
                    doubt = Some(failure);
                    pauses.pause().await;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// The revision at which the key was made, if it still holds what it was made with.
    async fn holds(&self, raw: &Bytes, stored: &Bytes) -> Option<Revision> {
        let request = RangeRequest { key: raw.clone(), ..RangeRequest::default() };
        let kv = self.client.range(request).await.ok()?.kvs.into_iter().next()?;
        (kv.version == 1 && kv.value == *stored).then(|| unsigned(kv.mod_revision))
    }

    async fn conflict(&self, key: &str, current: Option<KeyValue>) -> Error {
        let current = match current {
            None => None,
            Some(kv) => match self.entry(kv).await {
                Ok(entry) => Some(Box::new(entry)),
                Err(error) => return error,
            },
        };
        Error::Conflict { key: key.to_owned(), current }
    }
}

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

/// What a range in the transaction found.
fn ranged(answer: TxnResponse) -> Option<KeyValue> {
    answer.responses.into_iter().find_map(|r| match r.response {
        Some(Response::ResponseRange(range)) => range.kvs.into_iter().next(),
        _ => None,
    })
}

/// `success` where the key is as expected; otherwise what it is.
fn transaction(key: Bytes, expect: Expect, success: Vec<RequestOp>) -> TxnRequest {
    let revision = match expect {
        // A key that is not there has mod revision 0.
        Expect::Absent => 0,
        Expect::At(revision) => signed(revision),
    };
    TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Mod.into(),
            key: key.clone(),
            target_union: Some(TargetUnion::ModRevision(revision)),
        }],
        success,
        failure: vec![op(Request::RequestRange(RangeRequest { key, ..RangeRequest::default() }))],
    }
}
