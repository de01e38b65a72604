//! What the CNI plugin asks before a pod's interface is there: that its packets be judged from the first one.
//!
//! The plugin knows the pod by name and uid (`CNI_ARGS`), and the addresses it was granted; it says them in one line of JSON over the socket
//! `policy.sock`, and goes on when it is answered. So the rules for an address are in the kernel before anything has the address, and not
//! only once the kubelet has reported it and the API server has told everybody. What was said is kept in a file for each address, beside the
//! socket, where it outlives the agent and not the machine: an agent that starts again knows whose an address is that no status shows yet.
//!
//! Why this, and not a hold on every address that nobody knows: what would release a held pod is the API server, which may be away for
//! hours, and even where it answers at once, a connection whose first packet is lost takes a second longer. Here the wait has an end
//! ([`PATIENCE`]), whatever the API server does:
//!
//! - a pod whose namespace has no policies is not waited for;
//! - a pod that is not known by then begins closed, in the directions that policies of its namespace speak of. Its node reaches it all the same: its
//!   probes pass, and an API server on that node gets to a webhook or key service in it. Nothing that a cluster needs to come back waits for
//!   itself;
//! - where the API server has been away since the agent began, no policy is known at all, and pods begin under the rules that the kernel still has;
//!   after a boot there are none. The kubelet can start static pods only then. They are judged, and their flows with them, once policies are known.
//!
//! An agent that does not answer at all is another matter: the plugin refuses the pod, and the runtime is told to try again.

use crate::model::Owner;
use client::Key;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use supervise::{Work, accept};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// The socket's name in its directory.
pub(crate) const SOCKET: &str = "policy.sock";
/// The directory of records beside it.
const RECORDS: &str = "policy";
/// How long the plugin waits for what is not known; far below what runtimes give a sandbox.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Plugins that ask at a time; more wait in the kernel.
const MOST: usize = 64;
/// The longest question, in bytes.
const LONGEST: u64 = 4096;
/// How long a plugin may take to ask, and to take the answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// One line of a plugin, and what a record keeps of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Question {
    /// The pod's.
    namespace: String,
    name: String,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    addresses: Vec<IpAddr>,
}

/// What is answered: whether the interface may be made.
#[derive(Debug, Serialize)]
struct Answer {
    /// Empty: it may.
    error: String,
}

/// A question that waits.
pub(crate) struct Ask {
    pub(crate) owner: Owner,
    pub(crate) addresses: Vec<IpAddr>,
    /// Takes what is in the way; empty for nothing.
    pub(crate) answer: oneshot::Sender<String>,
}

struct Listener(UnixListener);

impl accept::Listen for Listener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<(UnixStream, SocketAddr)> {
        let (stream, _) = self.0.accept().await?;
        // those of this machine have none
        Ok((stream, (Ipv4Addr::UNSPECIFIED, 0).into()))
    }
}

/// Listens in `directory`, in the place of whoever did before.
pub(crate) fn listen(directory: &Path) -> io::Result<UnixListener> {
    std::fs::create_dir_all(directory.join(RECORDS))?;
    let path = directory.join(SOCKET);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Hands questions to `asks` and their answers back, until `stop`.
pub(crate) async fn serve(
    listener: UnixListener,
    asks: mpsc::Sender<Ask>,
    work: Work,
    stop: CancellationToken,
) {
    let connection = |stream: UnixStream, _| {
        let asks = asks.clone();
        async move {
            if let Err(error) = converse(stream, asks).await {
                tracing::debug!(%error, "a CNI plugin asked, and went away or was not understood");
            }
        }
    };
    accept(&Listener(listener), MOST, &work, &stop, connection).await;
}

async fn converse(stream: UnixStream, asks: mpsc::Sender<Ask>) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut read = BufReader::new(read.take(LONGEST));
    tokio::time::timeout(DEADLINE, read.read_line(&mut line)).await.map_err(io::Error::other)??;
    let error = match serde_json::from_str::<Question>(&line) {
        Ok(question) => {
            let (answer, answered) = oneshot::channel();
            let owner = question.owner();
            let ask = Ask { owner, addresses: question.addresses, answer };
            let gone = || "the agent stops".to_owned();
            match asks.send(ask).await {
                Ok(()) => answered.await.unwrap_or_else(|_| gone()),
                Err(_) => gone(),
            }
        }
        Err(error) => format!("not understood: {error}"),
    };
    let mut text = serde_json::to_string(&Answer { error }).map_err(io::Error::other)?;
    text.push('\n');
    tokio::time::timeout(DEADLINE, write.write_all(text.as_bytes())).await.map_err(io::Error::other)?
}

