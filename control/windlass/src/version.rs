//! `windlass version`.

use crate::output::{self, Output};
use serde_json::json;

pub(crate) use machinery::release::{KUBERNETES, LONG};

pub(crate) fn run(form: Output) -> anyhow::Result<()> {
    let data = json!({ "version": env!("CARGO_PKG_VERSION"), "kubernetesVersion": KUBERNETES });
    output::print(form, &format!("windlass {LONG}\n"), &data)
}
