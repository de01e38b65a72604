//! Answers of others, kept for a while: what CoreDNS' `cache 30` does. Pure but for the lock.
//!
//! Kept are whole answers to plain questions: those with records as long as the first of them may be, those that say "no" as long as the
//! zone's authority has it, both for at most half a minute. They lie as bytes; a client gets them under its own id, with its own spelling of the
//! name and with what is left of their time.

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The longest an answer is kept.
const LONGEST: Duration = Duration::from_secs(30);
/// Answers kept at a time, and bytes of one: 8 MiB at most.
const MOST: usize = 4096;
const LARGEST: usize = 2048;
/// Of a message: id, flags, and four counts.
const HEADER: usize = 12;
const OPT: u16 = 41;
const SOA: u16 = 6;
const NO_SUCH_NAME: u8 = 3;
/// In the third byte: it is a response; it is not whole.
const RESPONSE: u8 = 0x80;
const TRUNCATED: u8 = 0x02;

/// What a question's answer depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    name: String,
    kind: RecordType,
    /// Whether it speaks EDNS, asks for signatures, wants them unchecked, wants to know.
    flags: [bool; 4],
}

impl Key {
    /// The key of a question whose answer may serve others, too.
    pub(crate) fn of(request: &Message) -> Option<Self> {
        let query = crate::answer::plain(request)?;
        let edns = request.edns.as_ref();
        // options are between a client and its resolver
        if !request.metadata.recursion_desired || edns.is_some_and(|edns| !edns.options().as_ref().is_empty())
        {
            return None;
        }
        let flags = [
            edns.is_some(),
            edns.is_some_and(|edns| edns.flags().dnssec_ok),
            request.metadata.checking_disabled,
            request.metadata.authentic_data,
        ];
        Some(Self { name: query.name().to_lowercase().to_ascii(), kind: query.query_type(), flags })
    }
}

#[derive(Debug)]
struct Entry {
    answer: Vec<u8>,
    /// Where the question ends.
    question: usize,
    /// Where the records' times are.
    times: Vec<usize>,
    stored: Instant,
    until: Instant,
}

#[derive(Debug, Default)]
pub(crate) struct Cache(Mutex<HashMap<Key, Entry>>);

impl Cache {
    /// The answer to `request` (its bytes), if one of at most `room` bytes is kept.
    pub(crate) fn get(&self, key: &Key, request: &[u8], room: usize, now: Instant) -> Option<Vec<u8>> {
        let entries = self.0.lock();
        let entry = entries.get(key).filter(|entry| now < entry.until && entry.answer.len() <= room)?;
        let mut answer = entry.answer.clone();
        answer.get_mut(..2)?.copy_from_slice(request.get(..2)?);
        answer.get_mut(HEADER..entry.question)?.copy_from_slice(request.get(HEADER..entry.question)?);
        let age = u32::try_from(now.duration_since(entry.stored).as_secs()).unwrap_or(u32::MAX);
        for at in &entry.times {
            let time: &mut [u8; 4] = answer.get_mut(*at..at + 4)?.try_into().ok()?;
            *time = u32::from_be_bytes(*time).saturating_sub(age).to_be_bytes();
        }
        Some(answer)
    }

    /// Keeps an answer to `request` (its bytes), if it is one to be kept.
    pub(crate) fn put(&self, key: Key, request: &[u8], answer: &[u8], now: Instant) {
        let Some(Layout { question, times, keep }) = Layout::of(answer).filter(|_| answer.len() <= LARGEST)
        else {
            return;
        };
        // One to another question would be everybody's for a while.
        let asked = |bytes: &[u8]| bytes.get(HEADER..question).map(<[u8]>::to_ascii_lowercase);
        let keep = Duration::from_secs(keep.into()).min(LONGEST);
        if keep.is_zero() || asked(answer) != asked(request) {
            return;
        }
        let mut entries = self.0.lock();
        if entries.len() >= MOST && !entries.contains_key(&key) {
            entries.retain(|_, entry| now < entry.until);
            let first = entries.iter().min_by_key(|(_, entry)| entry.until).map(|(key, _)| key.clone());
            if let Some(first) = first.filter(|_| entries.len() >= MOST) {
                entries.remove(&first);
            }
        }
        let answer = answer.to_vec();
        entries.insert(key, Entry { answer, question, times, stored: now, until: now + keep });
    }

    /// Forgets everything: others are asked from now on.
    pub(crate) fn clear(&self) {
        self.0.lock().clear();
    }
}

/// Where in an answer things are, and how many seconds it may be kept.
#[derive(Debug, PartialEq, Eq)]
struct Layout {
    question: usize,
    times: Vec<usize>,
    keep: u32,
}

impl Layout {
    /// Of a whole answer that says yes or no; `None` for any other, and for one that cannot be read.
    fn of(answer: &[u8]) -> Option<Self> {
        let half = |at: usize| Some(u16::from_be_bytes(answer.get(at..at + 2)?.try_into().ok()?));
        let word = |at: usize| Some(u32::from_be_bytes(answer.get(at..at + 4)?.try_into().ok()?));
        let (flags, code) = (*answer.get(2)?, *answer.get(3)? & 0xf);
        if flags & RESPONSE == 0
            || flags & TRUNCATED != 0
            || half(4)? != 1
            || !matches!(code, 0 | NO_SUCH_NAME)
        {
            return None;
        }
        let question = after_name(answer, HEADER)? + 4;
        let (answers, authorities, more) = (half(6)?, half(8)?, half(10)?);
        let (mut at, mut times) = (question, Vec::new());
        let (mut yes, mut no) = (None::<u32>, None::<u32>);
        let least = |known: Option<u32>, time: u32| Some(known.map_or(time, |known| known.min(time)));
        for index in 0..u32::from(answers) + u32::from(authorities) + u32::from(more) {
            let fixed = after_name(answer, at)?;
            let (kind, time, length) = (half(fixed)?, word(fixed + 4)?, half(fixed + 8)?);
            at = fixed + 10 + usize::from(length);
            if at > answer.len() {
                return None;
            }
            if kind == OPT {
                continue;
            }
            times.push(fixed + 4);
            if index < u32::from(answers) {
                yes = least(yes, time);
            } else if index < u32::from(answers) + u32::from(authorities) && kind == SOA {
                // its last number says how long a "no" may be kept
                no = least(no, time.min(word(at.checked_sub(4)?)?));
            }
        }
        let keep = match (code, yes, no) {
            (0, Some(yes), None) => yes,
            (_, None, Some(no)) => no,
            (_, Some(yes), Some(no)) => yes.min(no),
            _ => return None,
        };
        Some(Self { question, times, keep })
    }
}

/// Where a name ends that begins at `at`.
fn after_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            pointer if pointer & 0xc0 == 0xc0 => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    }
}

#[cfg(test)]
mod tests;
