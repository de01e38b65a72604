//! The allocation of node ports, rebuilt from what stored Services hold.

use crate::registry::kind::Kind;
use crate::write::Writer;
use crate::write::service::allocation::{Allocation, Bitmap, PortRange};
use crate::write::service::{port_number, ports, ports_of};
use machinery::access::Get as _;
use machinery::status::Status;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use store::{Error, Expect};

const COMPONENT: &str = "portallocator-repair-controller";
const ACTION: &str = "PortAllocation";
/// How often running a port must be found without a Service before it is free (upstream: `numRepairsBeforeLeakCleanup`).
const LOOKS: u8 = 3;
/// Lost races of one round.
const TRIES: usize = 10;

/// Ports that no Service held when they were looked at last, and how often running that was so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Leaks(BTreeMap<u16, u8>);

/// What is wrong with a port of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    NotAllocated,
    AlreadyAllocated,
    OutOfRange,
}

impl Trouble {
    fn reason(self) -> &'static str {
        match self {
            Self::NotAllocated => "PortNotAllocated",
            Self::AlreadyAllocated => "PortAlreadyAllocated",
            Self::OutOfRange => "PortOutOfRange",
        }
    }

    fn note(self, port: u16, range: PortRange) -> String {
        match self {
            Self::NotAllocated => format!("Port {port} is not allocated; repairing"),
            Self::AlreadyAllocated => {
                format!("Port {port} was assigned to multiple services; please recreate service")
            }
            Self::OutOfRange => {
                format!("Port {port} is not within the port range {range}; please recreate service")
            }
        }
    }
}

/// An allocation on its way.
struct Rebuilding {
    range: PortRange,
    taken: Bitmap,
    /// What was stored and no Service was seen to hold.
    left: BTreeSet<u16>,
    /// Some Service could not be read.
    blind: bool,
}

impl Rebuilding {
    /// From what is stored, whose range may be another.
    fn new(range: PortRange, stored: Option<&Allocation>) -> Self {
        let base =
            stored.and_then(|stored| stored.range().split('-').next()?.parse().ok()).unwrap_or(range.first);
        let port = |offset: usize| u16::try_from(offset).ok()?.checked_add(base);
        let left = stored.iter().flat_map(|stored| stored.taken.iter()).filter_map(port).collect();
        Self { range, taken: Bitmap::default(), left, blind: false }
    }

    /// Takes a port that a Service holds.
    fn take(&mut self, port: u16) -> Option<Trouble> {
        let Some(offset) = self.range.offset(port) else { return Some(Trouble::OutOfRange) };
        if !self.taken.insert(offset) {
            return Some(Trouble::AlreadyAllocated);
        }
        (!self.left.remove(&port)).then_some(Trouble::NotAllocated)
    }

    /// Keeps what may belong to a Service that is being made; gives what is taken, and what to suspect next time.
    fn finish(mut self, leaks: &Leaks) -> (Bitmap, Leaks) {
        let mut suspects = Leaks::default();
        for port in &self.left {
            let looks = leaks.0.get(port).copied().unwrap_or(0) + 1;
            let Some(offset) = self.range.offset(*port) else { continue };
            if looks < LOOKS || self.blind {
                self.taken.insert(offset);
                suspects.0.insert(*port, looks.min(LOOKS));
            } else {
                tracing::warn!(port, "a node port that no Service holds is free again");
            }
        }
        (self.taken, suspects)
    }
}

/// The node ports of a Service, once each but for those that it has twice over the same protocol.
fn node_ports(service: &Value) -> Vec<u16> {
    let mut seen: BTreeMap<u16, BTreeSet<&str>> = BTreeMap::new();
    let mut ports = Vec::new();
    for port in ports_of(service) {
        let Some(number) = port.node_port else { continue };
        let protocols = seen.entry(number).or_default();
        if protocols.is_empty() || protocols.contains(port.protocol) {
            ports.push(number);
        }
        protocols.insert(port.protocol);
    }
    let health = port_number(service.present("spec.healthCheckNodePort"));
    ports.extend(health.filter(|port| seen.get(port).is_none_or(|protocols| protocols.contains("TCP"))));
    ports
}

