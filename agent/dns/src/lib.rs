//! The cluster's DNS, answered on each node at the cluster DNS address (Kubernetes DNS specification 1.1.0).
//!
//! - [`record`]: the few fields of Service and EndpointSlice that have names
//! - [`zone`]: every name of the cluster domain, and what a question about it finds; pure
//! - [`answer`]: a request to a response, or to "ask elsewhere"; pure
//! - [`upstream`]: asking elsewhere
//! - `listen`, `redirect`: the sockets' addresses, and questions led there
//! - `metrics`, `monitor`: what is counted, and who may ask for it
//! - [`serve`]: what the sockets do
//! - [`mod@run`]: the address, the watches

#![warn(unreachable_pub)]

pub mod answer;
mod listen;
mod metrics;
mod monitor;
pub mod record;
mod redirect;
mod run;
pub mod serve;
mod upstream;
mod zone;

pub use run::{Config, run};
pub use zone::Zone;
