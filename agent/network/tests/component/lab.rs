//! Throw-away network namespaces with a reconciler in each.

use std::{
    fs::File,
    os::fd::{AsFd, AsRawFd},
    path::PathBuf,
    process::Command,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use network::{Config, run};
use nix::sched::{CloneFlags, setns, unshare};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::api::Api;

/// A network namespace, gone with its last file descriptor.
pub(crate) struct Netns(pub(crate) File);

impl Netns {
    pub(crate) fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "network namespaces need root");
        let file = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        let netns = Self(file.join().unwrap());
        netns.sh("ip link set lo up");
        netns
    }

    /// A link named `lan` in each, joined, with an address.
    pub(crate) fn join(&self, address: &str, other: &Self, theirs: &str) {
        let path = format!("/proc/{}/fd/{}", std::process::id(), other.0.as_raw_fd());
        self.sh(&format!("ip link add lan type veth peer name lan netns {path}"));
        self.sh(&format!("ip addr add {address} dev lan; ip link set lan up"));
        other.sh(&format!("ip addr add {theirs} dev lan; ip link set lan up"));
    }

    /// A link of this name that is a port of `bridge` in `hub`.
    pub(crate) fn plug(&self, name: &str, hub: &Self, bridge: &str) {
        let path = format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd());
        let port = format!("{bridge}-{}", self.0.as_raw_fd());
        hub.sh(&format!("ip link add {port} type veth peer name {name} netns {path}"));
        hub.sh(&format!("ip link set {port} master {bridge} up"));
        self.sh(&format!("ip link set {name} up"));
    }

    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }

    pub(crate) fn sh(&self, command: &str) -> String {
        self.run(|| {
            let output = Command::new("sh").arg("-c").arg(command).output().unwrap();
            assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        })
    }

    /// Waits until what `command` prints is as wanted.
    pub(crate) fn until(&self, command: &str, wanted: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let printed = self.sh(command);
            if wanted(&printed) {
                return;
            }
            assert!(Instant::now() < deadline, "{command} still prints {printed}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A reconciler that runs inside a namespace until dropped.
pub(crate) struct Running {
    pub(crate) conflist: PathBuf,
    shutdown: CancellationToken,
    thread: Option<JoinHandle<()>>,
    _state: TempDir,
}

impl Running {
    pub(crate) fn start(name: &str, netns: &Netns, api: &Api) -> Self {
        let state = TempDir::new().unwrap();
        let config = Config {
            conf_dir: state.path().join("net.d"),
            data_dir: state.path().join("leases"),
            ..Config::new(name)
        };
        let conflist = config.conf_dir.join("10-windlass.conflist");
        let shutdown = CancellationToken::new();
        let (token, api, file) = (shutdown.clone(), api.clone(), netns.0.try_clone().unwrap());
        let thread = std::thread::spawn(move || {
            setns(file.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
            // One thread: a second would be in the namespace the test runs in.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime
                .block_on(async {
                    run(config, api.client(), api.client(), &supervise::Supervisor::default(), token).await
                })
                .unwrap();
        });
        Self { conflist, shutdown, thread: Some(thread), _state: state }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(std::thread::panicking() || ended.is_ok(), "the reconciler failed");
        }
    }
}
