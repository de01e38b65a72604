//! Which number a service's port has where its clients stay with their endpoints: it tells them from the clients of other ports. Pure.
//!
//! A number that was given back is given out again last, since the kernel remembers its clients until they time out.

use crate::model::{Front, Rules, Target};
use crate::numbers::GROUPS;
use crate::service::{Protocol, ServiceName};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A service's port.
type Port = (Protocol, u16);

/// The numbers that are given out.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    by_service: HashMap<ServiceName, BTreeMap<Port, u32>>,
    used: BTreeSet<u32>,
    /// Where the search for a free one goes on.
    next: u32,
}

impl Groups {
    /// Gives each such port of a service's rules its number, and takes back those of ports it no longer has. `known` says what number a
    /// front had in an earlier run. Ports beyond the last number forget their clients.
    pub(crate) fn number(
        &mut self,
        name: &ServiceName,
        rules: &mut Rules,
        known: impl Fn(&Front) -> Option<u32>,
    ) {
        let mut before = self.by_service.remove(name).unwrap_or_default();
        let mut now = BTreeMap::new();
        for (front, target) in rules.fronts.iter_mut().chain(&mut rules.inside) {
            let Target::Balance { sticky, .. } = target else { continue };
            let Some(own) = sticky else { continue };
            let number = now.get(&own.port).copied().or_else(|| before.remove(&own.port));
            let Some(number) = number.or_else(|| self.take(known(front))) else {
                tracing::warn!(service = ?name, port = ?own.port, "too many ports have session affinity; this one has none");
                *sticky = None;
                continue;
            };
            own.group = number;
            now.insert(own.port, number);
        }
        for number in before.values() {
            self.used.remove(number);
        }
        if !now.is_empty() {
            self.by_service.insert(name.clone(), now);
        }
    }

    /// A free number, `wanted` if it is.
    fn take(&mut self, wanted: Option<u32>) -> Option<u32> {
        let free = |number: &u32| !self.used.contains(number);
        let wanted = wanted.filter(|number| *number < GROUPS.count && free(number));
        let found = wanted.or_else(|| (self.next..GROUPS.count).chain(0..self.next).find(free))?;
        if wanted.is_none() {
            self.next = (found + 1) % GROUPS.count;
        }
        self.used.insert(found);
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Sticky;
    use std::sync::Arc;

    fn front(last: u8, port: u16) -> Front {
        Front::Address([10, 96, 0, last].into(), Protocol::Tcp, port)
    }

    /// Rules with these fronts, each of a port of its service.
    fn rules(fronts: &[(Front, u16)]) -> Rules {
        let target = |port: u16| {
            let sticky = Sticky { seconds: 9, port: (Protocol::Tcp, port), group: 0, ids: Arc::default() };
            Target::Balance { masquerade: false, sticky: Some(sticky), slots: Vec::new() }
        };
        let fronts = fronts.iter().map(|(front, port)| (*front, target(*port))).collect();
        Rules { fronts, ..Rules::default() }
    }

    fn numbers(rules: &Rules) -> Vec<Option<u32>> {
        let of = |target: &Target| match target {
            Target::Balance { sticky, .. } => sticky.as_ref().map(|own| own.group),
            Target::Refuse | Target::Drop => None,
        };
        rules.fronts.values().map(of).collect()
    }

    fn name(name: &str) -> ServiceName {
        ("default".into(), name.into())
    }

    #[test]
    fn the_fronts_of_one_port_have_one_number_and_no_other_port_has_it() {
        let mut groups = Groups::default();
        let mut one = rules(&[(front(1, 80), 80), (front(2, 80), 80), (front(3, 443), 443)]);
        groups.number(&name("one"), &mut one, |_| None);
        assert_eq!(numbers(&one), [Some(0), Some(0), Some(1)]);
        let mut two = rules(&[(front(4, 80), 80)]);
        groups.number(&name("two"), &mut two, |_| None);
        assert_eq!(numbers(&two), [Some(2)]);
        // a change of the service changes none of them
        let mut again = rules(&[(front(3, 443), 443), (front(9, 80), 80)]);
        groups.number(&name("one"), &mut again, |_| None);
        assert_eq!(numbers(&again), [Some(1), Some(0)]);
    }

    #[test]
    fn a_number_must_not_lead_another_ports_clients_while_others_are_free() {
        let mut groups = Groups::default();
        groups.number(&name("gone"), &mut rules(&[(front(1, 80), 80)]), |_| None);
        groups.number(&name("gone"), &mut Rules::default(), |_| None);
        let mut next = rules(&[(front(2, 80), 80)]);
        groups.number(&name("next"), &mut next, |_| None);
        assert_eq!(numbers(&next), [Some(1)]);
        assert_eq!((groups.used.len(), groups.by_service.len()), (1, 1));
    }

    #[test]
    fn a_port_keeps_the_number_of_an_earlier_run_unless_another_has_it() {
        let mut groups = Groups::default();
        let (mut first, mut second) = (rules(&[(front(1, 80), 80)]), rules(&[(front(2, 80), 80)]));
        groups.number(&name("first"), &mut first, |_| Some(7));
        groups.number(&name("second"), &mut second, |_| Some(7));
        assert_eq!((numbers(&first), numbers(&second)), (vec![Some(7)], vec![Some(0)]));
        let mut third = rules(&[(front(3, 80), 80)]);
        groups.number(&name("third"), &mut third, |_| Some(GROUPS.count));
        assert_eq!(numbers(&third), [Some(1)], "no such number");
    }

    #[test]
    fn beyond_the_last_number_a_service_must_still_be_served() {
        let mut groups = Groups { used: (0..GROUPS.count).collect(), ..Groups::default() };
        let mut one = rules(&[(front(1, 80), 80)]);
        groups.number(&name("one"), &mut one, |_| None);
        assert_eq!((numbers(&one), one.fronts.len()), (vec![None], 1));
        groups.used.remove(&5);
        groups.number(&name("one"), &mut rules(&[(front(1, 80), 80)]), |_| None);
        assert!(groups.used.contains(&5));
    }
}
