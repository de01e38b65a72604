//! A session as its client: streams are opened on it, and a [`Driver`] carries their frames until it ends.
//!
//! Reading never waits for writing: what reading wants to say (answers to pings, windows) is collected in a bounded
//! place that the writer empties when it can. So a peer that does not read what we send cannot keep us from reading what
//! it sends. What a stream received and nobody took is bounded by [`PIECES`]; then reading waits, for all streams.
//!
//! The servers met in practice keep no windows, and end a session by closing the socket while much of what they said is
//! still in the kernel. A grant that arrives then has the kernel reset the connection, and the rest is lost. So windows are
//! granted at once only to a peer that has shown that it keeps them, to others when nothing comes: they may wait for one.
//! For the same reason a failed write is no end: reading goes on until the peer's bytes end.

use super::frame::{self, Control, HEAD, Head};
use super::headers::{Deflater, Headers, Inflater};
use super::window::{self, Windows};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{Notify, mpsc};

/// Bytes of data that are carried in one piece.
const PIECE: usize = 16 * 1024;
/// Pieces a stream holds for its reader.
const PIECES: usize = 8;
/// Frames that wait for the writer.
const WAITING: usize = 8;
/// Answers to pings and refusals that wait; a peer that asks faster than it reads is not answered.
const REPLIES: usize = 64;
/// Received bytes after which a window is granted again.
const GRANT: u32 = 32 * 1024;
/// A peer that says nothing for so long may wait for a window.
const SILENCE: Duration = Duration::from_millis(50);
/// The status of a refused stream.
const REFUSED: u32 = 3;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("SPDY connection")]
    Io(#[from] std::io::Error),
    /// What the peer sent.
    #[error(transparent)]
    Frame(#[from] frame::Error),
    #[error(transparent)]
    Headers(#[from] super::headers::Error),
    /// The session has ended.
    #[error("SPDY session has ended")]
    Ended,
}

enum Order {
    Open(u32, Headers),
    Data(u32, bool, Bytes),
}

#[derive(Default)]
struct Shared {
    streams: Mutex<HashMap<u32, mpsc::Sender<Bytes>>>,
    windows: Windows,
    replies: Mutex<Replies>,
    reply: Notify,
}

#[derive(Default)]
struct Replies {
    frames: Vec<Control>,
    grants: BTreeMap<u32, u32>,
    /// Grants are to be sent with the next write.
    due: bool,
}

impl Shared {
    fn reply(&self, control: Control) {
        let mut replies = self.replies.lock();
        if replies.frames.len() < REPLIES {
            replies.frames.push(control);
        }
        drop(replies);
        self.reply.notify_one();
    }

    /// Grants the peer what it used, a good part of a window at a time.
    fn received(&self, stream: u32, count: usize, live: bool) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let mut replies = self.replies.lock();
        let mut due = false;
        for id in [0].into_iter().chain(live.then_some(stream)) {
            let grant = replies.grants.entry(id).or_default();
            *grant = grant.saturating_add(count).min(0x7fff_ffff);
            due |= *grant >= GRANT;
        }
        replies.due |= due && self.windows.are_kept();
        if replies.due {
            self.reply.notify_one();
        }
    }

    /// Whether grants are held back.
    fn holds_back(&self) -> bool {
        let replies = self.replies.lock();
        !replies.due && replies.grants.values().any(|grant| *grant >= GRANT)
    }

    /// Nothing comes: whoever keeps windows waits for one.
    fn silent(&self) {
        self.replies.lock().due = true;
        self.reply.notify_one();
    }

    fn end(&self, stream: u32) {
        self.streams.lock().remove(&stream);
        self.replies.lock().grants.remove(&stream);
    }

    fn due(&self) -> Vec<Control> {
        let mut replies = self.replies.lock();
        let mut out = std::mem::take(&mut replies.frames);
        if !std::mem::take(&mut replies.due) {
            return out;
        }
        for (stream, delta) in &mut replies.grants {
            if *delta >= GRANT {
                out.push(Control::WindowUpdate { stream: *stream, delta: std::mem::take(delta) });
            }
        }
        out
    }
}

pub struct Session {
    shared: Arc<Shared>,
    orders: mpsc::Sender<Order>,
    next: u32,
}

/// Carries a session's frames.
pub struct Driver<T> {
    io: T,
    shared: Arc<Shared>,
    orders: mpsc::Receiver<Order>,
    deflater: Deflater,
}

/// The sending side of a stream.
pub struct Sending {
    stream: u32,
    shared: Arc<Shared>,
    orders: mpsc::Sender<Order>,
}

/// The receiving side of a stream.
pub struct Receiving(mpsc::Receiver<Bytes>);

/// A session on a connection that has switched to SPDY/3.1.
pub fn client<T: AsyncRead + AsyncWrite>(io: T) -> Result<(Session, Driver<T>), Error> {
    let (orders, taken) = mpsc::channel(WAITING);
    let shared = Arc::new(Shared::default());
    let driver = Driver { io, shared: shared.clone(), orders: taken, deflater: Deflater::new()? };
    Ok((Session { shared, orders, next: 1 }, driver))
}

impl Session {
    /// Opens a stream. The peer's acceptance is not waited for: its refusal ends the receiving side.
    pub async fn open(&mut self, headers: Headers) -> Result<(Sending, Receiving), Error> {
        let stream = self.next;
        // Clients' streams are odd.
        self.next += 2;
        let (give, take) = mpsc::channel(PIECES);
        self.shared.streams.lock().insert(stream, give);
        self.orders.send(Order::Open(stream, headers)).await.map_err(|_| Error::Ended)?;
        let sending = Sending { stream, shared: self.shared.clone(), orders: self.orders.clone() };
        Ok((sending, Receiving(take)))
    }
}

impl Sending {
    /// Sends bytes, as fast as the peer takes them.
    pub async fn send(&self, mut bytes: Bytes) -> Result<(), Error> {
        while !bytes.is_empty() {
            let count = self.shared.windows.take(self.stream, bytes.len().min(PIECE)).await;
            if count == 0 {
                return Err(Error::Ended);
            }
            self.order(false, bytes.split_to(count)).await?;
        }
        Ok(())
    }

    /// Says that nothing more is sent; the peer may go on.
    pub async fn finish(&self) -> Result<(), Error> {
        self.order(true, Bytes::new()).await
    }

    async fn order(&self, fin: bool, bytes: Bytes) -> Result<(), Error> {
        self.orders.send(Order::Data(self.stream, fin, bytes)).await.map_err(|_| Error::Ended)
    }
}

impl Receiving {
    /// The next bytes; `None` when the peer has finished, refused or gone.
    pub async fn receive(&mut self) -> Option<Bytes> {
        self.0.recv().await
    }
}

impl<T: AsyncRead + AsyncWrite> Driver<T> {
    /// Carries frames until the peer ends the connection, or nobody holds the session or a sending side any more.
    pub async fn run(self) -> Result<(), Error> {
        let Self { io, shared, orders, deflater } = self;
        let (read, write) = tokio::io::split(io);
        let reading = reading(read, &shared);
        tokio::pin!(reading);
        let ended = tokio::select! {
            read = &mut reading => read,
            written = writing(write, &shared, orders, deflater) => match written {
                Ok(()) => Ok(()),
                Err(error) => {
                    tracing::debug!(%error, "the peer takes no more");
                    shared.windows.close();
                    reading.await
                }
            },
        };
        shared.streams.lock().clear();
        shared.windows.close();
        ended
    }
}

async fn writing(
    mut io: impl AsyncWrite + Unpin,
    shared: &Shared,
    mut orders: mpsc::Receiver<Order>,
    mut deflater: Deflater,
) -> Result<(), Error> {
    loop {
        let out = tokio::select! {
            () = shared.reply.notified() => {
                let mut out = Vec::new();
                for control in shared.due() {
                    out.extend(control.write(&mut deflater)?);
                }
                out
            }
            order = orders.recv() => match order {
                None => return Ok(()),
                Some(Order::Open(stream, headers)) => {
                    Control::SynStream { stream, fin: false, headers }.write(&mut deflater)?
                }
                Some(Order::Data(stream, fin, bytes)) => {
                    [&frame::data(stream, fin, bytes.len())[..], &bytes].concat()
                }
            },
        };
        io.write_all(&out).await?;
        io.flush().await?;
    }
}

async fn reading(io: impl AsyncRead + Unpin, shared: &Shared) -> Result<(), Error> {
    let mut io = BufReader::with_capacity(PIECE, io);
    let mut inflater = Inflater::default();
    loop {
        if shared.holds_back() && tokio::time::timeout(SILENCE, io.fill_buf()).await.is_err() {
            shared.silent();
        }
        let mut bytes = [0; HEAD];
        match io.read_exact(&mut bytes).await {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        match frame::head(&bytes)? {
            Head::Data { stream, fin, length } => data(&mut io, shared, stream, fin, length).await?,
            Head::Control { kind, flags, length } => {
                let mut payload = vec![0; length];
                io.read_exact(&mut payload).await?;
                control(shared, Control::read(kind, flags, &payload, &mut inflater)?);
            }
        }
    }
}

async fn data(
    io: &mut (impl AsyncRead + Unpin),
    shared: &Shared,
    stream: u32,
    fin: bool,
    mut length: usize,
) -> Result<(), Error> {
    while length > 0 {
        let mut piece = vec![0; length.min(PIECE)];
        io.read_exact(&mut piece).await?;
        length -= piece.len();
        let count = piece.len();
        let give = shared.streams.lock().get(&stream).cloned();
        let live = match give {
            Some(give) => give.send(piece.into()).await.is_ok(),
            None => false,
        };
        shared.received(stream, count, live);
    }
    if fin {
        shared.end(stream);
    }
    Ok(())
}

fn control(shared: &Shared, control: Control) {
    match control {
        // The client's own pings are odd, and we send none.
        Control::Ping(id) if id % 2 == 0 => shared.reply(Control::Ping(id)),
        Control::SynStream { stream, .. } => shared.reply(Control::RstStream { stream, status: REFUSED }),
        Control::RstStream { stream, .. }
        | Control::SynReply { stream, fin: true, .. }
        | Control::Headers { stream, fin: true, .. } => shared.end(stream),
        Control::WindowUpdate { stream, delta } => shared.windows.grant(stream, delta),
        Control::Settings(entries) => {
            for (_, value) in entries.iter().filter(|(id, _)| *id == window::SETTING) {
                shared.windows.initial(*value);
            }
        }
        // After a GOAWAY the streams there are go on; the peer closes the connection when it has finished.
        Control::GoAway { .. }
        | Control::Ping(_)
        | Control::SynReply { .. }
        | Control::Headers { .. }
        | Control::Unknown(_) => {}
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test sees how what it spawns ends")]
mod tests;
