//! The socket. The kernel works off a transaction while it is sent and has answered when the call returns, so that answers are read
//! without waiting: one that is not there will not come.

use crate::attribute::{Writer, attributes, find, read_text, read_u32, read_u64};
use crate::batch::{self, Batch, Finished, GET_ELEMENT, GET_TABLE, HEADER, Header, write_message};
use crate::object::{Bytes, Table};
use netlink_sys::{Socket as Netlink, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::sys::socket::{setsockopt, sockopt::SndBufForce};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

const ERROR: u16 = 2;
const DONE: u16 = 3;
const DUMP: u16 = 0x300;
const INTERRUPTED: u16 = 0x10;
const CAPPED: u16 = 0x100;
const EXTENDED: u16 = 0x200;
/// How often a list that changed underneath is begun again.
const DUMP_TRIES: usize = 5;
/// Room in the send buffer that is always there (the kernel's smallest default is more).
const PLAIN_SEND: usize = 64 * 1024;

/// Why the kernel was not changed or did not tell.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no netlink.
    #[error("open a netlink socket for nftables")]
    Open(#[source] io::Error),
    /// A message was not taken or an answer is missing.
    #[error("{doing} nftables over netlink")]
    Talk {
        /// Sending or reading.
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel refused the transaction; nothing of it is done.
    #[error("{subject}{}", detail.as_ref().map(|text| format!(" ({text})")).unwrap_or_default())]
    Refused {
        /// The first message it did not like.
        subject: String,
        /// What else the kernel said.
        detail: Option<String>,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// A list changed each time it was read.
    #[error("list set {0}: it changed all the time")]
    Unsteady(String),
    /// The blocking task ended early.
    #[error("talk to the kernel about nftables: the task ended early")]
    Task,
}

/// An element as the kernel tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Key.
    pub key: Bytes,
    /// What a map's key leads to; `None` for members and verdicts.
    pub value: Option<Bytes>,
    /// Milliseconds it lives, and has left.
    pub lifetime: Option<(u64, u64)>,
}

/// An open socket.
#[derive(Debug)]
pub struct Socket {
    netlink: Netlink,
    sequence: u32,
    send_room: usize,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// There is no netlink.
    pub fn open() -> Result<Self, Error> {
        let mut netlink = Netlink::new(NETLINK_NETFILTER).map_err(Error::Open)?;
        netlink.bind_auto().map_err(Error::Open)?;
        netlink.connect(&SocketAddr::new(0, 0)).map_err(Error::Open)?;
        netlink.set_non_blocking(true).map_err(Error::Open)?;
        // refusals without a copy of what was refused, and with words
        netlink.set_cap_ack(true).map_err(Error::Open)?;
        netlink.set_ext_ack(true).map_err(Error::Open)?;
        Ok(Self { netlink, sequence: 1, send_room: PLAIN_SEND })
    }

    /// Does a transaction.
    ///
    /// # Errors
    /// The kernel refused it, and did nothing of it; or its answer is lost, and what it did is not known.
    pub fn commit(&mut self, batch: Batch) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let finished = batch.finish(self.sequence);
        self.sequence = self.sequence.wrapping_add(finished.numbers());
        self.make_room(finished.bytes.len())?;
        self.send(&finished.bytes)?;
        let mut refused: Option<(usize, Refusal)> = None;
        loop {
            let bytes = match self.receive() {
                Ok(bytes) => bytes,
                // the answer that would follow is lost or was never sent, but why is known
                Err(error) => return Err(refused.map_or(error, |r| refusal(&finished, r))),
            };
            for message in messages(&bytes) {
                if message.kind != ERROR {
                    continue;
                }
                let Some(index) = finished.index(message.sequence) else { continue };
                let answer = Refusal::read(&message);
                let whole = index == 0 || index == finished.last;
                if answer.code != 0 && refused.as_ref().is_none_or(|(first, _)| index < *first) {
                    refused = Some((index, answer));
                }
                if whole {
                    return refused.map_or(Ok(()), |r| Err(refusal(&finished, r)));
                }
            }
        }
    }

    /// Whether a table is there.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn has_table(&mut self, table: Table) -> Result<bool, Error> {
        let sequence = self.ask(Header::question(GET_TABLE, batch::ACK, table), |w| w.text(1, table.name))?;
        let mut there = false;
        loop {
            for message in messages(&self.receive()?).filter(|m| m.sequence == sequence) {
                match message.kind {
                    ERROR => match Refusal::read(&message).code {
                        0 => return Ok(there),
                        code if code == -nix::libc::ENOENT => return Ok(false),
                        code => return Err(talk("ask about", io::Error::from_raw_os_error(-code))),
                    },
                    _ => there = true,
                }
            }
        }
    }

    /// The elements of a set; none when there is no such set.
    ///
    /// # Errors
    /// The kernel does not tell, or the set changes all the time.
    pub fn elements(&mut self, table: Table, set: &str) -> Result<Vec<Told>, Error> {
        for _ in 0..DUMP_TRIES {
            if let Some(elements) = self.elements_once(table, set)? {
                return Ok(elements);
            }
        }
        Err(Error::Unsteady(set.to_owned()))
    }

    /// `None` when the set changed meanwhile.
    fn elements_once(&mut self, table: Table, set: &str) -> Result<Option<Vec<Told>>, Error> {
        let sequence = self.ask(Header::question(GET_ELEMENT, DUMP, table), |w| {
            w.text(1, table.name);
            w.text(2, set);
        })?;
        let mut out = Vec::new();
        let mut steady = true;
        loop {
            for message in messages(&self.receive()?).filter(|m| m.sequence == sequence) {
                steady &= message.flags & INTERRUPTED == 0;
                match message.kind {
                    DONE => return Ok(steady.then_some(out)),
                    ERROR => match Refusal::read(&message).code {
                        code if code == -nix::libc::ENOENT => return Ok(Some(Vec::new())),
                        code => return Err(talk("list", io::Error::from_raw_os_error(-code))),
                    },
                    _ => {
                        let list = message.content.get(4..).and_then(|body| find(body, 3));
                        out.extend(list.into_iter().flat_map(attributes).filter_map(|(_, e)| told(e)));
                    }
                }
            }
        }
    }

    fn ask(&mut self, header: Header, content: impl FnOnce(&mut Writer)) -> Result<u32, Error> {
        let mut writer = Writer::default();
        write_message(&mut writer, header, content);
        let sequence = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        writer.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.send(&writer.bytes)?;
        Ok(sequence)
    }

    fn make_room(&mut self, size: usize) -> Result<(), Error> {
        let wanted = size + HEADER * 64;
        if wanted > self.send_room {
            // SAFETY is not ours to give: the descriptor lives as long as `self`
            setsockopt(&Descriptor(&self.netlink), SndBufForce, &wanted)
                .map_err(|e| talk("make room to send", e.into()))?;
            self.send_room = wanted;
        }
        Ok(())
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Error> {
        let sent = self.netlink.send(bytes, 0).map_err(|e| talk("change", e))?;
        if sent == bytes.len() {
            Ok(())
        } else {
            Err(talk("change", io::Error::from(io::ErrorKind::WriteZero)))
        }
    }

    fn receive(&self) -> Result<Vec<u8>, Error> {
        self.netlink.recv_from_full().map(|(bytes, _)| bytes).map_err(|e| talk("hear back from", e))
    }
}

fn talk(doing: &'static str, source: io::Error) -> Error {
    Error::Talk { doing, source }
}

fn refusal(finished: &Finished, (index, refusal): (usize, Refusal)) -> Error {
    Error::Refused {
        subject: finished.subject(index),
        detail: refusal.text,
        source: io::Error::from_raw_os_error(-refusal.code),
    }
}

fn told(element: &[u8]) -> Option<Told> {
    let value = |attribute| find(find(element, attribute)?, 1).map(|bytes| Bytes(bytes.to_vec()));
    let number = |attribute| find(element, attribute).and_then(read_u64);
    Some(Told {
        key: value(1)?,
        value: value(2),
        lifetime: number(4).map(|timeout| (timeout, number(5).unwrap_or(timeout))),
    })
}

struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    content: &'a [u8],
}

