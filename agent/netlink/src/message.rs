//! Messages: a header of sixteen bytes, a fixed part that depends on the kind, attributes. Pure.

use crate::attribute::{Writer, find, read_text};
use std::io;

pub(crate) const HEADER: usize = 16;

pub(crate) const ERROR: u16 = 2;
pub(crate) const DONE: u16 = 3;

pub(crate) const REQUEST: u16 = 0x1;
pub(crate) const ACK: u16 = 0x4;
pub(crate) const DUMP: u16 = 0x300;
pub(crate) const REPLACE: u16 = 0x100;
pub(crate) const EXCL: u16 = 0x200;
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const APPEND: u16 = 0x800;
/// Of an answer: what was dumped changed meanwhile.
pub(crate) const INTERRUPTED: u16 = 0x10;
/// Of a refusal: only the header of what was refused is in it.
const CAPPED: u16 = 0x100;
/// Of a refusal: attributes follow.
const EXTENDED: u16 = 0x200;

/// One request, less its number.
#[derive(Clone, Debug)]
pub struct Request {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) body: Writer,
}

impl Request {
    pub(crate) fn new(kind: u16, flags: u16, fixed: &[u8], attributes: impl FnOnce(&mut Writer)) -> Self {
        let mut body = Writer { bytes: fixed.to_vec() };
        attributes(&mut body);
        Self { kind, flags, body }
    }

    /// Appends the message to a datagram.
    pub(crate) fn write(&self, datagram: &mut Writer, flags: u16, sequence: u32) {
        write(datagram, self.kind, self.flags | flags, sequence, |w| {
            w.bytes.extend_from_slice(&self.body.bytes)
        });
    }
}

/// Appends a message to a datagram.
pub(crate) fn write(
    datagram: &mut Writer,
    kind: u16,
    flags: u16,
    sequence: u32,
    body: impl FnOnce(&mut Writer),
) {
    let start = datagram.bytes.len();
    datagram.bytes.extend_from_slice(&[0; HEADER]);
    body(datagram);
    let length = u32::try_from(datagram.bytes.len() - start).unwrap_or(u32::MAX);
    let header = &mut datagram.bytes[start..start + HEADER];
    header[..4].copy_from_slice(&length.to_ne_bytes());
    header[4..6].copy_from_slice(&kind.to_ne_bytes());
    header[6..8].copy_from_slice(&flags.to_ne_bytes());
    header[8..12].copy_from_slice(&sequence.to_ne_bytes());
}

/// A message as it was received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) body: &'a [u8],
}

/// The messages of a datagram; ends at the first that is cut off.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let half = |at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let length = usize::try_from(word(0)?).ok()?;
        let (kind, flags, sequence) = (half(4)?, half(6)?, word(8)?);
        let body = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind, flags, sequence, body })
    })
}

/// A request the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{error}{}", .detail.as_ref().map(|text| format!(": {text}")).unwrap_or_default())]
pub struct Refusal {
    /// Which of the requests that were sent together.
    pub request: usize,
    /// The kernel's errno.
    pub error: io::Error,
    /// The kernel's own words, where it has any.
    pub detail: Option<String>,
}

impl Message<'_> {
    /// What an `NLMSG_ERROR` or `NLMSG_DONE` says; `None` for an acknowledgement.
    pub(crate) fn refusal(&self, request: usize) -> Option<Refusal> {
        let code =
            self.body.first_chunk::<4>().map_or(-nix::libc::EPROTO, |bytes| i32::from_ne_bytes(*bytes));
        if code >= 0 {
            return None;
        }
        // In a refusal the header of what was refused, and the rest of it unless capped, come before the attributes.
        let skip = match (self.kind, self.flags & CAPPED) {
            (ERROR, 0) => {
                let refused = self.body.get(4..8).and_then(|bytes| bytes.try_into().ok());
                let length = refused.map_or(HEADER, |bytes| u32::from_ne_bytes(bytes) as usize);
                4 + length.next_multiple_of(4)
            }
            (ERROR, _) => 4 + HEADER,
            _ => 4,
        };
        let detail =
            (self.flags & EXTENDED != 0).then(|| find(self.body.get(skip..)?, 1).map(read_text)).flatten();
        Some(Refusal { request, error: io::Error::from_raw_os_error(code.saturating_neg()), detail })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribute::attributes;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_answer_is_read_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for message in messages(&bytes) {
                let _ = message.refusal(0);
                attributes(message.body).for_each(drop);
            }
        }

        #[test]
        fn what_is_written_is_read(bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6)) {
            let mut datagram = Writer::default();
            for (sequence, body) in (7..).zip(&bodies) {
                Request::new(3, CREATE, &[], |w| w.raw(1, body)).write(&mut datagram, ACK, sequence);
            }
            let read: Vec<Vec<u8>> = messages(&datagram.bytes).map(|m| find(m.body, 1).unwrap().to_vec()).collect();
            prop_assert_eq!(read, bodies);
            for (message, sequence) in messages(&datagram.bytes).zip(7..) {
                prop_assert_eq!((message.kind, message.flags, message.sequence), (3, CREATE | ACK, sequence));
            }
        }
    }

    #[test]
    fn an_acknowledgement_must_not_be_read_as_a_refusal() {
        let message = |code: i32, rest: &[u8]| [&code.to_ne_bytes(), rest].concat();
        let of = |body: &[u8], kind, flags| Message { kind, flags, sequence: 1, body }.refusal(4);
        assert!(of(&message(0, &[0; 16]), ERROR, CAPPED).is_none());
        assert!(of(&message(0, &[]), DONE, 0).is_none());
        let mut text = Writer::default();
        text.text(1, "no such thing");
        let refused = of(&message(-2, &[[0; 16].as_slice(), &text.bytes].concat()), ERROR, CAPPED | EXTENDED);
        let refused = refused.unwrap();
        assert_eq!((refused.request, refused.error.raw_os_error()), (4, Some(2)));
        assert_eq!(refused.detail.as_deref(), Some("no such thing"));
        let cut_off = of(&[1], ERROR, 0).unwrap();
        assert_eq!(cut_off.error.raw_os_error(), Some(nix::libc::EPROTO));
    }
}
