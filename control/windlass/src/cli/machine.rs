//! Flags of the commands about the machine itself and the programs on it.

use crate::output::Output;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// `check`
#[derive(Debug, Args)]
pub(crate) struct CheckFlags {
    /// What the machine is to be
    #[arg(long, value_enum, default_value = "agent")]
    pub(crate) role: CheckRole,
    /// It runs already: its ports are taken by itself
    #[arg(long)]
    pub(crate) running: bool,
    /// Form of what is printed
    #[arg(short, long, value_enum, default_value = "text")]
    pub(crate) output: Output,
}

/// What a machine is looked at for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CheckRole {
    /// A control plane, and a node unless its configuration says otherwise.
    Server,
    /// A node.
    Agent,
}

/// `reset`
#[derive(Debug, Args)]
pub(crate) struct ResetFlags {
    /// Do it: every pod of this machine ends, and what servers and agents keep on it is removed, snapshots in the data directory included
    #[arg(long)]
    pub(crate) yes: bool,
    /// Form of what is printed
    #[arg(short, long, value_enum, default_value = "text")]
    pub(crate) output: Output,
}

/// `upgrade`
#[derive(Debug, Args)]
pub(crate) struct UpgradeFlags {
    /// The release, as `make dist` packs it
    #[arg(long, value_name = "FILE", required_unless_present = "settle")]
    pub(crate) dist: Option<PathBuf>,
    /// Undo an upgrade that was cut short, and nothing else: what units do before they start
    #[arg(long, conflicts_with = "dist")]
    pub(crate) settle: bool,
    /// How long the new programs may take to be ready, such as 5m, before the old ones are back
    #[arg(long, default_value = "5m", value_parser = super::parse_life)]
    pub(crate) timeout: std::time::Duration,
    /// Form of what is printed
    #[arg(short, long, value_enum, default_value = "text")]
    pub(crate) output: Output,
}

/// `version`
#[derive(Debug, Args)]
pub(crate) struct VersionFlags {
    /// Form of what is printed
    #[arg(short, long, value_enum, default_value = "text")]
    pub(crate) output: Output,
}
