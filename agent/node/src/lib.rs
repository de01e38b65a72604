//! The agent: joins a cluster, then assembles what runs on every node.
//!
//! - [`config`]: everything an agent is told; [`address`]: the machine's own address when it is not told
//! - [`bootstrap`]: from a join token to credentials of our own; [`cluster_info`]: what a cluster says before it knows us
//! - [`certificate`]: a certificate through the API (`certificates.k8s.io`); [`identity`]: the files they are kept in
//! - [`rotation`]: renews them; [`client`]: a client that changes its certificate without its users noticing
//! - [`kubelet_parts`]: the kubelet's settings and its parts together
//! - [`mod@run`]: the list of tasks, which the crate `supervise` keeps running

pub mod address;
pub mod bootstrap;
pub mod certificate;
pub mod client;
pub mod cluster_info;
pub mod config;
pub mod identity;
pub mod kubelet_parts;
pub mod rotation;
pub mod run;

pub use config::Config;
pub use run::run;
