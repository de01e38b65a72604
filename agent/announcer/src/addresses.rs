//! Every address at this node: its claim, its link, what is said and heard of it. Decides nothing by itself: [`claim`](crate::claim) does.

use crate::claim::{Claim, Say, Standing};
use crate::frame::{self, Said};
use crate::link::{self, Link};
use crate::model::{Model, Place};
use crate::wire::Wire;
use client::recorder::{Note, Recorder, Severity};
use netlink::link::Mac;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Who records the events.
const COMPONENT: &str = "windlass-announcer";
/// How often a conflict about an address is told, and how long it must go on: an address that moves is with two for a moment.
const CONFLICTS: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3));
/// Two words about an address with less between them are of one conflict.
const QUIET: Duration = Duration::from_secs(15);

struct Held {
    claim: Claim,
    place: Place,
    /// Where it is answered for; none while it can be nowhere.
    link: Option<(u32, Mac)>,
    next: Option<Instant>,
    /// When another machine first and last said that it has the address, and when that was told.
    rival: Option<(Instant, Instant)>,
    told: Option<Instant>,
}

/// The addresses, and the links they are on.
pub(crate) struct Addresses {
    node: String,
    recorder: Recorder,
    links: Vec<Link>,
    wires: BTreeMap<u32, Wire>,
    all: BTreeMap<IpAddr, Held>,
    /// What is known of the cluster is new, and we are no newcomers.
    firm: bool,
}

impl Addresses {
    pub(crate) fn new(node: String, recorder: Recorder) -> Self {
        Self { node, recorder, links: Vec::new(), wires: BTreeMap::new(), all: BTreeMap::new(), firm: false }
    }

    /// What the kernel has now.
    pub(crate) fn set_links(&mut self, links: Vec<Link>) {
        self.links = links;
    }

    pub(crate) fn is_firm(&self) -> bool {
        self.firm
    }

    /// Whether the next decisions are made on new knowledge.
    pub(crate) fn set_firm(&mut self, firm: bool) {
        self.firm = firm;
    }

    /// Brings everything in line with the model and the links. Gives false where a link could not be listened to.
    pub(crate) fn settle(&mut self, model: &Model, now: Instant) -> bool {
        let places = model.places(&self.node);
        self.all.retain(|address, held| {
            let stays = places.contains_key(address);
            if !stays && held.claim.holds() {
                tracing::info!(%address, "no longer announced");
            }
            stays
        });
        let own = model.addresses_of(&self.node);
        let mut wanted: BTreeMap<u32, Vec<IpAddr>> = BTreeMap::new();
        for (address, place) in places {
            let link = link::of(address, &self.links, own).filter(|link| link.works);
            if let Some(link) = link {
                wanted.entry(link.index).or_default().push(address);
            }
            let at = link.map(|link| (link.index, link.mac));
            let fresh = || Held {
                claim: Claim::new(),
                place: place.clone(),
                link: at,
                next: None,
                rival: None,
                told: None,
            };
            let held = self.all.entry(address).or_insert_with(fresh);
            held.place = place;
            held.next = Some(now);
            if std::mem::replace(&mut held.link, at) != at && at.is_some() {
                held.claim.relinked(now);
            }
        }
        let deaf = self.listen(&wanted);
        for held in
            self.all.values_mut().filter(|held| held.link.is_some_and(|(link, _)| deaf.contains(&link)))
        {
            held.link = None;
        }
        self.tick(now);
        deaf.is_empty()
    }

    /// Opens and closes sockets; gives the links that cannot be listened to.
    fn listen(&mut self, wanted: &BTreeMap<u32, Vec<IpAddr>>) -> BTreeSet<u32> {
        self.wires.retain(|index, _| wanted.contains_key(index));
        let mut deaf = BTreeSet::new();
        for (index, addresses) in wanted {
            let Some(link) = self.links.iter().find(|link| link.index == *index) else { continue };
            let wire = self.wires.entry(*index).or_insert_with(|| Wire::new(link.clone()));
            wire.link = link.clone();
            if let Err(error) = wire.listen(addresses) {
                tracing::warn!(link = link.name, %error, "cannot answer for load balancers' addresses on a link");
                self.wires.remove(index);
                deaf.insert(*index);
            }
        }
        deaf
    }

