//! LIST: a page of a resource as of one revision.
//!
//! Lists are answered by the watch cache: at the newest revision once the cache has come to it (a consistent read), at
//! whatever it has for resourceVersion 0, and at a past revision while it still knows it; otherwise by the store, as is what a cache
//! that stands still has not come to (upstream: the cacher's delegator falls back to etcd).
//! Objects are handed on as the shared bytes the cache holds.

use super::kind::Kind;
use super::options::{ListOptions, Match};
use super::{Registry, page_token, storage};
use bytes::Bytes;
use machinery::status::Status;
use std::collections::BTreeMap;
use std::sync::Arc;
use store::Revision;
use store::cache::{Cached, Error, Scope};

/// A page of objects in the stored version.
#[derive(Debug, Default)]
pub(crate) struct List {
    /// Wire JSON of each object.
    pub items: Vec<Bytes>,
    /// The list's resourceVersion.
    pub revision: Revision,
    /// Where to go on, empty at the end.
    pub continue_token: String,
    /// How many follow; unknown for selective lists.
    pub remaining: Option<u64>,
}

/// Entries looked at before a selective page gives up filling itself from the store.
const STORE_PAGE: usize = 1000;

/// Whether an object is selected.
pub(crate) fn selected(
    options: &ListOptions,
    labels: &BTreeMap<String, String>,
    fields: &BTreeMap<String, String>,
) -> bool {
    options.labels.matches(labels) && options.fields.matches(|f| fields.get(f).map(String::as_str))
}

/// The narrowest scope that holds everything a selector can select.
pub(crate) fn scope(kind: &Kind, namespace: &str, options: &ListOptions) -> Scope {
    let required = |f: &str| options.fields.required(f).map(str::to_owned);
    let namespace = match (kind.resource.namespaced, namespace) {
        (false, _) => None,
        (true, "") => required("metadata.namespace"),
        (true, namespace) => Some(namespace.to_owned()),
    };
    if let Some(name) = required("metadata.name")
        && (namespace.is_some() || !kind.resource.namespaced)
    {
        return Scope::Object { namespace, name };
    }
    match namespace {
        Some(namespace) => Scope::Namespace(namespace),
        None => match options.fields.terms().iter().find(|t| t.equals && t.field == "spec.nodeName") {
            Some(term) => Scope::Field { name: term.field.clone(), value: term.value.clone() },
            None => Scope::All,
        },
    }
}

impl Registry {
    /// A page of `kind` in `namespace` (empty: everywhere).
    pub(crate) async fn list(
        &self,
        kind: &Kind,
        namespace: &str,
        options: &ListOptions,
    ) -> Result<List, Status> {
        if kind.is_converted() {
            return self.list_converted(kind, namespace, options).await;
        }
        self.list_stored(kind, namespace, options).await
    }

    /// A page of objects that a webhook converts. What is selected by is looked for in what they become, so a selective
    /// page may be short of its limit.
    async fn list_converted(
        &self,
        kind: &Kind,
        namespace: &str,
        options: &ListOptions,
    ) -> Result<List, Status> {
        let all = ListOptions { fields: options.fields.only_metadata(), ..options.clone() };
        let mut list = self.list_stored(kind, namespace, &all).await?;
        let converted = self.present_all(kind, &list.items).await?;
        list.items.clear();
        for object in converted {
            if storage::selects(kind, &options.fields, &object) {
                list.items.push(serde_json::to_vec(&object).map_err(Status::internal_error)?.into());
            }
        }
        Ok(list)
    }

