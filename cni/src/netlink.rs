//! A synchronous netlink socket that sends a batch of requests in one datagram and gathers each one's answers.
//!
//! The kernel works through a datagram within the `send` call, so a batch is never cut in half by a `kill -9`.

use std::io;

use netlink_packet_core::Emitable;
use netlink_sys::SocketAddr;
use nix::sys::{
    socket::{setsockopt, sockopt::ReceiveTimeout},
    time::TimeVal,
};

/// Flags of a netlink request.
pub mod flags {
    /// Every request carries it.
    pub const REQUEST: u16 = 0x1;
    /// Answer even if all is well.
    pub const ACK: u16 = 0x4;
    /// Return the whole table.
    pub const DUMP: u16 = 0x300;
    /// Replace what is there.
    pub const REPLACE: u16 = 0x100;
    /// Fail if it is there.
    pub const EXCL: u16 = 0x200;
    /// Make it if it is not there.
    pub const CREATE: u16 = 0x400;
    /// Add at the end.
    pub const APPEND: u16 = 0x800;
}

const HEADER: usize = 16;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const ACK_TLVS: u16 = 0x200;
const CAPPED: u16 = 0x100;
const EXT_ACK_MESSAGE: u16 = 1;
// The kernel answers within the send; a longer silence means that it never will.
const ANSWER_WITHIN: i64 = 20;

/// The kernel's refusal of a request.
#[derive(Debug, thiserror::Error)]
#[error("{}", .message.as_ref().map_or_else(|| .error.to_string(), |message| format!("{}: {message}", .error)))]
pub struct NetlinkError {
    /// The errno.
    pub error: io::Error,
    /// The kernel's own words, where it has any.
    pub message: Option<String>,
    /// Which of the batch's requests.
    pub request: usize,
}

impl NetlinkError {
    /// The errno; 0 where there is none.
    #[must_use]
    pub fn errno(&self) -> i32 {
        self.error.raw_os_error().unwrap_or(0)
    }
}

impl From<io::Error> for NetlinkError {
    fn from(error: io::Error) -> Self {
        Self { error, message: None, request: 0 }
    }
}

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Request {
    /// A request with a body as `netlink-packet-route` makes them.
    #[must_use]
    pub fn new(kind: u16, flags: u16, body: &impl Emitable) -> Self {
        let mut bytes = vec![0; body.buffer_len()];
        body.emit(&mut bytes);
        Self::raw(kind, flags, bytes)
    }

    /// A request with a body made by hand.
    #[must_use]
    pub fn raw(kind: u16, flags: u16, body: Vec<u8>) -> Self {
        Self { kind, flags, body }
    }

    /// Appends the message, padded, to a datagram.
    pub(crate) fn write(&self, datagram: &mut Vec<u8>, flags: u16, sequence: u32) {
        let length = u32::try_from(HEADER + self.body.len()).unwrap_or(u32::MAX);
        datagram.extend(length.to_ne_bytes());
        datagram.extend(self.kind.to_ne_bytes());
        datagram.extend((self.flags | flags).to_ne_bytes());
        datagram.extend(sequence.to_ne_bytes());
        datagram.extend(0u32.to_ne_bytes());
        datagram.extend(&self.body);
        datagram.resize(datagram.len().next_multiple_of(4), 0);
    }
}

/// One message of an answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The message type.
    pub kind: u16,
    /// Everything after the netlink header.
    pub body: Vec<u8>,
}

/// A netlink socket in the namespace it was opened in.
#[derive(Debug)]
pub struct Socket {
    inner: netlink_sys::Socket,
    sequence: u32,
}

/// What became of one request so far.
#[derive(Debug, Default)]
struct Answer {
    replies: Vec<Reply>,
    complete: bool,
}

impl Socket {
    /// Opens a socket of that protocol (`NETLINK_ROUTE`, `NETLINK_NETFILTER`) in the calling thread's namespace.
    ///
    /// # Errors
    /// The system's.
    pub fn open(protocol: isize) -> Result<Self, NetlinkError> {
        let mut inner = netlink_sys::Socket::new(protocol)?;
        inner.bind(&SocketAddr::new(0, 0))?;
        inner.connect(&SocketAddr::new(0, 0))?;
        inner.set_cap_ack(true)?;
        inner.set_ext_ack(true)?;
        setsockopt(&inner, ReceiveTimeout, &TimeVal::new(ANSWER_WITHIN, 0)).map_err(io::Error::from)?;
        Ok(Self { inner, sequence: 0 })
    }

    /// Has the kernel heed a dump's filters (index, table) rather than return everything.
    ///
    /// # Errors
    /// The system's.
    pub fn filter_strictly(&self) -> Result<(), NetlinkError> {
        Ok(self.inner.set_netlink_get_strict_chk(true)?)
    }

