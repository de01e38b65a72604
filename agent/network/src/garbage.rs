//! Addresses, links and rules of pods that are gone.
//!
//! A container runtime that is killed between attaching a sandbox and writing it down forgets the sandbox, and no DEL
//! ever comes (containerd before 2.1 does not send GC either). Whoever knows the runtime's list can have the rest removed: all of it
//! while no sandbox is being made ([`collect_garbage`]), or at any time what the runtime surely forgot ([`release_lost`]).

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, process::Command};

use crate::{Config, conflist};

const WITHIN: Duration = Duration::from_secs(30);
/// A sandbox is listed by then, or it never will be: the runtime's calls end before.
const MADE_WITHIN: Duration = Duration::from_secs(600);

/// One interface of one sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Sandbox id (`CNI_CONTAINERID`).
    pub container: String,
    /// The interface's name inside it; `eth0` for every sandbox a runtime makes by CRI.
    pub interface: String,
}

/// What is left of earlier pods could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum GarbageError {
    /// It is not known where the plugins are.
    #[error("no directory of CNI plugins is configured")]
    NoPlugins,
    /// The runtime does not say which sandboxes there are.
    #[error("list the runtime's sandboxes")]
    List(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Our own configuration or a lease cannot be read.
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
    #[error("run CNI plugin {0}")]
    Run(String, #[source] io::Error),
    /// A plugin did not end.
    #[error("CNI plugin {0} did not end its {1} in time")]
    Late(String, &'static str),
    /// A plugin said no.
    #[error("CNI plugin {plugin} refused {command}: {said}")]
    Refused {
        /// Type of the plugin, `bridge`.
        plugin: String,
        /// `ADD`, `GC` or `DEL`.
        command: &'static str,
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
    let valid: Vec<Value> = attached
        .iter()
        .map(|attached| json!({ "containerID": attached.container, "ifname": attached.interface }))
        .collect();
    let mut outcome = Ok(());
    for mut configuration in plugins(config).await? {
        // GC came with this version.
        configuration["cniVersion"] = "1.1.0".into();
        configuration["cni.dev/valid-attachments"] = valid.clone().into();
        outcome = outcome.and(ask(config, &configuration, "GC", None).await);
    }
    outcome
}

/// Detaches what has an address for longer than any sandbox takes to be made, and whose sandbox the runtime does not list. `list` gives the
/// runtime's sandboxes, whatever state they are in; it is asked after the leases were looked at. Returns what was detached.
///
/// # Errors
/// The list could not be had, or a plugin failed; the first failure is returned once all were tried.
pub async fn release_lost<E>(
    config: &Config,
    list: impl Future<Output = Result<Vec<String>, E>>,
) -> Result<Vec<Attached>, GarbageError>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let old = leases(config, SystemTime::now()).map_err(|(path, error)| GarbageError::Read(path, error))?;
    if old.is_empty() {
        return Ok(Vec::new());
    }
    let listed = list.await.map_err(|error| GarbageError::List(Box::new(error)))?;
    let lost: Vec<Attached> = old.into_iter().filter(|lease| !listed.contains(&lease.container)).collect();
    let mut outcome = Ok(());
    let plugins = if lost.is_empty() { Vec::new() } else { plugins(config).await? };
    for attached in &lost {
        outcome = outcome.and(detach(config, &plugins, attached).await);
    }
    outcome.map(|()| lost)
}

/// The plugins in reverse, as a runtime calls them. The first of them holds the address: it is asked once the others are done, so that
/// what fails is tried again.
async fn detach(config: &Config, plugins: &[Value], attached: &Attached) -> Result<(), GarbageError> {
    for configuration in plugins.iter().rev() {
        ask(config, configuration, "DEL", Some(attached)).await?;
    }
    Ok(())
}

/// Who holds the addresses that were given out a while ago.
fn leases(config: &Config, now: SystemTime) -> Result<Vec<Attached>, (PathBuf, io::Error)> {
    let directory = config.data_dir.join(conflist::NETWORK);
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| (path, error)
    };
    let entries = match std::fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err((directory, error)),
    };
    let mut held = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed(&directory))?;
        // locks and the like lie beside the leases, which are named by their address
        if entry.file_name().to_string_lossy().parse::<IpAddr>().is_err() {
            continue;
        }
        let path = entry.path();
        let read = entry.metadata().and_then(|metadata| metadata.modified());
        let read = read.and_then(|made| Ok((made, std::fs::read_to_string(&path)?)));
        match read {
            Ok((made, text)) if is_old(made, now) => held.extend(holder(&text)),
            Ok(_) => {}
            // given back meanwhile
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(&path)(error)),
        }
    }
    Ok(held)
}

/// A lease of the future is not old.
fn is_old(made: SystemTime, now: SystemTime) -> bool {
    now.duration_since(made).is_ok_and(|age| age > MADE_WITHIN)
}

