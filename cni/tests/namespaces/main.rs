//! The built program in throw-away network namespaces, with real packets.

mod bridge;
mod ipam;
mod lab;
mod protocol;
mod traffic;