    /// Sends one request and returns its answer.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn request(&mut self, request: Request) -> Result<Vec<Reply>, NetlinkError> {
        Ok(self.batch(&[request])?.pop().unwrap_or_default())
    }

    /// Sends all requests in one datagram and returns the answer of each.
    /// The kernel tries every one of them even if one fails; the first failure is what is returned.
    ///
    /// # Errors
    /// The first refusal, with the request's place in the batch.
    pub fn batch(&mut self, requests: &[Request]) -> Result<Vec<Vec<Reply>>, NetlinkError> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let first = self.sequence.wrapping_add(1);
        let mut datagram = Vec::new();
        for request in requests {
            self.sequence = self.sequence.wrapping_add(1);
            request.write(&mut datagram, flags::REQUEST | flags::ACK, self.sequence);
        }
        self.exchange(&datagram, first, requests.len(), None)
    }

    /// Sends a datagram of `count` requests numbered from `first` on and gathers their answers.
    /// An error answered to `envelope`, a message around the requests, ends the exchange.
    pub(crate) fn exchange(
        &mut self,
        datagram: &[u8],
        first: u32,
        count: usize,
        envelope: Option<u32>,
    ) -> Result<Vec<Vec<Reply>>, NetlinkError> {
        self.inner.send(datagram, 0)?;
        let mut answers: Vec<Answer> = std::iter::repeat_with(Answer::default).take(count).collect();
        let mut failure: Option<NetlinkError> = None;
        while answers.iter().any(|answer| !answer.complete) {
            let received = match self.inner.recv_from_full() {
                Ok((received, _)) => received,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failure.unwrap_or_else(|| error.into())),
            };
            for message in Messages(&received) {
                let enveloped = envelope == Some(message.sequence);
                let place = message.sequence.wrapping_sub(first) as usize;
                if !enveloped && place >= count {
                    // An answer to an exchange that was given up.
                    continue;
                }
                match message.kind {
                    ERROR | DONE => {
                        if let Some(error) = message.failure(if enveloped { 0 } else { place }) {
                            if enveloped {
                                return Err(failure.unwrap_or(error));
                            }
                            if failure.as_ref().is_none_or(|known| place < known.request) {
                                failure = Some(error);
                            }
                        }
                        if !enveloped {
                            answers[place].complete = true;
                        }
                    }
                    kind => answers[place].replies.push(Reply { kind, body: message.body.to_vec() }),
                }
            }
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(answers.into_iter().map(|answer| answer.replies).collect()),
        }
    }

    /// Numbers for `count` messages; the first of them.
    pub(crate) fn number(&mut self, count: u32) -> u32 {
        let first = self.sequence.wrapping_add(1);
        self.sequence = self.sequence.wrapping_add(count);
        first
    }
}

/// One message of a received datagram.
struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'a [u8],
}

impl Message<'_> {
    /// The error that an `NLMSG_ERROR` or `NLMSG_DONE` carries; `None` for an acknowledgement.
    fn failure(&self, request: usize) -> Option<NetlinkError> {
        let code = self.body.first_chunk::<4>().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
        if code >= 0 {
            return None;
        }
        let mut attributes = 4;
        if self.kind == ERROR {
            let original =
                self.body.get(4..8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes);
            attributes +=
                if self.flags & CAPPED == 0 { (original as usize).next_multiple_of(4) } else { HEADER };
        }
        let message = (self.flags & ACK_TLVS != 0)
            .then(|| self.body.get(attributes..))
            .flatten()
            .and_then(|bytes| find(bytes, EXT_ACK_MESSAGE).map(|text| text_of(text).to_owned()));
        Some(NetlinkError { error: io::Error::from_raw_os_error(-code), message, request })
    }
}

struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let header = self.0.first_chunk::<HEADER>()?;
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let body = self.0.get(HEADER..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            body,
        })
    }
}

/// The attributes in `bytes`; reading stops at the first malformed one.
pub(crate) fn attributes(bytes: &[u8]) -> Attributes<'_> {
    Attributes(bytes)
}

/// Iterates over type and value.
pub(crate) struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let header = self.0.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        // The two highest bits say "nested" and "network byte order".
        Some((u16::from_ne_bytes([header[2], header[3]]) & 0x3fff, value))
    }
}

/// The value of the first attribute of that type.
pub(crate) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A string attribute, less its terminator.
pub(crate) fn text_of(value: &[u8]) -> &str {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    std::str::from_utf8(&value[..end]).unwrap_or_default()
}

/// A native-endian number attribute.
pub(crate) fn number_of(value: &[u8]) -> Option<u32> {
    value.first_chunk::<4>().map(|bytes| u32::from_ne_bytes(*bytes))
}
