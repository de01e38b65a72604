//! The lab's command.

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use lab::control::{self, Ask};
use lab::layout::{Family, IMAGE_HOST, Layout};
use lab::{bench, chaos, image, init, machine, reap, restoring, supervisor, up};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Parser)]
#[command(about = "A cluster of nodes in namespaces on this machine", version)]
struct Cli {
    /// Name of the lab; several may run side by side only with different names [default: default; for bench, chaos and restore their own]
    #[arg(long, global = true)]
    lab: Option<String>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Brings a cluster up and deploys examples/
    Up {
        /// How many nodes; the first are the servers
        #[arg(long, default_value_t = 2)]
        nodes: u8,
        /// How many servers; with more than one, each has a member of etcd beside it
        #[arg(long, default_value_t = 1)]
        servers: u8,
        /// How many nodes, the last ones, are on a link of their own behind a router
        #[arg(long, default_value_t = 0)]
        apart: u8,
        #[command(flatten)]
        around: Around,
        /// Addresses of nodes, pods and Services
        #[arg(long, value_enum, default_value = "ipv4")]
        family: Family,
        /// Leaves examples/ out
        #[arg(long)]
        no_example: bool,
        /// Where the kubeconfig is written
        #[arg(long, default_value = "kubeconfig")]
        kubeconfig: PathBuf,
    },
    /// Starts the lab without nodes
    Bare {
        /// Addresses of its nodes
        #[arg(long, value_enum, default_value = "ipv4")]
        family: Family,
    },
    /// Ends the lab and removes everything it made
    Down,
    /// Boots a node with containerd on it
    Boot { node: String },
    /// Cuts a node's power
    PowerOff { node: String },
    /// Cuts a node's link
    Unplug { node: String },
    /// Mends a node's link
    Plug { node: String },
    /// Sends a signal to a service of a node (`containerd`, `windlass`) or to its `agent`
    Kill {
        node: String,
        service: String,
        #[arg(long, default_value_t = 9)]
        signal: i32,
    },
    /// Stops a service of a node
    Stop { node: String, service: String },
    /// Starts a service on a node: its name, then its program and arguments
    Start {
        node: String,
        service: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        argv: Vec<String>,
    },
    /// Loads an image archive (docker save, OCI) into every node's containerd
    Load { archive: PathBuf },
    /// Writes the image of the lab's workloads as an OCI archive
    Archive { archive: PathBuf },
    /// Runs a command inside a node's namespaces
    Exec {
        node: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        argv: Vec<String>,
    },
    /// Runs a command in the lab's network: it reaches nodes, and through routes pods and services
    Net {
        /// Use this node's network instead (its pods and services are reachable too)
        #[arg(long)]
        node: Option<String>,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        argv: Vec<String>,
    },
    /// Shows the nodes and their services
    Status,
    /// Measures what SPECIFICATION.md promises, on a lab of its own that is taken down afterwards
    Bench {
        /// Only these parts
        parts: Vec<bench::Part>,
        /// Prints JSON
        #[arg(long)]
        json: bool,
        /// Measures this worker of the lab of virtual machines instead, pods and its agent alone (`vagrant/lab bench`)
        #[arg(long, value_name = "NODE", requires = "kubeconfig", conflicts_with = "parts")]
        machine: Option<String>,
        /// How its cluster is reached
        #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
        kubeconfig: Option<PathBuf>,
    },
    /// Breaks one thing after another in a cluster of three servers, on a lab of its own, and looks whether any client notices
    Chaos {
        /// For how long, in minutes
        #[arg(long, default_value_t = 1)]
        minutes: u64,
        #[command(flatten)]
        around: Around,
    },
    /// Saves a server under load, loses its machine, and restores it on another, on a lab of its own
    Restore {
        /// Objects are in etcd, not in the embedded store
        #[arg(long)]
        etcd: bool,
        /// Writes per second while the snapshot is made
        #[arg(long, default_value_t = 500)]
        rate: u32,
    },
    #[command(hide = true)]
    Within {
        #[command(subcommand)]
        what: bench::inside::Within,
    },
    #[command(hide = true)]
    Supervise {
        #[arg(long, value_enum, default_value = "ipv4")]
        family: Family,
    },
    #[command(hide = true)]
    Launch { node: String },
    #[command(hide = true)]
    Init { spec: PathBuf },
}

/// What several servers have around them.
#[derive(Args)]
struct Around {
    /// Several servers are on an etcd that is not theirs
    #[arg(long)]
    external_etcd: bool,
    /// Puts HAProxy before the servers, on a machine of its own
    #[arg(long)]
    balancer: bool,
}

