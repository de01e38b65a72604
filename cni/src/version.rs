//! The CNI versions spoken, in order.

use crate::Error;

/// A version of the CNI specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 0.1.0, what a configuration without a version is. As 0.2.0, which gave VERSION its answer.
    V0_1_0,
    /// 0.2.0: results hold one address a family.
    V0_2_0,
    /// 0.3.0 and 0.3.1 differ in how plugins chain, which the runtime does, not in what a plugin reads or prints.
    V0_3_0,
    /// 0.3.1
    V0_3_1,
    /// 0.4.0: CHECK, and `prevResult` on DEL.
    V0_4_0,
    /// 1.0.0: no `version` in `ips`.
    V1_0_0,
    /// 1.1.0: STATUS, GC, more fields in interfaces and routes.
    V1_1_0,
}

impl Version {
    /// Every version spoken, oldest first.
    pub const ALL: [Self; 7] =
        [Self::V0_1_0, Self::V0_2_0, Self::V0_3_0, Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];

    /// As the specification writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// Reads a configuration's `cniVersion`.
    ///
    /// # Errors
    /// A version that is not spoken here. A configuration without one is 0.1.0 by the specification.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let text = if text.is_empty() { "0.1.0" } else { text };
        Self::ALL.into_iter().find(|version| version.as_str() == text).ok_or_else(|| {
            Error::IncompatibleVersion { config: text.to_owned(), supported: Self::supported() }
        })
    }

    /// Every version spoken, as the specification writes them.
    #[must_use]
    pub fn supported() -> Vec<&'static str> {
        Self::ALL.iter().map(|version| version.as_str()).collect()
    }
}
