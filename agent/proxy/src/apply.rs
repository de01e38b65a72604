//! What is in the kernel, and changing it: the only owner of the table `windlass`.
//!
//! Woken by [`run`](mod@crate::run) with the services that changed. Keeps a shadow of what is applied, so that the hot path never lists; a
//! change is one transaction of exactly the elements that differ. After a failed transaction, or when the table was taken away, one
//! transaction replaces everything: there is no moment without rules.

use crate::claims::Claims;
use crate::conntrack::Stale;
use crate::element::{Balancer, Difference, Element, Value, elements};
use crate::groups::Groups;
use crate::guard::guarded;
use crate::model::{Front, NoLocal, Place, Rules, model};
use crate::readback::Recovered;
use crate::ruleset;
use crate::service::Protocol;
use crate::shape::Shape;
pub use crate::state::{ServiceName, State};
use crate::sysctl::{self, Limits};
use ipnet::IpNet;
use netlink::nft::{Batch, Error, Kernel};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

/// The port DNS is asked at.
const DNS: u16 = 53;

/// Keeps the kernel's tables equal to the state it is given.
pub struct Applier {
    place: Place,
    shape: Shape,
    limits: Limits,
    /// Where cluster IPs may be, and what of that is in the kernel.
    service_cidrs: Vec<IpNet>,
    service_cidrs_applied: Vec<IpNet>,
    /// This node's own.
    addresses: Vec<IpAddr>,
    /// Addresses whose port 53 this node answers itself.
    dns: Vec<IpAddr>,
    claims: Claims,
    groups: Groups,
    applied: HashMap<ServiceName, Rules>,
    no_local: NoLocal,
    balancers: BTreeSet<Balancer>,
    /// How many services want an element that leads nowhere, such as a hairpin: services may share an endpoint. Whatever leads
    /// somewhere is a front's, and a front has one owner.
    shared: HashMap<Element, u32>,
    in_step: bool,
    kernel: Kernel,
}

/// What one application did.
#[derive(Debug, Default)]
pub struct Applied {
    /// Elements removed and added.
    pub difference: Difference,
    /// Flows that conntrack is to forget.
    pub stale: Stale,
    /// All rules were made again.
    pub whole: bool,
    /// Ports without endpoints here, of all services.
    pub no_local: NoLocal,
}

impl Applier {
    /// An applier that has applied nothing yet: its first transaction replaces whatever is there.
    #[must_use]
    pub fn new(node: String, shape: impl Into<Shape>) -> Self {
        Self {
            place: Place { node, zone: String::new() },
            shape: shape.into(),
            limits: Limits::default(),
            service_cidrs: Vec::new(),
            service_cidrs_applied: Vec::new(),
            addresses: Vec::new(),
            dns: Vec::new(),
            claims: Claims::default(),
            groups: Groups::default(),
            applied: HashMap::new(),
            no_local: NoLocal::default(),
            balancers: BTreeSet::new(),
            shared: HashMap::new(),
            in_step: false,
            kernel: Kernel::default(),
        }
    }

    /// Leaves port 53 of these addresses to this node's own DNS; what else a service has there is served.
    #[must_use]
    pub fn beside_dns(self, addresses: Vec<IpAddr>) -> Self {
        Self { dns: addresses, ..self }
    }

    /// Sets the limits of connection tracking that go with the first transaction.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// What the ruleset is made for now. True when it changed: the next [`Applier::apply`] replaces everything.
    pub fn set_shape(&mut self, shape: Shape) -> bool {
        let changed = self.shape != shape;
        self.shape = shape;
        self.in_step = self.in_step && !changed;
        changed
    }

    /// The node's zone, empty for none. True when it changed: then every service is to be applied.
    pub fn set_zone(&mut self, zone: String) -> bool {
        let changed = self.place.zone != zone;
        self.place.zone = zone;
        changed
    }

    /// Brings the kernel to `state` for the services in `dirty`; for all of them when the kernel is out of step.
    ///
    /// # Errors
    /// The transaction failed: nothing was changed, and the next call replaces everything.
    pub async fn apply(&mut self, state: &State, dirty: &BTreeSet<ServiceName>) -> Result<Applied, Error> {
        if !self.in_step {
            return self.replace(state).await;
        }
        let mut next = HashMap::new();
        let (mut difference, mut stale) = (Difference::default(), Stale::default());
        let mut shared: HashMap<Element, i64> = HashMap::new();
        // should the transaction fail, the next one goes through all services and claims again
        let mut affected = dirty.clone();
        for name in dirty {
            affected.append(&mut self.claims.set(name, state.services.get(name)));
        }
        for name in &affected {
            let empty = Rules::default();
            let old = self.applied.get(name).unwrap_or(&empty);
            let mut new = self.rules(state, name, old);
            self.groups.number(name, &mut new, |_| None);
            if *old == new {
                continue;
            }
            stale.add(old, &new);
            let change = Difference::between(&elements(old), &elements(&new));
            for (list, delta, into) in
                [(change.delete, -1, &mut difference.delete), (change.add, 1, &mut difference.add)]
            {
                for element in list {
                    if element.value == Value::Member {
                        *shared.entry(element).or_default() += delta;
                    } else {
                        into.push(element);
                    }
                }
            }
            next.insert(name.clone(), new);
        }
        for (element, delta) in &shared {
            let before = i64::from(self.shared.get(element).copied().unwrap_or(0));
            match (before, before + delta) {
                (0, 1..) => difference.add.push(element.clone()),
                (1.., 0) => difference.delete.push(element.clone()),
                _ => {}
            }
        }
        let mut batch = Batch::default();
        if self.service_cidrs_applied != self.service_cidrs {
            ruleset::service_cidrs(&mut batch, &self.service_cidrs);
        }
        ruleset::balancers(&mut batch, &difference, &mut self.balancers);
        ruleset::elements(&mut batch, &difference);
        if let Err(error) = self.kernel.commit(batch).await {
            self.in_step = false;
            return Err(error);
        }
        self.service_cidrs_applied.clone_from(&self.service_cidrs);
        for (element, delta) in shared {
            let count = i64::from(self.shared.get(&element).copied().unwrap_or(0)) + delta;
            match u32::try_from(count) {
                Ok(count @ 1..) => self.shared.insert(element, count),
                Ok(0) | Err(_) => self.shared.remove(&element),
            };
        }
        for (name, rules) in next {
            let before = self.applied.get(&name).map(|rules| rules.no_local).unwrap_or_default();
            self.no_local.change(before, rules.no_local);
            if rules == Rules::default() {
                self.applied.remove(&name)
            } else {
                self.applied.insert(name, rules)
            };
        }
        Ok(Applied { difference, stale, whole: false, no_local: self.no_local })
    }

