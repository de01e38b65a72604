//! PID 1 of a node. Woken by SIGCHLD (a process ended) and by its socket (the lab asks something); owns the table of services.
//!
//! It mounts the node's own view of `/proc`, `/sys`, `/etc`, `/run` and `/var`, then starts, restarts and stops services as an init
//! system would, and reaps what is orphaned. It ends only by a signal from outside, and the kernel ends the node with it.

use crate::cgroup;
use crate::shell::run;
use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{self, SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Pause between a service's end and its next start.
const RESTART_DELAY: Duration = Duration::from_millis(200);

/// What a node is, written by the supervisor before PID 1 starts.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Host name, and the Kubernetes node name.
    pub hostname: String,
    /// Folder whose `var`, `run`, `opt`, `etc` the node sees as its own.
    pub files: PathBuf,
    /// Folder for the services' logs.
    pub logs: PathBuf,
    /// Changes at each boot, as a machine's does.
    pub boot_id: String,
    /// `/etc/hosts` and other files to write, by path.
    pub etc: BTreeMap<String, String>,
}

/// A program PID 1 keeps running.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Name, also of its log.
    pub name: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Environment variables set for it.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// What the lab may ask of PID 1, one JSON line each.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "op")]
pub enum Ask {
    /// Start a service and keep it running.
    Start(Service),
    /// SIGTERM, then SIGKILL after 20 s; it stays stopped.
    Stop {
        /// Which service.
        name: String,
    },
    /// Send a signal; the service is restarted as after a crash.
    Kill {
        /// Which service.
        name: String,
        /// Signal number.
        signal: i32,
    },
    /// The table: name to process id inside the node (0: not running).
    Status,
}

/// PID 1's answer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Reply {
    /// Why it could not be done.
    #[serde(default)]
    pub error: Option<String>,
    /// Answer to [`Ask::Status`].
    #[serde(default)]
    pub services: BTreeMap<String, i32>,
}

struct Slot {
    service: Service,
    pid: Option<Pid>,
    wanted: bool,
}

type Table = Arc<Mutex<BTreeMap<String, Slot>>>;

/// The program of PID 1; does not return while the node runs.
///
/// # Errors
/// The node's view cannot be set up.
pub fn main(spec: &Path) -> Result<()> {
    let spec: Spec =
        serde_json::from_slice(&fs::read(spec).with_context(|| format!("read {}", spec.display()))?)
            .with_context(|| format!("parse {}", spec.display()))?;
    // blocked before any thread starts, so that every thread inherits it and only `wait` below receives them
    let signals = SigSet::from_iter([Signal::SIGCHLD, Signal::SIGTERM]);
    signals.thread_block().context("block signals")?;
    fs::create_dir_all(&spec.logs).with_context(|| format!("make {}", spec.logs.display()))?;
    let logs = fs::File::open(&spec.logs).context("open the log folder")?;
    mount_all(&spec)?;
    let socket = Path::new("/run/lab-init.sock");
    let _ = fs::remove_file(socket);
    let listener = UnixListener::bind(socket).context("listen on /run/lab-init.sock")?;
    let table = Table::default();
    let logs = PathBuf::from(format!("/proc/1/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&logs)));
    let answering = (table.clone(), logs.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (table, logs) = answering.clone();
            std::thread::spawn(move || converse(&stream, &table, &logs));
        }
    });
    loop {
        match signals.wait().context("wait for a signal")? {
            Signal::SIGTERM => return Ok(()),
            _ => reap(&table, &logs),
        }
    }
}

fn mount_all(spec: &Spec) -> Result<()> {
    let hierarchies = cgroup::hierarchies()?;
    run("mount", &["--make-rshared", "/"])?;
    run("mount", &["-t", "proc", "proc", "/proc"])?;
    run("mount", &["-t", "sysfs", "sysfs", "/sys"])?;
    cgroup::mount_view(&hierarchies)?;
    let dir = |name: &str| -> Result<String> {
        let path = spec.files.join(name);
        fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(path.to_string_lossy().into_owned())
    };
    let etc = format!("lowerdir=/etc,upperdir={},workdir={}", dir("etc")?, dir("etc-work")?);
    run("mount", &["-t", "overlay", "-o", &etc, "overlay", "/etc"])?;
    for name in ["var/lib", "var/log", "var/cache", "var/tmp", "var/spool"] {
        dir(name)?;
    }
    let (opt, run_dir, var) = (dir("opt")?, dir("run")?, dir("var")?);
    let boot_id = spec.files.join("boot_id");
    fs::write(&boot_id, format!("{}\n", spec.boot_id)).context("write the boot id")?;
    run("mount", &["--bind", &boot_id.to_string_lossy(), "/proc/sys/kernel/random/boot_id"])?;
    for (from, to) in [(&opt, "/opt"), (&run_dir, "/run"), (&var, "/var")] {
        run("mount", &["--bind", from, to])?;
    }
    std::os::unix::fs::symlink("/run", "/var/run").or_else(ignore_exists).context("link /var/run")?;
    nix::unistd::sethostname(&spec.hostname).context("set the host name")?;
    for (path, text) in &spec.etc {
        let path = Path::new("/etc").join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        }
        let _ = fs::remove_file(&path);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

fn ignore_exists(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) }
}

