//! The socket. The kernel works off a datagram while it is sent, and goes on with a dump while it is read: answers are read without
//! waiting, and one that is not there will not come. So a batch is never cut in half by a `kill -9`.

use crate::attribute::Writer;
use crate::message::{
    ACK, DONE, DUMP, ERROR, HEADER, INTERRUPTED, Message, REQUEST, Refusal, Request, messages,
};
use netlink_sys::{Socket as Netlink, SocketAddr, protocols};
use nix::sys::socket::{setsockopt, sockopt::SndBufForce};
use std::io;
use std::ops::ControlFlow;

/// How often a dump that changed underneath is begun again.
const DUMP_TRIES: usize = 5;
/// Room in the send buffer that is always there (the kernel's smallest default is more).
const PLAIN_SEND: usize = 64 * 1024;

/// The kernel subsystem a socket speaks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `NETLINK_ROUTE`: links, addresses, routes.
    Route,
    /// nftables and connection tracking.
    Netfilter,
    /// `NETLINK_GENERIC`: WireGuard.
    Generic,
}

/// Why a request was not carried out, or its answer is not known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A message was not taken or an answer is missing.
    #[error("{doing} a netlink socket")]
    Socket {
        /// Opening, writing to or reading from it.
        doing: &'static str,
        /// The kernel's errno.
        #[source]
        source: io::Error,
    },
    /// The first request that was refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A list changed each time it was read.
    #[error("what is listed changed all the time")]
    Unsteady,
    /// The blocking task ended early.
    #[error("the task that talks to the kernel ended early")]
    Task,
}

impl Error {
    /// The errno of a refusal; 0 for anything else.
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            Self::Refused(refusal) => refusal.error.raw_os_error().unwrap_or(0),
            _ => 0,
        }
    }

    /// The kind of a refusal.
    #[must_use]
    pub fn kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Refused(refusal) => Some(refusal.error.kind()),
            _ => None,
        }
    }

    /// Which of the requests that were sent together failed.
    #[must_use]
    pub fn request(&self) -> usize {
        match self {
            Self::Refused(refusal) => refusal.request,
            _ => 0,
        }
    }
}

fn failed(doing: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Socket { doing, source }
}

/// A socket in the network namespace it was opened in.
#[derive(Debug)]
pub struct Socket {
    netlink: Netlink,
    sequence: u32,
    send_room: usize,
    /// No answer was lost.
    in_step: bool,
}

