//! The kinds there are, by discovery: which are watched, and where an owner of an apiVersion and kind is found.

use super::identity::group;
use crate::discovery::Offers;
use kube::api::ApiResource;
use kube::discovery::verbs;
use std::collections::{HashMap, HashSet};

/// Kinds that nobody owns and nobody should watch.
const IGNORED: [(&str, &str); 2] = [("", "Event"), ("events.k8s.io", "Event")];

pub(super) type GroupKind = (String, String);

/// A kind in one version.
#[derive(Clone)]
pub(super) struct ServedKind {
    /// How it is reached.
    pub resource: ApiResource,
    /// Its objects have namespaces.
    pub namespaced: bool,
}

#[derive(Default)]
pub(super) struct Kinds {
    /// By apiVersion and kind, every version that is served.
    served: HashMap<(String, String), ServedKind>,
    watched: HashSet<GroupKind>,
    /// Watched, first list not complete.
    listing: HashSet<GroupKind>,
}

impl Kinds {
    /// Takes in what is served now; gives the kinds that are to be watched from now on.
    pub(super) fn learn(&mut self, offers: &Offers) -> Vec<ServedKind> {
        self.served.clear();
        for offer in &offers.kinds {
            self.serve(ServedKind { resource: offer.resource.clone(), namespaced: offer.namespaced });
        }
        let mut fresh = Vec::new();
        for offer in offers.preferred().filter(|o| o.allows(&[verbs::LIST, verbs::WATCH, verbs::DELETE])) {
            let resource = &offer.resource;
            let ignored = IGNORED.contains(&(resource.group.as_str(), resource.kind.as_str()));
            let kind = (resource.group.clone(), resource.kind.clone());
            if !ignored && self.watched.insert(kind.clone()) {
                self.listing.insert(kind);
                fresh.push(ServedKind { resource: resource.clone(), namespaced: offer.namespaced });
            }
        }
        fresh
    }

    /// A version of a kind is served.
    pub(super) fn serve(&mut self, known: ServedKind) {
        self.served.insert((known.resource.api_version.clone(), known.resource.kind.clone()), known);
    }

    /// A kind in the version asked for, when it is served.
    pub(super) fn get(&self, api_version: &str, kind: &str) -> Option<ServedKind> {
        self.served.get(&(api_version.to_owned(), kind.to_owned())).cloned()
    }

    /// The first list of a kind is complete. Says whether that was the last one missing.
    pub(super) fn listed(&mut self, kind: &GroupKind) -> bool {
        self.listing.remove(kind) && self.listing.is_empty()
    }

    /// Nothing is watched any more.
    pub(super) fn unwatch(&mut self) {
        self.watched.clear();
        self.listing.clear();
    }

    /// Whether discovery has said anything yet.
    pub(super) fn known(&self) -> bool {
        !self.served.is_empty()
    }

    /// Whether every kind watched has been listed.
    pub(super) fn complete(&self) -> bool {
        self.listing.is_empty()
    }

    /// A kind went away. Says as [`Kinds::listed`] does.
    pub(super) fn forget(&mut self, kind: &GroupKind) -> bool {
        self.watched.remove(kind);
        self.served.retain(|(api_version, name), _| (group(api_version), name) != (&kind.0, &kind.1));
        self.listed(kind)
    }
}
