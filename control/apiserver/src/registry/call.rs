//! One write as everybody sees it: those who ask for it, admission, and those who carry it out.

use super::kind::Kind;
use super::options::WriteOptions;
use crate::context::Context;
use futures::future::BoxFuture;
use machinery::object;
use machinery::status::Status;
use parking_lot::Mutex;
use serde_json::Value;
use std::sync::Arc;

/// What a client is told beside the answer.
pub(crate) type Warnings = Arc<Mutex<Vec<String>>>;

/// A change of an object of the stored version: from the stored state to the wanted one. A function is one; what has to ask others first
/// is another.
pub(crate) trait Change: Send + Sync {
    /// What it makes of the object as it is stored now.
    fn of<'a>(&'a self, stored: &'a Value) -> BoxFuture<'a, Result<Value, Status>>;
}

impl<F> Change for F
where
    F: Fn(&Value) -> Result<Value, Status> + Send + Sync,
{
    fn of<'a>(&'a self, stored: &'a Value) -> BoxFuture<'a, Result<Value, Status>> {
        Box::pin(std::future::ready(self(stored)))
    }
}

/// A subresource whose clients send another kind than the object it changes, such as a Scale.
#[derive(Debug)]
pub(crate) struct View {
    pub subresource: &'static str,
    /// Group, version and kind of what is sent.
    pub gvk: (&'static str, &'static str, &'static str),
    /// What clients see of an object.
    pub of: fn(&Kind, &Value) -> Value,
    /// Brings what they changed back into it.
    pub put_back: fn(&Kind, &mut Value, &Value),
}

/// What a write is to webhooks and policies.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Seen {
    /// A write of the object itself.
    #[default]
    Itself,
    /// A write of a part in a form of its own.
    As(&'static View),
    /// Nothing: they have seen what the client sent, or the server itself writes.
    Already,
}

/// One write: who, what, where, how.
#[derive(Clone)]
pub(crate) struct Call<'a> {
    pub context: &'a Context,
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
    pub subresource: &'a str,
    pub options: WriteOptions,
    pub warnings: Warnings,
    /// What webhooks and policies see of it.
    pub seen: Seen,
}

impl<'a> Call<'a> {
    /// A write that webhooks and policies do not see, with no options.
    pub(crate) fn unseen(context: &'a Context, kind: &Kind, namespace: &str, name: &str) -> Self {
        Call {
            context,
            kind: *kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: "",
            options: WriteOptions::default(),
            warnings: Warnings::default(),
            seen: Seen::Already,
        }
    }

    /// Tells the client beside the answer.
    pub(crate) fn warn(&self, warnings: impl IntoIterator<Item = String>) {
        self.warnings.lock().extend(warnings);
    }

    /// Owner references given twice stand once, and the client is told (upstream: `dedupOwnerReferencesAndAddWarning`).
    pub(crate) fn dedup_owners(&self, object: &mut Value, after_admission: bool) {
        let twice = object::dedup_owner_references(object);
        if !twice.is_empty() {
            let when = if after_admission { " after mutating admission happens" } else { "" };
            self.warn([format!(
                ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, \
                 and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
                twice.join(", ")
            )]);
        }
    }
}

/// Carries out writes, for admission: a quota is charged by one.
pub(crate) trait Writes: Send + Sync {
    /// Changes the object `call` names.
    fn change<'a>(&'a self, call: &'a Call<'_>, change: &'a dyn Change) -> BoxFuture<'a, Result<(), Status>>;
}
