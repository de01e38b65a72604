//! The program `windlass`: parses its settings, assembles the parts, and runs them until it is asked to stop.
//!
//! - `cli`: commands and flags; `settings`: flags over environment over file over defaults; `logging`; `signals`
//! - `server`: the control plane and its child, the agent; `agent`: a node
//! - `parts`: what a control plane is made of, one way to build each
//! - `flags`, `component_config`: flags and configuration files as upstream's components take them
//! - `member`: the etcd members beside servers
//! - `notify`: what systemd is told; `lock`: one program a data directory; `watched`: files that others change; `memory`: what is freed is given back
//! - `snapshot`: a cluster saved and restored; `check`, `reset`, `upgrade`: the machine itself and the programs on it
//! - `token`, `kubeconfig`, `certs`, `version`: commands that answer and end; `output`: their text and JSON

#![warn(unreachable_pub)]

mod agent;
mod certs;
mod check;
mod child;
mod cli;
mod component_config;
mod flags;
mod kubeconfig;
mod lock;
mod logging;
mod member;
mod memory;
mod notify;
mod output;
mod parts;
mod program;
mod ranges;
mod reset;
mod server;
mod settings;
mod signals;
mod snapshot;
mod token;
mod upgrade;
mod version;
mod watched;

use clap::Parser as _;
use cli::{Cli, Command};
use parts::component::{self, Component};
use std::process::ExitCode;

fn main() -> ExitCode {
    // Whoever started us may have left signals blocked; a blocked SIGTERM would make us, and the agent that is to die with
    // the server, impossible to stop. Before any thread, which inherits the mask. It cannot fail with a valid set.
    let _ = nix::sys::signal::SigSet::all().thread_unblock();
    memory::bound_arenas();
    let line: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    if let Some((component, arguments)) = Component::of(&line) {
        return match component.flags(arguments) {
            Ok(flags) => {
                logging::start(&component::logging(&flags));
                ended(running(memory::beside(Box::pin(component.run(flags)))))
            }
            Err(code) => code,
        };
    }
    let cli = Cli::parse();
    logging::start(&cli.logging);
    ended(run(cli))
}

fn ended(done: anyhow::Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs what a program is for.
fn running(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    // Fails only when a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(work);
    // A blocking call that hangs (a dead mount) must not keep the program alive.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    done
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let file = cli.config;
    running(async {
        match cli.command {
            Command::Server(flags) => {
                memory::beside(Box::pin(server::run(settings::merge(*flags, &file)?))).await
            }
            Command::Agent(flags) => {
                memory::beside(Box::pin(agent::run(settings::merge(flags.normalised(), &file)?))).await
            }
            Command::Token(command) => Box::pin(token::run(command)).await,
            Command::Snapshot(command) => Box::pin(snapshot::run(command)).await,
            Command::Member(command) => Box::pin(member::command::run(command)).await,
            Command::Kubeconfig(flags) => kubeconfig::run(&flags),
            Command::Certs(command) => Box::pin(certs::run(&command)).await,
            Command::Check(flags) => Box::pin(check::run(&flags, &file)).await,
            Command::Reset(flags) => Box::pin(reset::run(&flags, &file)).await,
            Command::Upgrade(flags) => Box::pin(upgrade::run(&flags)).await,
            Command::Version(flags) => version::run(flags.output),
            Command::Exec(flags) => child::exec(&flags),
        }
    })
}
