//! One definition's place. A [`Kind`](super::kind::Kind) of a custom resource points to it, and finds there what the
//! definition says now; where it went meanwhile, there is nothing.

use arc_swap::ArcSwapOption;
use machinery::custom::Definition;
use machinery::status::{Reason, Status};
use std::sync::Arc;
use store::cache::Cache;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What a definition says now, and its objects.
#[derive(Default)]
pub(crate) struct Slot {
    definition: ArcSwapOption<Definition>,
    storage: ArcSwapOption<Storage>,
}

/// The watch cache of a definition. It is rebuilt when the definition's spec changes, as upstream rebuilds its
/// storage: watches of the old one end.
pub(crate) struct Storage {
    pub cache: Cache,
    /// Cancelled when the cache is no longer fed.
    pub replaced: CancellationToken,
    _stop: DropGuard,
}

impl Storage {
    /// A cache that is fed until `replaced` is cancelled, or nobody holds the storage.
    pub(crate) fn new(cache: Cache, replaced: CancellationToken) -> Self {
        Storage { cache, _stop: replaced.clone().drop_guard(), replaced }
    }
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Slot").field(&self.definition().map(|d| d.name.clone())).finish()
    }
}

impl Slot {
    pub(crate) fn definition(&self) -> Option<Arc<Definition>> {
        self.definition.load_full()
    }

    pub(crate) fn storage(&self) -> Option<Arc<Storage>> {
        self.storage.load_full()
    }

    /// Serves a definition; with a new storage, ends the old one's watches.
    pub(crate) fn serve(&self, definition: Definition, storage: Option<Storage>) {
        self.definition.store(Some(Arc::new(definition)));
        if let Some(storage) = storage {
            self.end(Some(Arc::new(storage)));
        }
    }

    /// Serves nothing any more.
    pub(crate) fn clear(&self) {
        self.definition.store(None);
        self.end(None);
    }

    fn end(&self, next: Option<Arc<Storage>>) {
        if let Some(old) = self.storage.swap(next) {
            old.replaced.cancel();
        }
    }
}

/// The refusal of a request whose definition went while it was on its way.
pub(crate) fn gone() -> Status {
    Status::failure(404, Reason::NotFound, "the server could not find the requested resource")
}
