//! Why a step of the cluster's trust failed, a variant an operation.

use std::path::PathBuf;

/// A failed operation and its subject.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read.
    #[error("read {}", path.display())]
    Read {
        /// Path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file could not be written whole.
    #[error("write {}", path.display())]
    Write {
        /// Path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The text holds no PEM block of the kind looked for.
    #[error("decode {what}: no PEM block of type {kind}")]
    Pem {
        /// What was being decoded.
        what: String,
        /// The block looked for.
        kind: &'static str,
    },
    /// A certificate does not parse.
    #[error("parse certificate: {reason}")]
    Certificate {
        /// Where it went wrong.
        reason: String,
    },
    /// A certificate signing request does not parse or its signature is wrong. The text is upstream's where it has one.
    #[error("{reason}")]
    Request {
        /// Where it went wrong.
        reason: String,
    },
    /// A private or public key does not parse or is of a kind we do not handle.
    #[error("parse key {what}: {reason}")]
    Key {
        /// Whose key: file name or purpose.
        what: String,
        /// Where it went wrong.
        reason: String,
    },
    /// A key pair could not be made.
    #[error("generate a key")]
    Generate(#[source] rcgen::Error),
    /// The operating system has no random bytes for us.
    #[error("draw random bytes: {0}")]
    Random(String),
    /// A signature could not be made.
    #[error("sign {what}: {reason}")]
    Sign {
        /// What was to be signed.
        what: &'static str,
        /// Error text of the signer.
        reason: String,
    },
    /// An authority's certificate and key do not belong together, or half of the pair is missing.
    #[error("load authority {name}: {reason}")]
    Authority {
        /// The file name without its extension.
        name: String,
        /// Missing half or mismatch.
        reason: String,
    },
    /// A kubeconfig does not parse or lacks a part.
    #[error("read kubeconfig{}: {reason}", path.as_ref().map(|p| format!(" {}", p.display())).unwrap_or_default())]
    Kubeconfig {
        /// The file, if it came from one.
        path: Option<PathBuf>,
        /// Parser's error, or the missing entry.
        reason: String,
    },
    /// A bootstrap or join token is malformed.
    #[error("parse token: {reason}")]
    Token {
        /// What is wrong; never the token itself.
        reason: String,
    },
    /// A sealed file could not be opened, or a file sealed.
    #[error("open what is sealed: {reason}")]
    Sealed {
        /// Wrong key, or damaged content.
        reason: &'static str,
    },
}
