//! `windlass version`.

use crate::cli::VersionFlags;
use crate::output;
use serde_json::json;

/// The Kubernetes version whose behaviour is ours.
const KUBERNETES: &str = "v1.36.0";
/// For `--version`.
pub(crate) const LONG: &str = concat!(env!("CARGO_PKG_VERSION"), " (Kubernetes v1.36.0)");

/// Prints the version.
pub(crate) fn run(flags: &VersionFlags) -> anyhow::Result<()> {
    let data = json!({ "version": env!("CARGO_PKG_VERSION"), "kubernetesVersion": KUBERNETES });
    output::print(flags.output, &format!("windlass {LONG}\n"), &data)
}
