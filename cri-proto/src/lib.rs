//! CRI v1: the gRPC a node agent speaks to its container runtime.
//!
//! - [`v1`] holds the generated messages, clients and server stubs;
//! - [`client::Runtime`] is the client the agent uses: one deadline a call class, 16 MiB messages, and reconnection
//!   after the runtime was restarted;
//! - [`events::Events`] tells which containers changed, by the best source the runtime offers;
//! - [`csi`]: the sockets of storage drivers, and their registration.

pub mod client;
pub mod csi;
pub mod events;

/// Generated from `proto/cri-v1.proto`.
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
pub mod v1 {
    tonic::include_proto!("runtime.v1");
}

/// Generated from `proto/containerd-events.proto`.
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
pub mod containerd {
    tonic::include_proto!("containerd.services.events.v1");
}
