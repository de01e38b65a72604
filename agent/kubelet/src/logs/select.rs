//! Which pieces of a log are asked for, and how they are written. Pure.

use super::line::{Piece, Source};
use bytes::{BufMut, BytesMut};
use jiff::Timestamp;
use std::ops::ControlFlow;

/// What is asked for: the kubelet's part of `PodLogOptions`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Go on when the end is reached.
    pub follow: bool,
    /// Only the last lines.
    pub tail: Option<u64>,
    /// Only what was written since then.
    pub since: Option<Timestamp>,
    /// The time before each line.
    pub timestamps: bool,
    /// At most so many bytes.
    pub limit: Option<u64>,
    /// Only one of the streams.
    pub only: Option<Source>,
}

/// Writes what is asked for.
#[derive(Debug)]
pub struct Selector {
    since: Option<Timestamp>,
    timestamps: bool,
    remain: u64,
    lines: Option<u64>,
    only: Option<Source>,
    /// The next piece begins a line of the output.
    begins: bool,
    /// The line of the file being read is too old.
    old: bool,
}

impl Selector {
    /// A selector for these options. Who follows sees more lines than the last ones.
    pub fn new(options: &Options) -> Self {
        Self {
            since: options.since,
            timestamps: options.timestamps,
            remain: options.limit.unwrap_or(u64::MAX),
            lines: options.tail.filter(|_| !options.follow),
            only: options.only,
            begins: true,
            old: false,
        }
    }

    /// Writes a piece to `out` as far as it is asked for; breaks when nothing more can be.
    pub fn take(&mut self, piece: &Piece, out: &mut BytesMut) -> ControlFlow<()> {
        if piece.first {
            match &mut self.lines {
                Some(0) => return ControlFlow::Break(()),
                Some(left) => *left -= 1,
                None => {}
            }
            let time = std::str::from_utf8(&piece.time).ok().and_then(|t| t.parse::<Timestamp>().ok());
            // A time that cannot be read counts as old, as upstream drops such lines.
            self.old = self.since.is_some_and(|since| time.is_none_or(|time| time < since));
        }
        let begins = self.begins;
        self.begins = piece.newline || (piece.first && piece.content.is_empty());
        if self.old || self.only.is_some_and(|only| only != piece.source) {
            return ControlFlow::Continue(());
        }
        if self.timestamps && begins {
            let time = padded(&piece.time);
            self.write(&time, out);
            self.write(b" ", out);
        }
        self.write(&piece.content, out);
        if piece.newline {
            self.write(b"\n", out);
        }
        if self.remain == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn write(&mut self, bytes: &[u8], out: &mut BytesMut) {
        let room = usize::try_from(self.remain).unwrap_or(usize::MAX).min(bytes.len());
        out.put_slice(&bytes[..room]);
        self.remain -= room as u64;
    }
}

/// A time with nine digits of a second, as upstream writes it whatever the file has; its zone stays.
fn padded(time: &[u8]) -> Vec<u8> {
    let zone =
        (19..time.len()).find(|at| matches!(time[*at], b'Z' | b'z' | b'+' | b'-')).unwrap_or(time.len());
    if zone < 19 || time.len() < 19 {
        return time.to_vec();
    }
    let mut padded = time[..19].to_vec();
    padded.push(b'.');
    padded
        .extend(time[19..zone].iter().filter(|b| b.is_ascii_digit()).chain(std::iter::repeat(&b'0')).take(9));
    match &time[zone..] {
        b"+00:00" | b"-00:00" => padded.push(b'Z'),
        zone => padded.extend(zone),
    }
    padded
}

#[cfg(test)]
mod tests {
    use super::super::line::Decoder;
    use super::*;

    const LOG: &str = "2026-01-01T00:00:00.5Z stdout F one\n2026-01-01T00:00:01Z stderr F two\n\
        2026-01-01T00:00:02+02:00 stdout P th\n2026-01-01T00:00:03Z stdout F ree\n2026-01-01T00:00:04Z stdout F four\n";

    fn show(options: &Options) -> String {
        let (mut decoder, mut selector, mut out) =
            (Decoder::default(), Selector::new(options), BytesMut::new());
        decoder.push(LOG.as_bytes());
        while let Some(piece) = decoder.piece() {
            if selector.take(&piece.unwrap(), &mut out).is_break() {
                break;
            }
        }
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn options_choose_and_cut() {
        let none = Options::default;
        let since = Some("2026-01-01T00:00:03Z".parse().unwrap());
        for (options, want) in [
            (none(), "one\ntwo\nthree\nfour\n"),
            (Options { only: Some(Source::Stderr), ..none() }, "two\n"),
            (Options { limit: Some(6), ..none() }, "one\ntw"),
            (Options { tail: Some(2), ..none() }, "one\ntwo\n"),
            (Options { tail: Some(0), ..none() }, ""),
            (Options { tail: Some(1), follow: true, ..none() }, "one\ntwo\nthree\nfour\n"),
            (Options { since, ..none() }, "ree\nfour\n"),
            (
                Options { timestamps: true, ..none() },
                "2026-01-01T00:00:00.500000000Z one\n2026-01-01T00:00:01.000000000Z two\n\
                 2026-01-01T00:00:02.000000000+02:00 three\n2026-01-01T00:00:04.000000000Z four\n",
            ),
        ] {
            assert_eq!(show(&options), want, "{options:?}");
        }
    }

    #[test]
    fn strange_times_are_kept() {
        assert_eq!(padded(b"2026-01-01T00:00:00.123456789+00:00"), b"2026-01-01T00:00:00.123456789Z");
        assert_eq!(padded(b"2026"), b"2026");
    }
}
