//! Frames of SPDY/3.1 as bytes. Data is not here but its head: its payload is carried as it comes.

use super::headers::{self, Deflater, Headers, Inflater};

/// The version in control frames; 3.1 calls itself 3.
const VERSION: u16 = 3;
/// Bytes of a control frame's payload.
pub(crate) const LARGEST_CONTROL: usize = 64 * 1024;
/// Bytes before a frame's payload.
pub const HEAD: usize = 8;
/// Flag: no more frames from this side on that stream.
pub const FIN: u8 = 1;

/// What a frame begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// Bytes of a stream.
    Data {
        /// Stream id; odd where the client opened it.
        stream: u32,
        /// Nothing follows from this side.
        fin: bool,
        /// Bytes of payload.
        length: usize,
    },
    /// A frame with a kind.
    Control {
        /// Kind as in SPDY/3.1, section 2.6.
        kind: u16,
        /// Bits; [`FIN`] is the first.
        flags: u8,
        /// Bytes of its payload.
        length: usize,
    },
}

/// Control frames, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// A stream is opened; `fin` when its opener says nothing on it.
    SynStream {
        /// Stream id; odd where the client opened it.
        stream: u32,
        /// The opener sends nothing on it.
        fin: bool,
        /// Name and value pairs.
        headers: Headers,
    },
    /// A stream is accepted; `fin` when its accepter says nothing on it.
    SynReply {
        /// Stream id of the SYN_STREAM.
        stream: u32,
        /// The accepter sends nothing on it.
        fin: bool,
        /// Name and value pairs.
        headers: Headers,
    },
    /// A stream is given up.
    RstStream {
        /// Stream id.
        stream: u32,
        /// Status code of SPDY/3.1, section 2.6.3.
        status: u32,
    },
    /// Parameters of the session: id and value.
    Settings(Vec<(u32, u32)>),
    /// An answer is wanted, or this is one.
    Ping(u32),
    /// No new streams are accepted.
    GoAway {
        /// The last one that counts.
        last: u32,
        /// 0: no error; 1: protocol error; 2: internal error.
        status: u32,
    },
    /// Further headers of an open stream.
    Headers {
        /// Stream id.
        stream: u32,
        /// Nothing follows from this side.
        fin: bool,
        /// Name and value pairs.
        headers: Headers,
    },
    /// So many more bytes may be sent.
    WindowUpdate {
        /// The stream; 0 is the session.
        stream: u32,
        /// Bytes added to the window.
        delta: u32,
    },
    /// Of no kind we know; passed over.
    Unknown(u16),
}

/// Bytes that are no SPDY/3.1.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A control frame of another version.
    #[error("SPDY version {0} is not 3")]
    Version(u16),
    /// A control frame longer than we take.
    #[error("SPDY control frame of {0} bytes")]
    Long(usize),
    /// A payload shorter than its kind has.
    #[error("SPDY control frame of kind {0} is cut short")]
    Short(u16),
    /// The header block does not decompress or parse.
    #[error(transparent)]
    Headers(#[from] headers::Error),
}

/// Reads a frame's head.
pub fn head(bytes: &[u8; HEAD]) -> Result<Head, Error> {
    let [a, b, c, d, flags, x, y, z] = *bytes;
    let length = u32::from_be_bytes([0, x, y, z]) as usize;
    if a & 0x80 == 0 {
        return Ok(Head::Data { stream: u32::from_be_bytes([a, b, c, d]), fin: flags & FIN != 0, length });
    }
    let version = u16::from_be_bytes([a & 0x7f, b]);
    if version != VERSION {
        return Err(Error::Version(version));
    }
    if length > LARGEST_CONTROL {
        return Err(Error::Long(length));
    }
    Ok(Head::Control { kind: u16::from_be_bytes([c, d]), flags, length })
}

/// The head of a data frame; `length` is below 16 MiB.
pub fn data(stream: u32, fin: bool, length: usize) -> [u8; HEAD] {
    let [a, b, c, d] = (stream & 0x7fff_ffff).to_be_bytes();
    let [_, x, y, z] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [a, b, c, d, u8::from(fin), x, y, z]
}

impl Control {
    /// Reads a control frame's payload.
    pub fn read(kind: u16, flags: u8, payload: &[u8], inflater: &mut Inflater) -> Result<Self, Error> {
        let number = |at: usize| {
            let bytes = payload.get(at..).and_then(|b| b.first_chunk::<4>()).ok_or(Error::Short(kind))?;
            Ok::<_, Error>(u32::from_be_bytes(*bytes))
        };
        let id = |at: usize| number(at).map(|n| n & 0x7fff_ffff);
        let fin = flags & FIN != 0;
        let mut block = |at: usize| {
            let block = payload.get(at..).ok_or(Error::Short(kind))?;
            Ok::<_, Error>(inflater.block(block)?)
        };
        Ok(match kind {
            1 => Self::SynStream { stream: id(0)?, fin, headers: block(10)? },
            2 => Self::SynReply { stream: id(0)?, fin, headers: block(4)? },
            3 => Self::RstStream { stream: id(0)?, status: number(4)? },
            4 => {
                let count = number(0)? as usize;
                if count > payload.len() / 8 {
                    return Err(Error::Short(kind));
                }
                let entry = |n: usize| Ok((number(4 + n * 8)? & 0xff_ffff, number(8 + n * 8)?));
                Self::Settings((0..count).map(entry).collect::<Result<_, Error>>()?)
            }
            6 => Self::Ping(number(0)?),
            7 => Self::GoAway { last: id(0)?, status: number(4)? },
            8 => Self::Headers { stream: id(0)?, fin, headers: block(4)? },
            9 => Self::WindowUpdate { stream: id(0)?, delta: id(4)? },
            other => Self::Unknown(other),
        })
    }

