//! etcd's v3 interface, as a client of several members.
//!
//! - [`v3`]: messages and stubs, generated from `proto/etcd-v3.proto`
//! - [`Config`], [`Client`]: members with their channels, and calls that move to another member when one does not answer
//! - `cluster`: who is a member, and changing that; `pin`: which cluster an answer is of; `snapshot`: everything a member keeps, as a file
//! - [`Failure`]: why a call failed, and whether it may have taken effect all the same
//! - [`bolt`], [`database`]: a member's file read, and made of what another store held
//!
//! The stubs are made here, as `cri-proto` makes its own: the client crates there are want `protoc` at build time, and retry in ways that a
//! store that must not report a write wrongly cannot use.

#![warn(unreachable_pub)]

pub mod bolt;
mod client;
mod cluster;
pub mod database;
mod failure;
mod pin;
mod snapshot;
mod watch;

pub use client::{BadEndpoint, Client, Config, LONGEST_CALL, Repeat};
pub use cluster::Membership;
pub use failure::{Effect, Failure};
pub use snapshot::SnapshotError;
pub use watch::WatchStream;

/// Generated from `proto/etcd-v3.proto`.
#[allow(
    missing_docs,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::pedantic,
    clippy::unwrap_used,
    unreachable_pub,
    unused_qualifications,
    reason = "generated code"
)]
pub mod v3 {
    tonic::include_proto!("etcdserverpb");
}
