//! Bringing a cluster up: each step is said when it is done, a failure names the node, the step and the log to read.
//!
//! - [`etcd`]: an etcd that is not the servers' own; [`balancer`]: HAProxy before the servers

mod balancer;
pub mod etcd;

use crate::control::{self, Ask, Reply};
use crate::init::{self, Service};
use crate::layout::{Family, KUBELET_CONFIG, Layout, apart_address, node_address};
use crate::reap;
use crate::shell::{self, inside};
use anyhow::{Context, Result, anyhow, bail};
use k8s_openapi::api::core::v1::Node;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{Condition, await_condition};
use kube::{Api, Client, Config};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a node may take from boot to Ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the example may take until it answers.
const EXAMPLE_TIMEOUT: Duration = Duration::from_secs(120);

/// Where several servers keep their objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Etcd {
    /// Each server runs a member.
    #[default]
    Stacked,
    /// Members that are services of their own, whom the servers only know by their URLs.
    External,
    /// One server runs a member as well, as the first of several would.
    Alone,
}

/// What to bring up.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many nodes; the first are the servers.
    pub nodes: u8,
    /// How many servers.
    pub servers: u8,
    /// How many nodes, the last ones and no servers, are on a link of their own behind a router.
    pub apart: u8,
    /// Where they keep their objects if there are several.
    pub etcd: Etcd,
    /// Whether HAProxy stands before them, on a machine after the last node.
    pub balancer: bool,
    /// Addresses of which families nodes, pods and Services have.
    pub family: Family,
    /// Whether `examples/` is deployed.
    pub example: bool,
    /// Where the kubeconfig goes.
    pub kubeconfig: PathBuf,
    /// Folder of the programs `windlass` and `windlass-cni`.
    pub programs: PathBuf,
}

impl Plan {
    fn machines(&self) -> u8 {
        self.nodes.max(self.servers)
    }

    /// Whether the `index`-th node is on the second link.
    fn is_apart(&self, index: u8) -> bool {
        index > self.servers.max(1) && index <= self.nodes && index + self.apart > self.nodes
    }

    /// The address of the `index`-th node.
    fn address(&self, index: u8) -> String {
        if self.is_apart(index) { apart_address(index) } else { node_address(index) }
    }

    /// The address of HAProxy's machine.
    #[must_use]
    pub fn balancer_address(&self) -> Option<String> {
        self.balancer.then(|| node_address(self.machines() + 1))
    }

    /// What every server is started with to find its objects, the first one to begin.
    fn storage(&self, first: bool) -> Vec<String> {
        match self.etcd {
            Etcd::Alone if first => vec!["--cluster-init".to_owned()],
            _ if self.servers < 2 => Vec::new(),
            Etcd::Stacked if first => vec!["--cluster-init".to_owned()],
            Etcd::Stacked | Etcd::Alone => Vec::new(),
            Etcd::External => vec!["--etcd-servers".to_owned(), etcd::urls(self.servers)],
        }
    }
}

/// Prints each step with the time since the start.
pub struct Progress(Instant);

impl Progress {
    /// Starts the clock.
    #[must_use]
    pub fn new() -> Self {
        Self(Instant::now())
    }

