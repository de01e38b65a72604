//! A log file as a series of chunks for somebody who reads as fast as they like.
//!
//! What wakes a reader that follows: a change in the file's directory (inotify). What it reads: its file to the end,
//! then, when another file has taken the name (rotation), that one from its beginning. What it promises: every byte
//! once and in order, across rotations, until the container has exited and everything it wrote is read. Whether the
//! container runs is asked only while nothing is written, once a period as upstream does: runtimes report an exit
//! before or after the last write reached the file, so that only silence after the exit is the end.

use super::line::{Decoder, Malformed};
use super::select::{Options, Selector};
use super::tail;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use inotify::{EventStream, Inotify, WatchMask};
use machinery::goformat::path_error;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Bytes read at once.
const BLOCK: usize = 32 * 1024;
/// How long it may be silent before the container is looked at.
const SILENCE: Duration = Duration::from_secs(1);

/// Whether the container that writes still runs.
pub trait Writer: Send + Sync {
    /// False when it has exited or is gone; an error is told to the reader's client and ends the reading.
    fn running(&self) -> impl Future<Output = Result<bool, String>> + Send;
}

/// Why a log cannot be read (on), in upstream's words.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path leads nowhere.
    #[error("failed to try resolving symlinks in path {:?}: {}", .path, path_error("lstat", .path, .source))]
    Resolve { path: PathBuf, source: std::io::Error },
    /// The file cannot be opened.
    #[error("failed to open log file {:?}: {}", .path, path_error("open", .path, .source))]
    Open { path: PathBuf, source: std::io::Error },
    /// The file cannot be read.
    #[error("failed to read log file {:?}: {}", .path, path_error("read", .path, .source))]
    Read { path: PathBuf, source: std::io::Error },
    /// It is no log.
    #[error("unsupported log format: {:?}", String::from_utf8_lossy(.0))]
    Format(Bytes),
    /// Whether the container runs cannot be told.
    #[error("{0}")]
    Writer(String),
}

/// Reads one container's log.
pub struct Reader<W> {
    path: PathBuf,
    file: Arc<File>,
    position: u64,
    decoder: Decoder,
    selector: Selector,
    follow: bool,
    watch: Option<EventStream<[u8; 4096]>>,
    writer: W,
    phase: Phase,
    /// A line was understood: later ones that are not are passed over.
    understood: bool,
    silence: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Left when the file has a successor, when the writer has exited, or at the end for who does not follow.
    Reading,
    /// Another file has the name: what is left of this one first.
    Rotated,
    /// The writer has exited: what is left is all there will be.
    Exited,
    /// Final.
    Done,
}

impl<W: Writer> Reader<W> {
    /// Opens a log and finds where to begin.
    pub async fn open(path: &Path, options: &Options, writer: W) -> Result<Self, Error> {
        let (asked, tail) = (path.to_owned(), options.tail);
        let (path, file, position) = blocking(move || {
            let path =
                std::fs::canonicalize(&asked).map_err(|source| Error::Resolve { path: asked, source })?;
            let mut file = File::open(&path).map_err(|source| Error::Open { path: path.clone(), source })?;
            let position = match tail {
                Some(lines) => tail::start(&mut file, lines),
                None => Ok(0),
            };
            let position = position.map_err(|source| Error::Read { path: path.clone(), source })?;
            Ok((path, file, position))
        })
        .await?;
        Ok(Self {
            path,
            file: Arc::new(file),
            position,
            decoder: Decoder::default(),
            selector: Selector::new(options),
            follow: options.follow,
            watch: None,
            writer,
            phase: Phase::Reading,
            understood: false,
            silence: SILENCE,
        })
    }

