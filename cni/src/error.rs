//! What can go wrong, and the number the CNI specification gives it.

use std::io;

use netlink::nft;
use serde_json::{Value, json};

/// A failed CNI command. `code` is the specification's; the text names the field or object concerned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration asks for a CNI version that is not spoken here.
    #[error("incompatible CNI versions: config is {config:?}, plugin supports {supported:?}")]
    IncompatibleVersion {
        /// What the configuration asked for.
        config: String,
        /// What is spoken here.
        supported: Vec<&'static str>,
    },
    /// The configuration's version predates the command.
    #[error("config version {version} does not allow {command}")]
    CommandTooNew {
        /// The configuration's CNI version.
        version: &'static str,
        /// The command asked for.
        command: &'static str,
    },
    /// A field that is unknown, or known and not supported. The specification wants key and value named.
    #[error("unsupported field in network configuration: {field}: {value}")]
    UnsupportedField {
        field: String,
        /// Its value, as JSON.
        value: String,
    },
    /// The container's network namespace does not exist: nothing was done and nothing needs undoing.
    #[error("network namespace {0} does not exist")]
    UnknownContainer(String),
    /// An environment variable is missing or invalid.
    #[error("{0}")]
    Environment(String),
    /// A file or device could not be read or written.
    #[error("{operation}")]
    Io {
        /// The operation and its subject.
        operation: String,
        source: io::Error,
    },
    /// Something that should be JSON, or JSON of a certain type, is not.
    #[error("{subject}: {reason}")]
    Decode {
        /// The field or document.
        subject: String,
        /// What was wrong with it.
        reason: String,
    },
    /// A field's value is of the right type and makes no sense.
    #[error("{field}: {reason}")]
    Config {
        field: String,
        /// What was wrong with it.
        reason: String,
    },
    /// `CNI_NETNS` is not a network namespace, or is the plugin's own.
    #[error("{0}")]
    InvalidNetns(String),
    /// Something that an ADD needs is not there yet.
    #[error("{0}")]
    TryAgain(String),
    /// The plugin cannot serve an ADD now.
    #[error("{0}")]
    Unavailable(String),
    /// The kernel refused a netlink request.
    #[error("{operation}")]
    Netlink {
        /// The operation and its subject.
        operation: String,
        source: netlink::Error,
    },
    /// The kernel refused a change of nftables.
    #[error("{operation}")]
    Nftables {
        /// The operation and its subject.
        operation: String,
        source: nft::Error,
    },
    /// No address can be granted.
    #[error("{0}")]
    Ipam(String),
    /// CHECK found the attachment not as ADD left it.
    #[error("{0}")]
    NotAsAdded(String),
    /// A delegated plugin failed; its error goes on as it is.
    #[error("{msg}")]
    Delegated {
        /// The plugin's own code.
        code: u32,
        /// The plugin's own message.
        msg: String,
        /// The plugin's own details.
        details: String,
    },
}

impl Error {
    /// The specification's error code; plugin-specific ones start at 100, and 999 is what upstream uses for the rest.
    #[must_use]
    pub fn code(&self) -> u32 {
        match self {
            Self::IncompatibleVersion { .. } | Self::CommandTooNew { .. } => 1,
            Self::UnsupportedField { .. } => 2,
            Self::UnknownContainer(_) => 3,
            Self::Environment(_) => 4,
            Self::Io { .. } => 5,
            Self::Decode { .. } => 6,
            Self::Config { .. } => 7,
            Self::InvalidNetns(_) => 8,
            Self::TryAgain(_) => 11,
            Self::Unavailable(_) => 50,
            Self::Netlink { .. } | Self::Nftables { .. } | Self::Ipam(_) | Self::NotAsAdded(_) => 999,
            Self::Delegated { code, .. } => *code,
        }
    }

    /// The error object for stdout.
    #[must_use]
    pub fn to_json(&self, version: &str) -> Value {
        let mut details = String::new();
        if let Self::Delegated { details: own, .. } = self {
            details.clone_from(own);
        }
        // Runtimes show `msg` alone, so the cause belongs in it.
        let mut object = json!({ "cniVersion": version, "code": self.code(), "msg": with_causes(self) });
        if !details.is_empty() {
            object["details"] = details.into();
        }
        object
    }

    pub(crate) fn config(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Config { field: field.into(), reason: reason.into() }
    }

    pub(crate) fn decode(subject: impl Into<String>, reason: &impl ToString) -> Self {
        Self::Decode { subject: subject.into(), reason: reason.to_string() }
    }
}

pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Names the operation an IO error belongs to.
pub(crate) trait IoContext<T> {
    fn during(self, operation: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn during(self, operation: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Io { operation: operation(), source })
    }
}

impl<T> IoContext<T> for Result<T, netlink::Error> {
    fn during(self, operation: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Netlink { operation: operation(), source })
    }
}

impl<T> IoContext<T> for Result<T, nft::Error> {
    fn during(self, operation: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Nftables { operation: operation(), source })
    }
}
