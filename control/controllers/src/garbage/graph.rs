//! Who owns whom, by uid. Pure: every change answers with the uids that are to be looked at again.

use super::identity::{Fit, Identity, Owner};
use std::collections::{HashMap, HashSet};
use std::fmt;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub identity: Identity,
    pub version: String,
    pub owners: Vec<Owner>,
    /// Has a deletion timestamp.
    pub deleting: bool,
    /// Has the finalizer `foregroundDeletion`.
    pub foreground: bool,
    /// Has the finalizer `orphan`.
    pub orphan: bool,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Identity { kind, namespace, name, .. } = &self.identity;
        let between = if namespace.is_empty() { "" } else { "/" };
        write!(f, "{kind} {namespace}{between}{name}")
    }
}

/// Whether one of an object's own dependents waits for it already, as its owner does: deleted in the foreground too, it
/// would wait for itself.
pub(super) fn closes_a_circle(item: &Node, dependents: &[Node]) -> bool {
    item.owners.iter().any(|owner| owner.blocks) && dependents.iter().any(|d| d.deleting && d.foreground)
}

/// What a change brings about.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Uids to look at again.
    pub woken: Vec<String>,
    /// Dependents and the owners they name that are in another namespace.
    pub misplaced: Vec<(Node, Owner)>,
    /// Seen to be deleted while dependents name it.
    pub absent: Option<Identity>,
}

impl Outcome {
    /// A dependent whose owner was seen: it is looked at when the two do not fit, as it may have no such owner.
    fn compare(&mut self, dependent: &Node, owner: &Owner, seen: &Identity, first: bool) {
        let fit = owner.fit(&dependent.identity.namespace, seen);
        if first && fit == Fit::OtherNamespace {
            self.misplaced.push((dependent.clone(), owner.clone()));
        }
        if fit != Fit::Exact {
            self.woken.push(dependent.identity.uid.clone());
        }
    }
}

#[derive(Default)]
pub(super) struct Graph {
    nodes: HashMap<String, Node>,
    /// Owner's uid to dependents' uids; the owner need not be known.
    dependents: HashMap<String, HashSet<String>>,
}

impl Graph {
    pub(super) fn get(&self, uid: &str) -> Option<Node> {
        self.nodes.get(uid).cloned()
    }

    /// The objects that name an owner of this uid, wherever they are.
    pub(super) fn dependents(&self, uid: &str) -> Vec<Node> {
        self.naming(uid).cloned().collect()
    }

    fn naming(&self, uid: &str) -> impl Iterator<Item = &Node> {
        self.dependents.get(uid).into_iter().flatten().filter_map(|d| self.nodes.get(d))
    }

    /// An object was made or changed.
    pub(super) fn observe(&mut self, node: Node) -> Outcome {
        let mut outcome = Outcome::default();
        let uid = node.identity.uid.clone();
        let old = self.nodes.remove(&uid);
        let old_owners = old.as_ref().map(|n| n.owners.clone()).unwrap_or_default();
        for old in &old_owners {
            let now = node.owners.iter().find(|o| o.uid == old.uid);
            if now.is_none() {
                self.unlink(&old.uid, &uid);
            }
            if now.is_none_or(|now| old.blocks && !now.blocks) {
                // an owner that waits for its dependents has one less
                outcome.woken.extend(self.waiting(&old.uid));
            }
        }
        for owner in &node.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
            match self.nodes.get(&owner.uid) {
                Some(seen) => outcome.compare(&node, owner, &seen.identity, !old_owners.contains(owner)),
                None => outcome.woken.push(uid.clone()),
            }
        }
        if old.is_none() {
            // dependents seen before it may have named it wrongly
            for dependent in self.naming(&uid) {
                for owner in dependent.owners.iter().filter(|o| o.uid == uid) {
                    outcome.compare(dependent, owner, &node.identity, true);
                }
            }
        }
        let waiting_owner = node.owners.iter().any(|o| self.waiting(&o.uid).is_some());
        if waiting_owner || node.deleting {
            outcome.woken.push(uid.clone());
        }
        self.nodes.insert(uid, node);
        outcome.woken.dedup();
        outcome
    }

    /// An object is gone.
    pub(super) fn remove(&mut self, uid: &str) -> Outcome {
        let Some(node) = self.nodes.remove(uid) else { return Outcome::default() };
        let mut woken: Vec<String> = self.dependents.get(uid).into_iter().flatten().cloned().collect();
        let absent = (!woken.is_empty()).then(|| node.identity.clone());
        for owner in node.owners {
            self.unlink(&owner.uid, uid);
            woken.extend(self.waiting(&owner.uid));
        }
        Outcome { woken, absent, ..Outcome::default() }
    }

    /// A list of a kind is complete: what is not in it is gone, or the whole kind is. Gives the uids to look at again.
    pub(super) fn keep_only(&mut self, kind: &(String, String), listed: &HashSet<String>) -> Vec<String> {
        let gone: Vec<String> = self
            .nodes
            .iter()
            .filter(|(uid, n)| n.identity.group_kind() == *kind && !listed.contains(*uid))
            .map(|(uid, _)| uid.clone())
            .collect();
        gone.iter().flat_map(|uid| self.remove(uid).woken).collect()
    }

    fn waiting(&self, uid: &str) -> Option<String> {
        self.nodes.get(uid).filter(|n| n.deleting && n.foreground).map(|n| n.identity.uid.clone())
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(set) = self.dependents.get_mut(owner) {
            set.remove(dependent);
            if set.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }
}

#[cfg(test)]
mod tests;
