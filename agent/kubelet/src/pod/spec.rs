//! What the runtime is asked for: pure translations of a pod's fields into CRI messages.

pub mod container;
pub mod dns;
pub mod downward;
pub mod env;
pub mod env_file;
pub mod labels;
pub mod recursive;
pub mod resources;
pub mod sandbox;
pub mod security;
pub mod sysctl;
pub mod totals;
