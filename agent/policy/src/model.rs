//! Pods, namespaces and policies to the table that should be. Pure; nothing here knows time or the kernel.
//!
//! It is an index: a change touches the sets its object may be in and the pods its policy may select, and no others. A set is made once for
//! each term that rules use (`Term`: pods of a namespace by labels, pods by labels of namespaces), however many policies use it, and knows
//! who they are. A pod of this node is judged, in a direction, by the policies of that direction that select it; pods that the same ones select
//! share a chain.
//!
//! What upstream says (`staging/src/k8s.io/api/networking/v1/types.go`, and its documentation of policies): rules add up; a pod that nothing
//! selects is open; a pod may always reach itself; what a node sends to its own pods, and they to it, is no policy's affair, and does not come
//! by where packets are judged. A pod on its node's network is that node to everybody.
//!
//! An address is a pod's because its status says so, or, sooner, because the container runtime asked for it (`attach`). Who asked last has
//! it: a pod that is on its way out may still claim it. Where nobody knows yet who that is, and its namespace has policies, the address is *held*:
//! judged by a selection without policies, which lets nothing pass.

mod members;
mod policies;

use crate::object::{Labels, Pod, Policy};
use crate::ruleset::{Body, Chain, Direction, Id, Ruleset};
use client::Key;
use members::{Group, SetKey};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// Whom the container runtime asked an address for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Namespace and name.
    pub pod: Key,
    /// As its node knows it; empty where the runtime does not say.
    pub uid: String,
}

/// Everything known, and the table that follows from it.
#[derive(Debug, Default)]
pub struct Model {
    pods: HashMap<Key, Known>,
    spaces: HashMap<Arc<str>, Space>,
    policies: HashMap<Key, Entry>,
    sets: HashMap<Id, Used>,
    by_key: HashMap<SetKey, Id>,
    /// The sets each policy's chain uses.
    uses: HashMap<Id, BTreeSet<Id>>,
    /// Sets with pods of any namespace.
    wide: BTreeSet<Id>,
    selections: HashMap<Vec<Id>, (Id, usize)>,
    attached: BTreeMap<IpAddr, Owner>,
    /// Pods of this node by the addresses their status says.
    claims: BTreeMap<IpAddr, BTreeSet<Key>>,
    rules: Ruleset,
    last: Id,
    /// Chains of policies that allow less than they did.
    narrowed: BTreeSet<Id>,
    /// Addresses that others judge than did.
    moved: BTreeSet<IpAddr>,
    /// Addresses that were asked for, or are nobody's any more.
    reattached: BTreeSet<IpAddr>,
}

/// A pod and what is made of it.
#[derive(Debug)]
struct Known {
    pod: Pod,
    /// Those that are its own.
    addresses: BTreeSet<IpAddr>,
    /// Selections that judge it, by direction.
    judges: [Option<Vec<Id>>; 2],
}

#[derive(Debug, Default)]
struct Space {
    /// `None` until the namespace itself was seen.
    labels: Option<Labels>,
    pods: BTreeSet<Arc<str>>,
    /// Those of them that are on this node.
    local: BTreeSet<Arc<str>>,
    policies: BTreeSet<Arc<str>>,
    /// Sets with pods of this namespace only.
    sets: BTreeSet<Id>,
}

/// A policy with the chains it has.
#[derive(Debug)]
struct Entry {
    policy: Policy,
    chains: [Option<Id>; 2],
}

/// A set and who uses it.
#[derive(Debug)]
struct Used {
    key: SetKey,
    group: Option<Group>,
    /// Chains of policies.
    users: BTreeSet<Id>,
}

/// What a policy has chains for, in the order of their places.
const DIRECTIONS: [Direction; 2] = Direction::ALL;

// === impl Model ===

impl Model {
    /// The table that should be.
    #[must_use]
    pub fn rules(&self) -> &Ruleset {
        &self.rules
    }

    /// The same, to take what changed from.
    pub fn rules_mut(&mut self) -> &mut Ruleset {
        &mut self.rules
    }

    /// Counts of policies, of pods and of judged addresses.
    #[must_use]
    pub fn counts(&self) -> [usize; 3] {
        [self.policies.len(), self.pods.len(), self.rules.targets().len()]
    }

