//! Telling systemd how the program is (sd_notify(3)): what it waits for, ready, alive, stopping.
//!
//! Woken by the progress of a start, and by a third of the watchdog's period (alive). Reads the supervisor's reports; writes datagrams to the socket
//! that systemd names. Ready means: a server's API server serves and machines may join; an agent's port listens and its node is registered. An agent
//! whose server is away waits, says so in its status, and asks for more time where somebody has limited that: its pods go on meanwhile. Promises: it runs where tasks run, so that a program whose threads all hang says nothing; and it says nothing while a
//! task is down for longer than any pause between two starts, which means that whoever starts it again hangs.

use anyhow::Context as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, SystemTime};
use supervise::{Report, Supervisor, Task};
use tokio_util::sync::CancellationToken;

/// What systemd tells its services in the environment; none of it is meant for children.
pub(crate) const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];
/// Longer than the pauses between two starts of a task.
const HUNG: Duration = Duration::from_secs(90);
/// How often more time is asked for before it is ready, and how much of it.
const WAITING: Duration = Duration::from_secs(20);
const MORE: Duration = Duration::from_secs(90);
/// How often it looks where nobody watches.
const IDLE: Duration = Duration::from_secs(3600);

/// Where systemd listens, and how often it wants to hear.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listener {
    socket: String,
    watchdog: Option<Duration>,
}

impl Listener {
    /// What the environment says, to the process with this id. Pure.
    fn of(variable: impl Fn(&str) -> Option<String>, pid: u32) -> Option<Self> {
        let [socket, period, watched] = VARIABLES.map(variable);
        let socket = socket.filter(|path| path.starts_with(['/', '@']))?;
        let for_us = watched.is_none_or(|watched| watched.parse() == Ok(pid));
        let period = period.and_then(|text| text.parse::<u64>().ok()).filter(|usec| *usec > 0 && for_us);
        Some(Self { socket, watchdog: period.map(Duration::from_micros) })
    }

    fn send(&self, state: &str) -> std::io::Result<()> {
        let address = match self.socket.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(&self.socket)?,
        };
        let socket = UnixDatagram::unbound()?;
        // A full queue must not hold up the program.
        socket.set_nonblocking(true)?;
        socket.send_to_addr(state.as_bytes(), &address).map(drop)
    }

    fn tell(&self, state: &str) {
        if let Err(error) = self.send(state) {
            tracing::warn!(%error, state, "tell systemd");
        }
    }
}

/// The first task that hangs: down for longer than its next start can take. Pure.
fn hung(reports: &[Report], now: SystemTime) -> Option<&Report> {
    let since = |report: &Report| report.down.as_ref().map(|down| down.since);
    let is_old = |at| now.duration_since(at).is_ok_and(|age| age > HUNG);
    reports.iter().find(|report| since(report).is_some_and(is_old))
}

/// What a program still waits for before it is ready.
pub(crate) trait Start: Clone + Send + Sync + 'static {
    /// In words for people; nothing, once it is ready.
    fn waits_for(&self) -> Option<&'static str>;
    /// Waits until it is something else than `known`.
    fn changed(&self, known: Option<&'static str>) -> impl Future<Output = ()> + Send;
}

impl Start for node::Progress {
    fn waits_for(&self) -> Option<&'static str> {
        self.waits_for()
    }

    async fn changed(&self, known: Option<&'static str>) {
        self.changed(known).await;
    }
}

/// A start that is at its end.
#[derive(Clone)]
pub(crate) struct Done;

impl Start for Done {
    fn waits_for(&self) -> Option<&'static str> {
        None
    }

    async fn changed(&self, _: Option<&'static str>) {
        std::future::pending().await
    }
}

/// The task that tells systemd; none where nobody listens.
pub(crate) fn task(supervisor: &Supervisor, start: &impl Start) -> Option<Task> {
    let listener = Listener::of(|name| std::env::var(name).ok(), std::process::id())?;
    let (supervisor, start) = (supervisor.clone(), start.clone());
    Some(Task::new("systemd", move |stop| {
        let (listener, supervisor, start) = (listener.clone(), supervisor.clone(), start.clone());
        async move {
            if stop.run_until_cancelled(started(&listener, &supervisor, &start)).await.is_some() {
                listener.send("READY=1\nSTATUS=").context("tell systemd")?;
            }
            tell(&listener, &supervisor, &stop).await;
            Ok(())
        }
    }))
}

