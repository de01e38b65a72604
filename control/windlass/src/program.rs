//! Other programs that are run to their end.

use anyhow::{Context as _, bail};
use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// What a program prints.
///
/// # Errors
/// It is not there, does not end in time, or ends with a failure, which it then explains itself.
pub(crate) async fn run(
    program: impl AsRef<OsStr>,
    arguments: &[&str],
    patience: Duration,
) -> anyhow::Result<String> {
    let program = program.as_ref();
    let what = || format!("{} {}", program.display(), arguments.join(" "));
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(patience, command.output()).await.with_context(what)?;
    let output = output.with_context(what)?;
    if !output.status.success() {
        bail!("{}: {}: {}", what(), output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