/// Looks at every Service, and corrects the allocation where it is wrong.
pub(super) async fn round(writer: &Writer, leaks: &mut Leaks) -> Result<(), Status> {
    let Some(kind) = Kind::of("", "services") else { return Ok(()) };
    let (registry, range) = (&writer.registry, writer.ports.range);
    for _ in 0..TRIES {
        // Before the Services: a Service that is written after this look has changed the allocation, and the write below is refused.
        let stored = writer.ports.look(registry).await?;
        let services = registry.fresh(&kind).await?;
        let mut rebuilding = Rebuilding::new(range, stored.as_ref().map(|(allocation, _)| allocation));
        let mut troubles = Vec::new();
        for cached in services.range(&kind.resource.list_key(Some("")), None) {
            let Ok(service) = kind.decode_wire(&cached.bytes) else {
                // What it holds is not known: nothing is given away.
                rebuilding.blind = true;
                continue;
            };
            let found: Vec<_> = node_ports(&service)
                .into_iter()
                .filter_map(|port| Some((port, rebuilding.take(port)?)))
                .collect();
            if !found.is_empty() {
                troubles.push((service, found));
            }
        }
        let (taken, suspects) = rebuilding.finish(leaks);
        let mut allocation = match &stored {
            Some((allocation, _)) => allocation.clone(),
            None => Allocation::new(range),
        };
        allocation.set_range(range);
        allocation.taken = taken;
        let written = match &stored {
            Some((before, _)) if before.bytes().ok() == allocation.bytes().ok() => Ok(()),
            _ => {
                let bytes = allocation.bytes().map_err(Status::internal_error)?;
                let expect =
                    stored.as_ref().map_or(Expect::Absent, |(_, entry)| Expect::At(entry.mod_revision));
                registry.backend.put(ports::KEY, bytes, expect, None).await.map(drop)
            }
        };
        match written {
            Ok(()) => {
                *leaks = suspects;
                for (service, found) in &troubles {
                    for (port, trouble) in found {
                        let note = trouble.note(*port, range);
                        writer.warn_of(COMPONENT, service, trouble.reason(), ACTION, note);
                    }
                }
                return Ok(());
            }
            Err(Error::Conflict { .. }) => {}
            Err(error) => return Err(ports::failed("write", &error)),
        }
    }
    Err(Status::too_many_requests("node ports are allocated faster than they can be looked at", 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const RANGE: PortRange = PortRange { first: 30000, last: 32767 };

    fn stored(ports: &[u16]) -> Allocation {
        let mut allocation = Allocation::new(RANGE);
        for port in ports {
            allocation.taken.insert(RANGE.offset(*port).unwrap());
        }
        allocation
    }

    fn ports(taken: &Bitmap) -> Vec<u16> {
        taken.iter().map(|offset| 30000 + u16::try_from(offset).unwrap()).collect()
    }

    #[test]
    fn a_services_port_is_taken_again_and_what_is_wrong_is_named() {
        let mut rebuilding = Rebuilding::new(RANGE, Some(&stored(&[30001])));
        assert_eq!(rebuilding.take(30001), None);
        assert_eq!(rebuilding.take(30002), Some(Trouble::NotAllocated));
        assert_eq!(rebuilding.take(30001), Some(Trouble::AlreadyAllocated));
        assert_eq!(rebuilding.take(80), Some(Trouble::OutOfRange));
        assert_eq!(ports(&rebuilding.finish(&Leaks::default()).0), [30001, 30002]);
        assert_eq!(
            Trouble::OutOfRange.note(80, RANGE),
            "Port 80 is not within the port range 30000-32767; please recreate service"
        );
    }

    #[test]
    fn a_port_whose_service_is_being_made_must_not_be_free_before_the_third_look() {
        let mut leaks = Leaks::default();
        for look in 1..=3 {
            let (taken, next) = Rebuilding::new(RANGE, Some(&stored(&[30005]))).finish(&leaks);
            assert_eq!(!ports(&taken).is_empty(), look < 3, "look {look}");
            leaks = next;
        }
        assert_eq!(leaks, Leaks::default(), "what is free is forgotten: it may leak again");
    }

    #[test]
    fn a_port_that_was_held_in_between_must_not_count_as_leaking_twice() {
        let once = Rebuilding::new(RANGE, Some(&stored(&[30005]))).finish(&Leaks::default()).1;
        let mut held = Rebuilding::new(RANGE, Some(&stored(&[30005])));
        held.take(30005);
        assert_eq!(held.finish(&once).1, Leaks::default());
    }

    #[test]
    fn an_unreadable_services_port_must_not_be_free() {
        let mut leaks = Leaks::default();
        for look in 1..=5 {
            let mut rebuilding = Rebuilding::new(RANGE, Some(&stored(&[30005])));
            rebuilding.blind = true;
            let (taken, next) = rebuilding.finish(&leaks);
            assert_eq!(ports(&taken), [30005], "look {look}");
            leaks = next;
        }
    }

    #[test]
    fn another_range_must_not_move_ports() {
        let mut old = Allocation::new(PortRange { first: 31000, last: 31999 });
        old.taken.insert(5);
        let (taken, _) = Rebuilding::new(RANGE, Some(&old)).finish(&Leaks::default());
        assert_eq!(ports(&taken), [31005]);
    }

    #[test]
    fn a_port_over_two_protocols_counts_once() {
        let service = json!({"spec": {"healthCheckNodePort": 32000, "ports": [
            {"port": 53, "protocol": "TCP", "nodePort": 30053},
            {"port": 53, "protocol": "UDP", "nodePort": 30053},
            {"port": 54, "protocol": "TCP", "nodePort": 30054},
            {"port": 55, "protocol": "TCP", "nodePort": 30054}]}});
        assert_eq!(node_ports(&service), [30053, 30054, 30054, 32000]);
    }
}
