//! How `windlass snapshot save` asks a server that runs: a line of JSON each way, over a socket in the server's own
//! directory, which only its owner can reach.

use anyhow::{Context as _, bail};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

const SOCKET: &str = "control.sock";
/// No request is longer, in bytes.
const LONGEST: u64 = 64 << 10;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Request {
    /// What the file's name begins with.
    pub(super) name: String,
    /// Where it goes, unless where the server's own go.
    pub(super) dir: Option<PathBuf>,
}

#[derive(Debug, Serialize, Deserialize)]
enum Response {
    Saved(PathBuf),
    Failed(String),
}

/// A directory by its descriptor: the path of a socket is short, that of a data directory need not be.
struct Dir(OwnedFd);

impl Dir {
    fn open(path: &Path) -> nix::Result<Self> {
        open(path, OFlag::O_DIRECTORY | OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).map(Self)
    }

    fn socket(&self) -> PathBuf {
        format!("/proc/self/fd/{}/{SOCKET}", self.0.as_raw_fd()).into()
    }
}

/// Asks the server of `dir`; `None` when none runs.
pub(super) async fn send(dir: &Path, request: &Request) -> anyhow::Result<Option<PathBuf>> {
    let named = || format!("ask the server of {}", dir.display());
    let Ok(opened) = Dir::open(dir) else { return Ok(None) };
    let mut stream = match UnixStream::connect(opened.socket()).await {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        stream => stream.with_context(named)?,
    };
    stream.write_all(&line(request)?).await.with_context(named)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).await.with_context(named)?;
    if answer.is_empty() {
        bail!("the server ended before it had written the snapshot");
    }
    match serde_json::from_str(&answer).with_context(named)? {
        Response::Saved(path) => Ok(Some(path)),
        Response::Failed(error) => bail!(error),
    }
}

fn line(data: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(data)?;
    line.push(b'\n');
    Ok(line)
}

/// Where requests come in.
pub(super) struct Listener(UnixListener);

impl Listener {
    /// Listens in `dir`, whose lock the caller holds: a socket that is there is a dead server's.
    pub(super) fn bind(dir: &Path) -> io::Result<Self> {
        let dir = Dir::open(dir)?;
        match std::fs::remove_file(dir.socket()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        UnixListener::bind(dir.socket()).map(Self)
    }
}

impl supervise::accept::Listen for Listener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<(UnixStream, SocketAddr)> {
        let (stream, _) = self.0.accept().await?;
        Ok((stream, (Ipv4Addr::LOCALHOST, 0).into()))
    }
}

/// Answers the one request of a connection by what `save` makes of it.
pub(super) async fn answer(
    mut stream: UnixStream,
    save: impl AsyncFnOnce(Request) -> anyhow::Result<PathBuf>,
) {
    let served = async {
        let mut text = String::new();
        BufReader::new((&mut stream).take(LONGEST)).read_line(&mut text).await?;
        let saved = match serde_json::from_str(&text) {
            Ok(request) => save(request).await,
            Err(error) => Err(error.into()),
        };
        let response = match saved {
            Ok(path) => Response::Saved(path),
            Err(error) => Response::Failed(format!("{error:#}")),
        };
        stream.write_all(&line(&response)?).await
    };
    if let Err(error) = served.await {
        tracing::debug!(%error, "whoever asked for a snapshot is gone");
    }
}
