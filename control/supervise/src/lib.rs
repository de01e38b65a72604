//! Keeps tasks running, and knows how each of them is. No other crate spawns: a task that nobody watches dies silently.
//!
//! - [`Supervisor`]: every task by name, whether it runs, why it last ended: what health checks and metrics read, and where a test
//!   makes a task panic
//! - [`Task`]: runs for as long as its owner; whatever ends it (an error, a panic, a return) it is started again with backoff
//! - [`Scope`]: tasks that come and go while their owner lives, and end with it; [`Supervisor::run`]: a fixed list with an order of
//!   shutdown
//! - [`Work`]: pieces that end by themselves (a connection, a tunnel, one reconciliation); a panic in one is caught, counted and
//!   logged, and harms no other
//! - [`checks`]: what health endpoints say of tasks and other checks; [`metrics`]: what is counted of tasks
//! - [`process`]: this process, as the kernel sees it
//! - [`listen`]: where connections come to, of both families; [`accept()`]: the loop that accepts connections; [`Backoff`]: pauses that double, with jitter;
//!   [`Rate`]: so many a second

#![warn(unreachable_pub)]

pub mod accept;
mod backoff;
pub mod checks;
pub mod listen;
pub mod metrics;
pub mod process;
mod rate;
mod scope;
mod supervisor;
mod task;
mod work;

pub use accept::accept;
pub use backoff::{Backoff, jittered};
pub use rate::Rate;
pub use scope::Scope;
pub use supervisor::{Down, Kind, Report, Supervisor};
pub use task::{Task, TaskError};
pub use work::{Panicked, Work};

/// An error and its causes in one line; a cause that the line ends with already is not said twice.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = cause.source();
    }
    text
}
