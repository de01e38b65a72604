//! How little of what may be left, and when the node is under pressure. Pure; [`crate::eviction`] acts on it.
//!
//! - [`threshold`]: what may run out, and the thresholds as configured
//! - [`policy`]: when to act

pub mod policy;
pub mod threshold;

#[cfg(test)]
mod tests;
