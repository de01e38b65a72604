//! `/version`: what clients take us for.

use serde_json::{Value, json};

/// The Kubernetes version whose API is served, with our own build as semver metadata: clients parse and ignore it.
pub const GIT_VERSION: &str = concat!("v1.36.0+windlass.", env!("CARGO_PKG_VERSION"));

/// The answer of `/version`.
#[must_use]
pub fn info() -> Value {
    json!({
        "major": "1",
        "minor": "36",
        "emulationMajor": "1",
        "emulationMinor": "36",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35",
        "gitVersion": GIT_VERSION,
        "gitCommit": option_env!("WINDLASS_COMMIT").unwrap_or(""),
        "gitTreeState": "clean",
        "buildDate": option_env!("WINDLASS_BUILD_DATE").unwrap_or("1970-01-01T00:00:00Z"),
        "goVersion": concat!("rust", env!("CARGO_PKG_RUST_VERSION")),
        "compiler": "rustc",
        "platform": PLATFORM,
    })
}

#[cfg(target_arch = "x86_64")]
const PLATFORM: &str = "linux/amd64";
#[cfg(target_arch = "aarch64")]
const PLATFORM: &str = "linux/arm64";
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const PLATFORM: &str = "linux/unknown";
