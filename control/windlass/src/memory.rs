//! Memory given back. glibc keeps what a burst of pods or requests used, spread over as many arenas as there are threads; and pages
//! of the program that only the start or a burst needed (relocations, the command line, first lists) stay mapped. An agent or a
//! server is quiet most of its life.
#![allow(unsafe_code, reason = "the allocator is tuned through libc")]

use std::ops::Range;
use std::path::Path;
use std::time::Duration;
use supervise::{Scope, Supervisor, Task};
use tokio_util::sync::CancellationToken;

/// Arenas for all threads together: allocation is rarely what they wait for.
const ARENAS: libc::c_int = 2;
/// The start is over by then, on any machine that serves.
const STARTED: Duration = Duration::from_secs(15);
/// How often freed memory is looked at.
const PERIOD: Duration = Duration::from_secs(30);
/// Bytes freed by us since the last time and kept by glibc that are worth giving back.
const WORTHWHILE: usize = 2 << 20;

/// Bounds the arenas; before any thread is started.
pub(crate) fn bound_arenas() {
    // SAFETY: the one thread there is calls it, with a parameter of mallopt(3). Refused, it changes nothing.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) };
}

/// Runs `work`, and gives memory back beside it.
pub(crate) async fn beside<T>(work: impl Future<Output = T>) -> T {
    let supervisor = Supervisor::default();
    let scope = Scope::new(&supervisor, "", &CancellationToken::new());
    scope.keep(Task::endless("memory", give_back));
    work.await
}

/// Gives memory back to the system, forever: the program's pages after the start, and these and what was freed after each burst.
async fn give_back() {
    tokio::time::sleep(STARTED).await;
    release_program();
    let mut freed = Freed::default();
    loop {
        tokio::time::sleep(PERIOD).await;
        if !freed.is_worthwhile(free_bytes()) {
            continue;
        }
        // It takes each arena's lock in turn, for as long as a walk over what is free takes.
        if tokio::task::spawn_blocking(trim).await.is_err() {
            return;
        }
        release_program();
    }
}

/// What is free counts as free after it was given back, too: only its growth shows that there is something to give.
#[derive(Default)]
struct Freed {
    /// The least that was free since the last time.
    least: usize,
}

impl Freed {
    fn is_worthwhile(&mut self, free: usize) -> bool {
        let worthwhile = free >= self.least + WORTHWHILE;
        self.least = if worthwhile { free } else { self.least.min(free) };
        worthwhile
    }
}

fn release_program() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    if let Some(program) = std::env::current_exe().ok().as_deref().and_then(Path::to_str) {
        unchanged(&maps, program).into_iter().for_each(unmap);
    }
}

/// The address ranges of a program's pages that nobody ever writes, relocation included: its head and its code. Constants with
/// addresses in them are read-only by now as well, but the loader wrote them: they are neither.
fn unchanged(maps: &str, program: &str) -> Vec<Range<usize>> {
    let range = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (range, mode, offset) = (fields.next()?, fields.next()?, fields.next()?);
        let ours = fields.nth(2)? == program;
        let kept = mode == "r-xp" || (mode == "r--p" && offset.bytes().all(|digit| digit == b'0'));
        let (start, end) = range.split_once('-')?;
        let at = |hex| usize::from_str_radix(hex, 16).ok();
        (ours && kept).then_some(at(start)?..at(end)?)
    };
    maps.lines().filter_map(range).collect()
}

/// Lets go of pages of a file; what is needed again is mapped again from the file's cache.
fn unmap(pages: Range<usize>) {
    // SAFETY: a private mapping that was never written reads the same after it was released. The file cannot change while it runs.
    unsafe { libc::madvise(pages.start as *mut libc::c_void, pages.len(), libc::MADV_DONTNEED) };
}

/// Bytes that glibc holds and nobody uses.
fn free_bytes() -> usize {
    // SAFETY: it takes the allocator's own locks and touches nothing that is in use.
    unsafe { libc::mallinfo2().fordblks }
}

/// Whether anything was given back.
fn trim() -> bool {
    // SAFETY: as above.
    unsafe { libc::malloc_trim(0) == 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident() -> usize {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap();
        text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }

    #[test]
    fn only_the_programs_own_unwritten_pages_are_let_go() {
        let maps = "\
1000-2000 r--p 00000000 fe:00 12                         /bin/own
2000-5000 r-xp 00001000 fe:00 12                         /bin/own
5000-6000 r--p 00004000 fe:00 12                         /bin/own
6000-7000 rw-p 00005000 fe:00 12                         /bin/own
7000-8000 rw-p 00000000 00:00 0                          [heap]
8000-9000 r-xp 00000000 fe:00 13                         /lib/other.so
9000-a000 r-xp 00000000 00:00 0
";
        assert_eq!(unchanged(maps, "/bin/own"), [0x1000..0x2000, 0x2000..0x5000]);
        let own = std::env::current_exe().unwrap();
        let pages = unchanged(&std::fs::read_to_string("/proc/self/maps").unwrap(), own.to_str().unwrap());
        assert!(!pages.is_empty(), "this very program has such pages");
        pages.into_iter().for_each(unmap);
        assert_eq!(unchanged(maps, "/bin/own").len(), 2, "and runs on without them");
    }

    #[test]
    fn only_growth_of_what_is_free_is_worthwhile() {
        let mut freed = Freed::default();
        assert!(freed.is_worthwhile(5 << 20), "the start's");
        assert!(!freed.is_worthwhile(5 << 20), "given back already, it still counts as free");
        assert!(!freed.is_worthwhile(6 << 20));
        assert!(!freed.is_worthwhile(1 << 20), "used again");
        assert!(freed.is_worthwhile(3 << 20), "and free again");
    }

    #[test]
    fn what_was_freed_between_living_pieces_is_given_back() {
        let mut pieces: Vec<Option<Box<[u8; 8192]>>> = (0..4096).map(|_| Some(Box::new([1; 8192]))).collect();
        for (at, piece) in pieces.iter_mut().enumerate() {
            if at % 8 != 0 {
                *piece = None;
            }
        }
        let before = resident();
        assert!(trim());
        let after = resident();
        assert!(after + (8 << 20) < before, "{before} -> {after} bytes resident");
        assert!(pieces.iter().flatten().all(|piece| piece.iter().all(|byte| *byte == 1)));
    }
}
