//! Documents that were asked for lately, as they are sent.

use bytes::Bytes;
use http::header::HeaderValue;
use rustc_hash::FxHashMap;
use std::time::{Duration, Instant};

/// Bytes of all that is kept. A cluster's clients ask for some dozen documents; those of the largest groups have some megabytes.
const MOST_BYTES: usize = 16 * 1024 * 1024;
/// How long a document outlives the last who asked for it.
const IDLE: Duration = Duration::from_secs(600);

/// A document in one encoding.
#[derive(Clone)]
pub(super) struct Document {
    pub bytes: Bytes,
    /// Of what it says, in any encoding.
    pub etag: HeaderValue,
    pub media_type: &'static str,
    /// `bytes` are compressed.
    pub gzip: bool,
}

struct Entry {
    /// What it was made of.
    of: String,
    document: Document,
    used: Instant,
}

/// Documents by key and encoding.
#[derive(Default)]
pub(super) struct Kept {
    entries: FxHashMap<(String, bool), Entry>,
}

impl Kept {
    /// The document of `key`, made of `of`; one that was made of anything else is forgotten.
    pub(super) fn get(&mut self, key: &str, of: &str, gzip: bool) -> Option<Document> {
        let place = (key.to_owned(), gzip);
        let entry = self.entries.get_mut(&place)?;
        if entry.of != of {
            self.entries.remove(&place);
            return None;
        }
        entry.used = Instant::now();
        Some(entry.document.clone())
    }

    /// Keeps a document; what was asked for longest ago makes room. One that is too large by itself is not kept.
    pub(super) fn put(&mut self, key: &str, of: &str, document: Document) {
        self.put_at(key, of, document, Instant::now(), MOST_BYTES);
    }

    fn put_at(&mut self, key: &str, of: &str, document: Document, now: Instant, most: usize) {
        self.entries.retain(|_, entry| now.saturating_duration_since(entry.used) < IDLE);
        let place = (key.to_owned(), document.gzip);
        self.entries.remove(&place);
        if document.bytes.len() > most {
            return;
        }
        let mut size: usize = document.bytes.len() + self.bytes();
        while size > most {
            let oldest =
                self.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(place, _)| place.clone());
            let Some(gone) = oldest.and_then(|place| self.entries.remove(&place)) else { break };
            size -= gone.document.bytes.len();
        }
        self.entries.insert(place, Entry { of: of.to_owned(), document, used: now });
    }

    /// Keeps those only whose key is chosen.
    pub(super) fn retain(&mut self, chosen: impl Fn(&str) -> bool) {
        self.entries.retain(|(key, _), _| chosen(key));
    }

    /// How much is kept.
    pub(super) fn bytes(&self) -> usize {
        self.entries.values().map(|entry| entry.document.bytes.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(size: usize) -> Document {
        let etag = HeaderValue::from_static("x");
        Document { bytes: vec![0; size].into(), etag, media_type: "application/json", gzip: true }
    }

    #[test]
    fn what_was_asked_for_longest_ago_makes_room() {
        let (mut kept, start) = (Kept::default(), Instant::now());
        for (i, key) in ["a", "b", "c"].into_iter().enumerate() {
            kept.put_at(key, "1", document(10), start + Duration::from_secs(i as u64), 25);
        }
        assert_eq!(kept.bytes(), 20);
        assert!(kept.get("a", "1", true).is_none() && kept.get("c", "1", true).is_some());
        kept.put_at("d", "1", document(26), start, 25);
        assert!(kept.get("d", "1", true).is_none(), "too large by itself");
    }

    #[test]
    fn a_document_of_another_state_must_not_be_given_or_kept() {
        let mut kept = Kept::default();
        kept.put("a", "1", document(10));
        assert!(kept.get("a", "1", false).is_none(), "in another encoding");
        assert!(kept.get("a", "2", true).is_none());
        assert_eq!(kept.bytes(), 0);
    }

    #[test]
    fn a_document_nobody_asks_for_must_not_be_kept_for_ever() {
        let (mut kept, start) = (Kept::default(), Instant::now());
        kept.put_at("v2", "1", document(10), start, 25);
        kept.put_at("a", "1", document(1), start + IDLE, 25);
        assert_eq!(kept.bytes(), 1);
    }
}