    /// The next chunk of output; `None` at the end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        let mut out = BytesMut::new();
        while self.phase != Phase::Done {
            let read = self.read().await?;
            if !read.is_empty() {
                self.decoder.push(&read);
                self.drain(&mut out)?;
            } else if !self.follow || self.phase == Phase::Exited {
                self.finish(&mut out)?;
                self.phase = Phase::Done;
            } else if self.phase == Phase::Rotated {
                self.finish(&mut out)?;
                if self.phase != Phase::Done {
                    self.reopen().await?;
                }
            } else if self.watch.is_none() && self.start_watch() {
                // What was written before the watch began is read first.
                continue;
            } else if self.is_rotated() {
                // The writer may have used the old file between our last look and the new one's making.
                self.phase = Phase::Rotated;
            } else {
                self.wait().await?;
            }
            if !out.is_empty() {
                return Ok(Some(out.freeze()));
            }
        }
        Ok(None)
    }

    async fn read(&mut self) -> Result<Vec<u8>, Error> {
        let (file, position, path) = (self.file.clone(), self.position, self.path.clone());
        let read = blocking(move || {
            let mut block = vec![0; BLOCK];
            let count = file.read_at(&mut block, position).map_err(|source| Error::Read { path, source })?;
            block.truncate(count);
            Ok(block)
        })
        .await?;
        self.position += read.len() as u64;
        Ok(read)
    }

    fn drain(&mut self, out: &mut BytesMut) -> Result<(), Error> {
        while let Some(piece) = self.decoder.piece() {
            self.take(piece, out)?;
            if self.phase == Phase::Done {
                break;
            }
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut BytesMut) -> Result<(), Error> {
        match self.decoder.finish() {
            Some(piece) => self.take(piece, out),
            None => Ok(()),
        }
    }

    fn take(
        &mut self,
        piece: Result<super::line::Piece, Malformed>,
        out: &mut BytesMut,
    ) -> Result<(), Error> {
        match piece {
            Ok(piece) => {
                self.understood = true;
                if self.selector.take(&piece, out).is_break() {
                    self.phase = Phase::Done;
                }
                Ok(())
            }
            Err(Malformed(line)) if !self.understood => Err(Error::Format(line)),
            Err(Malformed(_)) => {
                tracing::debug!(path = %self.path.display(), "a line of a log is none");
                Ok(())
            }
        }
    }

    /// Whether another file has our name, or ours was cut.
    fn is_rotated(&mut self) -> bool {
        let (Ok(named), Ok(ours)) = (std::fs::metadata(&self.path), self.file.metadata()) else {
            return false;
        };
        if (named.dev(), named.ino()) != (ours.dev(), ours.ino()) {
            return true;
        }
        if ours.len() < self.position {
            self.position = 0;
        }
        false
    }

    async fn reopen(&mut self) -> Result<(), Error> {
        let path = self.path.clone();
        match blocking(move || Ok(File::open(&path))).await? {
            Ok(file) => {
                self.file = Arc::new(file);
                self.position = 0;
            }
            // Gone again: the next of that name will do.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::Open { path: self.path.clone(), source }),
        }
        self.phase = Phase::Reading;
        Ok(())
    }

    /// Begins to watch the directory. Where that is impossible (the user's limit of instances), looking once a period
    /// has to do.
    fn start_watch(&mut self) -> bool {
        let Some(directory) = self.path.parent() else { return false };
        let begin = || -> std::io::Result<_> {
            let inotify = Inotify::init()?;
            let what = WatchMask::MODIFY | WatchMask::CREATE | WatchMask::MOVED_TO;
            inotify.watches().add(directory, what)?;
            inotify.into_event_stream([0; 4096])
        };
        match begin() {
            Ok(watch) => self.watch = Some(watch),
            Err(error) => tracing::warn!(%error, directory = %directory.display(), "watch a log directory"),
        }
        self.watch.is_some()
    }

    async fn wait(&mut self) -> Result<(), Error> {
        let changed = async {
            match &mut self.watch {
                Some(watch) => watch.next().await.is_some(),
                None => false,
            }
        };
        let waited = tokio::time::timeout(self.silence, async {
            if !changed.await {
                std::future::pending::<()>().await;
            }
        });
        if waited.await.is_err() && !self.writer.running().await.map_err(Error::Writer)? {
            self.phase = Phase::Exited;
        }
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        // Only at the runtime's own end.
        Err(error) => Err(Error::Writer(error.to_string())),
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test sees how what it spawns ends")]
mod tests;
