//! Where the last lines of a file begin, found by reading backwards in blocks.

use std::io::{Read, Result, Seek, SeekFrom};

const BLOCK: usize = 8192;

/// The offset of the last `lines` lines. A last line without an end does not count as one.
pub fn start(file: &mut (impl Read + Seek), lines: u64) -> Result<u64> {
    let mut right = file.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok(right);
    }
    let mut seen = 0u64;
    let mut block = [0u8; BLOCK];
    while right > 0 {
        let left = right.saturating_sub(BLOCK as u64);
        // At most a block.
        let length = usize::try_from(right - left).unwrap_or(BLOCK);
        file.seek(SeekFrom::Start(left))?;
        let block = &mut block[..length];
        file.read_exact(block)?;
        for at in (0..length).rev().filter(|at| block[*at] == b'\n') {
            seen += 1;
            if seen > lines {
                return Ok(left + at as u64 + 1);
            }
        }
        right = left;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    proptest! {
        #[test]
        fn the_last_lines_are_the_last_lines(
            lengths in proptest::collection::vec(0usize..5000, 0..20),
            asked in 0u64..25,
        ) {
            let lines: Vec<Vec<u8>> = lengths.iter().map(|n| [vec![b'x'; *n], vec![b'\n']].concat()).collect();
            let want = lines[lines.len().saturating_sub(usize::try_from(asked).unwrap())..].concat();
            let file = lines.concat();
            let at = start(&mut Cursor::new(&file), asked).unwrap();
            prop_assert_eq!(&file[usize::try_from(at).unwrap()..], &want[..]);
        }
    }
}
