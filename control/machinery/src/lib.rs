//! What an API object is; no IO.
//!
//! - [`resources`]: the built-in resources, their defaulting, strategy, validation and printing

pub mod resources;
