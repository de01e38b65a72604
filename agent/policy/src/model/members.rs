//! Sets: what they are made for, who is in them, and who uses them.

use super::{Key, Model, Used};
use crate::object::{Labels, Pod, Term};
use crate::ranges::PortRange;
use crate::ruleset::{Id, Kind, Member};
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// What a set is made for; the same for every rule that asks for the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum SetKey {
    /// A term by its text, whether of this node's pods alone, and the protocol and name of a port.
    Group(String, bool, Option<(u8, String)>),
    Blocks(Vec<IpNet>),
    Ports(Vec<PortRange>),
}

/// A set whose members are pods, or ports of pods.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) term: Term,
    /// Of this node's pods alone.
    pub(super) local: bool,
    /// By protocol and name.
    pub(super) port: Option<(u8, String)>,
}

/// A pod with the addresses that are its own and its namespace's labels.
pub(super) type Seen<'a> = (&'a Pod, &'a BTreeSet<IpAddr>, Option<&'a Labels>);

impl Group {
    fn key(&self) -> SetKey {
        SetKey::Group(self.term.canonical(), self.local, self.port.clone())
    }

    /// What a pod is in the set as.
    pub(super) fn members(&self, key: &Key, (pod, addresses, space): Seen<'_>) -> BTreeSet<Member> {
        if self.local && !pod.local {
            return BTreeSet::new();
        }
        let means = match &self.term {
            Term::Namespace(name, pods) => *name == key.namespace && pods.matches(&pod.labels),
            // nobody knows what a namespace is labelled that was not seen: it is one of all, and nothing more
            Term::Namespaces(spaces, pods) => {
                let in_space = space.map_or_else(|| spaces.is_empty(), |labels| spaces.matches(labels));
                in_space && pods.matches(&pod.labels)
            }
            Term::Within(_) => true,
        };
        if !means {
            return BTreeSet::new();
        }
        let own = addresses.iter().filter(|ip| match &self.term {
            Term::Within(nets) => nets.iter().any(|net| net.contains(*ip)),
            _ => true,
        });
        match &self.port {
            None => own.copied().map(Member::Address).collect(),
            Some((protocol, name)) => own
                .flat_map(|ip| {
                    let named = pod.ports.iter().filter(|p| p.protocol == *protocol && p.name == *name);
                    named.map(|port| Member::Port(*ip, *protocol, port.port))
                })
                .collect(),
        }
    }
}

impl Model {
    /// The set of pods, or of their ports, that `user` asks for.
    pub(super) fn group(&mut self, group: Group, user: Id) -> Id {
        let key = group.key();
        let kind = if group.port.is_some() { Kind::Named } else { Kind::Pods };
        if let Some(id) = self.by_key.get(&key).copied() {
            return self.used(id, user);
        }
        let id = self.made(key, Some(group.clone()), user);
        let mut members = Vec::new();
        let mut gather = |space: &super::Space, name: &std::sync::Arc<str>| {
            for pod in &space.pods {
                let key = Key { namespace: name.clone(), name: pod.clone() };
                if let Some(known) = self.pods.get(&key) {
                    members
                        .extend(group.members(&key, (&known.pod, &known.addresses, space.labels.as_ref())));
                }
            }
        };
        match &group.term {
            Term::Namespace(name, _) => {
                self.spaces.get(name).into_iter().for_each(|space| gather(space, name));
                self.spaces.entry(name.clone()).or_default().sets.insert(id);
            }
            Term::Namespaces(..) | Term::Within(_) => {
                self.spaces.iter().for_each(|(name, space)| gather(space, name));
                self.wide.insert(id);
            }
        }
        self.rules.add_set(id, kind, members);
        id
    }

    /// The set of these ranges of addresses.
    pub(super) fn blocks(&mut self, nets: &[IpNet], user: Id) -> Id {
        let members = nets.iter().copied().map(Member::Net).collect();
        self.fixed(SetKey::Blocks(nets.to_vec()), Kind::Blocks, members, user)
    }

    /// The set of these ports.
    pub(super) fn ports(&mut self, ranges: &[PortRange], user: Id) -> Id {
        let members = ranges.iter().copied().map(Member::Range).collect();
        self.fixed(SetKey::Ports(ranges.to_vec()), Kind::Ports, members, user)
    }

    fn fixed(&mut self, key: SetKey, kind: Kind, members: Vec<Member>, user: Id) -> Id {
        if let Some(id) = self.by_key.get(&key).copied() {
            return self.used(id, user);
        }
        let id = self.made(key, None, user);
        self.rules.add_set(id, kind, members);
        id
    }

    fn used(&mut self, id: Id, user: Id) -> Id {
        if let Some(set) = self.sets.get_mut(&id) {
            set.users.insert(user);
        }
        self.uses.entry(user).or_default().insert(id);
        id
    }

    /// The sets a chain uses.
    pub(super) fn used_by(&self, user: Id) -> impl Iterator<Item = Id> {
        self.uses.get(&user).into_iter().flatten().copied()
    }

    fn made(&mut self, key: SetKey, group: Option<Group>, user: Id) -> Id {
        let id = self.next();
        self.by_key.insert(key.clone(), id);
        self.sets.insert(id, Used { key, group, users: BTreeSet::new() });
        self.used(id, user)
    }

    /// A chain uses these sets no more; what nobody uses goes.
    pub(super) fn release(&mut self, sets: impl IntoIterator<Item = Id>, user: Id) {
        for id in sets {
            if let Some(uses) = self.uses.get_mut(&user) {
                uses.remove(&id);
                if uses.is_empty() {
                    self.uses.remove(&user);
                }
            }
            let Some(set) = self.sets.get_mut(&id) else { continue };
            set.users.remove(&user);
            if !set.users.is_empty() {
                continue;
            }
            let Some(Used { key, group, .. }) = self.sets.remove(&id) else { continue };
            self.by_key.remove(&key);
            self.rules.remove_set(id);
            self.wide.remove(&id);
            if let Some(Group { term: Term::Namespace(name, _), .. }) = group {
                if let Some(space) = self.spaces.get_mut(&name) {
                    space.sets.remove(&id);
                }
                self.tidy(&name);
            }
        }
    }

    /// A pod is in other sets than it was; `own`: those of its namespace are looked at, too.
    pub(super) fn regroup(&mut self, key: &Key, old: Option<Seen<'_>>, new: Option<Seen<'_>>, own: bool) {
        let space = self.spaces.get(&key.namespace).filter(|_| own);
        let ids: Vec<Id> =
            self.wide.iter().chain(space.into_iter().flat_map(|space| &space.sets)).copied().collect();
        for id in ids {
            let Some(Used { group: Some(group), users, .. }) = self.sets.get(&id) else { continue };
            let of = |seen: Option<Seen<'_>>| seen.map(|seen| group.members(key, seen)).unwrap_or_default();
            let (before, after) = (of(old), of(new));
            for member in after.difference(&before) {
                self.rules.add_member(id, *member);
            }
            let mut lost = false;
            for member in before.difference(&after) {
                lost |= self.rules.remove_member(id, *member);
            }
            if lost {
                self.narrowed.extend(users.iter().copied());
            }
        }
    }

    /// A pod whose namespace had other labels.
    pub(super) fn move_between(&mut self, key: &Key, before: Option<&Labels>) {
        let Some(known) = self.pods.remove(key) else { return };
        let labels = self.spaces.get(&key.namespace).and_then(|space| space.labels.clone());
        let seen = |labels| Some((&known.pod, &known.addresses, labels));
        self.regroup(key, seen(before), seen(labels.as_ref()), false);
        self.pods.insert(key.clone(), known);
    }
}
