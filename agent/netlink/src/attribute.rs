//! Netlink attributes: length, kind, content, padded to four bytes. Numbers are big-endian in netfilter, the machine's own in rtnetlink.

use std::net::IpAddr;

/// Marks an attribute that holds attributes.
const NESTED: u16 = 1 << 15;
/// The bits of a kind that are flags.
const FLAGS: u16 = 3 << 14;
const HEADER: usize = 4;

/// Appends attributes to a message.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writer {
    pub(crate) bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn raw(&mut self, kind: u16, content: &[u8]) {
        // what is written this way is names, addresses and numbers: far below 64 KiB
        let length = u16::try_from(HEADER + content.len()).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    pub(crate) fn u32(&mut self, kind: u16, number: u32) {
        self.raw(kind, &number.to_be_bytes());
    }

    pub(crate) fn u64(&mut self, kind: u16, number: u64) {
        self.raw(kind, &number.to_be_bytes());
    }

    /// A number in the machine's byte order.
    pub(crate) fn native(&mut self, kind: u16, number: u32) {
        self.raw(kind, &number.to_ne_bytes());
    }

    pub(crate) fn address(&mut self, kind: u16, address: IpAddr) {
        match address {
            IpAddr::V4(ip) => self.raw(kind, &ip.octets()),
            IpAddr::V6(ip) => self.raw(kind, &ip.octets()),
        }
    }

    pub(crate) fn text(&mut self, kind: u16, text: &str) {
        let mut content = Vec::with_capacity(text.len() + 1);
        content.extend_from_slice(text.as_bytes());
        content.push(0);
        self.raw(kind, &content);
    }

    pub(crate) fn nested(&mut self, kind: u16, content: impl FnOnce(&mut Self)) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; HEADER]);
        content(self);
        self.close(at, kind);
    }

    /// Writes the header at `at` of an attribute that ends here.
    pub(crate) fn close(&mut self, at: usize, kind: u16) {
        let length = u16::try_from(self.bytes.len() - at).unwrap_or(u16::MAX);
        self.bytes[at..at + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes[at + 2..at + 4].copy_from_slice(&(kind | NESTED).to_ne_bytes());
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// The attributes in `bytes`; ends at the first that is cut off.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & !FLAGS;
        let content = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, content))
    })
}

/// The attribute of one kind.
pub(crate) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(k, _)| *k == kind).map(|(_, content)| content)
}

pub(crate) fn read_u64(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

/// A number in the machine's byte order.
pub(crate) fn read_native(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

pub(crate) fn read_u16(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

pub(crate) fn read_address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

pub(crate) fn read_text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(list in proptest::collection::vec((1u16..100, proptest::collection::vec(any::<u8>(), 0..40)), 0..10)) {
            let mut writer = Writer::default();
            writer.nested(7, |w| list.iter().for_each(|(kind, content)| w.raw(*kind, content)));
            let inner = find(&writer.bytes, 7).unwrap();
            let read: Vec<(u16, Vec<u8>)> = attributes(inner).map(|(k, c)| (k, c.to_vec())).collect();
            prop_assert_eq!(read, list);
        }

        #[test]
        fn any_bytes_are_read_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(attributes(&bytes).count() <= bytes.len() / 4);
        }
    }
}
