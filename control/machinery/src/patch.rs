//! Changing an object by a patch: [`json`] (RFC 6902), [`merge`] (RFC 7386), [`strategic`] (merge by the field table).
//!
//! All three change the object in place or leave it as it was, and answer what upstream answers for a bad patch.

pub mod json;
pub mod merge;
pub mod strategic;
