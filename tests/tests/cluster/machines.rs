//! The cluster on virtual machines: real systemd, cgroup v2, a newer containerd, installed by `install.sh` (`make vagrant-test`). Each test waits for what
//! the one before it has left; the last but one takes Windlass off the machines, and the last begins anew on one of them. Without machines each says that
//! it is skipped.

mod a_install;
mod b_faults;
mod limits;
mod power;
mod servers;
mod upgrade;
mod volumes;
mod y_clock;
mod z_uninstall;
mod zz_interrupted;

use crate::harness::{Namespace, cluster, eventually};
use anyhow::{Context as _, Result, anyhow, ensure};
use lab::vm::{self, Vm};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How many of the machines are servers; `vagrant/lab` sets it.
const SERVERS: &str = "SERVERS";

/// The machines: the servers, and a worker or more.
pub struct Machines {
    folder: PathBuf,
    pub all: Vec<Vm>,
    /// Theirs, in the same order.
    pub addresses: Vec<String>,
    /// How many of them, from the first, are servers.
    servers: usize,
}

impl Machines {
    pub fn server(&self) -> &Vm {
        &self.all[0]
    }

    pub fn servers(&self) -> &[Vm] {
        &self.all[..self.servers]
    }

    pub fn workers(&self) -> &[Vm] {
        &self.all[self.servers..]
    }

    /// The worker that is shut down, cut off and set up anew.
    pub fn victim(&self) -> &Vm {
        &self.all[self.all.len() - 1]
    }

    /// Another one than that, on which pods stay.
    pub fn steady(&self) -> &Vm {
        &self.all[self.all.len() - 2]
    }

    /// `server` or `agent`.
    pub fn role(&self, vm: &Vm) -> &'static str {
        if self.servers().iter().any(|server| server.name == vm.name) { "server" } else { "agent" }
    }

    pub fn unit(&self, vm: &Vm) -> String {
        format!("windlass-{}.service", self.role(vm))
    }

    /// Adds a line to the seconds of each step.
    pub fn took(&self, what: &str, since: Instant) -> Result<()> {
        let line = format!("{:7.1} s  {what}", since.elapsed().as_secs_f32());
        println!("{line}");
        let file = std::fs::OpenOptions::new().append(true).create(true).open(self.folder.join("seconds"));
        Ok(writeln!(file?, "{line}")?)
    }
}

/// Runs a test on the machines of the cluster, and notes how long it took.
fn on_machines(name: &str, work: impl AsyncFnOnce(&Machines) -> Result<()>) {
    let find = |folder: PathBuf| {
        cluster();
        let of_nodes = |path: &str| {
            let path = format!("jsonpath={{.items[*]{path}}}");
            // after the test that moves the machines' clocks, the server's certificate is of the future here
            let text = cluster().kubectl(&["--insecure-skip-tls-verify", "get", "nodes", "-o", &path]);
            text.split(' ').map(str::to_owned).collect::<Vec<_>>()
        };
        let all: Vec<Vm> = of_nodes(".metadata.name").iter().map(|name| Vm::new(&folder, name)).collect();
        let addresses = of_nodes(".status.addresses[?(@.type=='InternalIP')].address");
        assert!(all.len() > 1, "a server and a worker: {all:?}");
        Machines { folder, all, addresses, servers: servers() }
    };
    on(name, find, work);
}

/// The same where there need be no cluster.
fn on_bare_machines(name: &str, work: impl AsyncFnOnce(&Machines) -> Result<()>) {
    let find = |folder: PathBuf| {
        let names = vm::names(&folder).unwrap();
        let all: Vec<Vm> = names.iter().map(|name| Vm::new(&folder, name)).collect();
        let addresses = all.iter().map(|vm| vm.address().unwrap()).collect();
        Machines { folder, all, addresses, servers: servers() }
    };
    on(name, find, work);
}

fn servers() -> usize {
    std::env::var(SERVERS).ok().and_then(|servers| servers.parse().ok()).unwrap_or(1)
}

fn on(name: &str, find: impl FnOnce(PathBuf) -> Machines, work: impl AsyncFnOnce(&Machines) -> Result<()>) {
    let Some(folder) = vm::folder() else {
        println!("skipped: there are no virtual machines; `make vagrant-test` has them");
        return;
    };
    let machines = find(folder);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let began = Instant::now();
    if let Err(error) = runtime.block_on(work(&machines)) {
        panic!("{name}: {error:#}");
    }
    machines.took(name, began).unwrap();
}

