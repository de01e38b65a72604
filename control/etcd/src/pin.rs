//! Which cluster an answer is of. An address may come to another cluster: one that was begun anew, or restored, on a machine that was a member.
//! etcd makes an id when a cluster begins, keeps it for the cluster's life, and says it in every answer.

use crate::v3::{self, ResponseHeader};
use tonic::Status;

/// Why an answer does not count.
pub(crate) const STRANGER: &str = "the member is of another cluster";

/// The cluster that answers have to be of; any, where it is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pin(pub(crate) Option<u64>);

impl Pin {
    /// # Errors
    /// The answer is of another cluster: for ours, it is as if nobody had been asked.
    pub(crate) fn check(self, answer: &impl Headed) -> Result<(), Status> {
        let of = answer.header().map(|header| header.cluster_id);
        match self.0 {
            Some(_) if of != self.0 => Err(Status::unavailable(STRANGER)),
            _ => Ok(()),
        }
    }
}

/// An answer that says of which cluster it is.
pub(crate) trait Headed {
    fn header(&self) -> Option<&ResponseHeader>;
}

macro_rules! headed {
    ($($answer:ident),* $(,)?) => {
        $(impl Headed for v3::$answer {
            fn header(&self) -> Option<&ResponseHeader> {
                self.header.as_ref()
            }
        })*
    };
}

headed!(
    CompactionResponse,
    LeaseGrantResponse,
    MemberAddResponse,
    MemberListResponse,
    MemberPromoteResponse,
    MemberRemoveResponse,
    RangeResponse,
    StatusResponse,
    TxnResponse,
    WatchResponse,
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_another_cluster_must_not_count() {
        let of = |cluster_id| v3::RangeResponse {
            header: Some(ResponseHeader { cluster_id, ..ResponseHeader::default() }),
            ..v3::RangeResponse::default()
        };
        let stranger = Pin(Some(7)).check(&of(8)).unwrap_err();
        assert_eq!((stranger.code(), stranger.message()), (tonic::Code::Unavailable, STRANGER));
        assert!(Pin(Some(7)).check(&v3::RangeResponse::default()).is_err(), "it says nothing of itself");
        assert!(Pin(Some(7)).check(&of(7)).is_ok() && Pin(None).check(&of(8)).is_ok());
    }
}
