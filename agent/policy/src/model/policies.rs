//! Policies: their chains, and which pods they select.

use super::members::Group;
use super::{DIRECTIONS, Entry, Key, Model};
use crate::object::{Labels, Policy, Rule, Term};
use crate::ruleset::{Body, Chain, Direction, Id, Line, Port};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

/// What fits into a chain's name, with room for what stands before it.
const LONGEST_NAME: usize = 200;

impl Policy {
    fn rules(&self, direction: Direction) -> Option<&Vec<Rule>> {
        match direction {
            Direction::Ingress => self.ingress.as_ref(),
            Direction::Egress => self.egress.as_ref(),
        }
    }
}

impl Model {
    /// A policy as it is now; `None`: it is gone.
    pub fn set_policy(&mut self, key: &Key, policy: Option<Policy>) {
        let old = self.policies.remove(key);
        if let (Some(entry), Some(policy)) = (&old, &policy)
            && entry.policy == *policy
        {
            self.policies.extend(old.map(|entry| (key.clone(), entry)));
            return;
        }
        let had = old.as_ref().map_or([None, None], |entry| entry.chains);
        let mut chains = [None, None];
        for (place, direction) in DIRECTIONS.into_iter().enumerate() {
            let Some(rules) = policy.as_ref().and_then(|policy| policy.rules(direction)) else { continue };
            let pods = policy.as_ref().map(|policy| policy.pods.clone());
            let id = had[place].unwrap_or_else(|| self.next());
            chains[place] = Some(id);
            let own =
                Term::Namespace(key.namespace.clone(), pods.unwrap_or(machinery::labels::Selector::Nothing));
            let lines = self.lines(direction, rules, &own, id);
            let reads = Self::read_by(&lines);
            let same = matches!(self.rules.chains().get(&id),
                Some(Chain { body: Body::Policy(_, now), .. }) if *now == lines);
            if !same {
                let chain =
                    Chain { name: chain_name(direction, id, key), body: Body::Policy(direction, lines) };
                self.rules.set_chain(id, Some(chain));
                self.narrowed.insert(id);
            }
            // those of before, and those that no line came of
            let used: Vec<Id> = self.used_by(id).filter(|set| !reads.contains(set)).collect();
            self.release(used, id);
        }
        let space = self.spaces.entry(key.namespace.clone()).or_default();
        match policy {
            Some(policy) => {
                space.policies.insert(key.name.clone());
                self.policies.insert(key.clone(), Entry { policy, chains });
            }
            None => drop(space.policies.remove(&key.name)),
        }
        self.reselect(&key.namespace);
        for id in had.into_iter().flatten().filter(|id| !chains.contains(&Some(*id))) {
            let sets: Vec<Id> = self.used_by(id).collect();
            self.rules.set_chain(id, None);
            self.release(sets, id);
        }
        self.tidy(&key.namespace);
    }

    /// The policies' chains that judge a pod; `None` in a direction where none selects it.
    pub(super) fn judges(&self, namespace: &Arc<str>, labels: &Labels) -> [Option<Vec<Id>>; 2] {
        let mut out = [None, None];
        for entry in self.policies_of(namespace).filter(|entry| entry.policy.pods.matches(labels)) {
            for (all, id) in out.iter_mut().zip(entry.chains) {
                if let Some(id) = id {
                    all.get_or_insert_with(Vec::new).push(id);
                }
            }
        }
        out.iter_mut().flatten().for_each(|ids| ids.sort_unstable());
        out
    }

    /// Whether a namespace has policies of a direction.
    pub(super) fn has_policies(&self, namespace: &Arc<str>, direction: Direction) -> bool {
        self.policies_of(namespace).any(|entry| entry.policy.rules(direction).is_some())
    }

    fn policies_of(&self, namespace: &Arc<str>) -> impl Iterator<Item = &Entry> {
        let names = self.spaces.get(namespace).into_iter().flat_map(|space| &space.policies);
        let namespace = namespace.clone();
        names.filter_map(move |name| {
            self.policies.get(&Key { namespace: namespace.clone(), name: name.clone() })
        })
    }

