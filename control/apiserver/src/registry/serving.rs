//! A definition as it is served: its outline, and what is compiled of it while it is used.
//!
//! Compiling takes a definition's schemas apart, which costs some milliseconds and many times the memory of their text. So it is done
//! when an object is first read or written, kept while that goes on, and given back after.

use bytes::Bytes;
use machinery::custom::{Definition, Outline, outline};
use parking_lot::Mutex;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What one definition says.
pub(crate) struct Serving {
    pub outline: Outline,
    /// The definition's JSON, as the watch cache of definitions has it: shared with that.
    source: Bytes,
    compiled: Mutex<Option<Compiled>>,
    /// How many definitions were ever compiled, of all.
    count: Arc<AtomicU64>,
}

struct Compiled {
    definition: Arc<Definition>,
    used: Instant,
}

impl Serving {
    pub(crate) fn new(outline: Outline, source: Bytes, count: Arc<AtomicU64>) -> Self {
        Serving { outline, source, compiled: Mutex::default(), count }
    }

    /// The definition with its schemas.
    pub(crate) fn definition(&self) -> Arc<Definition> {
        let mut compiled = self.compiled.lock();
        let now = Instant::now();
        if let Some(known) = &mut *compiled {
            known.used = now;
            return known.definition.clone();
        }
        // Under the lock: who comes meanwhile would do the same work.
        let definition = Arc::new(self.compile());
        *compiled = Some(Compiled { definition: definition.clone(), used: now });
        definition
    }

    fn compile(&self) -> Definition {
        self.count.fetch_add(1, Ordering::Relaxed);
        match serde_json::from_slice(&self.source) {
            Ok(crd) => Definition::of(&self.outline, &crd),
            Err(error) => {
                // Its outline was read from the same bytes. Whatever that was, no object loses a field by it.
                tracing::error!(%error, definition = self.outline.name, "read a definition");
                let free = Definition::of(&self.outline, &Value::Null);
                Definition { preserve_unknown: true, ..free }
            }
        }
    }

    /// Keeps what is compiled of `before`, which says the same of its objects.
    pub(super) fn take_over(&self, before: &Serving) {
        let compiled = before.compiled.lock();
        *self.compiled.lock() =
            compiled.as_ref().map(|c| Compiled { definition: c.definition.clone(), used: c.used });
    }

    /// Forgets what is compiled where nobody has used it for so long.
    pub(crate) fn rest(&self, idle: Duration) {
        let mut compiled = self.compiled.lock();
        if compiled.as_ref().is_some_and(|c| c.used.elapsed() >= idle) {
            *compiled = None;
        }
    }

    /// The schema of a version as its author wrote it.
    pub(crate) fn schema(&self, version: &str) -> Value {
        outline::schema_of(&self.source, version)
    }
}
