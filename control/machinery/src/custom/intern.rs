//! Names and declarations of custom resources, kept for the life of the program.
//!
//! A built-in resource's declaration lives as long as the program, and everything that handles resources relies on that. A
//! custom resource's declaration is made to live as long: each distinct one is kept once, however often its definition
//! comes and goes. What is kept is bounded by [`MOST_BYTES`]; beyond it no definition with new names is served.

use crate::resources::Resource;
use std::collections::{HashMap, HashSet};
use std::sync::{LazyLock, Mutex, PoisonError};

/// Bound of all that is kept: some twenty thousand definitions.
pub(crate) const MOST_BYTES: usize = 32 * 1024 * 1024;

#[derive(Default)]
struct Kept {
    bytes: usize,
    texts: HashSet<&'static str>,
    /// By group, plural and storage version.
    resources: HashMap<(&'static str, &'static str, &'static str), Vec<&'static Resource>>,
}

static KEPT: LazyLock<Mutex<Kept>> = LazyLock::new(Mutex::default);

/// The same text for good; none once too much is kept.
#[must_use]
pub(crate) fn text(text: &str) -> Option<&'static str> {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = kept.texts.get(text) {
        return Some(known);
    }
    if kept.bytes + text.len() > MOST_BYTES {
        return None;
    }
    kept.bytes += text.len() + 32;
    let leaked: &'static str = Box::leak(text.to_owned().into_boxed_str());
    kept.texts.insert(leaked);
    Some(leaked)
}

/// The same texts for good.
#[must_use]
pub(crate) fn texts<S: AsRef<str>>(texts: impl IntoIterator<Item = S>) -> Option<Vec<&'static str>> {
    texts.into_iter().map(|t| text(t.as_ref())).collect()
}

/// The same declaration for good; none once too much is kept.
#[must_use]
pub(crate) fn resource(resource: Resource) -> Option<&'static Resource> {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (resource.group, resource.plural, resource.storage_version);
    if let Some(known) = kept.resources.get(&key).and_then(|all| all.iter().find(|r| ***r == resource)) {
        return Some(known);
    }
    let size = size_of::<Resource>() + 256;
    if kept.bytes + size > MOST_BYTES {
        return None;
    }
    kept.bytes += size;
    let leaked: &'static Resource = Box::leak(Box::new(resource));
    kept.resources.entry(key).or_default().push(leaked);
    Some(leaked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_one() {
        let (a, b) = (text("widgets.acme.example").unwrap(), text("widgets.acme.example").unwrap());
        assert!(std::ptr::eq(a, b));
    }
}
