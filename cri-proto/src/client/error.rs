//! How a call of CRI fails, and how that reads.

use std::time::Duration;
use tonic::{Code, Status};

/// A CRI call that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The endpoint cannot be a runtime's.
    #[error("runtime endpoint {endpoint:?}: want unix:///path/to/socket")]
    Endpoint {
        /// Endpoint as configured.
        endpoint: String,
    },
    /// The runtime answered with an error, or could not be reached.
    #[error("{operation} {subject}: {}", .status.message())]
    Call {
        /// CRI method, `RunPodSandbox`.
        operation: &'static str,
        /// What it was about: an id or a name.
        subject: String,
        /// What gRPC said; boxed for its size.
        status: Box<Status>,
    },
    /// No answer in time.
    #[error("{operation} {subject}: no answer within {}s", .limit.as_secs())]
    Deadline {
        /// CRI method, `RunPodSandbox`.
        operation: &'static str,
        /// What it was about.
        subject: String,
        /// The deadline that passed.
        limit: Duration,
    },
    /// The answer lacks what CRI says it holds.
    #[error("{operation} {subject}: the answer has no {field}")]
    Incomplete {
        /// CRI method, `RunPodSandbox`.
        operation: &'static str,
        /// What it was about.
        subject: String,
        /// Name of the missing field.
        field: &'static str,
    },
}

impl Error {
    /// The runtime's own words, as upstream quotes them in events and statuses.
    pub fn runtime_message(&self) -> String {
        match self {
            Self::Call { status, .. } => {
                format!("rpc error: code = {} desc = {}", go_code(status.code()), status.message())
            }
            Self::Deadline { .. } => {
                "rpc error: code = DeadlineExceeded desc = context deadline exceeded".to_owned()
            }
            other => other.to_string(),
        }
    }

    /// The runtime's own words without the code: what statuses of containers quote.
    pub fn plain_message(&self) -> String {
        match self {
            Self::Call { status, .. } => status.message().to_owned(),
            Self::Deadline { .. } => "context deadline exceeded".to_owned(),
            other => other.to_string(),
        }
    }

    /// The gRPC code, `DeadlineExceeded` for our own deadline.
    pub fn code(&self) -> Code {
        match self {
            Self::Call { status, .. } => status.code(),
            Self::Deadline { .. } => Code::DeadlineExceeded,
            Self::Endpoint { .. } | Self::Incomplete { .. } => Code::Internal,
        }
    }

    /// The subject does not exist (any more).
    pub fn is_not_found(&self) -> bool {
        self.code() == Code::NotFound
    }

    /// The id holding the name, when the call failed because the name is reserved.
    ///
    /// containerd says `name "a_b_c_d_0" is reserved for "ID"`; the reservation outlives a call that timed out.
    pub fn reserved_for(&self) -> Option<&str> {
        let Self::Call { status, .. } = self else { return None };
        let (_, rest) = status.message().split_once("is reserved for \"")?;
        rest.split('"').next().filter(|id| !id.is_empty())
    }
}

/// The name Go's gRPC prints for a code; clients match on these texts.
pub fn go_code(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}
