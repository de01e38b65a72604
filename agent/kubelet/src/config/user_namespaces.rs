//! `userNamespaces`: how many ids a pod with users of its own has.

use serde::Deserialize;

/// The ids a range has where nothing else is configured, and of which every size is a multiple.
pub const UNIT: u32 = 1 << 16;

/// The field.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    #[serde(rename = "idsPerPod")]
    pub ids_per_pod: Option<u32>,
}