/// The container and the interface a lease names.
fn holder(lease: &str) -> Option<Attached> {
    let mut lines = lease.lines().map(str::trim).filter(|line| !line.is_empty());
    let (container, interface) = (lines.next()?.to_owned(), lines.next()?.to_owned());
    Some(Attached { container, interface })
}

/// What each plugin of our configuration is configured with, in their order; nothing where nothing was ever attached.
pub(crate) async fn plugins(config: &Config) -> Result<Vec<Value>, GarbageError> {
    let path = conflist::path(config);
    let content = match tokio::fs::read(&path).await {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(GarbageError::Read(path, error)),
    };
    let list: Value = serde_json::from_slice(&content)
        .map_err(|error| GarbageError::Parse { path: path.clone(), reason: error.to_string() })?;
    let plugins = list["plugins"].as_array().filter(|plugins| plugins.iter().all(Value::is_object));
    let plugins = plugins
        .ok_or_else(|| GarbageError::Parse { path, reason: "plugins is not a list of objects".into() })?;
    let whole = |plugin: &Value| {
        let mut configuration = plugin.clone();
        configuration["name"] = list["name"].clone();
        configuration["cniVersion"] = list["cniVersion"].clone();
        configuration
    };
    Ok(plugins.iter().map(whole).collect())
}

/// Runs a plugin. None of them enters the container for what is asked here, which may be gone: they are told of a namespace that is there.
pub(crate) async fn ask(
    config: &Config,
    configuration: &Value,
    command: &'static str,
    about: Option<&Attached>,
) -> Result<(), GarbageError> {
    let bin_dir = &config.plugins.as_ref().ok_or(GarbageError::NoPlugins)?.bin_dir;
    let name = configuration["type"].as_str().unwrap_or_default().to_owned();
    let run = async {
        let mut program = Command::new(bin_dir.join(&name));
        if let Some(Attached { container, interface }) = about {
            program.env("CNI_CONTAINERID", container).env("CNI_IFNAME", interface);
        }
        if command == "ADD" {
            program.env("CNI_NETNS", "/proc/self/ns/net").env("CNI_NETNS_OVERRIDE", "true");
        }
        let mut child = program
            .env("CNI_COMMAND", command)
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
        Err(_elapsed) => return Err(GarbageError::Late(name, command)),
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Err(GarbageError::Refused { plugin: name, command, said })
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
        if [ -n "$CNI_CONTAINERID" ]; then echo "$CNI_CONTAINERID $CNI_IFNAME" >> "$0.ids"; fi
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

    /// A lease of a container, made so long ago.
    fn lease(config: &Config, address: &str, container: &str, age: Duration) {
        let directory = config.data_dir.join("windlass");
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join(address);
        fs::write(&path, format!("{container}\r\neth0\r\nboot")).unwrap();
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    }

    #[tokio::test]
    async fn what_the_runtime_forgot_must_not_keep_its_address() {
        let directory = TempDir::new().unwrap();
        let config = Config { data_dir: directory.path().join("leases"), ..config(&directory) };
        let list = |all: &[&str]| {
            let all: Vec<String> = all.iter().map(|id| (*id).to_owned()).collect();
            async move { Ok::<_, io::Error>(all) }
        };
        assert!(release_lost(&config, list(&[])).await.unwrap().is_empty(), "nothing was ever attached");
        write_static(&config, &["10.244.0.0/24".parse().unwrap()]).unwrap();
        lease(&config, "10.244.0.2", "kept", MADE_WITHIN * 2);
        lease(&config, "10.244.0.3", "being-made", MADE_WITHIN / 2);
        lease(&config, "last_reserved_ip.0", "not-a-lease", MADE_WITHIN * 2);
        assert!(release_lost(&config, list(&["kept"])).await.unwrap().is_empty());
        lease(&config, "fd00:10::4", "lost", MADE_WITHIN * 2);
        let refused = async { Err(io::Error::other("recovering")) };
        let error = release_lost(&config, refused).await.unwrap_err();
        assert_eq!(error.to_string(), "list the runtime's sandboxes");
        let error = release_lost(&config, list(&["kept"])).await.unwrap_err();
        assert_eq!(error.to_string(), r#"CNI plugin portmap refused DEL: {"code": 999, "msg": "no"}"#);
        assert!(!directory.path().join("bin/bridge.DEL").exists(), "the address goes last");
        fs::write(directory.path().join("windlass-cni"), SCRIPT.replace("*/portmap", "*/none")).unwrap();
        let released = release_lost(&config, list(&["kept"])).await.unwrap();
        assert_eq!(released, [Attached { container: "lost".into(), interface: "eth0".into() }]);
        let asked = fs::read(directory.path().join("bin/bridge.DEL")).unwrap();
        let asked: Value = serde_json::from_slice(&asked).unwrap();
        assert_eq!((&asked["cniVersion"], &asked["name"]), (&json!("1.0.0"), &json!("windlass")));
        assert!(asked.get("cni.dev/valid-attachments").is_none());
        assert_eq!(fs::read_to_string(directory.path().join("bin/bridge.ids")).unwrap(), "lost eth0\n");
    }
}
