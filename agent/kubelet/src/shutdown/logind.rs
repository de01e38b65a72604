//! What logind is asked and what it tells. Upstream: `pkg/kubelet/nodeshutdown/systemd`.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use crate::dbus::message::Message;
use crate::dbus::wire::Value;
use crate::dbus::{Connection, Error, Signal};

const LOGIND: &str = "org.freedesktop.login1";
const PATH: &str = "/org/freedesktop/login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";
const EVENT: Signal = Signal { sender: LOGIND, path: PATH, interface: MANAGER, member: "PrepareForShutdown" };
/// Where its settings are amended.
pub(super) const DROP_INS: &str = "/etc/systemd/logind.conf.d";
const DROP_IN: &str = "99-kubelet.conf";
const SIGHUP: i32 = 1;

/// A connection to logind.
pub(super) struct Logind(Connection);

/// The machine does not shut down while it is kept, for as long as logind lets it.
#[derive(Debug)]
pub(super) struct Lock {
    _file: OwnedFd,
}

impl Logind {
    pub(super) async fn open(bus: &Path) -> Result<Self, Error> {
        Connection::open(bus).await.map(Self)
    }

    /// How long it waits at most for those who hold a lock.
    pub(super) async fn longest_delay(&mut self) -> Result<Duration, Error> {
        match self.0.property(LOGIND, PATH, MANAGER, "InhibitDelayMaxUSec").await? {
            Value::U64(micros) => Ok(Duration::from_micros(micros)),
            _ => Err(Error::Unexpected("InhibitDelayMaxUSec")),
        }
    }

    /// Has it read its settings again; they are new some time later.
    pub(super) async fn reload(&mut self) -> Result<(), Error> {
        let (systemd, path, manager) =
            ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager");
        let body = vec![Value::text("systemd-logind.service"), Value::text("all"), Value::I32(SIGHUP)];
        self.0.call(Message::call(systemd, path, manager, "KillUnit", body)).await?;
        Ok(())
    }

    /// Takes a lock that delays the machine's shutdown.
    pub(super) async fn inhibit(&mut self) -> Result<Lock, Error> {
        let words = ["shutdown", "kubelet", "Kubelet needs time to handle node shutdown", "delay"];
        let body = words.map(Value::text).to_vec();
        let answer = self.0.call(Message::call(LOGIND, PATH, MANAGER, "Inhibit", body)).await?;
        let file = answer.files.into_iter().next().ok_or(Error::Unexpected("Inhibit"))?;
        Ok(Lock { _file: file })
    }

    /// Has it tell of shutdowns.
    pub(super) async fn listen(&mut self) -> Result<(), Error> {
        self.0.listen(&EVENT).await
    }

    /// The next thing it tells: the machine is to shut down, or no longer. Nothing is lost where this is dropped.
    pub(super) async fn event(&mut self) -> Result<bool, Error> {
        loop {
            let signal = self.0.signal(&EVENT).await?;
            if let [Value::Bool(shuts_down), ..] = signal.body.as_slice() {
                return Ok(*shuts_down);
            }
        }
    }

    /// The machine shuts down now, as far as it knows.
    pub(super) async fn is_preparing(&mut self) -> Result<bool, Error> {
        match self.0.property(LOGIND, PATH, MANAGER, "PreparingForShutdown").await? {
            Value::Bool(shuts_down) => Ok(shuts_down),
            _ => Err(Error::Unexpected("PreparingForShutdown")),
        }
    }
}

/// Writes the setting that has logind wait for so long.
pub(super) fn allow(directory: &Path, delay: Duration) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let text = format!("# Kubelet logind override\n[Login]\nInhibitDelayMaxSec={}\n", delay.as_secs());
    std::fs::write(directory.join(DROP_IN), text)
}
