//! The agent: joins a cluster, then assembles what runs on every node.
//!
//! - [`config`]: an agent's settings; [`address`]: the machine's own address when they do not say
//! - [`bootstrap`]: from a join token to credentials of our own; [`cluster_info`]: what a cluster says before it knows us
//! - [`certificate`]: a certificate through the API (`certificates.k8s.io`); [`identity`]: the files they are kept in
//! - [`authorities`]: follows the cluster's authorities
//! - [`facts`]: what nobody told us and the cluster says
//! - [`balancer`]: the API servers there are, as one on this machine
//! - [`rotation`]: renews them; [`client`]: a client that changes its certificate without its users noticing
//! - [`parts`]: credentials of network, DNS and proxy, which speak as themselves
//! - [`tasks`]: network, DNS, proxy and announcer, each as a task; [`kubelet_alone`]: a kubelet that is a program of its own
//! - [`lost`]: what the container runtime forgot is detached
//! - [`kubelet_parts`]: the kubelet's settings and its parts together
//! - [`progress`]: how far a start has come
//! - [`mod@run`]: the list of tasks, which the crate `supervise` keeps running

#![warn(unreachable_pub)]

pub mod address;
mod authorities;
mod balancer;
mod bootstrap;
mod certificate;
mod client;
pub mod cluster_info;
pub mod config;
mod facts;
pub mod identity;
pub mod kubelet_alone;
mod kubelet_parts;
mod lost;
mod parts;
mod progress;
mod rotation;
mod run;
pub mod tasks;

pub use authorities::LEARNT as AUTHORITIES_LEARNT;
pub use client::{Slot as ClientSlot, limited as limited_client, renewable as renewable_client};
pub use config::Config;
pub use progress::Progress;
pub use run::run;