    /// Whether there is no policy.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.policies.is_empty()
    }

    /// Forgets all pods and namespaces; who has which address stays.
    pub fn forget_pods(&mut self) {
        let pods: Vec<Key> = self.pods.keys().cloned().collect();
        for key in pods {
            self.replace_pod(&key, None);
        }
        let spaces: Vec<Arc<str>> = self.spaces.keys().cloned().collect();
        for name in spaces {
            self.set_namespace(&name, None);
            self.tidy(&name);
        }
    }

    /// A namespace with its labels; `None`: it is gone.
    pub fn set_namespace(&mut self, name: &Arc<str>, labels: Option<Labels>) {
        let space = self.spaces.entry(name.clone()).or_default();
        if space.labels == labels {
            return;
        }
        let before = std::mem::replace(&mut space.labels, labels);
        let pods: Vec<Key> =
            space.pods.iter().map(|pod| Key { namespace: name.clone(), name: pod.clone() }).collect();
        for key in pods {
            self.move_between(&key, before.as_ref());
        }
        self.tidy(name);
    }

    /// A pod as it is now; `None`: it is none of the pod network's, or gone. `uid` is the one that is gone, where the caller knows it.
    pub fn set_pod(&mut self, key: &Key, pod: Option<Pod>, uid: Option<&str>) {
        if let (None, Some(uid)) = (&pod, uid)
            && self.pods.get(key).is_some_and(|known| !known.pod.is(uid))
        {
            return;
        }
        if pod.is_none() {
            // what ended has no address any more, whatever it once asked for
            let known = self.pods.get(key).map(|known| &known.pod);
            let is = |owner: &Owner| match known {
                Some(pod) => pod.is(&owner.uid),
                None => uid.is_some_and(|uid| uid == owner.uid),
            };
            let gone: Vec<IpAddr> = self
                .attached
                .iter()
                .filter(|(_, owner)| owner.pod == *key && is(owner))
                .map(|(ip, _)| *ip)
                .collect();
            self.detach(&gone);
            self.replace_pod(key, None);
            gone.into_iter().for_each(|ip| self.readdress(ip));
        } else {
            self.replace_pod(key, pod);
        }
    }

    /// The addresses a sandbox of a pod is about to have. What the pod had before is its own no more.
    pub fn attach(&mut self, addresses: &[IpAddr], owner: &Owner) {
        let left: Vec<IpAddr> = self
            .attached
            .iter()
            .filter(|(ip, other)| other.pod == owner.pod && !addresses.contains(ip))
            .map(|(ip, _)| *ip)
            .collect();
        self.detach(&left);
        for ip in addresses {
            self.attached.insert(*ip, owner.clone());
            self.reattached.insert(*ip);
        }
        left.iter().chain(addresses).for_each(|ip| self.readdress(*ip));
        self.refresh(&owner.pod);
    }

    /// What an earlier life of the agent was told by [`Model::attach`], before anything else is known.
    pub fn restore(&mut self, address: IpAddr, owner: Owner) {
        self.attached.insert(address, owner);
    }

    /// Addresses whose owner ([`Model::attached`]) is another since this was asked last.
    pub fn take_reattached(&mut self) -> BTreeSet<IpAddr> {
        std::mem::take(&mut self.reattached)
    }

    /// Who has which address, as far as the runtime said.
    #[must_use]
    pub fn attached(&self) -> &BTreeMap<IpAddr, Owner> {
        &self.attached
    }

    /// Whether it is known how a pod's packets are to be judged: the pod is known, or no policy is in its namespace.
    #[must_use]
    pub fn can_judge(&self, owner: &Owner) -> bool {
        self.pods.get(&owner.pod).is_some_and(|known| known.pod.is(&owner.uid))
            || self.spaces.get(&owner.pod.namespace).is_none_or(|space| space.policies.is_empty())
    }

    /// Addresses of this node's pods that may have been allowed more before than since this was asked last.
    pub fn take_narrowed(&mut self) -> BTreeSet<IpAddr> {
        let narrowed = std::mem::take(&mut self.narrowed);
        let mut out = std::mem::take(&mut self.moved);
        if !narrowed.is_empty() {
            for ((_, address), selection) in self.rules.targets() {
                let hit = match self.rules.chains().get(selection).map(|chain| &chain.body) {
                    Some(Body::Selection(policies)) => policies.iter().any(|id| narrowed.contains(id)),
                    _ => false,
                };
                if hit {
                    out.insert(*address);
                }
            }
        }
        out
    }

    /// Takes a pod's new state: what it claims, the sets it is in, and who judges it.
    fn replace_pod(&mut self, key: &Key, pod: Option<Pod>) {
        let old = self.pods.remove(key);
        if let Some(known) = old.as_ref().filter(|known| known.pod.local) {
            for ip in &known.pod.addresses {
                if let Some(claimants) = self.claims.get_mut(ip) {
                    claimants.remove(key);
                    if claimants.is_empty() {
                        self.claims.remove(ip);
                    }
                }
            }
        }
        let new = pod.map(|pod| {
            if pod.local {
                for ip in &pod.addresses {
                    self.claims.entry(*ip).or_default().insert(key.clone());
                }
            }
            let addresses = self.own_addresses(key, &pod);
            let judges = if pod.local { self.judges(&key.namespace, &pod.labels) } else { [None, None] };
            Known { pod, addresses, judges }
        });
        let mut touched: BTreeSet<IpAddr> = BTreeSet::new();
        for known in old.iter().chain(&new).filter(|known| known.pod.local) {
            touched.extend(known.addresses.iter().copied());
        }
        let labels = self.spaces.get(&key.namespace).and_then(|space| space.labels.clone());
        self.regroup(
            key,
            old.as_ref().map(|known| (&known.pod, &known.addresses, labels.as_ref())),
            new.as_ref().map(|known| (&known.pod, &known.addresses, labels.as_ref())),
            true,
        );
        match new {
            Some(known) => {
                let space = self.spaces.entry(key.namespace.clone()).or_default();
                space.pods.insert(key.name.clone());
                if known.pod.local {
                    space.local.insert(key.name.clone());
                } else {
                    space.local.remove(&key.name);
                }
                self.pods.insert(key.clone(), known);
            }
            None => {
                if let Some(space) = self.spaces.get_mut(&key.namespace) {
                    space.pods.remove(&key.name);
                    space.local.remove(&key.name);
                }
                self.tidy(&key.namespace);
            }
        }
        touched.into_iter().for_each(|ip| self.retarget(ip));
    }

    /// A pod as it was, for it may have other addresses now.
    fn refresh(&mut self, key: &Key) {
        if let Some(known) = self.pods.get(key)
            && self.own_addresses(key, &known.pod) != known.addresses
        {
            let pod = known.pod.clone();
            self.replace_pod(key, Some(pod));
        }
    }

    fn detach(&mut self, addresses: &[IpAddr]) {
        for ip in addresses {
            self.attached.remove(ip);
            self.reattached.insert(*ip);
        }
    }

    /// Who an address belongs to has changed.
    fn readdress(&mut self, ip: IpAddr) {
        let mut concerned: BTreeSet<Key> = self.claims.get(&ip).cloned().unwrap_or_default();
        concerned.extend(self.attached.get(&ip).map(|owner| owner.pod.clone()));
        for key in concerned {
            self.refresh(&key);
        }
        self.retarget(ip);
    }

    /// What a pod's status says unless somebody else asked for it, and what was asked for in its name.
    fn own_addresses(&self, key: &Key, pod: &Pod) -> BTreeSet<IpAddr> {
        let is_own = |owner: &Owner| owner.pod == *key && pod.is(&owner.uid);
        let said = pod.addresses.iter().filter(|ip| self.attached.get(ip).is_none_or(is_own)).copied();
        let asked = self.attached.iter().filter(|(_, owner)| pod.local && is_own(owner)).map(|(ip, _)| *ip);
        said.chain(asked).collect()
    }

    /// Has an address of this node judged by whom it should be.
    fn retarget(&mut self, ip: IpAddr) {
        let wanted: [Option<Vec<Id>>; 2] = match self.attached.get(&ip) {
            Some(owner) => match self.pods.get(&owner.pod).filter(|known| known.pod.is(&owner.uid)) {
                Some(known) => known.judges.clone(),
                None => DIRECTIONS
                    .map(|direction| self.has_policies(&owner.pod.namespace, direction).then(Vec::new)),
            },
            None => {
                let claimants = self.claims.get(&ip).and_then(BTreeSet::first);
                claimants
                    .and_then(|key| self.pods.get(key))
                    .map_or([None, None], |known| known.judges.clone())
            }
        };
        for (direction, policies) in DIRECTIONS.into_iter().zip(wanted) {
            let before = self.rules.targets().get(&(direction, ip)).copied();
            let after = policies.map(|policies| self.select(policies));
            if self.rules.set_target(direction, ip, after) && after.is_some() {
                self.moved.insert(ip);
            }
            before.into_iter().for_each(|id| self.deselect(id));
        }
    }

    /// The chain that asks these policies, which its caller uses from now on.
    fn select(&mut self, policies: Vec<Id>) -> Id {
        if let Some((id, users)) = self.selections.get_mut(&policies) {
            *users += 1;
            return *id;
        }
        let id = self.next();
        let name = if policies.is_empty() { format!("held/{id}") } else { format!("selected/{id}") };
        self.rules.set_chain(id, Some(Chain { name: name.into(), body: Body::Selection(policies.clone()) }));
        self.selections.insert(policies, (id, 1));
        id
    }

    /// A chain is used by one less.
    fn deselect(&mut self, id: Id) {
        let Some(Chain { body: Body::Selection(policies), .. }) = self.rules.chains().get(&id) else {
            return;
        };
        let policies = policies.clone();
        let Some((_, users)) = self.selections.get_mut(&policies) else { return };
        *users -= 1;
        if *users == 0 {
            self.selections.remove(&policies);
            self.rules.set_chain(id, None);
        }
    }

    fn next(&mut self) -> Id {
        self.last += 1;
        self.last
    }

    /// Drops what is known of a namespace where nothing is left of it.
    fn tidy(&mut self, name: &Arc<str>) {
        let empty = |space: &Space| {
            space.labels.is_none()
                && space.pods.is_empty()
                && space.policies.is_empty()
                && space.sets.is_empty()
        };
        if self.spaces.get(name).is_some_and(empty) {
            self.spaces.remove(name);
        }
    }
}

#[cfg(test)]
mod tests;
