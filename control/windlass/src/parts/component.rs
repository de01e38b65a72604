//! Parts as programs: `windlass scheduler`, or by the name the program is called by (`kube-scheduler`).

use super::{apiserver, controllers, dns, kubelet, network, proxy, scheduler};
use crate::cli::{LogFormat, Logging};
use crate::flags::{Flags, Table};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use std::path::Path;
use std::process::ExitCode;

type Run = fn(Flags) -> BoxFuture<'static, anyhow::Result<()>>;

/// A part that can be a program.
pub(crate) struct Component {
    /// Upstream's name: what the program may be called by.
    pub(crate) name: &'static str,
    /// Our command.
    pub(crate) command: &'static str,
    /// Its table of flags.
    pub(crate) flags: &'static str,
    run: Run,
}

pub(crate) const COMPONENTS: [Component; 7] = [
    Component {
        name: "kube-apiserver",
        command: "apiserver",
        flags: include_str!("../../data/flags/kube-apiserver.txt"),
        run: |flags| apiserver::alone::run(flags).boxed(),
    },
    Component {
        name: "kube-scheduler",
        command: "scheduler",
        flags: include_str!("../../data/flags/kube-scheduler.txt"),
        run: |flags| scheduler::run(flags).boxed(),
    },
    Component {
        name: "kube-controller-manager",
        command: "controllers",
        flags: include_str!("../../data/flags/kube-controller-manager.txt"),
        run: |flags| controllers::run(flags).boxed(),
    },
    Component {
        name: "kubelet",
        command: "kubelet",
        flags: include_str!("../../data/flags/kubelet.txt"),
        run: |flags| kubelet::run(flags).boxed(),
    },
    Component {
        name: "kube-proxy",
        command: "proxy",
        flags: include_str!("../../data/flags/kube-proxy.txt"),
        run: |flags| proxy::run(flags).boxed(),
    },
    Component {
        name: "windlass-dns",
        command: "dns",
        flags: include_str!("../../data/flags/windlass-dns.txt"),
        run: |flags| dns::run(flags).boxed(),
    },
    Component {
        name: "windlass-network",
        command: "network",
        flags: include_str!("../../data/flags/windlass-network.txt"),
        run: |flags| network::run(flags).boxed(),
    },
];

/// klog's verbosities from which on we say more.
const DEBUG: i64 = 4;
const TRACE: i64 = 6;

impl Component {
    /// The part of a name, upstream's or ours.
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        COMPONENTS.iter().find(|component| component.name == name || component.command == name)
    }

    /// The part a whole command line is of, and its flags: by the program's own name or by the first word.
    pub(crate) fn of(line: &[String]) -> Option<(&'static Self, &[String])> {
        let (program, rest) = line.split_first()?;
        let called = Path::new(program).file_name()?.to_str()?;
        if let Some(component) = COMPONENTS.iter().find(|component| component.name == called) {
            return Some((component, rest));
        }
        let (command, rest) = rest.split_first()?;
        Some((Self::named(command)?, rest))
    }

    pub(crate) fn table(&self) -> Table {
        Table::read(self.name, self.flags)
    }

    /// Reads the flags; `Err` with what the program ends with where there is nothing to run.
    pub(crate) fn flags(&self, arguments: &[String]) -> Result<Flags, ExitCode> {
        let table = self.table();
        match table.parse(arguments) {
            Ok(flags) if flags.bool("help") == Some(true) => {
                print!("{}", table.help());
                Err(ExitCode::SUCCESS)
            }
            Ok(flags) if flags.bool("version") == Some(true) => {
                println!("Kubernetes {}", crate::version::KUBERNETES);
                Err(ExitCode::SUCCESS)
            }
            Ok(flags) => Ok(flags),
            Err(error) => {
                eprintln!("Error: {error}");
                Err(ExitCode::FAILURE)
            }
        }
    }

    /// Runs until a signal.
    pub(crate) async fn run(&self, flags: Flags) -> anyhow::Result<()> {
        flags.warn();
        (self.run)(flags).await
    }
}

/// How much is logged by `--v`, and how by `--logging-format`.
pub(crate) fn logging(flags: &Flags) -> Logging {
    let level = match flags.int("v").unwrap_or_default() {
        TRACE.. => Some("trace"),
        DEBUG.. => Some("debug"),
        _ => None,
    };
    let log_level = level.map(str::to_owned).or_else(|| std::env::var("RUST_LOG").ok());
    let json = flags.text("logging-format") == Some("json");
    Logging { log_level, log_format: if json { LogFormat::Json } else { LogFormat::Text } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Option<(&'static str, Vec<String>)> {
        let line: Vec<String> = line.split(' ').map(str::to_owned).collect();
        Component::of(&line).map(|(component, rest)| (component.name, rest.to_vec()))
    }

    #[test]
    fn a_part_is_known_by_the_programs_name_or_by_its_command() {
        let flags = vec!["--leader-elect=false".to_owned()];
        for line in ["/usr/bin/kube-scheduler", "windlass scheduler", "/x/windlass kube-scheduler"] {
            let expected = Some(("kube-scheduler", flags.clone()));
            assert_eq!(of(&format!("{line} --leader-elect=false")), expected, "{line}");
        }
        for line in ["windlass server --kubelet-config=/x", "windlass", "windlass token create", "scheduler"]
        {
            assert_eq!(of(line), None, "{line}");
        }
    }
}
