//! How little of what may be left, and when the node is under pressure. Pure; [`crate::eviction`] acts on it.
//!
//! - [`threshold`]: what may run out, and the thresholds as configured
//! - [`policy`]: when to act

pub(crate) mod policy;
pub(crate) mod threshold;

pub use policy::Policy;
pub use threshold::{Left, Observations, Signal, Thresholds};

#[cfg(test)]
mod tests;
