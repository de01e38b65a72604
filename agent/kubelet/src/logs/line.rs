//! Lines of a CRI log file: `TIME STREAM TAGS CONTENT`. Bytes go in as they are read, pieces of content come out.
//!
//! Memory is bounded whatever the file holds: a line longer than [`LONGEST`] comes out in several pieces.

use bytes::{Bytes, BytesMut};

/// Bytes of a line that are held before they are given on without its end. Runtimes split at 16 KiB.
pub const LONGEST: usize = 64 * 1024;

/// The stream a line was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Stdout,
    Stderr,
}

/// A piece of what a container wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// When, as the file has it (RFC 3339).
    pub time: Bytes,
    pub source: Source,
    /// What, without the line's end.
    pub content: Bytes,
    /// It begins a line of the file.
    pub first: bool,
    /// The container's line ends here.
    pub newline: bool,
}

/// A line that is not in CRI's format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(pub Bytes);

#[derive(Clone, Debug)]
enum Open {
    /// The next byte begins a line.
    No,
    /// The head of a long line was given on.
    Long { time: Bytes, source: Source, partial: bool },
    /// A long line that is not in CRI's format.
    Junk,
}

/// Takes bytes, gives pieces.
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    scanned: usize,
    open: Open,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { buffer: BytesMut::new(), scanned: 0, open: Open::No }
    }
}

impl Decoder {
    /// Adds bytes of the file. Ask for all pieces before adding more.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next piece; `None` until more bytes are there.
    pub fn piece(&mut self) -> Option<Result<Piece, Malformed>> {
        loop {
            let end =
                self.buffer[self.scanned..].iter().position(|b| *b == b'\n').map(|at| self.scanned + at);
            let Some(end) = end else {
                self.scanned = self.buffer.len();
                if self.buffer.len() < LONGEST {
                    return None;
                }
                let head = self.take(self.buffer.len());
                match self.unended(head) {
                    None => continue,
                    found => return found,
                }
            };
            let mut line = self.take(end + 1);
            line.truncate(end);
            return match std::mem::replace(&mut self.open, Open::No) {
                Open::No => Some(parse(line)),
                Open::Long { time, source, partial } => {
                    Some(Ok(Piece { time, source, content: line, first: false, newline: !partial }))
                }
                Open::Junk => continue,
            };
        }
    }

    /// What is left when the file ends without a line's end.
    pub fn finish(&mut self) -> Option<Result<Piece, Malformed>> {
        let rest = self.take(self.buffer.len());
        let found = if rest.is_empty() { None } else { self.unended(rest) };
        self.open = Open::No;
        found
    }

    fn take(&mut self, count: usize) -> Bytes {
        self.scanned = 0;
        self.buffer.split_to(count).freeze()
    }

    /// The head or the middle of a line whose end is not there.
    fn unended(&mut self, bytes: Bytes) -> Option<Result<Piece, Malformed>> {
        match &self.open {
            Open::Junk => None,
            Open::Long { time, source, .. } => {
                let (time, source) = (time.clone(), *source);
                Some(Ok(Piece { time, source, content: bytes, first: false, newline: false }))
            }
            Open::No => match parse(bytes) {
                Ok(piece) => {
                    let partial = !piece.newline;
                    self.open = Open::Long { time: piece.time.clone(), source: piece.source, partial };
                    Some(Ok(Piece { newline: false, ..piece }))
                }
                Err(Malformed(junk)) => {
                    self.open = Open::Junk;
                    Some(Err(Malformed(junk.slice(..junk.len().min(1024)))))
                }
            },
        }
    }
}

fn parse(line: Bytes) -> Result<Piece, Malformed> {
    let Some((time, source, tags, content)) = fields(&line) else { return Err(Malformed(line)) };
    let (time, content) = (line.slice(time), line.slice(content));
    // Tags are separated by colons; the first says whether the line goes on.
    let newline = line[tags].split(|b| *b == b':').next() != Some(b"P");
    Ok(Piece { time, source, content, first: true, newline })
}

type Span = std::ops::Range<usize>;

fn fields(line: &[u8]) -> Option<(Span, Source, Span, Span)> {
    let space = |from: usize| line[from..].iter().position(|b| *b == b' ').map(|at| from + at);
    let time = space(0)?;
    // Cheaper than a parse, which only those who need the time pay for.
    if line[..time].iter().position(|b| *b == b'T') != Some(10) {
        return None;
    }
    let stream = space(time + 1)?;
    let source = match &line[time + 1..stream] {
        b"stdout" => Source::Stdout,
        b"stderr" => Source::Stderr,
        _ => return None,
    };
    let tags = space(stream + 1)?;
    Some((0..time, source, stream + 1..tags, tags + 1..line.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(chunks: &[&[u8]]) -> Vec<Result<Piece, Malformed>> {
        let (mut decoder, mut found) = (Decoder::default(), Vec::new());
        for chunk in chunks {
            decoder.push(chunk);
            found.extend(std::iter::from_fn(|| decoder.piece()));
        }
        found.extend(decoder.finish());
        found
    }

    #[test]
    fn lines_are_read_and_strangers_are_named() {
        let found = all(&[b"2026-01-01T00:00:00.1Z stdout F hello\n2026-01-01T00:00:01Z stderr P:x a b\n{\"log\":1}\n2026-01-01T00:00:02Z stdout F \n"]);
        let piece = |at: usize| found[at].clone().unwrap();
        assert_eq!((piece(0).content, piece(0).newline), (Bytes::from_static(b"hello"), true));
        assert_eq!(
            (piece(1).content, piece(1).newline, piece(1).source),
            (Bytes::from_static(b"a b"), false, Source::Stderr)
        );
        assert_eq!(found[2], Err(Malformed(Bytes::from_static(b"{\"log\":1}"))));
        assert_eq!((piece(3).content.len(), piece(3).newline), (0, true));
    }

    proptest! {
        /// However the file is cut, what the container wrote comes out, and no piece is longer than the bound.
        #[test]
        fn content_survives_any_cut(
            lines in proptest::collection::vec((0usize..150_000, any::<bool>(), any::<bool>()), 1..5),
            cut in 1usize..40_000,
            ended in any::<bool>(),
        ) {
            let (mut file, mut wrote) = (Vec::new(), Vec::new());
            let last = lines.len() - 1;
            for (index, (length, partial, error)) in lines.into_iter().enumerate() {
                let stream = if error { "stderr" } else { "stdout" };
                file.extend(format!("2026-01-01T00:00:00Z {stream} {} ", if partial { "P" } else { "F" }).bytes());
                let content: Vec<u8> = (0..length).map(|i| b'a' + u8::try_from(i % 26).unwrap()).collect();
                file.extend(&content);
                wrote.extend(&content);
                if ended || index < last {
                    file.push(b'\n');
                    if !partial {
                        wrote.push(b'\n');
                    }
                }
            }
            let chunks: Vec<&[u8]> = file.chunks(cut).collect();
            let mut read = Vec::new();
            for piece in all(&chunks) {
                let piece = piece.unwrap();
                prop_assert!(piece.content.len() <= LONGEST + cut);
                read.extend(&piece.content);
                if piece.newline {
                    read.push(b'\n');
                }
            }
            // A last line without an end is given without one.
            prop_assert_eq!(read, wrote);
        }
    }
}
