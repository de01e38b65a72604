//! Addresses, links and rules of pods that are gone.
//!
//! A container runtime that is killed between attaching a sandbox and writing it down forgets the sandbox, and no DEL
//! ever comes (containerd before 2.1 does not send GC either). Whoever knows the runtime's list can have the rest removed.

use std::{io, path::PathBuf, process::Stdio, time::Duration};

use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, process::Command};

use crate::{Config, conflist};

const WITHIN: Duration = Duration::from_secs(30);

/// One interface of one sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Sandbox id (`CNI_CONTAINERID`).
    pub container: String,
    /// The interface's name inside it; `eth0` forevery sandbox a runtime makes by CRI.
    pub interface: String,
}

/// What is left of earlier pods could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum GarbageError {
    /// It is not known where the plugins are.
    #[error("no directory of CNI plugins is configured")]
    NoPlugins,
    /// Our own configuration cannot be read.
    #[error("read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// Our own configuration is not what we wrote.
    #[error("parse {}: {reason}", path.display())]
    Parse {
        /// Path of the network configuration list.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A plugin could not be run.
    #[error("run CNI plugin {0} for GC")]
    Run(String, #[source] io::Error),
    /// A plugin did not end.
    #[error("CNI plugin {0} did not end its GC in time")]
    Late(String),
    /// A plugin said no.
    #[error("CNI plugin {plugin} refused GC: {said}")]
    Refused {
        /// Type of the plugin, `bridge`.
        plugin: String,
        /// Its standard output: a CNI error.
        said: String,
    },
}

/// Removes what belongs to none of `attached`. Call it only while no sandbox is being made: one that the runtime
/// does not list yet would lose its address. Every plugin is asked, and the first failure returned.
///
/// # Errors
/// A plugin is missing or failed.
pub async fn collect_garbage(config: &Config, attached: &[Attached]) -> Result<(), GarbageError> {
    let path = conflist::path(config);
    let content = match tokio::fs::read(&path).await {
        Ok(content) => content,
        // Without a configuration nothing was ever attached.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(GarbageError::Read(path, error)),
    };
    let list: Value = serde_json::from_slice(&content)
        .map_err(|error| GarbageError::Parse { path: path.clone(), reason: error.to_string() })?;
    let plugins = list["plugins"].as_array().filter(|plugins| plugins.iter().all(Value::is_object));
    let plugins = plugins
        .ok_or_else(|| GarbageError::Parse { path, reason: "plugins is not a list of objects".into() })?;
    let valid: Vec<Value> = attached
        .iter()
        .map(|attached| json!({ "containerID": attached.container, "ifname": attached.interface }))
        .collect();
    let mut outcome = Ok(());
    for plugin in plugins {
        let mut configuration = plugin.clone();
        configuration["name"] = list["name"].clone();
        // GC came with this version.
        configuration["cniVersion"] = "1.1.0".into();
        configuration["cni.dev/valid-attachments"] = valid.clone().into();
        outcome = outcome.and(ask(config, &configuration).await);
    }
    outcome
}

async fn ask(config: &Config, configuration: &Value) -> Result<(), GarbageError> {
    let bin_dir = &config.plugins.as_ref().ok_or(GarbageError::NoPlugins)?.bin_dir;
    let name = configuration["type"].as_str().unwrap_or_default().to_owned();
    let run = async {
        let mut child = Command::new(bin_dir.join(&name))
            .env("CNI_COMMAND", "GC")
            .env("CNI_PATH", bin_dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A plugin that ends without reading says why on stdout; a broken pipe here does not.
            let _unread = stdin.write_all(configuration.to_string().as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let output = match tokio::time::timeout(WITHIN, run).await {
        Ok(output) => output.map_err(|error| GarbageError::Run(name.clone(), error))?,
        Err(_elapsed) => return Err(GarbageError::Late(name)),
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Err(GarbageError::Refused { plugin: name, said })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use tempfile::TempDir;

    use super::*;
    use crate::{Plugins, write_static};

    /// A plugin that notes what it was asked; `portmap` fails.
    const SCRIPT: &str = r#"#!/bin/sh
        cat > "$0.$CNI_COMMAND"
        case "$0" in */portmap) echo '{"code": 999, "msg": "no"}'; exit 1;; esac
    "#;

    fn config(directory: &TempDir) -> Config {
        let program = directory.path().join("windlass-cni");
        fs::write(&program, SCRIPT).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        Config {
            conf_dir: directory.path().join("net.d"),
            plugins: Some(Plugins { program, bin_dir: directory.path().join("bin") }),
            ..Config::new("n1")
        }
    }

    #[tokio::test]
    async fn every_plugin_is_asked_with_what_is_valid() {
        let directory = TempDir::new().unwrap();
        let config = config(&directory);
        collect_garbage(&config, &[]).await.unwrap();
        write_static(&config, &["10.244.0.0/24".parse().unwrap()]).unwrap();
        let attached = Attached { container: "abc".into(), interface: "eth0".into() };
        let error = collect_garbage(&config, &[attached]).await.unwrap_err();
        assert_eq!(error.to_string(), r#"CNI plugin portmap refused GC: {"code": 999, "msg": "no"}"#);
        for name in ["bridge", "portmap"] {
            let asked = fs::read(directory.path().join(format!("bin/{name}.GC"))).unwrap();
            let asked: Value = serde_json::from_slice(&asked).unwrap();
            assert_eq!(asked["cniVersion"], "1.1.0");
            assert_eq!(asked["name"], "windlass");
            assert_eq!(asked["type"], name);
            assert_eq!(
                asked["cni.dev/valid-attachments"],
                json!([{ "containerID": "abc", "ifname": "eth0" }])
            );
        }
    }
}
