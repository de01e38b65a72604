//! Running another plugin, such as a foreign IPAM, with our own environment and configuration.

use std::{
    io::Write,
    process::{Command as Process, Stdio},
};

use serde::Deserialize;
use serde_json::Value;

use crate::{Call, Error, error::IoContext};

#[derive(Deserialize)]
struct Failure {
    #[serde(default)]
    code: u32,
    #[serde(default)]
    msg: String,
    #[serde(default)]
    details: String,
}

/// Runs plugin `name` for `call` and returns what it printed; `None` if it printed nothing.
pub(crate) fn run(call: &Call, name: &str, command: &str) -> Result<Option<Value>, Error> {
    if name.is_empty() || name.contains('/') {
        return Err(Error::config("ipam.type", format!("invalid plugin name: {name:?}")));
    }
    let path = &call.environment.path;
    let program = path.iter().map(|dir| dir.join(name)).find(|file| file.is_file()).ok_or_else(|| {
        Error::config("ipam.type", format!("failed to find plugin {name:?} in path {path:?}"))
    })?;
    let mut child = Process::new(&program)
        .env("CNI_COMMAND", command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .during(|| format!("run {}", program.display()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A plugin that exits without reading its configuration says why on stdout; a broken pipe here does not.
        let _unread = stdin.write_all(call.configuration.to_string().as_bytes());
    }
    let output = child.wait_with_output().during(|| format!("wait for {}", program.display()))?;
    if output.status.success() {
        if output.stdout.trim_ascii().is_empty() {
            return Ok(None);
        }
        return serde_json::from_slice(&output.stdout)
            .map(Some)
            .map_err(|error| Error::decode(format!("result of plugin {name}"), &error));
    }
    let failure: Failure = serde_json::from_slice(&output.stdout).unwrap_or(Failure {
        code: 999,
        msg: String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        details: String::new(),
    });
    Err(Error::Delegated {
        code: if failure.code == 0 { 999 } else { failure.code },
        msg: format!("plugin type={name:?} failed ({command}): {}", failure.msg),
        details: failure.details,
    })
}
