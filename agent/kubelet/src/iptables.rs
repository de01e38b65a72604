//! Chains of iptables by which other programs see that this is a machine of Kubernetes' and which iptables it uses, and the rule that keeps
//! the machine's loopback from the network. Upstream: `kubelet_network_linux.go` and `Monitor` of `pkg/util/iptables`.
//!
//! Woken once at start, and every minute. Reads and writes the chains, by the programs `iptables` and `ip6tables`. Promises: what somebody flushed is
//! back a minute later, if mangle's canary went with it (or at the next start); where there is no such program, or it does not work, nothing is done and nothing fails.

use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// How often the chains are looked for.
const PERIOD: Duration = Duration::from_secs(60);
/// The longest that the program is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// The program waits so long for others of its kind, in seconds.
const WAIT: [&str; 2] = ["-w", "5"];
/// It says by this that a chain is there already, or that a rule or chain is not.
const NO: i32 = 1;
/// It could not have a look.
const BUSY: i32 = 4;

const MANGLE: &str = "mangle";
const NAT: &str = "nat";
const FILTER: &str = "filter";
/// What says which iptables is in use.
const HINT: &str = "KUBE-IPTABLES-HINT";
/// What is gone once somebody has flushed all.
const CANARY: &str = "KUBE-KUBELET-CANARY";
const FIREWALL: &str = "KUBE-FIREWALL";
/// Packets that come from elsewhere, are for the loopback, and are nothing that was asked for.
const MARTIANS: [&str; 16] = [
    "-m",
    "comment",
    "--comment",
    "block incoming localnet connections",
    "--dst",
    "127.0.0.0/8",
    "!",
    "--src",
    "127.0.0.0/8",
    "-m",
    "conntrack",
    "!",
    "--ctstate",
    "RELATED,ESTABLISHED,DNAT",
    "-j",
    "DROP",
];

/// Why a chain or rule could not be made.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("run {}: {source}", .program.display())]
    Run { program: PathBuf, source: io::Error },
    #[error("{} {words}: no end of it", .program.display())]
    Late { program: PathBuf, words: String },
    #[error("{} {words}: {said}", .program.display())]
    Failed { program: PathBuf, words: String, said: String },
}

/// What is to be there.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    Chain { table: &'static str, chain: &'static str },
    Rule { table: &'static str, chain: &'static str, first: bool, words: &'static [&'static str] },
}

/// Of both families,
const BOTH: [Wanted; 1] = [Wanted::Chain { table: MANGLE, chain: HINT }];
/// and of IPv4 alone: what is for the loopback of IPv6 is never taken from elsewhere.
const IPV4: [Wanted; 4] = [
    Wanted::Chain { table: FILTER, chain: FIREWALL },
    Wanted::Rule { table: FILTER, chain: "OUTPUT", first: true, words: &["-j", FIREWALL] },
    Wanted::Rule { table: FILTER, chain: "INPUT", first: true, words: &["-j", FIREWALL] },
    Wanted::Rule { table: FILTER, chain: FIREWALL, first: false, words: &MARTIANS },
];
/// What tells of a flush; the first one is looked for.
const CANARIES: [Wanted; 3] = [
    Wanted::Chain { table: MANGLE, chain: CANARY },
    Wanted::Chain { table: NAT, chain: CANARY },
    Wanted::Chain { table: FILTER, chain: CANARY },
];

/// Keeps the chains, for ever.
pub async fn keep() {
    let of = |program: &str, ipv4| Family { program: program.into(), ipv4 };
    let (v4, v6) = (of("iptables", true), of("ip6tables", false));
    tokio::join!(v4.keep(), v6.keep());
}

/// A family of addresses.
#[derive(Clone, Debug)]
struct Family {
    program: PathBuf,
    ipv4: bool,
}