fn converse(stream: &UnixStream, table: &Table, logs: &Path) {
    let mut writer = stream;
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        let answer = serde_json::from_str(&line)
            .context("parse the request")
            .and_then(|ask| obey(ask, table, logs))
            .unwrap_or_else(|e| Reply { error: Some(format!("{e:#}")), ..Reply::default() });
        let Ok(text) = serde_json::to_string(&answer) else { return };
        if writeln!(writer, "{text}").is_err() {
            return;
        }
    }
}

fn obey(ask: Ask, table: &Table, logs: &Path) -> Result<Reply> {
    let mut slots = table.lock().unwrap_or_else(PoisonError::into_inner);
    match ask {
        Ask::Start(service) => {
            if slots.get(&service.name).is_some_and(|s| s.pid.is_some()) {
                bail!("{} runs already", service.name);
            }
            let pid = spawn(&service, logs)?;
            slots.insert(service.name.clone(), Slot { service, pid: Some(pid), wanted: true });
        }
        Ask::Stop { name } => {
            let slot = slots.get_mut(&name).ok_or_else(|| anyhow!("no service {name}"))?;
            slot.wanted = false;
            if let Some(pid) = slot.pid {
                signal::kill(pid, Signal::SIGTERM).with_context(|| format!("stop {name}"))?;
                drop(slots);
                await_end(table, &name, pid)?;
            }
        }
        Ask::Kill { name, signal: number } => {
            let slot = slots.get(&name).ok_or_else(|| anyhow!("no service {name}"))?;
            let pid = slot.pid.ok_or_else(|| anyhow!("{name} does not run"))?;
            let signal = Signal::try_from(number).context("unknown signal")?;
            signal::kill(pid, signal).with_context(|| format!("signal {name}"))?;
        }
        Ask::Status => {
            let services = slots.iter().map(|(n, s)| (n.clone(), s.pid.map_or(0, Pid::as_raw))).collect();
            return Ok(Reply { services, ..Reply::default() });
        }
    }
    Ok(Reply::default())
}

/// Waits up to 20 s for a service's process to be reaped, then kills it.
fn await_end(table: &Table, name: &str, pid: Pid) -> Result<()> {
    for attempt in 0..500 {
        let gone = table
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .is_none_or(|slot| slot.pid != Some(pid));
        if gone {
            return Ok(());
        }
        if attempt == 400 {
            let _ = signal::kill(pid, Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("{name} does not end")
}

fn spawn(service: &Service, logs: &Path) -> Result<Pid> {
    let path = logs.join(format!("{}.log", service.name));
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    let (program, args) =
        service.argv.split_first().ok_or_else(|| anyhow!("{}: no program", service.name))?;
    // A missing program is this call's error, not the helper's below.
    anyhow::ensure!(!program.contains('/') || Path::new(program).exists(), "start {program}: no such file");
    // PID 1 has these signals blocked, which children inherit and, through containerd, every container would: `env` unblocks them
    // and becomes the program.
    let child = Command::new("env")
        .args(["--default-signal=TERM,CHLD", program])
        .args(args)
        .envs(&service.env)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("share the log")?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("start {program}"))?;
    // reaped by `reap`, never through `child`
    i32::try_from(child.id()).map(Pid::from_raw).context("process id")
}

fn reap(table: &Table, logs: &Path) {
    loop {
        let ended = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(_) => return,
            Ok(status) => status,
        };
        let Some(pid) = ended.pid() else { continue };
        let mut slots = table.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((name, slot)) = slots.iter_mut().find(|(_, s)| s.pid == Some(pid)) else { continue };
        slot.pid = None;
        eprintln!("{name} ended: {ended:?}");
        if slot.wanted {
            let (table, logs, name) = (table.clone(), logs.to_owned(), name.clone());
            std::thread::spawn(move || restart(&table, &logs, &name));
        }
    }
}

fn restart(table: &Table, logs: &Path, name: &str) {
    loop {
        std::thread::sleep(RESTART_DELAY);
        let mut slots = table.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(slot) = slots.get_mut(name).filter(|s| s.wanted && s.pid.is_none()) else { return };
        match spawn(&slot.service, logs) {
            Ok(pid) => {
                slot.pid = Some(pid);
                return;
            }
            Err(error) => eprintln!("restart {name}: {error:#}"),
        }
    }
}