/// Waits until the program is ready, and says for what.
async fn started(listener: &Listener, supervisor: &Supervisor, start: &impl Start) {
    while let Some(what) = start.waits_for() {
        let alive = hung(&supervisor.reports(), SystemTime::now()).is_none();
        let more = if alive { format!("\nEXTEND_TIMEOUT_USEC={}", MORE.as_micros()) } else { String::new() };
        listener.tell(&format!("STATUS={what}{more}"));
        let _ = tokio::time::timeout(WAITING, start.changed(Some(what))).await;
    }
}

async fn tell(listener: &Listener, supervisor: &Supervisor, stop: &CancellationToken) {
    let period = listener.watchdog.map_or(IDLE, |watchdog| watchdog / 3);
    loop {
        match hung(&supervisor.reports(), SystemTime::now()) {
            None if listener.watchdog.is_some() => listener.tell("WATCHDOG=1"),
            None => {}
            Some(report) => {
                let reason = report.down.as_ref().map(|down| down.reason.clone()).unwrap_or_default();
                tracing::error!(task = &*report.name, %reason, "a task does not start again; systemd hears nothing");
            }
        }
        if stop.run_until_cancelled(tokio::time::sleep(period)).await.is_none() {
            return listener.tell("STOPPING=1");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use supervise::{Down, Kind};

    fn listener(pairs: &[(&str, &str)]) -> Option<Listener> {
        let find = |name: &str| pairs.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        Listener::of(find, 7)
    }

    #[test]
    fn a_watchdog_of_another_process_must_not_be_fed() {
        let heard = [("NOTIFY_SOCKET", "/run/x"), ("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", "8")];
        assert_eq!(listener(&heard).unwrap().watchdog, None);
        assert_eq!(listener(&heard[..2]).unwrap().watchdog, Some(Duration::from_secs(3)));
        assert_eq!(listener(&heard[1..]), None, "nobody listens");
        assert_eq!(listener(&[("NOTIFY_SOCKET", "vsock:2:1")]), None);
    }

    #[test]
    fn a_task_between_two_starts_must_not_cost_the_program_its_life() {
        let now = SystemTime::now();
        let report = |age: Option<u64>| Report {
            name: "kubelet".into(),
            kind: Kind::Task,
            running: 0,
            down: age.map(|age| Down { since: now - Duration::from_secs(age), reason: Arc::from("x") }),
            restarts: 0,
            panics: 0,
            last: None,
        };
        assert!(hung(&[report(None), report(Some(31))], now).is_none());
        assert_eq!(hung(&[report(None), report(Some(91))], now).map(|r| &*r.name), Some("kubelet"));
    }

    #[tokio::test]
    async fn systemd_must_not_hear_ready_before_the_start_is_at_its_end() {
        /// Waits for so many changes.
        #[derive(Clone)]
        struct Steps(Arc<std::sync::atomic::AtomicUsize>);
        impl Start for Steps {
            fn waits_for(&self) -> Option<&'static str> {
                (self.0.load(std::sync::atomic::Ordering::SeqCst) > 0).then_some("waiting")
            }
            async fn changed(&self, _: Option<&'static str>) {
                self.0.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = tokio::net::UnixDatagram::bind(&path).unwrap();
        let listener = Listener { socket: path.display().to_string(), watchdog: None };
        let start = Steps(Arc::new(2.into()));
        started(&listener, &Supervisor::default(), &start).await;
        listener.send("READY=1\nSTATUS=").unwrap();
        let mut buffer = [0; 128];
        for wanted in
            ["STATUS=waiting\nEXTEND_TIMEOUT_USEC=90000000"; 2].into_iter().chain(["READY=1\nSTATUS="])
        {
            let read = socket.recv(&mut buffer).await.unwrap();
            assert_eq!(String::from_utf8_lossy(&buffer[..read]), wanted);
        }
    }

    #[tokio::test]
    async fn systemd_hears_ready_alive_and_stopping() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = tokio::net::UnixDatagram::bind(&path).unwrap();
        let listener =
            Listener { socket: path.display().to_string(), watchdog: Some(Duration::from_millis(30)) };
        listener.send("READY=1").unwrap();
        let (supervisor, stop) = (Supervisor::default(), CancellationToken::new());
        let hear = async {
            let mut heard = Vec::new();
            let mut buffer = [0; 64];
            while heard.last().map(String::as_str) != Some("STOPPING=1") {
                let read = socket.recv(&mut buffer).await.unwrap();
                heard.push(String::from_utf8_lossy(&buffer[..read]).into_owned());
                if heard.len() == 4 {
                    stop.cancel();
                }
            }
            heard
        };
        let both = async { tokio::join!(tell(&listener, &supervisor, &stop), hear).1 };
        let heard = tokio::time::timeout(Duration::from_secs(20), both).await.unwrap();
        assert_eq!(heard[..3], ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]);
    }
}
