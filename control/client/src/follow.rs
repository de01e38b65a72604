//! List, then watch from the list's version, forever: what comes, as the bytes it came in.
//!
//! Nothing here depends on a kind, so that a component with thirty watches has this code once. Memory: one page of a list, one event of
//! a watch. After an error it goes on with backoff from where it was, and from a new list where the server has forgotten that.

use crate::deadline::within;
use crate::decode::Metadata;
use crate::source::Source;
use futures::stream::{BoxStream, StreamExt, unfold};
use futures::{AsyncBufRead, AsyncBufReadExt};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::pin::Pin;
use std::time::Duration;
use supervise::Backoff;
use tokio::time::{Instant, timeout};

/// First and longest pause after a failure, as client-go's reflector has them.
const PAUSES: (Duration, Duration) = (Duration::from_millis(800), Duration::from_secs(30));
/// A server ends a watch after 290 seconds, as it is asked to; one that is silent for longer is not there any more.
const SILENCE: Duration = Duration::from_secs(295);
/// One that sends bookmarks does so every minute, with up to a quarter more (upstream: `defaultBookmarkFrequency`): it is not there any more sooner.
const BOOKMARKED: Duration = Duration::from_secs(100);
/// A watch that ends sooner did not work: the next one waits.
const SHORT: Duration = Duration::from_secs(1);
/// The longest event taken; objects are far below.
const LONGEST_LINE: usize = 64 << 20;

/// Why a watch was interrupted. It goes on by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The list cannot be had.
    #[error("list {path}")]
    List {
        /// URL path of the resource.
        path: String,
        /// HTTP or API error.
        #[source]
        source: Box<kube::Error>,
    },
    /// The list is not one, as a whole.
    #[error("read the list of {path}")]
    Page {
        /// URL path of the resource.
        path: String,
        /// JSON error.
        #[source]
        source: serde_json::Error,
    },
    /// The watch cannot be had.
    #[error("watch {path}")]
    Watch {
        /// URL path of the resource.
        path: String,
        /// HTTP or API error.
        #[source]
        source: Box<kube::Error>,
    },
    /// The server ended the watch with an error.
    #[error("watch {path}: {message} ({code})")]
    Ended {
        /// URL path of the resource.
        path: String,
        /// `code` of the Status.
        code: u16,
        /// `message` of the Status.
        message: String,
    },
    /// What the watch sends cannot be read.
    #[error("read the watch of {path}")]
    Stream {
        /// URL path of the resource.
        path: String,
        /// Error of the connection or of a line's JSON.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// The HTTP status of the server's answer, if it gave one.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::List { source, .. } | Self::Watch { source, .. } => match &**source {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            Self::Ended { code, .. } => Some(*code),
            Self::Page { .. } | Self::Stream { .. } => None,
        }
    }
}

pub(crate) enum Raw {
    Begin,
    /// The list has this object.
    Listed(Box<RawValue>),
    /// The list is complete.
    End,
    /// An object came or changed.
    Set(Box<RawValue>),
    /// An object went; its last state.
    Gone(Box<RawValue>),
    Failed(Error),
}

/// Follows forever.
pub(crate) fn follow(source: Source) -> BoxStream<'static, Raw> {
    let backoff = Backoff::new(PAUSES.0, PAUSES.1);
    let follow = Follow { source, state: State::Begin, backoff, failed: false, bookmarks: false };
    unfold(follow, |mut follow| async move { Some((follow.next().await, follow)) }).boxed()
}

type Reader = Pin<Box<dyn AsyncBufRead + Send>>;

enum State {
    Begin,
    /// In a list: what is left of a page, the next page, and the list's version.
    Page {
        items: std::vec::IntoIter<Box<RawValue>>,
        next: Option<String>,
        version: Option<String>,
    },
    /// Everything up to a version is known.
    Known(String),
    Watching {
        version: String,
        reader: Reader,
        since: Instant,
    },
}

struct Follow {
    source: Source,
    state: State,
    backoff: Backoff,
    failed: bool,
    /// The server sends bookmarks.
    bookmarks: bool,
}

impl Follow {
    async fn next(&mut self) -> Raw {
        loop {
            if std::mem::take(&mut self.failed) {
                self.backoff.pause().await;
            }
            let (raw, state) = match std::mem::replace(&mut self.state, State::Begin) {
                State::Begin => {
                    let page = State::Page { items: Vec::new().into_iter(), next: None, version: None };
                    (Some(Raw::Begin), page)
                }
                State::Page { mut items, next, version } => match (items.next(), &next, &version) {
                    (Some(item), ..) => (Some(Raw::Listed(item)), State::Page { items, next, version }),
                    (None, None, Some(version)) => (Some(Raw::End), State::Known(version.clone())),
                    (None, ..) => match self.page(next).await {
                        Ok(page) => (None, page),
                        Err(error) => (Some(Raw::Failed(error)), State::Begin),
                    },
                },
                State::Known(version) => self.open(version).await,
                State::Watching { version, reader, since } => self.event(version, reader, since).await,
            };
            self.state = state;
            if let Some(raw) = raw {
                self.failed |= matches!(raw, Raw::Failed(_));
                return raw;
            }
        }
    }

