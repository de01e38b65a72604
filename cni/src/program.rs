//! The program: which plugin is meant, what it is asked, and how the answer is printed.

use std::{
    ffi::OsStr,
    io::{Read, Write},
    path::Path,
    process::ExitCode,
};

use serde_json::{Value, json};

use crate::{
    Call, Command, Environment, Error, Version, bandwidth, bridge, error::IoContext, ipam, loopback, portmap,
};

/// A plugin in this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plugin {
    /// Holds a container's traffic to rates.
    Bandwidth,
    /// Joins a container to a bridge.
    Bridge,
    /// IPAM plugin `host-local`.
    HostLocal,
    /// Brings `lo` up.
    Loopback,
    /// Leads host ports to a container.
    Portmap,
}

impl Plugin {
    const TABLE: [(&'static str, Self); 5] = [
        ("bandwidth", Self::Bandwidth),
        ("bridge", Self::Bridge),
        ("host-local", Self::HostLocal),
        ("loopback", Self::Loopback),
        ("portmap", Self::Portmap),
    ];

    /// The plugin of that name, as configurations' `type` has it.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::TABLE.iter().find(|(known, _)| *known == name).map(|(_, plugin)| *plugin)
    }

    /// All plugins of this program.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::TABLE.into_iter().map(|(_, plugin)| plugin)
    }

    /// Reads the configuration and does nothing else.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(self, call: &Call) -> Result<(), Error> {
        match self {
            Self::Bandwidth => bandwidth::read(call),
            Self::Bridge => bridge::read(call),
            Self::HostLocal => ipam::read(call),
            Self::Loopback => call.previous().map(drop),
            Self::Portmap => portmap::read(call),
        }
    }

    /// Does what the call asks.
    ///
    /// # Errors
    /// What the specification has the plugin print.
    pub fn answer(self, call: &Call) -> Result<Option<Value>, Error> {
        match self {
            Self::Bandwidth => bandwidth::answer(call),
            Self::Bridge => bridge::answer(call),
            Self::HostLocal => ipam::answer(call),
            Self::Loopback => loopback::answer(call),
            Self::Portmap => portmap::answer(call),
        }
    }
}

/// Runs as the plugin that the program's name, else its first argument, else the configuration's `type` names.
#[must_use]
pub fn run(arguments: &[impl AsRef<OsStr>]) -> ExitCode {
    if std::env::var_os("CNI_COMMAND").is_none_or(|command| command.is_empty()) {
        eprintln!(
            "CNI plugins bandwidth, bridge, host-local, loopback and portmap (windlass-cni {})\nCNI protocol versions supported: {}",
            env!("CARGO_PKG_VERSION"),
            Version::supported().join(", ")
        );
        return ExitCode::SUCCESS;
    }
    let mut stdin = Vec::new();
    let answer = std::io::stdin()
        .read_to_end(&mut stdin)
        .during(|| "read the network configuration from stdin".to_owned())
        .and_then(|_| {
            let names =
                arguments.iter().take(2).filter_map(|name| Path::new(name.as_ref()).file_name()?.to_str());
            answer(names, &stdin)
        });
    let (printed, code) = match answer {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(result)) => (result, ExitCode::SUCCESS),
        Err(error) => (error.to_json(&version_of(&stdin)), ExitCode::FAILURE),
    };
    match writeln!(std::io::stdout(), "{printed}") {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

fn answer<'a>(mut names: impl Iterator<Item = &'a str>, stdin: &[u8]) -> Result<Option<Value>, Error> {
    let environment = Environment::read(|name| std::env::var(name).ok())?;
    if environment.command == Command::Version {
        return Ok(Some(json!({
            "cniVersion": version_of(stdin),
            "supportedVersions": Version::supported(),
        })));
    }
    let call = Call::parse(environment, stdin)?;
    let plugin = names
        .find_map(Plugin::named)
        .or_else(|| call.configuration.get("type").and_then(Value::as_str).and_then(Plugin::named));
    let plugin = plugin.ok_or_else(|| {
        let found = call.configuration.get("type").cloned().unwrap_or_default();
        Error::config("type", format!("{found} is none of the plugins in this program"))
    })?;
    let answer = plugin.answer(&call);
    if call.environment.command == Command::Add {
        for remark in call.remarks.list() {
            eprintln!("{remark}");
        }
    }
    answer
}

/// The version an error is to be in, as far as the configuration can be read at all.
fn version_of(stdin: &[u8]) -> String {
    let configuration: Value = serde_json::from_slice(stdin).unwrap_or_default();
    match configuration.get("cniVersion").and_then(Value::as_str) {
        Some(version) if Version::parse(version).is_ok() => version.to_owned(),
        _ => Version::V1_1_0.as_str().to_owned(),
    }
}
