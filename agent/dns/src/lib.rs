//! The cluster's DNS, answered on each node at the cluster DNS address (Kubernetes DNS specification 1.1.0).
//!
//! - [`record`]: the few fields of Service and EndpointSlice that have names
//! - [`zone`]: every name of the cluster domain, and what a question about it finds; pure
//! - [`answer`]: a request to a response, or to "ask elsewhere"; pure
//! - [`upstream`]: asking elsewhere
//! - [`serve`]: the sockets
//! - [`mod@run`]: the address, the watches

#![warn(unreachable_pub)]

pub mod answer;
pub mod record;
mod run;
pub mod serve;
mod upstream;
mod zone;

pub use run::{Config, run};
pub use zone::Zone;
