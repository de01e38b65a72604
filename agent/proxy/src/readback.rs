//! What an earlier run of the agent left in the kernel, read back so that slots stay and sticky clients keep their endpoint. Pure but
//! for [`Recovered::read`].

use crate::element::{INSIDE, MASQUERADE};
use crate::model::{Endpoint, Front, Rules, Sticky, Target};
use crate::numbers::GROUPS;
use crate::ruleset::{AFFINITY, CLIENTS, table};
use crate::service::Protocol;
use netlink::nft::{self, Batch, Bytes, Kernel};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

/// A client that stays with its endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Client {
    /// The number of the service's port.
    group: u32,
    address: IpAddr,
    /// The endpoint's number among those of the port.
    id: u32,
    /// Milliseconds it stays after its last connection, and has left.
    lifetime: (u64, u64),
}

#[derive(Debug, Default)]
pub(crate) struct Recovered {
    /// Every front with endpoints, as if one service had them all.
    pub(crate) rules: Rules,
    /// The number each front's port had.
    groups: HashMap<Front, u32>,
    clients: Vec<Client>,
}

/// The maps of endpoints, then those of slots to sticky endpoints' numbers.
const ENDPOINTS: &[&str] = &["endpoints", "port_endpoints", "sticky", "port_sticky"];
/// Clients closer to their end than this are dropped, in milliseconds.
const TOO_LATE: u64 = 10;

impl Recovered {
    /// Reads the clients; the endpoints too unless they are known.
    pub(crate) async fn read(kernel: &mut Kernel, endpoints_known: bool) -> Result<Self, nft::Error> {
        let mut recovered = Self::default();
        for ipv6 in [false, true] {
            let found = kernel.elements(table(ipv6), AFFINITY).await?;
            for (elements, node_port) in found.iter().zip([false, true]) {
                recovered.groups.extend(elements.iter().filter_map(|e| group(e, ipv6, node_port)));
            }
            if !endpoints_known {
                let found = kernel.elements(table(ipv6), ENDPOINTS).await?;
                recovered.add_endpoints(ipv6, &found);
            }
            let found = kernel.elements(table(ipv6), &[CLIENTS]).await?;
            recovered.clients.extend(found.iter().flatten().filter_map(|e| client(e, ipv6)));
        }
        Ok(recovered)
    }

    /// The number a front's port had.
    pub(crate) fn group(&self, front: &Front) -> Option<u32> {
        self.groups.get(front).copied()
    }

    fn add_endpoints(&mut self, ipv6: bool, found: &[Vec<nft::Element>]) {
        type Side = (Front, bool);
        let mut endpoints: BTreeMap<Side, BTreeMap<u32, Endpoint>> = BTreeMap::new();
        let mut slots: BTreeMap<Side, BTreeMap<u32, u32>> = BTreeMap::new();
        for (index, list) in found.iter().enumerate() {
            for element in list {
                let mut key = Reader(&element.key.0);
                let mut value = Reader(element.target());
                let front = key.front(ipv6, index % 2 == 1);
                let Some((front, slot)) = front.and_then(|front| Some((front, key.mark()?))) else {
                    continue;
                };
                let sticky = GROUPS.read(slot);
                let side = (front, sticky.map_or(slot & INSIDE != 0, |(_, _, inside)| inside));
                if index < 2 {
                    let Some(endpoint) = value.endpoint(ipv6) else { continue };
                    endpoints.entry(side).or_default().insert(slot & !inside_bit(slot), endpoint);
                } else if let Some(mark) = value.mark() {
                    slots.entry(side).or_default().insert(slot, mark);
                }
            }
        }
        for ((front, inside), by_mark) in endpoints {
            let numbers = slots.get(&(front, inside));
            let drawn = numbers.into_iter().flatten().map(|(slot, _)| slot);
            let masquerade = by_mark
                .keys()
                .filter(|mark| GROUPS.read(**mark).is_none())
                .chain(drawn)
                .any(|mark| mark & MASQUERADE != 0);
            let ids: BTreeMap<Endpoint, u32> = by_mark
                .iter()
                .filter_map(|(mark, endpoint)| Some((*endpoint, GROUPS.read(*mark)?.1)))
                .collect();
            // in the order of their slots
            let slots: Vec<Endpoint> = match numbers {
                Some(slots) => slots.values().filter_map(|mark| by_mark.get(mark)).copied().collect(),
                None => by_mark.values().copied().collect(),
            };
            let sticky = (!ids.is_empty()).then(|| Sticky {
                seconds: 0,
                port: front.port(),
                group: self.groups.get(&front).copied().unwrap_or_default(),
                ids: Arc::new(ids),
            });
            let fronts = if inside { &mut self.rules.inside } else { &mut self.rules.fronts };
            fronts.insert(front, Target::Balance { masquerade, sticky, slots });
        }
    }

