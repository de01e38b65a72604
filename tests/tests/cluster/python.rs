//! Packages of PyPI, in an environment that is made beside the programs and kept.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The interpreter of an environment that has the package; none, with a line that says why, where it cannot be had.
pub fn interpreter(package: &str) -> Option<PathBuf> {
    let dir =
        Path::new(env!("CARGO_BIN_EXE_lab")).ancestors().nth(2).unwrap().join("tools/python-kubernetes");
    let interpreter = dir.join("bin/python");
    let has = |out: std::io::Result<Output>| out.is_ok_and(|o| o.status.success());
    let import = format!("import {package}");
    if has(Command::new(&interpreter).args(["-c", &import]).output()) {
        return Some(interpreter);
    }
    if !interpreter.exists() && !has(Command::new("python3").args(["-m", "venv"]).arg(&dir).output()) {
        eprintln!("skipped: python3 cannot make an environment in {}", dir.display());
        return None;
    }
    let pip = Command::new(&interpreter)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1", package])
        .output();
    match pip {
        Ok(out) if out.status.success() => Some(interpreter),
        Ok(out) => {
            eprintln!("skipped: pip cannot get {package}: {}", String::from_utf8_lossy(&out.stderr).trim());
            None
        }
        Err(error) => {
            eprintln!("skipped: pip cannot be run: {error}");
            None
        }
    }
}