    /// Looks again who judges the pods of a namespace that are on this node.
    fn reselect(&mut self, namespace: &Arc<str>) {
        let mut addresses: BTreeSet<IpAddr> = BTreeSet::new();
        let local = self.spaces.get(namespace).into_iter().flat_map(|space| &space.local);
        let keys = local.map(|pod| Key { namespace: namespace.clone(), name: pod.clone() });
        for key in keys.collect::<Vec<Key>>() {
            let Some(known) = self.pods.get(&key) else { continue };
            let judges = self.judges(namespace, &known.pod.labels);
            if judges == known.judges {
                continue;
            }
            if let Some(known) = self.pods.get_mut(&key) {
                known.judges = judges;
                addresses.extend(known.addresses.iter().copied());
            }
        }
        let held = self.attached.iter().filter(|(_, owner)| owner.pod.namespace == *namespace);
        addresses.extend(held.map(|(ip, _)| *ip));
        addresses.into_iter().for_each(|ip| self.retarget(ip));
    }

    /// The sets that a chain's lines read.
    fn read_by(lines: &[Line]) -> BTreeSet<Id> {
        let port = |line: &Line| match line.port {
            Port::Any => None,
            Port::In(id) | Port::Named(id) => Some(id),
        };
        lines.iter().flat_map(|line| line.peer.into_iter().chain(port(line))).collect()
    }

    /// The lines of a chain, whose sets it uses from now on. `own` are the pods that the policy is for.
    fn lines(&mut self, direction: Direction, rules: &[Rule], own: &Term, user: Id) -> Vec<Line> {
        let mut out = BTreeSet::new();
        for rule in rules {
            let names: &[_] = rule.ports.as_ref().map_or(&[], |ports| &ports.names);
            let mut ports = match &rule.ports {
                None => vec![Port::Any],
                Some(ports) if ports.ranges.is_empty() => Vec::new(),
                Some(ports) => vec![Port::In(self.ports(&ports.ranges, user))],
            };
            for name in names {
                // it is the destination's port that is named: this pod's own, or each peer's
                let terms = match direction {
                    Direction::Ingress => vec![own.clone()],
                    Direction::Egress => named_peers(rule),
                };
                for term in terms {
                    let local = direction == Direction::Ingress;
                    let id = self.group(Group { term, local, port: Some(name.clone()) }, user);
                    match direction {
                        Direction::Ingress => ports.push(Port::Named(id)),
                        Direction::Egress => drop(out.insert(Line { peer: None, port: Port::Named(id) })),
                    }
                }
            }
            for peer in self.peers(rule, user) {
                out.extend(ports.iter().map(|port| Line { peer, port: *port }));
            }
        }
        out.into_iter().collect()
    }

    /// The sets of a rule's peers; `None` is anybody.
    fn peers(&mut self, rule: &Rule, user: Id) -> Vec<Option<Id>> {
        let Some(peers) = &rule.peers else { return vec![None] };
        let groups = peers.terms.iter().map(|term| {
            let group = Group { term: term.clone(), local: false, port: None };
            Some(self.group(group, user))
        });
        let mut out: Vec<Option<Id>> = groups.collect();
        if !peers.blocks.is_empty() {
            out.push(Some(self.blocks(&peers.blocks, user)));
        }
        out
    }
}

/// The pods whose ports an egress rule may name.
fn named_peers(rule: &Rule) -> Vec<Term> {
    match &rule.peers {
        None => vec![Term::everybody()],
        Some(peers) => {
            let within = (!peers.blocks.is_empty()).then(|| Term::Within(peers.blocks.clone()));
            peers.terms.iter().cloned().chain(within).collect()
        }
    }
}

fn chain_name(direction: Direction, id: Id, key: &Key) -> Arc<str> {
    let name = key.to_string();
    let mut end = name.len().min(LONGEST_NAME);
    // names are ASCII wherever an API server looked at them
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}/{id}/{}", direction.name(), &name[..end]).into()
}
