//! A server on a loopback address of its own, which no other run on this machine has.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ObjectMeta;
use kube::{Client, Config};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The longest wait for anything: other tests share the machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// 254 loopback addresses that nobody else uses for as long as this is held.
pub struct Block {
    first: [u8; 3],
    _claim: TcpListener,
}

impl Block {
    /// Whoever listens on a block's last address has it: the kernel lets one do so.
    pub fn claim() -> Self {
        const BLOCKS: u32 = 64 * 256;
        let from = std::process::id().wrapping_mul(31);
        for n in 0..BLOCKS {
            let [_, _, high, low] = (from.wrapping_add(n) % BLOCKS).to_be_bytes();
            let first = [127, 64 + high, low];
            if let Ok(claim) = TcpListener::bind((Ipv4Addr::new(first[0], first[1], first[2], 254), 6443)) {
                return Self { first, _claim: claim };
            }
        }
        panic!("every block of loopback addresses is taken");
    }

    pub fn ip(&self, n: u8) -> String {
        let [a, b, c] = self.first;
        Ipv4Addr::new(a, b, c, n).to_string()
    }
}

/// Whether there is an etcd to run; a line that says so otherwise.
pub fn etcd_is_there() -> bool {
    let there = Path::new("/usr/bin/etcd").exists();
    if !there {
        println!("skipped: there is no /usr/bin/etcd");
    }
    there
}

/// Where a server lives, whether it runs or not; killed when dropped.
pub struct Server {
    pub dir: PathBuf,
    pub ip: String,
    process: Option<Child>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Server {
    pub fn new(dir: &Path, ip: &str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { dir: dir.join(ip), ip: ip.to_owned(), process: None }
    }

    /// Its node's.
    pub fn name(&self) -> String {
        format!("n{}", self.ip.replace('.', "-"))
    }

    pub fn url(&self) -> String {
        format!("https://{}:6443", self.ip)
    }

    pub fn start(&mut self, arguments: &[&str]) {
        let log = std::fs::File::options().create(true).append(true).open(self.log_file()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
        command.args(["--config=", "server", "--no-agent", "--node-name", &self.name()]);
        command.args(["--node-ip", &self.ip, "--bind-address", &self.ip]).args(arguments);
        command.arg("--data-dir").arg(&self.dir).stdout(Stdio::null()).stderr(log);
        self.process = Some(command.spawn().unwrap());
    }

    /// At once.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// As it is asked to.
    pub fn stop(&mut self) {
        let mut process = self.process.take().unwrap();
        kill(Pid::from_raw(process.id() as i32), Signal::SIGTERM).unwrap();
        assert!(process.wait().unwrap().success(), "{}", self.log());
    }

    /// Whether it ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.try_wait().unwrap().is_some())
    }

    /// A client, once it is ready.
    pub async fn ready(&mut self) -> Client {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(client) = self.client().await {
                return client;
            }
            assert!(!self.has_ended(), "the server ended:\n{}", self.log());
            assert!(Instant::now() < end, "the server does not come up:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn client(&self) -> Option<Client> {
        let parsed = kube::config::Kubeconfig::read_from(self.dir.join("server/admin.kubeconfig")).ok()?;
        let config = Config::from_custom_kubeconfig(parsed, &Default::default()).await.unwrap();
        let client = Client::try_from(config).unwrap();
        let ready = http::Request::get("/readyz").body(Vec::new()).unwrap();
        tokio::time::timeout(Duration::from_secs(5), client.request_text(ready)).await.ok()?.ok()?;
        Some(client)
    }

    /// Runs a command beside it.
    pub fn windlass(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The command, not run yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
        command.arg("--config=").args(arguments).arg("--data-dir").arg(&self.dir);
        command
    }

    /// The same, which must succeed.
    pub fn says(&self, arguments: &[&str]) -> String {
        let output = self.windlass(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// A token of these arguments, once the server has published what that takes: a moment after it is ready.
    pub fn token(&self, arguments: &[&str]) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let output = self.windlass(&[&["token", "create"], arguments].concat());
            if output.status.success() {
                return String::from_utf8(output.stdout).unwrap().trim().to_owned();
            }
            assert!(Instant::now() < end, "{}", String::from_utf8_lossy(&output.stderr));
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    pub fn file(&self, below: &str) -> PathBuf {
        self.dir.join("server").join(below)
    }

    fn log_file(&self) -> PathBuf {
        self.dir.with_file_name(format!("{}.log", self.ip))
    }

    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(self.log_file()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

pub fn named(name: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        ..ConfigMap::default()
    }
}
