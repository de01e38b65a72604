//! The cluster's DNS, answered on each node at the cluster DNS address (Kubernetes DNS specification 1.1.0).
//!
//! - [`record`]: the few fields of Service and EndpointSlice that have names
//! - [`zone`]: every name of the cluster domain, and what a question about it finds; pure
//! - [`answer`]: a request to a response, or to "ask elsewhere"; pure
//! - `corefile`, `plan`: who is asked about which names, as the cluster's ConfigMap `coredns` says; pure
//! - `hosts`, `rename`: names that a Corefile knows, and names asked in the place of others; pure
//! - `resolvers`, [`upstream`], `cache`: asking elsewhere
//! - `listen`, `redirect`: the sockets' addresses, and questions led there
//! - `metrics`, `monitor`: what is counted, and who may ask for it
//! - [`serve`]: what the sockets do
//! - [`mod@run`]: the address, the watches

#![warn(unreachable_pub)]

pub mod answer;
mod cache;
mod corefile;
mod hosts;
mod listen;
mod metrics;
mod monitor;
mod plan;
pub mod record;
mod redirect;
mod rename;
mod resolvers;
mod run;
pub mod serve;
mod upstream;
mod zone;

pub use run::{CONFIG_MAPS, Config, run};
pub use zone::Zone;
