//! Throw-away network namespaces, held open by a file descriptor and by nothing else: they leave nothing behind.

use std::{
    fs::File,
    io::Write,
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use nix::sched::{CloneFlags, setns, unshare};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) struct Netns(File);

impl Netns {
    pub(crate) fn new() -> Self {
        let file = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        Self(file.join().unwrap())
    }

    /// A path that other processes can open as long as this one lives.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Runs `work` inside; processes it starts are inside as well.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
                    work()
                })
                .join()
                .unwrap()
        })
    }

    /// What a command prints; it must succeed.
    pub(crate) fn sh(&self, command: &str) -> String {
        self.run(|| {
            let output = Command::new("sh").arg("-c").arg(command).output().unwrap();
            assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        })
    }
}

/// A node: a namespace for the host's side, the plugins' directory and their state.
pub(crate) struct Lab {
    pub(crate) host: Netns,
    pub(crate) state: TempDir,
    bin: PathBuf,
}

impl Lab {
    pub(crate) fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "network namespaces need root");
        let state = TempDir::new().unwrap();
        let bin = state.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        for name in ["bandwidth", "bridge", "host-local", "loopback", "portmap"] {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_windlass-cni"), bin.join(name)).unwrap();
        }
        Self { host: Netns::new(), state, bin }
    }

    pub(crate) fn leases(&self) -> PathBuf {
        self.state.path().join("leases")
    }

    /// The addresses leased in `network`.
    pub(crate) fn leased(&self, network: &str) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.leases().join(network)) else { return Vec::new() };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.parse::<std::net::IpAddr>().is_ok()).collect()
    }

    pub(crate) fn bridge_conf(&self) -> Value {
        json!({
            "cniVersion": "1.0.0",
            "name": "pods",
            "type": "bridge",
            "bridge": "cni0",
            "isDefaultGateway": true,
            "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                "dataDir": self.leases(),
                "ranges": [[{ "subnet": "10.88.0.0/24" }], [{ "subnet": "fd00:88::/64" }]],
            },
        })
    }

    /// Runs a plugin in the host's namespace.
    pub(crate) fn call(&self, command: &str, conf: &Value, container: &str, netns: &str) -> Outcome {
        self.call_with(command, conf, container, netns, &[])
    }

    /// Starts an ADD of the bridge and kills it after a while. Returns whether it was done by then.
    pub(crate) fn call_and_kill(&self, conf: &Value, container: &str, netns: &str, after: Duration) -> bool {
        let mut child = self.host.run(|| {
            Command::new(self.bin.join("bridge"))
                .env_clear()
                .envs([("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", container), ("CNI_NETNS", netns)])
                .envs([("CNI_IFNAME", "eth0"), ("CNI_PATH", "/nowhere")])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        });
        child.stdin.take().unwrap().write_all(conf.to_string().as_bytes()).unwrap();
        // The moment to kill at has no event of its own: anywhere is the point.
        std::thread::sleep(after);
        child.kill().unwrap();
        child.wait().unwrap().success()
    }

    pub(crate) fn call_with(
        &self,
        command: &str,
        conf: &Value,
        container: &str,
        netns: &str,
        variables: &[(&str, &str)],
    ) -> Outcome {
        let program = self.bin.join(conf["type"].as_str().unwrap());
        let environment = [
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", container),
            ("CNI_NETNS", netns),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", self.bin.to_str().unwrap()),
        ];
        let output =
            self.host.run(|| execute(&program, &conf.to_string(), environment.iter().chain(variables)));
        Outcome::of(&output)
    }
}

fn execute<'a>(
    program: &Path,
    stdin: &str,
    environment: impl Iterator<Item = &'a (&'a str, &'a str)>,
) -> Output {
    let mut child = Command::new(program)
        .env_clear()
        .envs(environment.copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// What a plugin printed.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) success: bool,
    pub(crate) printed: Value,
    /// What it said beside that.
    pub(crate) remarks: String,
}

impl Outcome {
    fn of(output: &Output) -> Self {
        let printed = if output.stdout.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&output.stdout).unwrap()
        };
        let remarks = String::from_utf8_lossy(&output.stderr).into_owned();
        Self { success: output.status.success(), printed, remarks }
    }

    /// The result of a call that must succeed and has nothing else to say.
    pub(crate) fn ok(self) -> Value {
        assert!(self.remarks.is_empty(), "stderr: {}", self.remarks);
        self.ok_with_remarks()
    }

    /// The result of a call that must succeed.
    pub(crate) fn ok_with_remarks(self) -> Value {
        assert!(self.success, "{}", self.printed);
        self.printed
    }

    /// Code and message of a call that must fail.
    pub(crate) fn error(self) -> (u64, String) {
        assert!(!self.success, "unexpectedly succeeded: {}", self.printed);
        assert!(self.remarks.is_empty(), "stderr: {}", self.remarks);
        (self.printed["code"].as_u64().unwrap(), self.printed["msg"].as_str().unwrap().to_owned())
    }
}
