//! Why a number is not given, in upstream's words (`ipallocator/interfaces.go`, `portallocator/allocator.go`).

use machinery::status::Status;
use std::net::IpAddr;

/// Why a number is not given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    #[error("provided {0} is already allocated")]
    Taken(&'static str),
    #[error("provided port is not in the valid range. The range of valid ports is {0}")]
    Port(String),
    #[error("the provided IP ({0}) is not in the valid range. The range of valid IPs is {1}")]
    Address(IpAddr, String),
    #[error("the provided network does not match the current range")]
    NoRange,
    #[error("the provided range does not match the current range")]
    OtherRange,
    #[error("cannot allocate resources of type servicenodeportallocations at this time")]
    NotReady,
    #[error("range is full")]
    Full,
}

/// Why a claim was not made.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The claim's wish at this place is not given.
    Denied { at: usize, why: Denied },
    /// The store did not answer, or not in time.
    Failed(Status),
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Self::Failed(status)
    }
}
