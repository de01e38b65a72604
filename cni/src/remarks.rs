//! What is to be said of a call beside its result: on stderr, which runtimes log.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

/// Sentences about a configuration that was served nevertheless. One configuration is read more than once; each sentence is kept once.
#[derive(Debug, Default)]
pub(crate) struct Remarks(Mutex<BTreeSet<String>>);

impl Remarks {
    pub(crate) fn add(&self, remark: impl Into<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(remark.into());
    }

    /// In alphabetical order.
    pub(crate) fn list(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}