    /// Everything in one transaction. Before it, what is to outlive it is read from the kernel: the sticky clients, and at an agent's
    /// start the endpoints' slots and numbers, so that connections and clients stay where they are.
    async fn replace(&mut self, state: &State) -> Result<Applied, Error> {
        let started = self.applied.is_empty();
        let left = match Recovered::read(&mut self.kernel, !started).await {
            Ok(left) => left,
            // stickiness is not worth going without services
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "what was in the tables cannot be read; sticky clients are forgotten");
                Recovered::default()
            }
        };
        let mut next = HashMap::new();
        let mut shared: HashMap<Element, u32> = HashMap::new();
        let mut wanted = Vec::new();
        (self.claims, self.groups) = (Claims::default(), Groups::default());
        for (name, service) in &state.services {
            self.claims.set(name, Some(service));
        }
        for name in state.services.keys() {
            let old = self.applied.get(name).unwrap_or(&left.rules);
            let mut rules = self.rules(state, name, old);
            self.groups.number(name, &mut rules, |front| left.group(front));
            for element in elements(&rules) {
                if element.value == Value::Member {
                    let count = shared.entry(element.clone()).or_default();
                    *count += 1;
                    if *count > 1 {
                        continue;
                    }
                }
                wanted.push(element);
            }
            next.insert(name.clone(), rules);
        }
        let mut before: BTreeSet<Element> = self.applied.values().flat_map(elements).collect();
        if started {
            before.extend(elements(&left.rules));
        }
        let whole = Difference { delete: Vec::new(), add: wanted };
        let mut balancers = BTreeSet::new();
        let mut batch = Batch::default();
        ruleset::tables(&mut batch, &self.shape);
        ruleset::service_cidrs(&mut batch, &self.service_cidrs);
        ruleset::balancers(&mut batch, &whole, &mut balancers);
        ruleset::elements(&mut batch, &whole);
        left.restore_clients(&mut batch, next.values());
        self.kernel.commit(batch).await?;
        if started {
            sysctl::set(&self.limits);
        }
        self.service_cidrs_applied.clone_from(&self.service_cidrs);
        self.applied = next;
        self.shared = shared;
        self.balancers = balancers;
        self.in_step = true;
        // nobody knows what was tracked while these rules were not there
        let mut stale = Stale::default();
        self.no_local = NoLocal::default();
        for rules in self.applied.values() {
            stale.add(&Rules::default(), rules);
            self.no_local.change(NoLocal::default(), rules.no_local);
        }
        let difference = match before.is_empty() {
            true => whole,
            false => Difference::between(&before, &whole.add.into_iter().collect()),
        };
        Ok(Applied { difference, stale, whole: true, no_local: self.no_local })
    }

    fn rules(&self, state: &State, name: &ServiceName, old: &Rules) -> Rules {
        let none = BTreeMap::new();
        let slices = state.slices.get(name).unwrap_or(&none).values();
        let Some(service) = state.services.get(name) else { return Rules::default() };
        let mut rules = model(service, &slices, &self.place, old);
        rules.guarded = guarded(service, &self.addresses);
        rules.keep(|front| !self.is_own(front) && self.claims.owns(name, front));
        rules.cluster_ips.retain(|ip| !self.dns.contains(ip));
        rules
    }

    /// Whether this node's own DNS answers there.
    fn is_own(&self, front: &Front) -> bool {
        match front {
            Front::Address(ip, Protocol::Tcp | Protocol::Udp, DNS) => self.dns.contains(ip),
            Front::Address(..) | Front::NodePort(..) => false,
        }
    }

    /// The node's own addresses. True when they changed: then every service is to be applied.
    pub fn set_addresses(&mut self, addresses: Vec<IpAddr>) -> bool {
        let changed = self.addresses != addresses;
        self.addresses = addresses;
        changed
    }

    /// Where cluster IPs may be: connections to one that no service has are dropped. The next [`Applier::apply`] says so to the kernel.
    pub fn set_service_cidrs(&mut self, cidrs: Vec<IpNet>) {
        self.service_cidrs = cidrs;
    }

    /// Looks whether both tables are still there; if not, the next [`Applier::apply`] replaces everything.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn audit(&mut self) -> Result<bool, Error> {
        let there = self.kernel.has_tables(ruleset::TABLES).await?;
        self.in_step = self.in_step && there;
        Ok(self.in_step)
    }
}

/// Takes both tables away: this node serves no services any more.
///
/// # Errors
/// The kernel refuses.
pub async fn remove_tables() -> Result<(), Error> {
    let mut batch = Batch::default();
    for table in ruleset::TABLES {
        batch.add_table(*table);
        batch.delete_table(*table);
    }
    Kernel::default().commit(batch).await
}
