//! Header blocks: name and value pairs, compressed by one zlib stream for all blocks of a direction.

use super::dictionary;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// Bytes of a header block, uncompressed. The streams of a remote command need a hundred.
pub(crate) const LARGEST: usize = 64 * 1024;

/// Pairs in their order. Names are in lower case.
pub type Headers = Vec<(String, String)>;

/// A header block cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("SPDY header block: {0}")]
pub struct Error(String);

impl Error {
    fn of(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// How much of `whole` zlib has taken since its counter was at `start`.
fn done(total: u64, start: u64) -> usize {
    // A block is far shorter than the address space.
    usize::try_from(total - start).unwrap_or(usize::MAX)
}

/// Compresses the blocks of one direction.
pub struct Deflater(Compress);

impl Deflater {
    /// The state before the first block.
    pub fn new() -> Result<Self, Error> {
        let mut zlib = Compress::new(Compression::best(), true);
        zlib.set_dictionary(&dictionary::bytes()).map_err(Error::of)?;
        Ok(Self(zlib))
    }

    /// Compresses the next block.
    pub fn block(&mut self, headers: &Headers) -> Result<Vec<u8>, Error> {
        let mut plain = Vec::new();
        let count = |n: usize| u32::try_from(n).map(u32::to_be_bytes).map_err(Error::of);
        plain.extend(count(headers.len())?);
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend(count(text.len())?);
            plain.extend(text.as_bytes());
        }
        let mut out = Vec::with_capacity(plain.len() + 64);
        let start = self.0.total_in();
        loop {
            out.reserve(256);
            let rest = &plain[done(self.0.total_in(), start)..];
            self.0.compress_vec(rest, &mut out, FlushCompress::Sync).map_err(Error::of)?;
            // Room left over means that everything is flushed.
            if out.len() < out.capacity() && done(self.0.total_in(), start) == plain.len() {
                return Ok(out);
            }
        }
    }
}

/// Decompresses the blocks of one direction.
pub struct Inflater(Decompress);

impl Default for Inflater {
    fn default() -> Self {
        Self(Decompress::new(true))
    }
}

impl Inflater {
    /// Decompresses and reads the next block.
    pub fn block(&mut self, block: &[u8]) -> Result<Headers, Error> {
        let mut plain = Vec::new();
        let start = self.0.total_in();
        loop {
            if plain.len() >= LARGEST {
                return Err(Error(format!("longer than {LARGEST} bytes")));
            }
            plain.reserve(4096);
            let before = (plain.len(), done(self.0.total_in(), start));
            match self.0.decompress_vec(&block[before.1..], &mut plain, FlushDecompress::Sync) {
                Ok(Status::StreamEnd) => break,
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&dictionary::bytes()).map_err(Error::of)?;
                    continue;
                }
                Err(error) => return Err(Error::of(error)),
            }
            let after = (plain.len(), done(self.0.total_in(), start));
            if plain.len() < plain.capacity() && after.1 == block.len() {
                break;
            }
            if after == before {
                return Err(Error("compressed data makes no progress".to_owned()));
            }
        }
        read(&plain)
    }
}

fn read(mut plain: &[u8]) -> Result<Headers, Error> {
    let short = || Error("shorter than it says".to_owned());
    let number = |plain: &mut &[u8]| {
        let (head, rest) = plain.split_first_chunk::<4>().ok_or_else(short)?;
        *plain = rest;
        Ok::<_, Error>(u32::from_be_bytes(*head) as usize)
    };
    let count = number(&mut plain)?;
    if count > plain.len() / 8 {
        return Err(short());
    }
    let mut text = || {
        let length = number(&mut plain)?;
        let (head, rest) = plain.split_at_checked(length).ok_or_else(short)?;
        plain = rest;
        String::from_utf8(head.to_vec()).map_err(Error::of)
    };
    (0..count).map(|_| Ok((text()?, text()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(name: &str, value: &str) -> Headers {
        vec![(name.to_owned(), value.to_owned())]
    }

    #[test]
    fn a_session_begins_with_the_dictionarys_checksum() {
        let block = Deflater::new().unwrap().block(&one("streamtype", "stdin")).unwrap();
        assert_eq!((block[0] & 0x0f, block[1] & 0x20), (8, 0x20));
        assert_eq!(block[2..6], [0xe3, 0xc6, 0xa7, 0xc2]);
        assert_eq!(block[block.len() - 4..], [0, 0, 0xff, 0xff]);
    }

    #[test]
    fn nonsense_is_an_error() {
        assert!(Inflater::default().block(b"nonsense").is_err());
        for plain in [&[0, 0, 0][..], &[255, 255, 255, 255], &[0, 0, 0, 1, 0, 0, 0, 9, 1, 2, 3, 4]] {
            assert!(read(plain).is_err(), "{plain:?}");
        }
    }

    #[test]
    fn a_block_that_grows_without_bound_is_refused() {
        let block = Deflater::new().unwrap().block(&one("a", &"x".repeat(LARGEST * 2))).unwrap();
        assert!(block.len() < LARGEST / 8);
        assert!(Inflater::default().block(&block).is_err());
    }

    proptest! {
        #[test]
        fn blocks_come_back_in_order(
            blocks in proptest::collection::vec(proptest::collection::vec(("[a-z:-]{1,20}", "\\PC{0,300}"), 0..6), 1..6),
        ) {
            let (mut deflater, mut inflater) = (Deflater::new().unwrap(), Inflater::default());
            for block in blocks {
                let bytes = deflater.block(&block).unwrap();
                prop_assert_eq!(inflater.block(&bytes).unwrap(), block);
            }
        }
    }
}
