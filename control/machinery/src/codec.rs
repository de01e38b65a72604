//! Bytes to objects and back: [`json`], [`proto`].

pub mod json;
pub mod proto;
