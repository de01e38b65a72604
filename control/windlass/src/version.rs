//! `windlass version`.

use crate::output::{self, Output};
use serde_json::json;

/// The Kubernetes version whose behaviour is ours.
pub(crate) const KUBERNETES: &str = "v1.36.0";
/// For `--version`.
pub(crate) const LONG: &str = concat!(env!("CARGO_PKG_VERSION"), " (Kubernetes v1.36.0)");

pub(crate) fn run(form: Output) -> anyhow::Result<()> {
    let data = json!({ "version": env!("CARGO_PKG_VERSION"), "kubernetesVersion": KUBERNETES });
    output::print(form, &format!("windlass {LONG}\n"), &data)
}