impl Around {
    fn etcd(&self) -> up::Etcd {
        if self.external_etcd { up::Etcd::External } else { up::Etcd::Stacked }
    }
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    if !nix::unistd::geteuid().is_root() {
        bail!("the lab makes namespaces and cgroups: run it as root");
    }
    let usual = match cli.action {
        Action::Bench { .. } => "bench",
        Action::Chaos { .. } => "chaos",
        Action::Restore { .. } => "restore",
        _ => "default",
    };
    let layout = Layout::new(cli.lab.as_deref().unwrap_or(usual));
    match cli.action {
        Action::Up { nodes, servers, apart, around, family, no_example, kubeconfig } => {
            if family == Family::Ipv6 && (around.external_etcd || around.balancer) {
                bail!("etcd and HAProxy of the lab's own have addresses of IPv4");
            }
            if family != Family::Ipv4 && apart > 0 {
                bail!("the link behind the router has addresses of IPv4");
            }
            let programs = programs()?;
            let kubeconfig = std::path::absolute(kubeconfig)?;
            let plan = up::Plan {
                nodes,
                servers,
                apart,
                etcd: around.etcd(),
                balancer: around.balancer,
                family,
                example: !no_example,
                kubeconfig,
                programs,
            };
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?
                .block_on(up::cluster(&layout, &plan))
        }
        Action::Bare { family } => up::supervise(&layout, family).map(drop),
        Action::Down => reap::lab(&layout),
        Action::Boot { node } => up::boot(&layout, &node).map(drop),
        Action::PowerOff { node } => control::ask(&layout, &Ask::PowerOff { node }).map(drop),
        Action::Unplug { node } => control::ask(&layout, &Ask::Link { node, up: false }).map(drop),
        Action::Plug { node } => control::ask(&layout, &Ask::Link { node, up: true }).map(drop),
        Action::Kill { node, service, signal } => kill(&layout, &node, &service, signal),
        Action::Stop { node, service } => {
            control::ask_init(&layout, &node, &init::Ask::Stop { name: service }).map(drop)
        }
        Action::Start { node, service, argv } => {
            let service = init::Service { name: service, argv, env: std::collections::BTreeMap::new() };
            control::ask_init(&layout, &node, &init::Ask::Start(service)).map(drop)
        }
        Action::Load { archive } => load(&layout, &archive),
        Action::Archive { archive } => write_archive(&archive),
        Action::Exec { node, argv } => {
            Err(up::inside_node(&layout, &node, &argv[0])?.args(&argv[1..]).exec()).context("run nsenter")
        }
        Action::Net { node, argv } => net(&layout, node.as_deref(), &argv),
        Action::Status => status(&layout),
        Action::Bench { parts, json, machine, kubeconfig } => match machine.zip(kubeconfig) {
            Some((node, kubeconfig)) => bench::machine::run(&node, &kubeconfig, json),
            None => bench::run(&layout, &bench::Plan { programs: programs()?, parts, json }),
        },
        Action::Within { what } => bench::inside::within(&what),
        Action::Chaos { minutes, around } => {
            let length = std::time::Duration::from_secs(60 * minutes);
            let (etcd, balancer) = (around.etcd(), around.balancer);
            chaos::run(&layout, &chaos::Plan { programs: programs()?, length, etcd, balancer })
        }
        Action::Restore { etcd, rate } => {
            restoring::run(&layout, &restoring::Plan { programs: programs()?, etcd, rate })
        }
        Action::Supervise { family } => supervisor::main(&layout, family),
        Action::Launch { node } => machine::launch(&layout, &node).map(|never| match never {}),
        Action::Init { spec } => init::main(&spec),
    }
}

/// Where this program is, there are the others.
fn programs() -> Result<PathBuf> {
    Ok(std::env::current_exe()?.parent().context("find the programs")?.to_owned())
}

fn kill(layout: &Layout, node: &str, service: &str, signal: i32) -> Result<()> {
    if service != "agent" {
        let ask = init::Ask::Kill { name: service.to_owned(), signal };
        return control::ask_init(layout, node, &ask).map(drop);
    }
    // on the server's node the agent is a child of the server, elsewhere it is the service itself
    let answer = control::ask(layout, &Ask::Status)?;
    let machine = answer.nodes.get(node).with_context(|| format!("node {node} does not run"))?;
    let found = machine::processes(machine, "windlass", "agent")?;
    if found.is_empty() {
        bail!("no agent runs on {node}");
    }
    for pid in found {
        let signal = nix::sys::signal::Signal::try_from(signal).context("unknown signal")?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).context("signal the agent")?;
    }
    Ok(())
}

fn load(layout: &Layout, archive: &Path) -> Result<()> {
    let archive = archive.canonicalize().with_context(|| format!("find {}", archive.display()))?;
    for node in control::ask(layout, &Ask::Status)?.nodes.into_keys() {
        let file = std::fs::File::open(&archive).with_context(|| format!("open {}", archive.display()))?;
        let mut command = up::inside_node(layout, &node, "ctr")?;
        let status = command
            .args(["-n", "k8s.io", "images", "import", "-"])
            .stdin(file)
            .status()
            .context("run ctr")?;
        if !status.success() {
            bail!("load {} on {node}: ctr ended with {status}", archive.display());
        }
    }
    Ok(())
}

fn write_archive(archive: &Path) -> Result<()> {
    let store = archive.with_extension("images");
    let images = image::ImageStore::open(&store)?;
    image::build_standard(&images)?;
    images.archive("echo", "1", &format!("{IMAGE_HOST}/echo:1"), archive)?;
    std::fs::remove_dir_all(&store).with_context(|| format!("remove {}", store.display()))
}

fn net(layout: &Layout, node: Option<&str>, argv: &[String]) -> Result<()> {
    let answer = control::ask(layout, &Ask::Status)?;
    let pid = match node {
        Some(node) => answer.nodes.get(node).with_context(|| format!("node {node} does not run"))?.pid,
        None => answer.pid,
    };
    let error = Command::new("nsenter").args(["-t", &pid.to_string(), "-n", "--"]).args(argv).exec();
    Err(error).context("run nsenter")
}

fn status(layout: &Layout) -> Result<()> {
    let answer = control::ask(layout, &Ask::Status)?;
    println!("API server on https://{}", answer.api);
    for (node, machine) in &answer.nodes {
        let services = control::ask_init(layout, node, &init::Ask::Status)?.services;
        let text: Vec<String> = services
            .iter()
            .map(|(name, pid)| {
                format!("{name} {}", if *pid == 0 { "stopped".into() } else { format!("(pid {pid})") })
            })
            .collect();
        println!("{node}  {}  {}", machine.address, text.join(", "));
    }
    Ok(())
}