/// What one message was answered, less the header.
pub(crate) type Replies = Vec<Vec<u8>>;

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// There is no netlink.
    pub fn open(protocol: Protocol) -> Result<Self, Error> {
        let open = || {
            let mut netlink = Netlink::new(match protocol {
                Protocol::Route => protocols::NETLINK_ROUTE,
                Protocol::Netfilter => protocols::NETLINK_NETFILTER,
                Protocol::Generic => protocols::NETLINK_GENERIC,
            })?;
            netlink.bind(&SocketAddr::new(0, 0))?;
            netlink.connect(&SocketAddr::new(0, 0))?;
            netlink.set_non_blocking(true)?;
            // Refusals without a copy of what was refused, and with words.
            netlink.set_cap_ack(true)?;
            netlink.set_ext_ack(true)?;
            Ok(netlink)
        };
        let netlink = open().map_err(failed("open"))?;
        Ok(Self { netlink, sequence: 0, send_room: PLAIN_SEND, in_step: true })
    }

    /// Makes the kernel apply a dump's filters (link, table) instead of listing everything.
    ///
    /// # Errors
    /// The kernel is older than 4.20.
    pub fn filter_strictly(&self) -> Result<(), Error> {
        self.netlink.set_netlink_get_strict_chk(true).map_err(failed("configure"))
    }

    /// Sends one request.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn request(&mut self, request: Request) -> Result<(), Error> {
        self.batch(&[request])
    }

    /// Sends all requests in one datagram. The kernel tries every one of them even if one fails.
    ///
    /// # Errors
    /// The first refusal, with the request's place in the batch.
    pub fn batch(&mut self, requests: &[Request]) -> Result<(), Error> {
        self.exchange(requests).map(drop)
    }

    /// Sends one request and returns what it was answered.
    pub(crate) fn get(&mut self, request: Request) -> Result<Replies, Error> {
        self.exchange(&[request])
    }

    fn exchange(&mut self, requests: &[Request]) -> Result<Replies, Error> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let count = requests.len();
        let first = self.number(count);
        let mut datagram = Writer::default();
        for (sequence, request) in (0..).map(|n| first.wrapping_add(n)).zip(requests) {
            request.write(&mut datagram, REQUEST | ACK, sequence);
        }
        self.send(&datagram.bytes)?;
        let (mut replies, mut answered) = (Vec::new(), 0);
        let mut failure: Option<Refusal> = None;
        let read = self.receive(|message| {
            let place = message.sequence.wrapping_sub(first) as usize;
            // Else it answers an exchange that was given up.
            if place < count {
                match message.kind {
                    ERROR | DONE => {
                        answered += 1;
                        if let Some(refusal) = message.refusal(place)
                            && failure.as_ref().is_none_or(|known| place < known.request)
                        {
                            failure = Some(refusal);
                        }
                    }
                    _ => replies.push(message.body.to_vec()),
                }
            }
            if answered == count { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        match failure {
            Some(refusal) => Err(refusal.into()),
            None => read.map(|()| replies),
        }
    }

    /// Lists, and gives each entry to `each`; what it returns is gathered.
    ///
    /// # Errors
    /// The kernel's refusal, or the list changed each time it was read.
    pub(crate) fn dump<T>(
        &mut self,
        request: &Request,
        mut each: impl FnMut(&[u8], &mut Vec<T>),
    ) -> Result<Vec<T>, Error> {
        for _ in 0..DUMP_TRIES {
            let sequence = self.number(1);
            let mut datagram = Writer::default();
            request.write(&mut datagram, REQUEST | DUMP, sequence);
            self.send(&datagram.bytes)?;
            let (mut found, mut steady, mut failure) = (Vec::new(), true, None);
            self.receive(|message| {
                if message.sequence != sequence {
                    return ControlFlow::Continue(());
                }
                steady &= message.flags & INTERRUPTED == 0;
                if let ERROR | DONE = message.kind {
                    failure = message.refusal(0);
                    return ControlFlow::Break(());
                }
                each(message.body, &mut found);
                ControlFlow::Continue(())
            })?;
            match failure {
                Some(refusal) => return Err(refusal.into()),
                None if steady => return Ok(found),
                None => {}
            }
        }
        Err(Error::Unsteady)
    }

    /// Numbers for so many messages; the first of them.
    pub(crate) fn number(&mut self, count: usize) -> u32 {
        let first = self.sequence.wrapping_add(1);
        self.sequence = self.sequence.wrapping_add(u32::try_from(count).unwrap_or(u32::MAX));
        first
    }

    /// Every request so far was answered, or nothing of it was sent.
    #[cfg(feature = "tokio")]
    pub(crate) fn is_in_step(&self) -> bool {
        self.in_step
    }

    /// Reads until `each` has enough.
    pub(crate) fn receive(
        &mut self,
        mut each: impl FnMut(Message<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        loop {
            let bytes = match self.netlink.recv_from_full() {
                Ok((bytes, _)) => bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    self.in_step = false;
                    return Err(Error::Socket { doing: "read from", source });
                }
            };
            if messages(&bytes).any(|message| each(message).is_break()) {
                return Ok(());
            }
        }
    }

    pub(crate) fn send(&mut self, datagram: &[u8]) -> Result<(), Error> {
        let wanted = datagram.len() + HEADER * 64;
        if wanted > self.send_room {
            setsockopt(&self.netlink, SndBufForce, &wanted).map_err(|e| failed("make room in")(e.into()))?;
            self.send_room = wanted;
        }
        self.in_step = false;
        let sent = self.netlink.send(datagram, 0).map_err(failed("write to"))?;
        if sent != datagram.len() {
            return Err(failed("write to")(io::ErrorKind::WriteZero.into()));
        }
        self.in_step = true;
        Ok(())
    }
}
