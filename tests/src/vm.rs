//! A machine of the lab of virtual machines (`vagrant/lab`): commands over SSH, its power cut and given back. What asks is in the machines' network.

use crate::patience::eventually;
use anyhow::{Context as _, Result, anyhow, ensure};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::process::Command;

/// The variable that names the lab's folder; without it there is no such lab.
const FOLDER: &str = "WINDLASS_MACHINES";
/// The variable that names the lab's command.
const COMMAND: &str = "WINDLASS_LAB";
/// For how long a command may run.
const PATIENCE: Duration = Duration::from_secs(300);
/// From a machine's start to SSH, emulated.
const BOOT: Duration = Duration::from_secs(360);

/// One machine.
#[derive(Clone, Debug)]
pub struct Vm {
    /// Its name, which is its node's.
    pub name: String,
    lab: PathBuf,
}

/// The lab's folder, where there is a lab.
#[must_use]
pub fn folder() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

impl Vm {
    /// The machine `name` of the lab in `folder`.
    #[must_use]
    pub fn new(folder: &Path, name: &str) -> Self {
        Self { name: name.to_owned(), lab: folder.to_owned() }
    }

    /// Runs a shell script as root, whatever comes of it.
    ///
    /// # Errors
    /// `ssh` cannot be run, or does not end.
    pub async fn output(&self, script: &str) -> Result<Output> {
        let quoted = script.replace('\'', r"'\''");
        let mut command = Command::new("ssh");
        command
            .arg("-F")
            .arg(self.lab.join("ssh_config"))
            .args([&self.name, &format!("sudo -n sh -c '{quoted}'")])
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = tokio::time::timeout(PATIENCE, command.output()).await;
        output.map_err(|_| anyhow!("{}: `{script}` does not end", self.name))?.context("run ssh")
    }

    /// Runs a shell script as root and gives its standard output.
    ///
    /// # Errors
    /// As [`Self::output`], and where its status is not 0: with what it said.
    pub async fn run(&self, script: &str) -> Result<String> {
        let output = self.output(script).await?;
        ensure!(
            output.status.success(),
            "{}: `{script}` ended with {}: {}{}",
            self.name,
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Pulls the plug.
    ///
    /// # Errors
    /// The lab's command fails.
    pub async fn power_off(&self) -> Result<()> {
        self.ask("power-off").await
    }

    /// Starts it and waits for SSH.
    ///
    /// # Errors
    /// The lab's command fails.
    pub async fn power_on(&self) -> Result<()> {
        self.ask("boot").await
    }

    async fn ask(&self, verb: &str) -> Result<()> {
        let lab = std::env::var_os(COMMAND).with_context(|| format!("{COMMAND} is not set"))?;
        let output = Command::new(lab).args([verb, &self.name]).stdin(Stdio::null()).output();
        let output = output.await.context("run the lab's command")?;
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        ensure!(output.status.success(), "{verb} {}: {}", self.name, said.concat());
        Ok(())
    }

    /// What is new with every start.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn boot_id(&self) -> Result<String> {
        Ok(self.run("cat /proc/sys/kernel/random/boot_id").await?.trim().to_owned())
    }

    /// Waits until it answers, started anew since `boot_id`.
    ///
    /// # Errors
    /// It does not.
    pub async fn started_after(&self, boot_id: &str) -> Result<()> {
        let look = async || match self.boot_id().await {
            Ok(now) if now != boot_id => Ok(()),
            Ok(_) => Err("it has not gone down".to_owned()),
            Err(error) => Err(format!("{error:#}")),
        };
        eventually(&format!("{} starts", self.name), BOOT, look).await.map_err(|error| anyhow!(error))
    }
}