    async fn list_stored(&self, kind: &Kind, namespace: &str, options: &ListOptions) -> Result<List, Status> {
        let cache = self.filled(kind).await?;
        let prefix = kind.resource.list_key(Some(namespace));
        let mut after = None;
        let mut at = None;
        if options.continue_token.is_empty() {
            match (options.revision, options.revision_match) {
                (None, _) => match cache.refresh().await {
                    Err(Error::NotFresh { asked, .. }) => {
                        return self.list_from_store(kind, &prefix, None, asked, options).await;
                    }
                    Err(error) => return Err(storage::unready(kind, &error)),
                    Ok(_) => {}
                },
                (Some(revision), Some(Match::Exact)) => at = Some(revision),
                // Upstream: a limited list at a revision without a match is exact ("legacy exact").
                (Some(revision), None) if options.limit > 0 && revision > 0 => at = Some(revision),
                (Some(0), _) => {}
                (Some(revision), _) => {
                    cache.wait_until_fresh(revision).await.map_err(|e| storage::unready(kind, &e))?;
                }
            }
        } else {
            if options.revision.is_some_and(|r| r != 0) {
                return Err(Status::bad_request(
                    "specifying resource version is not allowed when using continue",
                ));
            }
            let token = page_token::decode(&options.continue_token).map_err(Status::bad_request)?;
            after = Some(format!("{prefix}{}", token.after));
            at = token.revision;
        }
        if let Some(revision) = at {
            let newest = self.backend.revision();
            if revision > newest {
                // Ahead of us: wait as for any future revision, which ends in the right refusal.
                cache.wait_until_fresh(revision).await.map_err(|e| storage::unready(kind, &e))?;
            }
        }
        let snapshot = match at {
            None => Some(cache.snapshot().map_err(|e| storage::unready(kind, &e))?),
            // What the store has forgotten the cache does not tell either, though nothing may have changed since.
            Some(revision) if revision < self.backend.compacted() => None,
            Some(revision) => {
                // The snapshot must have come to the revision before it can show it; the store has.
                let behind = cache.revision().is_ok_and(|r| r < revision)
                    && cache.wait_until_fresh(revision).await.is_err();
                cache.snapshot_at(revision).filter(|_| !behind)
            }
        };
        let Some(snapshot) = snapshot else {
            return self
                .list_from_store(kind, &prefix, after.as_deref(), at.unwrap_or_default(), options)
                .await;
        };
        let scope = scope(kind, namespace, options);
        let limit = if options.limit == 0 { usize::MAX } else { options.limit };
        let mut list = List { revision: snapshot.revision(), ..List::default() };
        let mut last: Option<Arc<Cached>> = None;
        let mut more = false;
        let range_prefix = match &scope {
            Scope::Object { .. } => cache.key_prefix(&scope),
            _ => prefix.clone(),
        };
        for object in snapshot.range(&range_prefix, after.as_deref()) {
            if !scope.holds(object) || !selected(options, &object.labels, &object.fields) {
                continue;
            }
            if list.items.len() == limit {
                more = true;
                break;
            }
            list.items.push(object.bytes.clone());
            last = Some(object.clone());
        }
        if let Some(last) = last.filter(|_| more) {
            list.continue_token = page_token::encode(
                last.key.strip_prefix(prefix.as_str()).unwrap_or(&last.key),
                Some(list.revision),
            );
            if options.labels.is_empty() && options.fields.is_empty() {
                list.remaining = u64::try_from(snapshot.count(&prefix, Some(&last.key))).ok();
            }
            cache.hold(&snapshot);
        }
        Ok(list)
    }

    /// A page at a revision the cache no longer knows.
    async fn list_from_store(
        &self,
        kind: &Kind,
        prefix: &str,
        after: Option<&str>,
        at: Revision,
        options: &ListOptions,
    ) -> Result<List, Status> {
        let mut list = List { revision: at, ..List::default() };
        let mut after = after.map(str::to_owned);
        let selective = !options.labels.is_empty() || !options.fields.is_empty();
        loop {
            let wanted = match (options.limit, selective) {
                (0, _) | (_, true) => STORE_PAGE,
                (limit, false) => limit,
            };
            let page = match self.backend.list(prefix, after.as_deref(), wanted, Some(at)).await {
                Ok(page) => page,
                Err(store::Error::Compacted { .. }) if !options.continue_token.is_empty() => {
                    return Err(self.expired_continue(after.as_deref(), prefix));
                }
                Err(e) => return Err(storage::failed(kind, "", "list", &e)),
            };
            let count = page.entries.len();
            for (i, entry) in page.entries.iter().enumerate() {
                let indexed = storage::extract(&[*kind], entry);
                after = Some(entry.key.to_string());
                if !selected(options, &indexed.labels, &indexed.fields) {
                    continue;
                }
                list.items.push(indexed.bytes);
                if options.limit > 0 && list.items.len() == options.limit && (page.more || i + 1 < count) {
                    let last = entry.key.strip_prefix(prefix).unwrap_or(&entry.key);
                    list.continue_token = page_token::encode(last, Some(at));
                    list.remaining = (!selective).then_some(page.remaining);
                    return Ok(list);
                }
            }
            if !page.more {
                return Ok(list);
            }
        }
    }

    /// 410 with a token that goes on at the newest revision, as upstream offers it.
    fn expired_continue(&self, after: Option<&str>, prefix: &str) -> Status {
        let mut status = Status::expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
        );
        let after = after.and_then(|a| a.strip_prefix(prefix)).unwrap_or_default();
        status.continue_token = page_token::encode(after, None);
        status
    }
}