    /// Writes the clients whose endpoint `rules` still have.
    pub(crate) fn restore_clients<'a>(&self, batch: &mut Batch, rules: impl Iterator<Item = &'a Rules>) {
        let mut now: HashMap<(bool, u32), &Sticky> = HashMap::new();
        for (front, target) in rules.flat_map(|rules| rules.fronts.iter().chain(&rules.inside)) {
            if let Target::Balance { sticky: Some(sticky), .. } = target
                && let Some(before) = self.groups.get(front)
            {
                now.insert((front.is_ipv6(), *before), sticky);
            }
        }
        let mut lists: BTreeMap<bool, Vec<nft::Element>> = BTreeMap::new();
        // What were two ports' fronts may be one's now, and one key with two values would fail the whole transaction.
        let mut written = HashSet::new();
        for client in &self.clients {
            let ipv6 = client.address.is_ipv6();
            let Some(sticky) = now.get(&(ipv6, client.group)) else { continue };
            if !sticky.ids.values().any(|id| *id == client.id) {
                continue;
            }
            let timeout = u64::from(sticky.seconds) * 1000;
            let left = client.lifetime.1.min(timeout);
            if left < TOO_LATE || !written.insert((sticky.group, client.address)) {
                continue;
            }
            let key = Bytes::default().mark(GROUPS.of(sticky.group, 0)).address(client.address);
            lists.entry(ipv6).or_default().push(nft::Element {
                value: Some(nft::Value::Bytes(Bytes::default().mark(GROUPS.of(sticky.group, client.id)))),
                lifetime: Some((timeout, left)),
                ..nft::Element::member(key)
            });
        }
        for (ipv6, elements) in lists {
            batch.add_elements(table(ipv6), CLIENTS, &elements);
        }
    }
}

/// The bit of a sticky endpoint's number that says for whom it is looked for.
fn inside_bit(number: u32) -> u32 {
    if GROUPS.read(number).is_some() { GROUPS.inside } else { 0 }
}

fn group(element: &nft::Element, ipv6: bool, node_port: bool) -> Option<(Front, u32)> {
    let front = Reader(&element.key.0).front(ipv6, node_port)?;
    let (group, ..) = GROUPS.read(Reader(element.target()).mark()?)?;
    Some((front, group))
}

fn client(element: &nft::Element, ipv6: bool) -> Option<Client> {
    let mut key = Reader(&element.key.0);
    let (group, ..) = GROUPS.read(key.mark()?)?;
    let address = key.address(ipv6)?;
    let (_, id, _) = GROUPS.read(Reader(element.target()).mark()?)?;
    Some(Client { group, address, id, lifetime: element.lifetime? })
}

/// Reads a key from its beginning.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn address(&mut self, ipv6: bool) -> Option<IpAddr> {
        if ipv6 { self.take::<16>().map(IpAddr::from) } else { self.take::<4>().map(IpAddr::from) }
    }

    fn port(&mut self) -> Option<u16> {
        let [high, low, _, _] = self.take::<4>()?;
        Some(u16::from_be_bytes([high, low]))
    }

    fn mark(&mut self) -> Option<u32> {
        self.take::<4>().map(u32::from_ne_bytes)
    }

    fn endpoint(&mut self, ipv6: bool) -> Option<Endpoint> {
        Some(Endpoint { address: self.address(ipv6)?, port: self.port()? })
    }

    fn front(&mut self, ipv6: bool, node_port: bool) -> Option<Front> {
        let address = if node_port { None } else { Some(self.address(ipv6)?) };
        let [number, ..] = self.take::<4>()?;
        let protocol = Protocol::of_number(number)?;
        let port = self.port()?;
        Some(address.map_or(Front::NodePort(ipv6, protocol, port), |ip| Front::Address(ip, protocol, port)))
    }
}
