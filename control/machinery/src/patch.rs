//! Changing an object by a patch: [`json`] (RFC 6902), [`merge`] (RFC 7386), [`strategic`] (merge by the field table).
//!
//! All three change the object in place or leave it as it was, and answer what upstream answers for a bad patch.

use crate::object::Gvk;
use crate::schema;

pub mod json;
pub mod merge;
pub mod strategic;

/// The media type of [`json`].
pub const JSON: &str = "application/json-patch+json";
/// The media type of [`merge`].
pub const MERGE: &str = "application/merge-patch+json";
/// The media type of [`strategic`].
pub const STRATEGIC: &str = "application/strategic-merge-patch+json";
/// The media type of server-side apply.
pub const APPLY: &str = "application/apply-patch+yaml";

/// The media types a patch of an object of `gvk` may have. Custom objects have no strategic merge: no type says how their lists merge.
#[must_use]
pub fn media_types(gvk: &Gvk) -> &'static [&'static str] {
    match schema::builtin().kind(gvk) {
        Some(_) => &[JSON, MERGE, STRATEGIC, APPLY],
        None => &[JSON, MERGE, APPLY],
    }
}
