//! Who owns whom, by uid. Pure: every change answers with the uids that are to be looked at again.

use std::collections::{HashMap, HashSet};
use std::fmt;

/// An owner as a dependent names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Uid.
    pub uid: String,
    /// API group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Keeps an owner that is deleted in the foreground until the dependent is gone.
    pub blocks: bool,
}

/// An object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Uid.
    pub uid: String,
    /// Group and kind.
    pub kind: (String, String),
    /// Namespace or empty.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// resourceVersion.
    pub version: String,
    /// Owners.
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
        write!(f, "{} ", self.kind.1)?;
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// Whether one of an object's own dependents waits for it already, as its owner does: deleted in the foreground too, it
/// would wait for itself.
pub fn closes_a_circle(item: &Node, dependents: &[Node]) -> bool {
    item.owners.iter().any(|owner| owner.blocks) && dependents.iter().any(|d| d.deleting && d.foreground)
}

/// The graph.
#[derive(Default)]
pub struct Graph {
    nodes: HashMap<String, Node>,
    /// Owner's uid to dependents' uids; the owner need not be known.
    dependents: HashMap<String, HashSet<String>>,
}

impl Graph {
    /// An object.
    pub fn get(&self, uid: &str) -> Option<Node> {
        self.nodes.get(uid).cloned()
    }

    /// The objects that name this owner.
    pub fn dependents(&self, uid: &str) -> Vec<Node> {
        self.dependents.get(uid).into_iter().flatten().filter_map(|d| self.nodes.get(d)).cloned().collect()
    }

    /// An object was made or changed.
    pub fn observe(&mut self, node: Node) -> Vec<String> {
        let mut woken = Vec::new();
        let old_owners = self.nodes.get(&node.uid).map(|n| n.owners.clone()).unwrap_or_default();
        for old in old_owners {
            let now = node.owners.iter().find(|o| o.uid == old.uid);
            if now.is_none() {
                self.unlink(&old.uid, &node.uid);
            }
            if now.is_none_or(|now| old.blocks && !now.blocks) {
                // an owner that waits for its dependents has one less
                woken.extend(self.waiting(&old.uid));
            }
        }
        for owner in &node.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(node.uid.clone());
        }
        let missing_owner = node.owners.iter().any(|o| !self.nodes.contains_key(&o.uid));
        let waiting_owner = node.owners.iter().any(|o| self.waiting(&o.uid).is_some());
        if missing_owner || waiting_owner || node.deleting {
            woken.push(node.uid.clone());
        }
        self.nodes.insert(node.uid.clone(), node);
        woken
    }

    /// An object is gone.
    pub fn remove(&mut self, uid: &str) -> Vec<String> {
        let Some(node) = self.nodes.remove(uid) else { return Vec::new() };
        let mut woken: Vec<String> = self.dependents.get(uid).into_iter().flatten().cloned().collect();
        for owner in node.owners {
            self.unlink(&owner.uid, uid);
            woken.extend(self.waiting(&owner.uid));
        }
        woken
    }

    /// A list of a kind is complete: what is not in it is gone.
    pub fn keep_only(&mut self, kind: &(String, String), listed: &HashSet<String>) -> Vec<String> {
        let gone: Vec<String> = self
            .nodes
            .values()
            .filter(|n| n.kind == *kind && !listed.contains(&n.uid))
            .map(|n| n.uid.clone())
            .collect();
        gone.iter().flat_map(|uid| self.remove(uid)).collect()
    }

    fn waiting(&self, uid: &str) -> Option<String> {
        self.nodes.get(uid).filter(|n| n.deleting && n.foreground).map(|n| n.uid.clone())
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
mod tests {
    use super::*;

    fn node(uid: &str, owners: &[(&str, bool)]) -> Node {
        let owner = |(uid, blocks): &(&str, bool)| Owner {
            uid: (*uid).into(),
            group: "apps".into(),
            kind: "Deployment".into(),
            name: format!("name-{uid}"),
            blocks: *blocks,
        };
        Node {
            uid: uid.into(),
            kind: ("apps".into(), "ReplicaSet".into()),
            namespace: "default".into(),
            name: format!("name-{uid}"),
            version: "1".into(),
            owners: owners.iter().map(owner).collect(),
            deleting: false,
            foreground: false,
            orphan: false,
        }
    }

    #[test]
    fn dependents_are_woken_when_their_owner_goes() {
        let mut graph = Graph::default();
        assert!(graph.observe(node("owner", &[])).is_empty());
        assert!(graph.observe(node("child", &[("owner", true)])).is_empty(), "its owner is there");
        assert_eq!(graph.remove("owner"), ["child"]);
        assert_eq!(graph.observe(node("late", &[("owner", true)])), ["late"], "its owner is not known");
    }

    #[test]
    fn a_waiting_owner_is_woken_by_its_last_dependent() {
        let mut graph = Graph::default();
        graph.observe(node("owner", &[]));
        graph.observe(node("child", &[("owner", true)]));
        let waiting = Node { deleting: true, foreground: true, ..node("owner", &[]) };
        assert_eq!(graph.observe(waiting), ["owner"]);
        assert_eq!(graph.remove("child"), ["owner"]);
        assert!(graph.dependents("owner").is_empty());
    }

    #[test]
    fn a_circle_is_seen_and_its_owner_woken_once_it_is_open() {
        let mut graph = Graph::default();
        for (uid, owner) in [("a", "c"), ("b", "a"), ("c", "b")] {
            graph.observe(node(uid, &[(owner, true)]));
        }
        let last = graph.get("c").unwrap();
        assert!(!closes_a_circle(&last, &graph.dependents("c")));
        for (uid, owner) in [("a", "c"), ("b", "a")] {
            graph.observe(Node { deleting: true, foreground: true, ..node(uid, &[(owner, true)]) });
        }
        assert!(closes_a_circle(&last, &graph.dependents("c")));
        let opened = node("c", &[("b", false)]);
        assert!(!closes_a_circle(&opened, &graph.dependents("c")));
        assert!(graph.observe(opened).contains(&"b".to_owned()), "its owner may go now");
    }

    #[test]
    fn an_object_that_a_list_no_longer_shows_is_gone() {
        let mut graph = Graph::default();
        graph.observe(node("a", &[]));
        graph.observe(node("b", &[("a", false)]));
        let kind = ("apps".to_owned(), "ReplicaSet".to_owned());
        assert_eq!(graph.keep_only(&kind, &HashSet::from(["b".to_owned()])), ["b"]);
        assert!(graph.get("a").is_none());
    }
}