    async fn page(&mut self, next: Option<String>) -> Result<State, Error> {
        let path = || self.source.path.clone();
        let asked = async { self.source.client.request_text(self.source.list(next)?).await };
        let text = within(asked).await.map_err(|e| Error::List { path: path(), source: Box::new(e) })?;
        let list = List::read(&text).map_err(|source| Error::Page { path: path(), source })?;
        let items: Vec<Box<RawValue>> =
            list.items.unwrap_or_default().into_iter().map(ToOwned::to_owned).collect();
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let metadata = list.metadata;
        // A server that names no version starts the watch with whatever it has.
        let version = metadata.resource_version.unwrap_or_default();
        Ok(State::Page { items: items.into_iter(), next: given(metadata.next), version: Some(version) })
    }

    async fn open(&mut self, version: String) -> (Option<Raw>, State) {
        let asked = async { self.source.client.request_stream(self.source.watch(&version)?).await };
        match within(asked).await {
            Ok(reader) => {
                (None, State::Watching { version, reader: Box::pin(reader), since: Instant::now() })
            }
            Err(source) => {
                let error = Error::Watch { path: self.source.path.clone(), source: Box::new(source) };
                let state = if error.code() == Some(410) { State::Begin } else { State::Known(version) };
                (Some(Raw::Failed(error)), state)
            }
        }
    }

    async fn event(&mut self, version: String, mut reader: Reader, since: Instant) -> (Option<Raw>, State) {
        let mut line = Vec::new();
        let silence = if self.bookmarks { BOOKMARKED } else { SILENCE };
        match timeout(silence, read_line(&mut reader, &mut line)).await {
            Ok(Ok(true)) => {}
            Ok(Err(source)) if source.kind() != std::io::ErrorKind::UnexpectedEof => {
                let path = self.source.path.clone();
                return (Some(Raw::Failed(Error::Stream { path, source })), State::Known(version));
            }
            // Its time is over, or nobody is there.
            _ => {
                self.failed = since.elapsed() < SHORT;
                return (None, State::Known(version));
            }
        }
        let Ok(event) = serde_json::from_slice::<Line<'_>>(&line) else {
            let source = std::io::ErrorKind::InvalidData.into();
            let path = self.source.path.clone();
            // Whatever it was, it is in a new list.
            return (Some(Raw::Failed(Error::Stream { path, source })), State::Begin);
        };
        let newer = Metadata::of(event.object.get()).resource_version;
        let version = if newer.is_empty() { version } else { newer.into_owned() };
        let object = || event.object.to_owned();
        let raw = match &*event.kind {
            "ADDED" | "MODIFIED" => Some(Raw::Set(object())),
            "DELETED" => Some(Raw::Gone(object())),
            "ERROR" => {
                let status: Ended = serde_json::from_str(event.object.get()).unwrap_or_default();
                let (path, code) = (self.source.path.clone(), status.code.unwrap_or_default());
                let error = Error::Ended { path, code, message: status.message.unwrap_or_default() };
                let state = if code == 410 { State::Begin } else { State::Known(version) };
                return (Some(Raw::Failed(error)), state);
            }
            kind => {
                self.bookmarks |= kind == "BOOKMARK";
                None
            }
        };
        self.backoff.reset();
        (raw, State::Watching { version, reader, since })
    }
}

/// Reads up to the end of a line; false at the end of the stream, whose last piece is no event.
async fn read_line(reader: &mut Reader, line: &mut Vec<u8>) -> std::io::Result<bool> {
    loop {
        let available = reader.fill_buf().await?;
        let end = available.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(available.len(), |end| end + 1);
        if taken == 0 {
            return Ok(false);
        }
        line.extend_from_slice(&available[..taken]);
        reader.consume_unpin(taken);
        if line.len() > LONGEST_LINE {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        // An empty line keeps a connection awake.
        match end {
            Some(_) if line.iter().all(u8::is_ascii_whitespace) => line.clear(),
            Some(_) => return Ok(true),
            None => {}
        }
    }
}

#[derive(Deserialize)]
struct List<'a> {
    #[serde(default)]
    metadata: ListMetadata,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

impl<'a> List<'a> {
    fn read(text: &'a str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ListMetadata {
    resource_version: Option<String>,
    #[serde(rename = "continue")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Ended {
    code: Option<u16>,
    message: Option<String>,
}
