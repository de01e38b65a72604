//! Sets of fields. A path's elements are kept in their FieldsV1 spelling: `f:name`, `k:{"name":"a"}`, `v:"x"`, `i:0`.

use crate::goformat::go_quote;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A set of field paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    nodes: BTreeMap<String, Node>,
}

/// What a set says of one element.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    member: bool,
    children: Set,
}

impl Set {
    /// Adds a path, its parents not included.
    pub fn insert<P: AsRef<str>>(&mut self, path: &[P]) {
        let Some((first, rest)) = path.split_first() else { return };
        let node = self.nodes.entry(first.as_ref().to_owned()).or_default();
        if rest.is_empty() {
            node.member = true;
        } else {
            node.children.insert(rest);
        }
    }

    /// True for a set of nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.values().all(|n| !n.member && n.children.is_empty())
    }

    /// Whether the set has exactly this path.
    #[must_use]
    pub fn has<P: AsRef<str>>(&self, path: &[P]) -> bool {
        match path.split_first() {
            None => false,
            Some((first, rest)) => self
                .nodes
                .get(first.as_ref())
                .is_some_and(|n| if rest.is_empty() { n.member } else { n.children.has(rest) }),
        }
    }

    /// Everything below an element; `None` where the set has nothing at or below it.
    #[must_use]
    pub fn below(&self, element: &str) -> Option<&Set> {
        self.nodes.get(element).map(|n| &n.children)
    }

    /// The same, with what `below` makes of what is below each element; where that is nothing, the element itself is in the set instead.
    pub(super) fn map_nodes(&self, below: impl Fn(&str, &Set) -> Option<Set>) -> Set {
        let mut out = Set::default();
        for (element, node) in &self.nodes {
            let node = match (node.children.is_empty(), below(element, &node.children)) {
                (true, _) => node.clone(),
                (false, Some(children)) => Node { member: node.member, children },
                (false, None) => Node { member: true, children: Set::default() },
            };
            out.nodes.insert(element.clone(), node);
        }
        out
    }

    /// The first elements of its paths.
    pub fn elements(&self) -> impl Iterator<Item = &str> {
        self.nodes.keys().map(String::as_str)
    }

    /// Paths in either set.
    #[must_use]
    pub fn union(&self, other: &Set) -> Set {
        let mut out = self.clone();
        for (element, node) in &other.nodes {
            let mine = out.nodes.entry(element.clone()).or_default();
            mine.member |= node.member;
            mine.children = mine.children.union(&node.children);
        }
        out
    }

    fn combine(&self, other: &Set, member: fn(bool, bool) -> bool, children: fn(&Set, &Set) -> Set) -> Set {
        let nothing = Node::default();
        let mut out = Set::default();
        for (element, mine) in &self.nodes {
            let theirs = other.nodes.get(element).unwrap_or(&nothing);
            let node = Node {
                member: member(mine.member, theirs.member),
                children: children(&mine.children, &theirs.children),
            };
            if node.member || !node.children.nodes.is_empty() {
                out.nodes.insert(element.clone(), node);
            }
        }
        out
    }

    /// Paths in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Set) -> Set {
        self.combine(other, |a, b| a && b, Set::intersection)
    }

    /// Paths in this one only.
    #[must_use]
    pub fn difference(&self, other: &Set) -> Set {
        self.combine(other, |a, b| a && !b, Set::difference)
    }

    /// Paths in this one that are neither in the other nor below a path of it.
    #[must_use]
    pub fn outside(&self, other: &Set) -> Set {
        let mut out = Set::default();
        for (element, mine) in &self.nodes {
            match other.nodes.get(element) {
                Some(theirs) if theirs.member => {}
                Some(theirs) => {
                    let node =
                        Node { member: mine.member, children: mine.children.outside(&theirs.children) };
                    if node.member || !node.children.nodes.is_empty() {
                        out.nodes.insert(element.clone(), node);
                    }
                }
                None => {
                    out.nodes.insert(element.clone(), mine.clone());
                }
            }
        }
        out
    }

    /// The set of these fields, each a path of names: `metadata.labels`.
    #[must_use]
    pub fn of_fields(paths: &[&str]) -> Set {
        let mut set = Set::default();
        for path in paths {
            let elements: Vec<String> = path.split('.').map(|name| format!("f:{name}")).collect();
            set.insert(&elements);
        }
        set
    }

    /// `.spec.containers[name="a"].image`, every path.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.collect("", &mut out);
        out
    }

    fn collect(&self, prefix: &str, out: &mut Vec<String>) {
        for (element, node) in &self.nodes {
            let path = format!("{prefix}{}", show(element));
            if node.member {
                out.push(path.clone());
            }
            node.children.collect(&path, out);
        }
    }

    /// The FieldsV1 form.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let entries = self.nodes.iter().map(|(element, node)| {
            let mut value = node.children.to_value();
            if let (true, Value::Object(map)) = (node.member, &mut value)
                && !map.is_empty()
            {
                map.insert(".".to_owned(), Value::Object(Map::new()));
            }
            (element.clone(), value)
        });
        Value::Object(entries.collect())
    }

    /// From the FieldsV1 form. What is no object is the empty set.
    #[must_use]
    pub fn from_value(value: &Value) -> Set {
        let mut set = Set::default();
        for (element, below) in value.as_object().into_iter().flatten().filter(|(e, _)| *e != ".") {
            let children = Set::from_value(below);
            let member = below.get(".").is_some() || children.nodes.is_empty();
            set.nodes.insert(element.clone(), Node { member, children });
        }
        set
    }
}

/// An element as error texts have it: `.spec`, `[name="a"]`.
pub(super) fn show(element: &str) -> String {
    let Some((kind, rest)) = element.split_once(':') else { return element.to_owned() };
    let scalar = |v: &Value| v.as_str().map_or_else(|| v.to_string(), go_quote);
    match (kind, serde_json::from_str::<Value>(rest)) {
        ("f", _) => format!(".{rest}"),
        ("k", Ok(Value::Object(keys))) => {
            let keys: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={}", scalar(v))).collect();
            format!("[{}]", keys.join(","))
        }
        ("v", Ok(value)) => format!("[={}]", scalar(&value)),
        _ => format!("[{rest}]"),
    }
}