/// The messages of a datagram; ends at the first that is cut off.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let half = |at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let length = usize::try_from(word(0)?).ok()?;
        let (kind, flags, sequence) = (half(4)?, half(6)?, word(8)?);
        let content = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind, flags, sequence, content })
    })
}

struct Refusal {
    /// 0 for "done", else a negative errno.
    code: i32,
    text: Option<String>,
}

impl Refusal {
    fn read(message: &Message<'_>) -> Self {
        let code = message.content.get(..4).and_then(read_u32).map_or(-nix::libc::EPROTO, |n| {
            // an errno is in the machine's byte order
            i32::from_ne_bytes(n.to_be_bytes())
        });
        // the header of what was refused, the rest of it unless capped, then attributes: 1 is a text
        let mut skip = 4 + HEADER;
        if message.flags & CAPPED == 0 {
            skip = message.content.get(4..8).and_then(|b| b.try_into().ok()).map_or(skip, |length| {
                4 + usize::try_from(u32::from_ne_bytes(length)).unwrap_or(0).next_multiple_of(4)
            });
        }
        let text = (message.flags & EXTENDED != 0)
            .then(|| find(message.content.get(skip..)?, 1).map(read_text))
            .flatten();
        Self { code, text }
    }
}

/// `netlink_sys` gives the raw descriptor only.
struct Descriptor<'a>(&'a Netlink);

impl AsFd for Descriptor<'_> {
    #[allow(unsafe_code, reason = "the borrowed descriptor lives no longer than the socket it is of")]
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket is open as long as `self` borrows it
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_answer_is_read_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for message in messages(&bytes) {
                let _ = Refusal::read(&message);
                attributes(message.content).filter_map(|(_, e)| told(e)).for_each(drop);
            }
        }
    }
}
