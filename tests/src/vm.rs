//! A machine of the lab of virtual machines (`vagrant/lab`): commands over SSH, its power cut and given back. What asks is in the machines' network.

use crate::patience::eventually;
use anyhow::{Context as _, Result, anyhow, ensure};
use std::collections::BTreeSet;
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
const BOOT: Duration = Duration::from_secs(600);

/// What lists a machine, line by line.
const LISTING: &str = include_str!("../../vagrant/listing");
/// Settings that the kernel has while it has a module, which may stay.
const OF_MODULES: [&str; 4] =
    ["sysctl net.netfilter.", "sysctl net.nf_conntrack", "sysctl net.bridge.", "sysctl net.ipv4.vs."];

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

/// The names of the machines of the lab in `folder`, the server first.
///
/// # Errors
/// The lab was not brought up, or by an older lab.
pub fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(folder.join("before")).context("no machines are listed")?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names: Vec<String> = names.collect::<Result<_>>()?;
    names.sort_by_key(|name| (name.len(), name.clone()));
    Ok(names)
}

/// Lines of a listing that are gone (`- `) or new (`+ `) in another; what the kernel says only while it has a module is not new.
fn differences(before: &str, after: &str) -> Vec<String> {
    let [before, after]: [BTreeSet<&str>; 2] = [before, after].map(|text| text.lines().collect());
    let gone = before.difference(&after).map(|line| format!("- {line}"));
    let of_module = |line: &str| OF_MODULES.iter().any(|begin| line.starts_with(begin));
    // Two values of one key are a change, whoever brought the key.
    let key = |line: &str| line.split('=').next().map(str::to_owned);
    let keys: BTreeSet<Option<String>> = before.iter().map(|line| key(line)).collect();
    let new = after.difference(&before).filter(|line| !of_module(line) || keys.contains(&key(line)));
    gone.chain(new.map(|line| format!("+ {line}"))).collect()
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

    /// How it differs from what it was before anything was installed.
    ///
    /// # Errors
    /// It does not answer, or was not listed then.
    pub async fn differences(&self) -> Result<Vec<String>> {
        let path = self.lab.join("before").join(&self.name);
        let before = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Ok(differences(&before, &self.run(LISTING).await?))
    }

    /// Its address among the machines.
    ///
    /// # Errors
    /// The lab's configuration of SSH does not name it.
    pub fn address(&self) -> Result<String> {
        let text =
            std::fs::read_to_string(self.lab.join("ssh_config")).context("read the lab's ssh_config")?;
        let host = format!("Host {}", self.name);
        let mut lines = text.lines().skip_while(|line| *line != host).skip(1);
        let address = lines.find_map(|line| line.trim().strip_prefix("HostName "));
        address.map(str::to_owned).with_context(|| format!("ssh_config has no {}", self.name))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_or_lost_is_told() {
        let before =
            "file /etc/a x\nsysctl net.ipv4.ip_forward = 0\nsysctl net.netfilter.nf_conntrack_max = 1\n";
        assert!(differences(before, before).is_empty());
        let after =
            "file /etc/b x\nsysctl net.ipv4.ip_forward = 1\nsysctl net.netfilter.nf_conntrack_max = 2\n";
        let wanted = [
            "- file /etc/a x",
            "- sysctl net.ipv4.ip_forward = 0",
            "- sysctl net.netfilter.nf_conntrack_max = 1",
            "+ file /etc/b x",
            "+ sysctl net.ipv4.ip_forward = 1",
            "+ sysctl net.netfilter.nf_conntrack_max = 2",
        ];
        assert_eq!(differences(before, after), wanted);
    }

    #[test]
    fn settings_of_a_module_that_stays_are_nobodys_leftover() {
        let after = "sysctl net.bridge.bridge-nf-call-iptables = 1\nsysctl net.ipv4.ip_forward = 1\n";
        assert_eq!(differences("", after), ["+ sysctl net.ipv4.ip_forward = 1"]);
    }
}