/// Does something on all machines at once; with the name of the machine where that fails.
async fn each(machines: &[Vm], work: impl AsyncFn(&Vm) -> Result<()>) -> Result<()> {
    let all = machines.iter().map(|vm| {
        let done = work(vm);
        async move { done.await.with_context(|| vm.name.clone()) }
    });
    futures::future::try_join_all(all).await.map(drop)
}

/// Waits until every node is ready again.
fn all_ready(seconds: u64) {
    eventually("every node is ready", seconds, || {
        let path = "jsonpath={range .items[*]}{.metadata.name}={.status.conditions[?(@.type=='Ready')].status} {end}";
        let out = cluster().kubectl_output(&["get", "nodes", "-o", path]);
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let ready = out.status.success() && text.split_whitespace().all(|node| node.ends_with("=True"));
        if ready { Ok(()) } else { Err(text + &String::from_utf8_lossy(&out.stderr)) }
    });
}

/// Waits until what earlier tests had is gone, pods and their containers included.
fn nothing_ends() {
    eventually("namespaces of earlier tests are gone", 300, || {
        let ending = "jsonpath={.items[?(@.status.phase=='Terminating')].metadata.name}";
        let ending = cluster().kubectl(&["get", "namespaces", "-o", ending]);
        if ending.is_empty() { Ok(()) } else { Err(ending) }
    });
}

/// `count` echo pods spread over all nodes, whom the loss of a node moves after five seconds, behind a Service.
fn spread(namespace: &Namespace<'_>, name: &str, count: u32) {
    let manifest = crate::harness::echo(name, count).replace(
        "      terminationGracePeriodSeconds: 2\n",
        &format!(
            "      terminationGracePeriodSeconds: 2
      tolerations:
      - {{ key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 5 }}
      - {{ key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 5 }}
      topologySpreadConstraints:
      - {{ maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {{ matchLabels: {{ app: {name} }} }} }}
"
        ),
    );
    namespace.apply(&manifest);
    namespace.kubectl(&["rollout", "status", &format!("deployment/{name}"), "--timeout=300s"]);
}

/// Addresses that a machine's pods hold on their bridge, and the pods that the API knows there: one for each.
async fn no_address_is_leaked(vm: &Vm) -> Result<()> {
    let look = async || {
        // a file a lease; those of earlier starts are free for the taking
        let script = "cd /var/lib/cni/networks/windlass && grep -l $(cat /proc/sys/kernel/random/boot_id) [0-9]* | wc -l";
        let leases = vm.run(script).await;
        let leases = leases.map_err(|error| format!("{error:#}"))?;
        let path = "jsonpath={range .items[*]}{.spec.hostNetwork}|{.status.podIP}{'\\n'}{end}";
        let selector = format!("spec.nodeName={},status.phase!=Succeeded,status.phase!=Failed", vm.name);
        let pods = cluster().kubectl(&["get", "pods", "-A", "--field-selector", &selector, "-o", path]);
        let pods = pods.lines().filter(|line| line.starts_with('|') && line.len() > 1).count();
        if leases.trim() == pods.to_string() {
            Ok(())
        } else {
            Err(format!("{} leases for {pods} pods on {}", leases.trim(), vm.name))
        }
    };
    let patience = Duration::from_secs(90);
    lab::patience::eventually("a lease a pod", patience, look).await.map_err(|error| anyhow!(error))
}

/// What a JSON path says of all pods of a label, sorted.
fn of_pods(namespace: &Namespace<'_>, name: &str, path: &str) -> Vec<String> {
    let path = format!("jsonpath={{range .items[*]}}{path}{{'\\n'}}{{end}}");
    let text = namespace.kubectl(&["get", "pods", "-l", &format!("app={name}"), "-o", &path]);
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Asks `count` times by a node's address, each time over a connection of its own; every request must be answered.
async fn answers(address: &str, port: &str, count: u32) -> Result<()> {
    for _ in 0..count {
        let said = tokio::time::timeout(Duration::from_secs(10), ask(address, port)).await;
        let said = said.with_context(|| format!("{address}:{port} does not answer"))?;
        ensure!(said?.contains("200 OK"), "{address}:{port} has another answer");
    }
    Ok(())
}

async fn ask(address: &str, port: &str) -> Result<String> {
    let mut stream = TcpStream::connect(format!("{address}:{port}")).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").await?;
    let mut said = String::new();
    stream.read_to_string(&mut said).await?;
    Ok(said)
}
