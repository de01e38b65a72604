//! Telling systemd how the program is (sd_notify(3)): ready, alive, stopping.
//!
//! Woken by its start (ready) and by a third of the watchdog's period (alive). Reads the supervisor's reports; writes datagrams to the socket
//! that systemd names. Promises: it runs where tasks run, so that a program whose threads all hang says nothing; and it says nothing while a
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

/// The task that tells systemd; none where nobody listens. Its start means that the program is ready.
pub(crate) fn task(supervisor: &Supervisor) -> Option<Task> {
    let listener = Listener::of(|name| std::env::var(name).ok(), std::process::id())?;
    let supervisor = supervisor.clone();
    Some(Task::new("systemd", move |stop| {
        let (listener, supervisor) = (listener.clone(), supervisor.clone());
        async move {
            listener.send("READY=1").context("tell systemd")?;
            tell(&listener, &supervisor, &stop).await;
            Ok(())
        }
    }))
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