    /// Says that something is done.
    pub fn done(&self, what: &str) {
        eprintln!("{:6.1}s  {what}", self.0.elapsed().as_secs_f32());
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

/// The name of the `index`-th node, from 1.
#[must_use]
pub fn node_name(index: u8) -> String {
    format!("n{index}")
}

/// Removes what an earlier lab left, then starts the supervisor.
///
/// # Errors
/// The remains cannot be removed, or the supervisor does not answer.
pub fn supervise(layout: &Layout, family: Family) -> Result<Reply> {
    reap::lab(layout).context("remove what an earlier lab left")?;
    fs::create_dir_all(layout.root()).with_context(|| format!("make {}", layout.root().display()))?;
    let log_path = layout.supervisor_log();
    let log = fs::File::create(&log_path).with_context(|| format!("make {}", log_path.display()))?;
    let mut child = Command::new("setsid")
        .arg(std::env::current_exe().context("find this program")?)
        .args(["--lab", layout.name(), "supervise", "--family", family.name()])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("start the supervisor")?;
    let started = Instant::now();
    loop {
        if let Ok(answer) = control::ask(layout, &Ask::Status) {
            return Ok(answer);
        }
        if let Some(status) = child.try_wait()? {
            bail!("the lab's supervisor ended ({status}): {}", tail(&log_path));
        }
        if started.elapsed() > Duration::from_secs(20) {
            bail!("the lab's supervisor does not answer; read {}", log_path.display());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Boots a node and starts containerd on it.
///
/// # Errors
/// The node does not boot or containerd does not start.
pub fn boot(layout: &Layout, node: &str) -> Result<Reply> {
    boot_on(layout, node, false)
}

/// As [`boot`]; `apart`: on the second link.
fn boot_on(layout: &Layout, node: &str, apart: bool) -> Result<Reply> {
    let answer = control::ask(layout, &Ask::Boot { node: node.to_owned(), apart })
        .with_context(|| format!("boot {node}"))?;
    let service =
        Service { name: "containerd".into(), argv: vec!["containerd".into()], env: BTreeMap::new() };
    control::ask_init(layout, node, &init::Ask::Start(service))
        .with_context(|| format!("start containerd on {node}"))?;
    Ok(answer)
}

/// Brings the whole cluster up.
///
/// # Errors
/// The first step that failed, with the log to read.
pub async fn cluster(layout: &Layout, plan: &Plan) -> Result<()> {
    let progress = Progress::new();
    let answer = supervise(layout, plan.family)?;
    progress.done("the lab's network, registry and images are there");
    let nodes = plan.machines();
    for index in 1..=nodes + u8::from(plan.balancer) {
        boot_on(layout, &node_name(index), plan.is_apart(index))?;
    }
    if plan.balancer {
        balancer::start(layout, nodes + 1, plan.servers)?;
    }
    if plan.servers > 1 && plan.etcd == Etcd::External {
        etcd::start(layout, plan.servers)?;
    }
    progress.done(&format!("{} booted, containerd starts", count(nodes, "node")));
    let (server, token) = (node_name(1), token()?);
    start_server(layout, plan, &token)?;
    let client = admin_client(layout, plan, &server, &answer.api).await?;
    progress.done(&format!(
        "the API server answers on {}; kubeconfig {}",
        answer.api,
        plan.kubeconfig.display()
    ));
    if plan.servers > 1 {
        let token = server_token(layout, plan, &server)?;
        for index in 2..=plan.servers {
            start_another_server(layout, plan, index, &token)?;
            await_ready(&client, &node_name(index)).await.with_context(|| {
                let log = layout.node_log(&node_name(index), "windlass");
                format!("wait for server {} to join; read {}", node_name(index), log.display())
            })?;
        }
        let etcd =
            if plan.etcd == Etcd::External { "on an etcd of others" } else { "each with a member of etcd" };
        progress.done(&format!("{}, {etcd}", count(plan.servers, "server")));
    }
    if nodes > plan.servers.max(1) {
        let token = join_token(layout, plan, &server)?;
        for index in plan.servers.max(1) + 1..=nodes {
            start_agent(layout, plan, index, &token)?;
        }
    }
    for index in 1..=nodes {
        let node = node_name(index);
        await_ready(&client, &node).await.with_context(|| {
            format!("wait for node {node} to be Ready; read {}", layout.node_log(&node, "windlass").display())
        })?;
        progress.done(&format!("node {node} is Ready"));
    }
    if plan.example {
        example(layout, plan)?;
        progress.done("the example answers through its Service");
        show(plan)?;
    }
    println!("\nGo on with:  kubectl --kubeconfig {} get pods -A", plan.kubeconfig.display());
    Ok(())
}

fn count(number: u8, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// A new token for [`start_server`].
///
/// # Errors
/// The kernel gives no random numbers.
pub fn token() -> Result<String> {
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid").context("make a token")?;
    let hex: String = uuid.chars().filter(char::is_ascii_hexdigit).collect();
    Ok(format!("{}.{}", &hex[..6], &hex[6..22]))
}

fn server_arguments(plan: &Plan, index: u8, token: &str) -> Vec<String> {
    let mut arguments = vec![
        "server".to_owned(),
        format!("--node-ip={}", plan.family.addresses(index).join(",")),
        format!("--node-name={}", node_name(index)),
        "--tls-san=127.0.0.1".to_owned(),
        format!("--token={token}"),
        format!("--kubelet-config={KUBELET_CONFIG}"),
    ];
    arguments.extend(plan.balancer_address().map(|address| format!("--tls-san={address}")));
    arguments.extend(plan.storage(index == 1));
    arguments.extend(plan.family.ranges().iter().map(|range| (*range).to_owned()));
    arguments
}

/// An agent is told its address where a node has one; of two families, and of IPv6, it finds out itself, as it does what ranges there are.
fn agent_arguments(plan: &Plan, index: u8, token: &str) -> Vec<String> {
    let server = format!("https://{}:6443", plan.family.host(1));
    let name = node_name(index);
    let words = ["agent", "--server", &server, "--token", token, "--node-name", &name];
    let mut arguments: Vec<String> = words.map(str::to_owned).into();
    arguments.extend(["--kubelet-config".to_owned(), KUBELET_CONFIG.to_owned()]);
    if plan.family == Family::Ipv4 {
        arguments.push(format!("--node-ip={}", plan.address(index)));
    }
    arguments
}

/// Starts the server and its agent on the first node.
///
/// # Errors
/// It runs already, or cannot be started.
pub fn start_server(layout: &Layout, plan: &Plan, token: &str) -> Result<()> {
    start_windlass(layout, plan, &node_name(1), &server_arguments(plan, 1, token))
}

/// Starts a server on the `index`-th node that joins the first one's cluster; started again there, it is what it was.
///
/// # Errors
/// It runs already, or cannot be started.
pub fn start_another_server(layout: &Layout, plan: &Plan, index: u8, token: &str) -> Result<()> {
    let mut arguments = server_arguments(plan, index, token);
    arguments.extend(["--server".to_owned(), format!("https://{}:6443", plan.family.host(1))]);
    start_windlass(layout, plan, &node_name(index), &arguments)
}

/// Starts the `index`-th node's agent.
///
/// # Errors
/// It runs already, or cannot be started.
pub fn start_agent(layout: &Layout, plan: &Plan, index: u8, token: &str) -> Result<()> {
    start_windlass(layout, plan, &node_name(index), &agent_arguments(plan, index, token))
}

/// A token with which agents join `server`.
///
/// # Errors
/// The server does not answer.
pub fn join_token(layout: &Layout, plan: &Plan, server: &str) -> Result<String> {
    let program = plan.programs.join("windlass");
    let mut command = inside_node(layout, server, &program.to_string_lossy())?;
    let token = shell::output(command.args(["token", "create"])).context("make a join token")?;
    Ok(token.trim().to_owned())
}

/// A token with which other servers join `server`.
///
/// # Errors
/// The server does not answer.
pub fn server_token(layout: &Layout, plan: &Plan, server: &str) -> Result<String> {
    let program = plan.programs.join("windlass");
    let started = Instant::now();
    loop {
        let mut command = inside_node(layout, server, &program.to_string_lossy())?;
        match shell::output(command.args(["token", "create", "--control-plane"])) {
            Ok(token) => return Ok(token.trim().to_owned()),
            // What it takes is published a moment after the server is ready.
            Err(error) if started.elapsed() > READY_TIMEOUT => {
                return Err(error).context("make a token for servers");
            }
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

fn start_windlass(layout: &Layout, plan: &Plan, node: &str, arguments: &[String]) -> Result<()> {
    let mut argv = vec![plan.programs.join("windlass").to_string_lossy().into_owned()];
    argv.extend_from_slice(arguments);
    let env = std::env::vars().filter(|(name, _)| name == "RUST_LOG" || name == "RUST_BACKTRACE").collect();
    let service = Service { name: "windlass".into(), argv, env };
    control::ask_init(layout, node, &init::Ask::Start(service))
        .with_context(|| format!("start windlass on {node}"))?;
    Ok(())
}

/// A command that will run inside a node's namespaces.
///
/// # Errors
/// The node does not run.
pub fn inside_node(layout: &Layout, node: &str, program: &str) -> Result<Command> {
    let answer = control::ask(layout, &Ask::Status)?;
    let machine = answer.nodes.get(node).ok_or_else(|| anyhow!("node {node} does not run"))?;
    Ok(inside(machine.pid, program))
}

/// Waits for the server's admin kubeconfig, writes it for use from the host, and waits until the API server is ready.
///
/// # Errors
/// It is not within a minute.
pub async fn admin_client(layout: &Layout, plan: &Plan, server: &str, api: &str) -> Result<Client> {
    let started = Instant::now();
    let windlass = plan.programs.join("windlass").to_string_lossy().into_owned();
    let log = layout.node_log(server, "windlass");
    loop {
        let tried = shell::output(inside_node(layout, server, &windlass)?.args([
            "kubeconfig",
            "--server",
            &format!("https://{api}"),
        ]));
        let error = match tried {
            Ok(text) => {
                write_private(&plan.kubeconfig, &text)?;
                let client = client(&plan.kubeconfig).await?;
                match is_ready(&client).await {
                    Ok(()) => return Ok(client),
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        if started.elapsed() > READY_TIMEOUT {
            return Err(error).with_context(|| {
                format!("wait for the API server on {server}; read {}: {}", log.display(), tail(&log))
            });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whether the API server behind a client is ready.
///
/// # Errors
/// It is not.
pub async fn is_ready(client: &Client) -> Result<()> {
    let ready = hyper::Request::get("/readyz").body(Vec::new())?;
    Ok(client.request_text(ready).await.map(drop)?)
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let _ = fs::remove_file(path);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("make {}", path.display()))?;
    std::io::Write::write_all(&mut file, text.as_bytes()).with_context(|| format!("write {}", path.display()))
}

/// A client for a kubeconfig file.
///
/// # Errors
/// The file is missing or names credentials that cannot be read.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    let config = Kubeconfig::read_from(kubeconfig).context("read the kubeconfig")?;
    Client::try_from(config_of(config).await?).context("make a client")
}

/// A client for a kubeconfig file that asks once: the second that kube waits before it asks again would be measured as ours.
///
/// # Errors
/// As [`client`].
pub async fn client_without_retries(kubeconfig: &Path) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).context("read the kubeconfig")?;
    let mut config = config_of(kubeconfig).await?;
    config.default_retry = false;
    Client::try_from(config).context("make a client")
}

async fn config_of(kubeconfig: Kubeconfig) -> Result<Config> {
    let options = KubeConfigOptions::default();
    Config::from_custom_kubeconfig(kubeconfig, &options).await.context("use the kubeconfig")
}

/// How `server` is spoken to by the credentials of a kubeconfig file, whatever server that names.
///
/// # Errors
/// As [`client`].
pub async fn config_for(kubeconfig: &Path, server: &str) -> Result<Config> {
    let mut parsed = Kubeconfig::read_from(kubeconfig).context("read the kubeconfig")?;
    let clusters = parsed.clusters.iter_mut().filter_map(|named| named.cluster.as_mut());
    clusters.for_each(|cluster| cluster.server = Some(server.to_owned()));
    config_of(parsed).await
}

/// Waits until a node's condition Ready is True.
///
/// # Errors
/// It is not within a minute.
pub async fn await_ready(client: &Client, node: &str) -> Result<()> {
    struct Ready;
    impl Condition<Node> for Ready {
        fn matches_object(&self, node: Option<&Node>) -> bool {
            let conditions = node.and_then(|n| n.status.as_ref()).and_then(|s| s.conditions.as_ref());
            conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
        }
    }
    let nodes: Api<Node> = Api::all(client.clone());
    tokio::time::timeout(READY_TIMEOUT, await_condition(nodes, node, Ready))
        .await
        .context("not within a minute")??;
    Ok(())
}

fn kubectl(plan: &Plan, args: &[&str]) -> Result<String> {
    shell::output(Command::new("kubectl").arg("--kubeconfig").arg(&plan.kubeconfig).args(args))
}

fn example(layout: &Layout, plan: &Plan) -> Result<()> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    kubectl(plan, &["apply", "-f", &examples.to_string_lossy()]).context("deploy the example")?;
    let timeout = format!("{}s", EXAMPLE_TIMEOUT.as_secs());
    if let Err(error) = kubectl(plan, &["rollout", "status", "deployment/echo", "--timeout", &timeout]) {
        let pods = kubectl(plan, &["describe", "pods"]).unwrap_or_default();
        return Err(error).with_context(|| format!("wait for the example's pods:\n{pods}"));
    }
    let path = "jsonpath={.spec.clusterIP} {.spec.ports[0].port}";
    let address = kubectl(plan, &["get", "service", "echo", "-o", path])?;
    let (ip, port) = address.split_once(' ').context("the example's Service has no address")?;
    let url =
        if ip.contains(':') { format!("http://[{ip}]:{port}/") } else { format!("http://{ip}:{port}/") };
    let guest = plan.programs.join("guest").to_string_lossy().into_owned();
    let started = Instant::now();
    for index in 1..=plan.nodes {
        let node = node_name(index);
        loop {
            let tried = shell::output(inside_node(layout, &node, &guest)?.args(["get", &url]));
            match tried {
                Ok(_) => break,
                Err(error) if started.elapsed() > EXAMPLE_TIMEOUT => {
                    return Err(error).with_context(|| format!("reach the example's Service from {node}"));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }
    Ok(())
}

fn show(plan: &Plan) -> Result<()> {
    println!("\n{}", kubectl(plan, &["get", "nodes,pods,services", "-o", "wide"])?.trim_end());
    Ok(())
}

/// The last lines of a log, for an error.
fn tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}
