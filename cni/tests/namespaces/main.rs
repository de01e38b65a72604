//! The built program in throw-away network namespaces, with real packets.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not tests to clippy")]

mod bandwidth;
mod bridge;
mod ipam;
mod lab;
mod nat;
mod protocol;
mod traffic;
