//! The kernel's netlink, for whoever speaks it: links, addresses, routes, nftables and connection tracking.
//!
//! - [`socket`]: requests in one datagram, the answers of each, dumps
//! - [`attribute`], [`message`]: messages written and read; pure
//! - [`link`], [`address`], [`route`], [`neighbour`]: rtnetlink
//! - [`vxlan`]: links that carry frames in UDP
//! - [`wireguard`]: links that encrypt, and their peers
//! - [`traffic`]: what links may send
//! - [`conntrack`]: flows listed and forgotten
//! - [`nft`]: nftables transactions, and sets read back
//! - [`kernel`]: a socket kept open for asynchronous tasks (feature `tokio`)
//! - [`changes`]: that a link, address or route changed (feature `tokio`)
//!
//! Without features it is synchronous and small, for a program that ends at once. Names and numbers are those of the kernel's `include/uapi/linux`.

#![warn(unreachable_pub)]

pub mod address;
mod attribute;
#[cfg(feature = "tokio")]
pub mod changes;
pub mod conntrack;
mod generic;
#[cfg(feature = "tokio")]
pub mod kernel;
pub mod link;
mod message;
pub mod neighbour;
pub mod nft;
pub mod route;
pub mod socket;
pub mod traffic;
pub mod vxlan;
pub mod wireguard;

#[cfg(feature = "tokio")]
pub use kernel::Kernel;
pub use message::{Refusal, Request};
pub use socket::{Error, Protocol, Socket};