    /// When [`Addresses::tick`] is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.all.values().filter_map(|held| held.next).min()
    }

    /// Says what it is time for.
    pub(crate) fn tick(&mut self, now: Instant) {
        let due = |held: &Held| held.next.is_some_and(|next| next <= now);
        let due: Vec<IpAddr> = self.all.iter().filter(|(_, held)| due(held)).map(|(ip, _)| *ip).collect();
        for address in due {
            let Some(held) = self.all.get_mut(&address) else { continue };
            let before = held.claim.holds();
            let (say, next) = held.claim.tick(standing(held, self.firm), now);
            held.next = next;
            let after = held.claim.holds();
            if before != after {
                self.tell(address, after);
            }
            self.say(address, say);
        }
    }

    fn tell(&self, address: IpAddr, holds: bool) {
        let Some(held) = self.all.get(&address) else { return };
        let link = held.link.and_then(|(index, _)| self.wires.get(&index));
        let link = link.map(|wire| wire.link.name.as_str()).unwrap_or_default();
        let rank = held.place.rank;
        if !holds {
            tracing::info!(%address, link, ?rank, "no longer announced");
            return;
        }
        tracing::info!(%address, link, ?rank, "announced");
        self.note(
            held,
            Severity::Normal,
            "AddressAnnounced",
            format!("{address} is at node {}, on {link}", self.node),
        );
    }

    fn note(&self, held: &Held, severity: Severity, reason: &'static str, message: String) {
        let (about, reason) = (held.place.about.clone(), reason.into());
        self.recorder.note(Note { component: COMPONENT, about, severity, reason, message, action: None });
    }

    fn say(&self, address: IpAddr, say: Option<Say>) {
        let Some(say) = say else { return };
        let Some((index, own)) = self.all.get(&address).and_then(|held| held.link) else { return };
        let Some(wire) = self.wires.get(&index) else { return };
        match say {
            Say::Announce => {
                frame::announcement(address, own).iter().for_each(|frame| wire.send(address, frame));
            }
            Say::Ask(to) => {
                let source = wire.link.local();
                wire.send(address, &frame::question(address, own, source, to));
            }
        }
    }

    /// What is said next on any link.
    pub(crate) fn poll_said(&self, cx: &mut Context<'_>) -> Poll<(u32, Said)> {
        for (index, wire) in &self.wires {
            if let Poll::Ready(said) = wire.poll_said(cx) {
                return Poll::Ready((*index, said));
            }
        }
        Poll::Pending
    }

    /// Somebody said something on a link. Gives true where another one has an address that is this node's by right.
    pub(crate) fn hear(&mut self, link: u32, said: Said, now: Instant) -> bool {
        match said {
            Said::Asked { address, by } => {
                let held = self.all.get(&address).filter(|held| held.claim.holds());
                let at = held.and_then(|held| held.link).filter(|(index, _)| *index == link);
                if let Some(((_, own), wire)) = at.zip(self.wires.get(&link))
                    && let Some(frame) = frame::answer(address, own, by)
                {
                    wire.send(address, &frame);
                }
                false
            }
            Said::Has { address, who } => {
                let firm = self.firm;
                // What this machine says itself comes back by some links.
                let ours = self.links.iter().any(|link| link.mac == who);
                let Some(held) = self.all.get_mut(&address) else { return false };
                if ours || held.link.is_none_or(|(index, _)| index != link) {
                    return false;
                }
                let before = held.claim.holds();
                let say = held.claim.heard(standing(held, firm), who, now);
                held.next = Some(now);
                let after = held.claim.holds();
                if before && !after {
                    self.tell(address, false);
                }
                self.say(address, say);
                if after {
                    self.conflict(address, who, now);
                }
                after
            }
        }
    }

    /// Tells of another machine with an address of ours, now and then.
    fn conflict(&mut self, address: IpAddr, who: Mac, now: Instant) {
        let Some(held) = self.all.get_mut(&address) else { return };
        let first = held.rival.filter(|(_, last)| now < *last + QUIET).map_or(now, |(first, _)| first);
        held.rival = Some((first, now));
        if now < first + CONFLICTS.1 || held.told.is_some_and(|told| now < told + CONFLICTS.0) {
            return;
        }
        held.told = Some(now);
        tracing::warn!(%address, by = %who, "somebody else announces a load balancer's address");
        let message = format!("{who} says that it has {address}, which is at node {}", self.node);
        if let Some(held) = self.all.get(&address) {
            self.note(held, Severity::Warning, "AddressConflict", message);
        }
    }
}

/// Without a link the node is none of those that could answer.
fn standing(held: &Held, firm: bool) -> Standing {
    Standing { rank: held.place.rank.filter(|_| held.link.is_some()), firm }
}

#[cfg(test)]
mod tests;