    /// Head and payload as bytes; headers go through the session's `deflater`.
    pub fn write(&self, deflater: &mut Deflater) -> Result<Vec<u8>, Error> {
        let join = |numbers: &[u32], rest: &[u8]| {
            let mut out: Vec<u8> = numbers.iter().flat_map(|n| n.to_be_bytes()).collect();
            out.extend(rest);
            out
        };
        let (kind, fin, payload) = match self {
            // The associated stream, then priority and slot: all zero.
            Self::SynStream { stream, fin, headers } => {
                (1, *fin, join(&[*stream, 0], &[&[0, 0], &deflater.block(headers)?[..]].concat()))
            }
            Self::SynReply { stream, fin, headers } => (2, *fin, join(&[*stream], &deflater.block(headers)?)),
            Self::RstStream { stream, status } => (3, false, join(&[*stream, *status], &[])),
            Self::Settings(entries) => {
                let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
                let entries = entries.iter().flat_map(|(id, value)| [*id, *value]);
                (4, false, join(&std::iter::once(count).chain(entries).collect::<Vec<_>>(), &[]))
            }
            Self::Ping(id) => (6, false, join(&[*id], &[])),
            Self::GoAway { last, status } => (7, false, join(&[*last, *status], &[])),
            Self::Headers { stream, fin, headers } => (8, *fin, join(&[*stream], &deflater.block(headers)?)),
            Self::WindowUpdate { stream, delta } => (9, false, join(&[*stream, *delta], &[])),
            Self::Unknown(kind) => (*kind, false, Vec::new()),
        };
        if payload.len() > LARGEST_CONTROL {
            return Err(Error::Long(payload.len()));
        }
        let first = (1 << 31) | (u32::from(VERSION) << 16) | u32::from(kind);
        let [_, x, y, z] = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
        let mut out = first.to_be_bytes().to_vec();
        out.extend([u8::from(fin), x, y, z]);
        out.extend(payload);
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_frames_have_their_known_bytes() {
        let mut deflater = Deflater::new().unwrap();
        let mut bytes = |control: Control| control.write(&mut deflater).unwrap();
        assert_eq!(bytes(Control::Ping(1)), [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]);
        let reset = Control::RstStream { stream: 5, status: 8 };
        assert_eq!(bytes(reset), [0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 5, 0, 0, 0, 8]);
        let update = Control::WindowUpdate { stream: 1, delta: 65536 };
        assert_eq!(bytes(update), [0x80, 3, 0, 9, 0, 0, 0, 8, 0, 0, 0, 1, 0, 1, 0, 0]);
        let away = Control::GoAway { last: 7, status: 0 };
        assert_eq!(bytes(away), [0x80, 3, 0, 7, 0, 0, 0, 8, 0, 0, 0, 7, 0, 0, 0, 0]);
        assert_eq!(data(3, true, 0x01_0203), [0, 0, 0, 3, 1, 1, 2, 3]);
        let syn = bytes(Control::SynStream { stream: 1, fin: false, headers: vec![] });
        assert_eq!(syn[..4], [0x80, 3, 0, 1]);
        assert_eq!(syn[8..18], [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn strangers_are_refused() {
        assert!(matches!(head(&[0x80, 2, 0, 1, 0, 0, 0, 0]), Err(Error::Version(2))));
        assert!(matches!(head(&[0x80, 3, 0, 1, 0, 255, 0, 0]), Err(Error::Long(_))));
        for kind in 1..10 {
            let read = Control::read(kind, 0, &[0, 0], &mut Inflater::default());
            assert!(read.is_err() || kind == 5, "{kind}");
        }
    }

    fn control() -> impl Strategy<Value = Control> {
        let headers = || proptest::collection::vec(("[a-z]{1,9}", "[ -~]{0,40}"), 0..4);
        let id = || 1u32..0x7fff_ffff;
        let named = move || (id(), any::<bool>(), headers());
        prop_oneof![
            named().prop_map(|(stream, fin, headers)| Control::SynStream { stream, fin, headers }),
            named().prop_map(|(stream, fin, headers)| Control::SynReply { stream, fin, headers }),
            named().prop_map(|(stream, fin, headers)| Control::Headers { stream, fin, headers }),
            (id(), any::<u32>()).prop_map(|(stream, status)| Control::RstStream { stream, status }),
            (id(), any::<u32>()).prop_map(|(last, status)| Control::GoAway { last, status }),
            (id(), id()).prop_map(|(stream, delta)| Control::WindowUpdate { stream, delta }),
            any::<u32>().prop_map(Control::Ping),
            proptest::collection::vec((0u32..0xff_ffff, any::<u32>()), 0..5).prop_map(Control::Settings),
        ]
    }

    proptest! {
        #[test]
        fn frames_come_back(frames in proptest::collection::vec(control(), 1..12)) {
            let (mut deflater, mut inflater) = (Deflater::new().unwrap(), Inflater::default());
            for frame in frames {
                let bytes = frame.write(&mut deflater).unwrap();
                let Head::Control { kind, flags, length } = head(bytes.first_chunk().unwrap()).unwrap() else {
                    panic!("a control frame");
                };
                prop_assert_eq!(length, bytes.len() - HEAD);
                prop_assert_eq!(Control::read(kind, flags, &bytes[HEAD..], &mut inflater).unwrap(), frame);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(kind in 0u16..12, payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Control::read(kind, 0, &payload, &mut Inflater::default());
        }
    }
}
