//! Speaking to the API server: what every component that watches, records or retries shares.
//!
//! - [`Source`]: what is watched; [`mirror()`]: the watch of it as changes of single objects, relists and lapses included;
//!   [`Informer`]: the same kept as a map that many read (`source`, `follow`, `mirror`, [`informer`])
//! - [`credentials`]: that there are none is told from a server that cannot be reached
//! - [`bounded`]: a server that does not answer is given up (`deadline`); [`connect()`]: one whose machine is gone
//! - [`decode`]: an object is read by itself and leniently, so that no single one blinds a watcher
//! - [`Key`], [`queue`]: what is reconciled, each key at most once at a time
//! - [`leader`]: one of several leads, by a Lease
//! - [`recorder`]: events, counted and bounded as upstream's recorder does it
//! - `fake`, for tests: an API server as far as watches need one
//!
//! Pauses, tasks and the accept loop are the crate `supervise`'s.

#![warn(unreachable_pub)]

mod connect;
pub mod credentials;
mod deadline;
pub mod decode;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod follow;
pub mod informer;
mod key;
pub mod leader;
mod mirror;
pub mod queue;
pub mod recorder;
mod source;

pub use connect::connect;
pub use deadline::bounded;
pub use follow::Error;
pub use informer::Informer;
pub use key::{Identity, Key};
pub use mirror::{Event, mirror};
pub use source::Source;

/// What the API server said, without the client's words around it; where it said nothing, the client's.
#[must_use]
pub fn message_of(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
