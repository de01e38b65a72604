//! `windlass version`.

use crate::output::{self, Output};
use machinery::release::KUBERNETES;
use serde_json::json;

pub(crate) use machinery::release::LONG;

pub(crate) fn run(form: Output) -> anyhow::Result<()> {
    let data = json!({ "version": env!("CARGO_PKG_VERSION"), "kubernetesVersion": KUBERNETES });
    output::print(form, &format!("windlass {LONG}\n"), &data)
}