impl Question {
    fn owner(&self) -> Owner {
        Owner { pod: Key::new(&self.namespace, &self.name), uid: self.uid.clone() }
    }
}

/// Who has which address, on disk.
pub(crate) struct Records(PathBuf);

impl Records {
    /// Those in `directory`.
    pub(crate) fn new(directory: &Path) -> Self {
        Self(directory.join(RECORDS))
    }

    /// All that can be read.
    pub(crate) fn read(&self) -> BTreeMap<IpAddr, Owner> {
        let entries = std::fs::read_dir(&self.0).into_iter().flatten().flatten();
        let read = entries.filter_map(|entry| {
            let address = entry.file_name().to_str()?.parse().ok()?;
            let text = std::fs::read(entry.path()).ok()?;
            // one that was torn says nothing; its pod's status will
            let question: Question = serde_json::from_slice(&text).ok()?;
            Some((address, question.owner()))
        });
        read.collect()
    }

    /// Keeps whose an address is; `None`: nobody's.
    pub(crate) fn keep(&self, address: IpAddr, owner: Option<&Owner>) -> io::Result<()> {
        let path = self.0.join(address.to_string());
        let Some(owner) = owner else {
            return match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        };
        let question = Question {
            namespace: owner.pod.namespace.to_string(),
            name: owner.pod.name.to_string(),
            uid: owner.uid.clone(),
            addresses: Vec::new(),
        };
        std::fs::write(path, serde_json::to_vec(&question).map_err(io::Error::other)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use supervise::Supervisor;
    use tempfile::TempDir;

    fn owner(pod: &str) -> Owner {
        Owner { pod: Key::new("default", pod), uid: "u".into() }
    }

    #[test]
    fn whose_an_address_is_must_not_be_forgotten_nor_kept_for_good() {
        let directory = TempDir::new().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _entered = runtime.enter();
        listen(directory.path()).unwrap();
        listen(directory.path()).unwrap();
        let records = Records::new(directory.path());
        let (v4, v6): (IpAddr, IpAddr) = ("10.244.1.2".parse().unwrap(), "fd00::2".parse().unwrap());
        records.keep(v4, Some(&owner("a"))).unwrap();
        records.keep(v6, Some(&owner("a"))).unwrap();
        records.keep(v4, Some(&owner("b"))).unwrap();
        std::fs::write(directory.path().join(RECORDS).join("10.244.1.3"), "{\"namesp").unwrap();
        assert_eq!(records.read(), BTreeMap::from([(v4, owner("b")), (v6, owner("a"))]));
        records.keep(v4, None).unwrap();
        records.keep(v4, None).unwrap();
        assert_eq!(records.read(), BTreeMap::from([(v6, owner("a"))]));
    }

    #[tokio::test]
    async fn a_plugin_must_not_go_on_unanswered() {
        let directory = TempDir::new().unwrap();
        let listener = listen(directory.path()).unwrap();
        let (asks, mut asked) = mpsc::channel(1);
        let (supervisor, stop) = (Supervisor::default(), CancellationToken::new());
        let serving = serve(listener, asks, Work::new(&supervisor, "asks"), stop.clone());
        let path = directory.path().join(SOCKET);
        let say = async |line: &str| {
            let mut stream = UnixStream::connect(&path).await.unwrap();
            stream.write_all(line.as_bytes()).await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            text
        };
        let talk = async {
            let line = r#"{"namespace":"default","name":"a","uid":"u","addresses":["10.244.1.2","fd00::2"]}"#;
            let answer = async {
                let ask: Ask = asked.recv().await.unwrap();
                assert_eq!((ask.owner, ask.addresses.len()), (owner("a"), 2));
                ask.answer.send(String::new()).unwrap();
            };
            let asking = format!("{line}\n");
            let (said, ()) = tokio::join!(say(&asking), answer);
            assert_eq!(said, "{\"error\":\"\"}\n");
            assert!(say("nonsense\n").await.contains("not understood"));
            drop(asked);
            assert_eq!(say(&asking).await, "{\"error\":\"the agent stops\"}\n");
            stop.cancel();
        };
        tokio::join!(serving, talk);
    }
}