impl Family {
    async fn keep(&self) {
        let program = self.program.display();
        if let Err(error) = self.run(NAT, "POSTROUTING", "-S", &[]).await {
            tracing::info!(%error, "no {program} on this machine: its chains for other programs are not made");
            return std::future::pending().await;
        }
        // The canary may be an earlier kubelet's, and what it stands for gone: all is looked at until it is whole.
        let mut whole = false;
        loop {
            let round = if whole { self.round().await } else { self.make_all().await.map(|()| true) };
            whole = round.is_ok();
            match round {
                Ok(true) => tracing::info!(%program, "made the chains for other programs"),
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "the chains for other programs are not whole"),
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// Makes what is missing, if the canary is; false where it is there.
    async fn round(&self) -> Result<bool, Error> {
        match self.run(MANGLE, CANARY, "-S", &[]).await {
            Ok(0 | BUSY) => return Ok(false),
            Err(error @ Error::Run { .. }) => return Err(error),
            _ => {}
        }
        self.make_all().await.map(|()| true)
    }

    async fn make_all(&self) -> Result<(), Error> {
        let rules: &[Wanted] = if self.ipv4 { &IPV4 } else { &[] };
        for wanted in BOTH.iter().chain(rules).chain(&CANARIES) {
            self.make(wanted).await?;
        }
        Ok(())
    }

    async fn make(&self, wanted: &Wanted) -> Result<(), Error> {
        let done = match *wanted {
            Wanted::Chain { table, chain } => self.run(table, chain, "-N", &[]).await?,
            Wanted::Rule { table, chain, first, words } => match self.run(table, chain, "-C", words).await? {
                NO => self.must(table, chain, if first { "-I" } else { "-A" }, words).await?,
                done => done,
            },
        };
        tracing::trace!(?wanted, done, "looked after");
        Ok(())
    }

    /// Runs the program, which is to succeed.
    async fn must(&self, table: &str, chain: &str, what: &str, words: &[&str]) -> Result<i32, Error> {
        match self.run(table, chain, what, words).await? {
            0 => Ok(0),
            code => Err(self.failed(&[what, chain, "-t", table], format!("exit status {code}"))),
        }
    }

    /// Runs the program; gives how it ended where that is an answer.
    async fn run(&self, table: &str, chain: &str, what: &str, words: &[&str]) -> Result<i32, Error> {
        let mut command = Command::new(&self.program);
        command.args(WAIT).args([what, chain, "-t", table]).args(words);
        command.stdin(Stdio::null()).kill_on_drop(true);
        let shown = [what, chain, "-t", table];
        let ran = tokio::time::timeout(PATIENCE, command.output()).await;
        let ran = ran.map_err(|_| Error::Late { program: self.program.clone(), words: shown.join(" ") })?;
        let output = ran.map_err(|source| Error::Run { program: self.program.clone(), source })?;
        match (output.status.code(), what) {
            (Some(0), _) => Ok(0),
            // There is no chain to be listed, no rule to be found, or a chain that was to be made.
            (Some(code @ NO), "-C" | "-N") => Ok(code),
            (Some(code @ (NO | BUSY)), "-S") if chain == CANARY => Ok(code),
            (code, _) => {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                let code = code.map_or_else(|| "killed".to_owned(), |code| code.to_string());
                Err(self.failed(&shown, format!("{said} (exit status {code})")))
            }
        }
    }

    fn failed(&self, words: &[&str], said: String) -> Error {
        Error::Failed { program: self.program.clone(), words: words.join(" "), said }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// A program that keeps chains and rules as files of a directory, and writes down what it is told.
    fn family(dir: &Path, ipv4: bool) -> Family {
        let program = dir.join("iptables");
        let text = format!(
            r#"#!/bin/sh
cd {dir} || exit 2
shift 2
echo "$*" >>log
what=$1 chain=$2 table=$4
shift 4
rule=$(echo "$table.$chain.$*" | tr -c 'A-Za-z0-9.\n' _)
case $what in
-S) case $chain in POSTROUTING) exit 0 ;; esac; [ -e "chain.$table.$chain" ] || exit 1 ;;
-N) [ ! -e "chain.$table.$chain" ] || exit 1; touch "chain.$table.$chain" ;;
-C) [ -e "rule.$rule" ] || exit 1 ;;
-I | -A) touch "rule.$rule" ;;
esac
"#,
            dir = dir.display()
        );
        let fresh = dir.join("fresh");
        std::fs::write(&fresh, text).unwrap();
        std::fs::set_permissions(&fresh, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::rename(&fresh, &program).unwrap();
        Family { program, ipv4 }
    }

    fn told(dir: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(dir.join("log")).unwrap_or_default();
        std::fs::remove_file(dir.join("log")).ok();
        text.lines().map(str::to_owned).collect()
    }

    /// Runs rounds; a program that another test's child holds open for a moment cannot be run yet.
    async fn round(family: &Family) -> Result<bool, Error> {
        for _ in 0..100 {
            match family.round().await {
                Err(Error::Run { source, .. }) if source.kind() == io::ErrorKind::ExecutableFileBusy => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                done => return done,
            }
        }
        panic!("it is busy for ever")
    }

    #[tokio::test]
    async fn the_chains_are_upstreams() {
        let dir = tempfile::tempdir().unwrap();
        let family = family(dir.path(), true);
        assert!(round(&family).await.unwrap());
        let martians = "-m comment --comment block incoming localnet connections --dst 127.0.0.0/8 ! --src 127.0.0.0/8 \
                        -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP";
        let want = [
            "-S KUBE-KUBELET-CANARY -t mangle".to_owned(),
            "-N KUBE-IPTABLES-HINT -t mangle".to_owned(),
            "-N KUBE-FIREWALL -t filter".to_owned(),
            "-C OUTPUT -t filter -j KUBE-FIREWALL".to_owned(),
            "-I OUTPUT -t filter -j KUBE-FIREWALL".to_owned(),
            "-C INPUT -t filter -j KUBE-FIREWALL".to_owned(),
            "-I INPUT -t filter -j KUBE-FIREWALL".to_owned(),
            format!("-C KUBE-FIREWALL -t filter {martians}"),
            format!("-A KUBE-FIREWALL -t filter {martians}"),
            "-N KUBE-KUBELET-CANARY -t mangle".to_owned(),
            "-N KUBE-KUBELET-CANARY -t nat".to_owned(),
            "-N KUBE-KUBELET-CANARY -t filter".to_owned(),
        ];
        assert_eq!(told(dir.path()), want);
        assert!(!round(&family).await.unwrap());
        assert_eq!(told(dir.path()).len(), 1, "what is there is looked at, and no more");
    }

    #[tokio::test]
    async fn what_somebody_flushed_must_not_stay_away() {
        let dir = tempfile::tempdir().unwrap();
        let family = family(dir.path(), true);
        round(&family).await.unwrap();
        for name in ["chain.mangle.KUBE-KUBELET-CANARY", "chain.filter.KUBE-FIREWALL"] {
            std::fs::remove_file(dir.path().join(name)).unwrap();
        }
        told(dir.path());
        assert!(round(&family).await.unwrap());
        let told = told(dir.path());
        assert!(told.iter().any(|line| line == "-N KUBE-FIREWALL -t filter"));
        assert!(
            !told.iter().any(|line| line.starts_with("-I")),
            "a rule that is there must not be made twice"
        );
    }

    #[tokio::test]
    async fn the_other_family_has_the_hint_alone() {
        let dir = tempfile::tempdir().unwrap();
        round(&family(dir.path(), false)).await.unwrap();
        assert!(!told(dir.path()).iter().any(|line| line.contains("FIREWALL")));
    }

    #[tokio::test]
    async fn a_machine_without_the_program_must_not_fail() {
        let dir = tempfile::tempdir().unwrap();
        let family = Family { program: dir.path().join("none"), ipv4: true };
        assert!(matches!(family.round().await, Err(Error::Run { .. })));
        let kept = tokio::time::timeout(Duration::from_millis(50), family.keep()).await;
        assert!(kept.is_err(), "it rests");
    }
}
