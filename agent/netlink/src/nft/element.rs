//! Elements of sets and maps as data, and their attributes. Pure.

use super::object::Verdict;
use crate::attribute::{Writer, find, read_u64};
use std::net::IpAddr;

const KEY: u16 = 1;
const DATA: u16 = 2;
const TIMEOUT: u16 = 4;
const EXPIRATION: u16 = 5;
const USERDATA: u16 = 6;
const KEY_END: u16 = 10;
const LONGEST_COMMENT: usize = 250;

/// A concatenation being made: parts in order, each padded to four bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    /// Appends an address: 4 or 16 bytes.
    #[must_use]
    pub fn address(mut self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(ip) => self.0.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => self.0.extend_from_slice(&ip.octets()),
        }
        self
    }

    /// Appends a protocol number, padded.
    #[must_use]
    pub fn protocol(mut self, number: u8) -> Self {
        self.0.extend_from_slice(&[number, 0, 0, 0]);
        self
    }

    /// Appends a port, padded.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.0.extend_from_slice(&port.to_be_bytes());
        self.0.extend_from_slice(&[0, 0]);
        self
    }

    /// Appends a mark, in the machine's own byte order.
    #[must_use]
    pub fn mark(mut self, mark: u32) -> Self {
        self.0.extend_from_slice(&mark.to_ne_bytes());
        self
    }
}

/// What an element's key leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// For verdict maps.
    Verdict(Verdict),
    /// For other maps, as registers hold them.
    Bytes(Bytes),
}

/// An element of a set or map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// One field, or a concatenation padded to four bytes each.
    pub key: Bytes,
    /// For a map: what the key leads to. A deletion needs none.
    pub value: Option<Value>,
    /// Milliseconds it lives without being renewed, and milliseconds it has left of them.
    pub lifetime: Option<(u64, u64)>,
    /// In a set of intervals: the first key after one.
    pub interval_end: bool,
    /// In a set of concatenated ranges: the last key of this one.
    pub end: Option<Bytes>,
    /// What nft shows as the element's comment; at most 250 bytes are kept.
    pub comment: Option<String>,
}

impl Element {
    /// An element that only is there.
    #[must_use]
    pub fn member(key: Bytes) -> Self {
        Self { key, value: None, lifetime: None, interval_end: false, end: None, comment: None }
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.nested(1, |w| {
            if self.interval_end {
                w.u32(3, 1);
            }
            w.nested(KEY, |w| w.raw(1, &self.key.0));
            if let Some(end) = &self.end {
                w.nested(KEY_END, |w| w.raw(1, &end.0));
            }
            match &self.value {
                None => {}
                Some(Value::Verdict(verdict)) => w.nested(DATA, |w| verdict.write(w)),
                Some(Value::Bytes(bytes)) => w.nested(DATA, |w| w.raw(1, &bytes.0)),
            }
            if let Some((timeout, left)) = self.lifetime {
                w.u64(TIMEOUT, timeout);
                w.u64(EXPIRATION, left);
            }
            if let Some(comment) = &self.comment {
                // libnftnl's type 0 is a comment: type, length, text with terminator.
                let text = &comment.as_bytes()[..comment.len().min(LONGEST_COMMENT)];
                let length = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
                w.raw(USERDATA, &[&[0, length], text, &[0]].concat());
            }
        });
    }

    /// An element as the kernel lists it; a verdict it leads to is left out.
    pub(crate) fn read(body: &[u8]) -> Option<Self> {
        let bytes = |kind| find(find(body, kind)?, 1).map(|bytes| Bytes(bytes.to_vec()));
        let number = |kind| find(body, kind).and_then(read_u64);
        let comment = find(body, USERDATA).and_then(|userdata| match userdata {
            [0, length, text @ ..] => text.get(..usize::from(*length).checked_sub(1)?),
            _ => None,
        });
        Some(Self {
            key: bytes(KEY)?,
            value: bytes(DATA).map(Value::Bytes),
            lifetime: number(TIMEOUT).map(|timeout| (timeout, number(EXPIRATION).unwrap_or(timeout))),
            interval_end: false,
            end: bytes(KEY_END),
            comment: comment.map(|text| String::from_utf8_lossy(text).into_owned()),
        })
    }

    /// The bytes it leads to; none where it leads nowhere or to a verdict.
    #[must_use]
    pub fn target(&self) -> &[u8] {
        match &self.value {
            Some(Value::Bytes(bytes)) => &bytes.0,
            _ => &[],
        }
    }

    /// The element as far as a deletion needs it.
    #[must_use]
    pub fn without_value(&self) -> Self {
        Self { end: self.end.clone(), ..Self::member(self.key.clone()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribute::attributes;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(key in proptest::collection::vec(any::<u8>(), 1..30), to in any::<u32>(), timed in any::<bool>(),
            end in any::<bool>(), comment in proptest::option::of("[a-z/.-]{0,250}")) {
            let element = Element {
                value: Some(Value::Bytes(Bytes::default().mark(to))),
                lifetime: timed.then_some((2000, 1000)),
                end: end.then(|| Bytes(key.clone())),
                comment,
                ..Element::member(Bytes(key))
            };
            let mut writer = Writer::default();
            element.write(&mut writer);
            let read: Vec<_> = attributes(&writer.bytes).filter_map(|(_, body)| Element::read(body)).collect();
            prop_assert_eq!(read, [element]);
        }

        #[test]
        fn any_bytes_are_read_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Element::read(&bytes);
        }
    }
}
