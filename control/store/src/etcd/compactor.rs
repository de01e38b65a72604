//! Compaction agreed among all servers of one etcd (upstream: `storage/etcd3/compact.go`).
//!
//! The key `compact_rev_key` holds the revision compacted last; its version counts the rounds. Each server wakes once an interval and adds
//! one to the version by compare-and-swap: who succeeds compacts to the revision it saw in its round before, so that a whole interval of
//! history stays; who fails has learned of the other's round. The key is not under the prefix.

use super::{Core, failure, signed, unsigned};
use crate::{Error, Revision};
use ::etcd::v3::compare::{CompareResult, CompareTarget, TargetUnion};
use ::etcd::v3::request_op::Request;
use ::etcd::v3::response_op::Response;
use ::etcd::v3::{Compare, KeyValue, PutRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest};
use ::etcd::{Client, Failure, Repeat};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use supervise::Task;

/// Where servers agree.
pub(super) const KEY: &[u8] = b"compact_rev_key";

/// What a server knows between two rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Round {
    /// The key's version when we last saw it.
    version: i64,
    /// The store's revision then.
    revision: i64,
}

/// The revision written in the key.
pub(super) fn told(value: &[u8]) -> Revision {
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// etcd's newest revision, by quorum, and the one compacted last.
pub(super) async fn marks(client: &Client) -> Result<(Revision, Revision), Failure> {
    client.range(of_marks()).await.map(|found| read_marks(&found))
}

/// The same, of a second member where the first says nothing for `patience`.
pub(super) async fn marks_hedged(
    client: &Client,
    patience: Duration,
) -> Result<(Revision, Revision), Failure> {
    client.range_hedged(of_marks(), patience).await.map(|found| read_marks(&found))
}

fn of_marks() -> RangeRequest {
    RangeRequest { key: Bytes::from_static(KEY), ..RangeRequest::default() }
}

fn read_marks(found: &RangeResponse) -> (Revision, Revision) {
    let revision = found.header.map_or(0, |h| unsigned(h.revision));
    (revision, found.kvs.first().map_or(0, |kv| told(&kv.value)))
}

/// Compacts once an interval, if it is our turn.
pub(super) fn task(core: &Arc<Core>, interval: Duration) -> Task {
    let core = core.clone();
    Task::endless("etcd/compaction", move || {
        let core = core.clone();
        async move {
            let mut round = Round::default();
            loop {
                tokio::time::sleep(interval).await;
                if let Err(failure) = turn(&core, &mut round).await {
                    tracing::warn!(error = &failure as &dyn std::error::Error, "etcd: compaction failed");
                }
            }
        }
    })
}

/// One round.
async fn turn(core: &Core, round: &mut Round) -> Result<(), Failure> {
    let answer = core.client.txn(claim(*round), Repeat::Unseen).await?;
    let now = answer.header.map_or(0, |h| h.revision);
    core.heard(unsigned(now));
    if !answer.succeeded {
        let found = answer.responses.into_iter().find_map(|r| match r.response {
            Some(Response::ResponseRange(range)) => range.kvs.into_iter().next(),
            _ => None,
        });
        let KeyValue { version, value, .. } = found.unwrap_or_default();
        core.hub.forget(told(&value));
        *round = Round { version, revision: now };
        return Ok(());
    }
    let Round { revision: to, version } = *round;
    *round = Round { version: version + 1, revision: now };
    if to == 0 {
        // The first round has no round before it.
        return Ok(());
    }
    core.client.compact(to).await?;
    core.hub.forget(unsigned(to));
    tracing::debug!(revision = to, "etcd: compacted");
    Ok(())
}

/// Takes the round after `round`.
fn claim(round: Round) -> TxnRequest {
    let key = Bytes::from_static(KEY);
    let op = |request| RequestOp { request: Some(request) };
    TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Version.into(),
            key: key.clone(),
            target_union: Some(TargetUnion::Version(round.version)),
        }],
        success: vec![op(Request::RequestPut(PutRequest {
            key: key.clone(),
            value: round.revision.to_string().into(),
            lease: 0,
        }))],
        failure: vec![op(Request::RequestRange(RangeRequest { key, ..RangeRequest::default() }))],
    }
}

/// Compacts to `revision` without asking anybody.
pub(super) async fn compact(core: &Core, revision: Revision) -> Result<(), Error> {
    match core.client.compact(signed(revision)).await {
        Ok(()) => {
            core.hub.forget(revision);
            Ok(())
        }
        Err(failure) => {
            let what = format!("compact to revision {revision}");
            let oldest = core.hub.compacted();
            match failure::of_past(what, failure, revision, core.known(), oldest) {
                // etcd refuses the revision it has compacted to already, which is as well.
                Error::Compacted { .. } if core.is_readable(revision).await => Ok(()),
                error => Err(error),
            }
        }
    }
}
