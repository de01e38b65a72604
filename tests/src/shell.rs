//! Running programs, with errors that name the command and carry what it said.

use anyhow::{Context, Result, bail};
use std::process::{Command, Stdio};

/// Runs a command to its end and gives its standard output. A failure carries the command line and its standard error.
///
/// # Errors
/// The program is missing, or ended with a status other than 0.
pub fn run(program: &str, args: &[&str]) -> Result<String> {
    output(Command::new(program).args(args))
}

/// As [`run`], for a prepared command.
///
/// # Errors
/// As [`run`].
pub fn output(command: &mut Command) -> Result<String> {
    let line = line(command);
    let out = command.stdin(Stdio::null()).output().with_context(|| format!("run `{line}`"))?;
    if !out.status.success() {
        bail!("`{line}` ended with {}: {}", out.status, String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

fn line(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|a| a.to_string_lossy().into_owned()));
    words.join(" ")
}

/// A command that will run inside the namespaces of process `pid` (a node's PID 1).
#[must_use]
pub fn inside(pid: i32, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["-t", &pid.to_string(), "-n", "-m", "-p", "-u", "-i", "-C", "--", program]);
    command
}
