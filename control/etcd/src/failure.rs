//! What a failed call tells: whether another member may do better, and whether the call may have been obeyed.

use tonic::{Code, ConnectError, Status};

/// Whether a failed call may have taken effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It reached nobody, or was refused.
    None,
    /// It was on its way when the connection or the patience ended: etcd may have obeyed it, or may do so yet.
    Unknown,
}

/// A call that failed for good.
#[derive(Debug, thiserror::Error)]
#[error("etcd: {}", .status.message())]
pub struct Failure {
    /// What the last member asked said, or what became of the connection to it.
    pub status: Status,
    /// Whether the call may have taken effect.
    pub effect: Effect,
    /// Whether it failed for want of a member that answers, not for what was asked.
    pub unreachable: bool,
}

/// What to do about a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// etcd's answer: no other member would give another.
    Answer,
    /// No member has seen it.
    NotSent,
    /// A member may have seen it, and may have obeyed.
    Lost,
}

/// What a member says that takes no proposals, or that is none of ours.
const REFUSED: [&str; 3] =
    ["etcdserver: no leader", "etcdserver: rpc not supported for learner", crate::pin::STRANGER];

/// What a failed attempt means.
pub(crate) fn judge(status: &Status) -> Verdict {
    let connecting = std::iter::successors(std::error::Error::source(status), |e| e.source())
        .any(|e| e.downcast_ref::<ConnectError>().is_some());
    if connecting {
        return Verdict::NotSent;
    }
    match status.code() {
        // These come of looking at the request or at what is stored, before anything is proposed.
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unauthenticated
        | Code::Unimplemented => Verdict::Answer,
        // "too many requests" is said before a proposal, "database space exceeded" is an answer.
        Code::ResourceExhausted if status.message().contains("too many requests") => Verdict::NotSent,
        Code::ResourceExhausted => Verdict::Answer,
        // A member that knows no leader, or has no vote yet, refuses before it proposes.
        Code::Unavailable if REFUSED.contains(&status.message()) => Verdict::NotSent,
        _ => Verdict::Lost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_etcd_says_is_told_from_what_became_of_the_connection() {
        let judged = |code, message: &str| judge(&Status::new(code, message));
        let future = "etcdserver: mvcc: required revision is a future revision";
        assert_eq!(judged(Code::OutOfRange, future), Verdict::Answer);
        assert_eq!(
            judged(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
            Verdict::Answer
        );
        assert_eq!(judged(Code::ResourceExhausted, "etcdserver: too many requests"), Verdict::NotSent);
        for message in REFUSED {
            assert_eq!(judged(Code::Unavailable, message), Verdict::NotSent);
        }
    }

    #[test]
    fn a_write_that_may_have_been_proposed_must_not_pass_for_one_that_was_not() {
        for (code, message) in [
            (Code::Unavailable, "etcdserver: leader changed"),
            (Code::Unavailable, "etcdserver: request timed out"),
            (Code::Unavailable, "etcdserver: server stopped"),
            (Code::Unknown, "transport error"),
            (Code::Cancelled, "operation was canceled"),
            (Code::Internal, "h2 protocol error"),
            (Code::DeadlineExceeded, "no answer"),
        ] {
            assert_eq!(judge(&Status::new(code, message)), Verdict::Lost, "{message}");
        }
    }
}
