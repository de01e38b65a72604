//! `/version`: what clients take us for.

use machinery::release::{GIT_VERSION, MAJOR, MINOR, OLDEST_MINOR};
use serde_json::{Value, json};

/// The answer of `/version`.
#[must_use]
pub fn info() -> Value {
    json!({
        "major": MAJOR,
        "minor": MINOR,
        "emulationMajor": MAJOR,
        "emulationMinor": MINOR,
        "minCompatibilityMajor": MAJOR,
        "minCompatibilityMinor": OLDEST_MINOR,
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
