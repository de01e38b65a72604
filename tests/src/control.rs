//! The supervisor's socket: one JSON line a request, one JSON line an answer.

use crate::layout::Layout;
use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// What the supervisor can be asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "op")]
pub enum Ask {
    /// Boots a node; with files from an earlier boot it is a reboot.
    Boot {
        /// Its name.
        node: String,
        /// On the second link; counts at the first boot.
        #[serde(default)]
        apart: bool,
    },
    /// Cuts a node's power: every process of it is killed at once, its files stay.
    PowerOff {
        /// Its name.
        node: String,
    },
    /// Cuts or mends a node's link.
    Link {
        /// The node.
        node: String,
        /// Mended, not cut.
        up: bool,
    },
    /// The nodes.
    Status,
    /// Ends the lab.
    Quit,
}

/// One running node.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Machine {
    /// Process id of its PID 1, in the host's terms.
    pub pid: i32,
    /// Its address on the lab's link.
    pub address: String,
}

/// The supervisor's answer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Reply {
    /// Why it could not be done.
    #[serde(default)]
    pub error: Option<String>,
    /// Running nodes by name.
    #[serde(default)]
    pub nodes: BTreeMap<String, Machine>,
    /// The host's loopback address on which the API server answers.
    #[serde(default)]
    pub api: String,
    /// The supervisor's process id: commands enter the lab's network through it.
    #[serde(default)]
    pub pid: i32,
}

/// Asks the supervisor of a lab.
///
/// # Errors
/// The lab is not up, or could not do what was asked.
pub fn ask(layout: &Layout, ask: &Ask) -> Result<Reply> {
    let socket = layout.control_socket();
    let answer: Reply =
        exchange(&socket, ask).with_context(|| format!("ask the lab {} (is it up?)", layout.name()))?;
    match answer.error {
        Some(error) => bail!("{error}"),
        None => Ok(answer),
    }
}

/// Asks PID 1 of a node.
///
/// # Errors
/// The node is not running, or PID 1 could not do what was asked.
pub fn ask_init(layout: &Layout, node: &str, ask: &crate::init::Ask) -> Result<crate::init::Reply> {
    let socket = layout.node_path(node, "/run/lab-init.sock");
    let answer: crate::init::Reply = exchange(&socket, ask).with_context(|| format!("ask node {node}"))?;
    match answer.error {
        Some(error) => bail!("node {node}: {error}"),
        None => Ok(answer),
    }
}

fn exchange<A: Serialize, B: DeserializeOwned>(socket: &Path, ask: &A) -> Result<B> {
    let mut stream =
        UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
    writeln!(stream, "{}", serde_json::to_string(ask)?).context("send")?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).context("receive")?;
    serde_json::from_str(&line).with_context(|| format!("parse the answer {line:?}"))
}
