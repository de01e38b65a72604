//! The service proxy: Services and EndpointSlices become elements of a few nftables maps.
//!
//! There is no chain per service. A front (`address . protocol . port`) points at the chain for its number of endpoints; that chain
//! draws a slot and looks `front . slot` up in one map. Adding a service or an endpoint touches its own elements only.
//!
//! - [`service`]: the few fields of Service and EndpointSlice that matter
//! - [`model`]: one service and its slices to its [`model::Rules`]; pure
//! - `claims`: whose a front is that several services ask for; pure
//! - `groups`: which number a port has where clients stay with their endpoints; pure
//! - `numbers`: such numbers, and those of their endpoints; pure
//! - [`slots`]: which endpoint holds which slot, moving as few as possible; pure
//! - `guard`: from where a load balancer's addresses may be reached; pure
//! - [`state`]: what is known of services and slices; pure
//! - [`element`]: rules as set elements, and the difference between two of them; pure
//! - [`shape`]: what of the tables follows from settings and from the node; pure
//! - [`ruleset`]: tables, chains and elements as transactions; pure
//! - [`text`]: the same in nft's language, for people, tests and benches; pure
//! - `readback`: what an earlier run left in the kernel
//! - [`apply`]: the shadow of what is in the kernel; one transaction a change
//! - [`conntrack`]: forgetting flows to endpoints that are gone
//! - `sysctl`: limits of connection tracking
//! - `metrics`: what is counted
//! - `health`: what load balancers and people ask over HTTP
//! - [`mod@run`]: the watches

#![warn(unreachable_pub)]

pub mod apply;
mod claims;
pub mod conntrack;
mod element;
mod groups;
mod guard;
mod health;
mod metrics;
pub mod model;
mod numbers;
mod readback;
pub mod ruleset;
mod run;
pub mod service;
pub mod shape;
mod slots;
pub mod state;
mod sysctl;
pub mod text;

pub use element::{Difference, elements};
pub use run::{Config, Error, HEALTH_PORT, STATUS_PORT, run};
pub use sysctl::{Limits, set as set_limits};
