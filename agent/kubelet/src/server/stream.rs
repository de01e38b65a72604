//! `/exec`, `/attach`, `/portForward`: streams between a client and the runtime's streaming server.
//!
//! - [`options`]: what is asked for; [`target`]: which container or sandbox is meant
//! - [`upgrade`]: leaving HTTP on the client's side and on the runtime's; [`pass`]: bytes both ways

pub mod options;
pub mod pass;
pub mod target;
pub mod upgrade;
