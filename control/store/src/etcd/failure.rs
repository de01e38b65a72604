//! What etcd refuses, in the store's words.

use super::MAX_REQUEST;
use crate::{Error, Revision};
use ::etcd::{Effect, Failure};

/// A call that failed, `what` being the operation and its subject.
pub(super) fn error(what: String, failure: Failure) -> Error {
    match (failure.unreachable, failure.effect) {
        (true, Effect::Unknown) => Error::Undecided { what, source: failure.into() },
        (true, Effect::None) => Error::Unavailable { what, source: failure.into() },
        (false, _) => Error::Engine { what, source: failure.into() },
    }
}

/// As [`error`], for reads: there is nothing they could have done.
pub(super) fn of_read(what: String, failure: Failure) -> Error {
    error(what, Failure { effect: Effect::None, ..failure })
}

/// As [`of_read`], for a read at a revision.
pub(super) fn of_past(
    what: String,
    failure: Failure,
    asked: Revision,
    known: Revision,
    oldest: Revision,
) -> Error {
    let said = failure.status.message();
    if said.ends_with("required revision has been compacted") {
        // Compacted by another than whom the compaction key tells of, it may be newer than what we know.
        Error::Compacted { asked, oldest: oldest.max(asked + 1) }
    } else if said.ends_with("required revision is a future revision") {
        Error::Future { asked, current: known }
    } else {
        of_read(what, failure)
    }
}

/// As [`error`], for a write of `size` bytes.
pub(super) fn of_write(verb: &str, key: &str, size: usize, failure: Failure) -> Error {
    let said = failure.status.message();
    if said.ends_with("request is too large") || said.contains("larger than max") {
        return Error::TooLarge { key: key.to_owned(), size, limit: MAX_REQUEST };
    }
    error(format!("{verb} {key}"), failure)
}
