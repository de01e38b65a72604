//! One definition's place. A [`Kind`](super::kind::Kind) of a custom resource points to it, and finds there what the
//! definition says now; where it went meanwhile, there is nothing.

use super::serving::Serving;
use arc_swap::ArcSwapOption;
use machinery::status::{Reason, Status};
use std::sync::{Arc, OnceLock};
use store::cache::Cache;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What a definition says now, and its objects.
#[derive(Default)]
pub(crate) struct Slot {
    serving: ArcSwapOption<Serving>,
    storage: ArcSwapOption<Storage>,
}

/// The watch cache of a definition, made when it is first asked for. It is replaced when the definition's spec changes, as upstream
/// replaces its storage: watches of the old one end.
#[derive(Default)]
pub(crate) struct Storage {
    /// Cancelled when another takes its place.
    pub replaced: CancellationToken,
    /// The cache, and what ends its feed with it.
    fed: OnceLock<(Cache, DropGuard)>,
}

impl Storage {
    /// The cache; `make` makes it, and gives what ends its feed.
    pub(crate) fn cache(&self, make: impl FnOnce() -> (Cache, CancellationToken)) -> Cache {
        let fed = self.fed.get_or_init(|| {
            let (cache, feed) = make();
            (cache, feed.drop_guard())
        });
        fed.0.clone()
    }

    /// The cache, where anybody has asked for it yet.
    pub(crate) fn fed(&self) -> Option<&Cache> {
        self.fed.get().map(|(cache, _)| cache)
    }
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Slot").field(&self.serving().map(|s| s.outline.name.clone())).finish()
    }
}

impl Slot {
    pub(crate) fn serving(&self) -> Option<Arc<Serving>> {
        self.serving.load_full()
    }

    pub(crate) fn storage(&self) -> Option<Arc<Storage>> {
        self.storage.load_full()
    }

    /// Serves a definition; one whose objects are kept in another way ends the watches of the one before.
    pub(crate) fn serve(&self, serving: Serving) {
        let present = self.serving();
        let same = present.as_ref().is_some_and(|p| p.outline.same_storage(&serving.outline));
        if let Some(present) = present.filter(|_| same) {
            serving.take_over(&present);
        }
        self.serving.store(Some(Arc::new(serving)));
        if !same {
            self.end(Some(Arc::default()));
        }
    }

    /// Serves nothing any more.
    pub(crate) fn clear(&self) {
        self.serving.store(None);
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
