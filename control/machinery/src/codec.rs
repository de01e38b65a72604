//! Bytes to objects and back: [`json`], [`yaml`], [`proto`].

pub mod json;
pub mod proto;
pub mod yaml;
