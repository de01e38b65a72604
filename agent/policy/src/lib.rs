//! NetworkPolicy on this node, by one nftables table.
//!
//! - [`object`]: the few fields of Pod and NetworkPolicy that matter; pure
//! - `ranges`: address blocks and ports as ranges; pure
//! - [`model`]: everything known, as an index, to the table that should be; pure
//! - [`ruleset`]: that table as data, what of it changed, and what it says of a packet; pure
//! - `table`: that as a transaction; pure
//! - [`apply`]: the only owner of the table in the kernel
//! - [`flows`]: cutting what is allowed no more
//! - `attach`: what the CNI plugin asks before a pod's interface is there
//! - `metrics`: what is counted
//! - [`mod@run`]: the watches

#![warn(unreachable_pub)]

pub mod apply;
mod attach;
pub mod flows;
mod metrics;
pub mod model;
pub mod object;
mod ranges;
pub mod ruleset;
mod run;
mod table;

pub use model::{Model, Owner};
pub use ranges::PortRange;
pub use run::{Config, Error, METRICS_PORT, run};
