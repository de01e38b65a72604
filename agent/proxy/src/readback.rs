//! What an earlier run of the agent left in the kernel, read back so that slots stay and sticky clients keep their endpoint. Pure but
//! for [`Recovered::read`].

use crate::element::{INSIDE, MASQUERADE, SLOTS, STICKY, base};
use crate::model::{Endpoint, Front, Rules, Target};
use crate::ruleset::{CLIENTS, front_bytes, table};
use crate::service::Protocol;
use netlink::nft::{self, Batch, Bytes, Kernel};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A client that stays with its endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Client {
    front: Front,
    inside: bool,
    address: IpAddr,
    /// The endpoint's number among those of its front.
    id: u32,
    /// Milliseconds it stays after its last connection, and has left.
    lifetime: (u64, u64),
}

#[derive(Debug, Default)]
pub(crate) struct Recovered {
    /// Every front with endpoints, as if one service had them all.
    pub(crate) rules: Rules,
    clients: Vec<Client>,
}

/// The maps of endpoints, then those of slots to sticky endpoints' numbers.
const ENDPOINTS: &[&str] = &["endpoints", "port_endpoints", "sticky", "port_sticky"];
/// Everything beside a slot's or endpoint's own number.
const FLAGS: u32 = SLOTS | MASQUERADE | STICKY | INSIDE;
/// Clients closer to their end than this are dropped, in milliseconds.
const TOO_LATE: u64 = 10;

impl Recovered {
    /// Reads the clients; the endpoints too unless they are known.
    pub(crate) async fn read(kernel: &mut Kernel, endpoints_known: bool) -> Result<Self, nft::Error> {
        let mut recovered = Self::default();
        for ipv6 in [false, true] {
            if !endpoints_known {
                let found = kernel.elements(table(ipv6), ENDPOINTS).await?;
                recovered.add_endpoints(ipv6, &found);
            }
            let found = kernel.elements(table(ipv6), CLIENTS).await?;
            for (elements, node_port) in found.iter().zip([false, true]) {
                recovered.clients.extend(elements.iter().filter_map(|e| client(e, ipv6, node_port)));
            }
        }
        Ok(recovered)
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
                let side = (front, slot & INSIDE != 0);
                if index < 2 {
                    let Some(endpoint) = value.endpoint(ipv6) else { continue };
                    endpoints.entry(side).or_default().insert(slot, endpoint);
                } else if let Some(mark) = value.mark() {
                    slots.entry(side).or_default().insert(slot, mark);
                }
            }
        }
        for ((front, inside), by_mark) in endpoints {
            let masquerade = by_mark.keys().any(|mark| mark & MASQUERADE != 0);
            let ids: BTreeMap<Endpoint, u32> = by_mark
                .iter()
                .filter(|(mark, _)| **mark & STICKY != 0)
                .map(|(mark, endpoint)| (*endpoint, mark & !FLAGS))
                .collect();
            // in the order of their slots
            let slots: Vec<Endpoint> = match slots.get(&(front, inside)) {
                Some(slots) => slots.values().filter_map(|mark| by_mark.get(mark)).copied().collect(),
                None => by_mark.values().copied().collect(),
            };
            let sticky = (!ids.is_empty()).then_some(0);
            let fronts = if inside { &mut self.rules.inside } else { &mut self.rules.fronts };
            fronts.insert(front, Target::Balance { masquerade, sticky, slots, ids });
        }
    }

    /// Writes the clients whose endpoint `rules` still have.
    pub(crate) fn restore_clients<'a>(
        &self,
        batch: &mut Batch,
        rules: impl Fn(&Front, bool) -> Option<&'a Target>,
    ) {
        let mut lists: BTreeMap<(bool, bool), Vec<nft::Element>> = BTreeMap::new();
        for client in &self.clients {
            let Some(Target::Balance { masquerade, sticky: Some(seconds), ids, .. }) =
                rules(&client.front, client.inside)
            else {
                continue;
            };
            if !ids.values().any(|id| *id == client.id) {
                continue;
            }
            let timeout = u64::from(*seconds) * 1000;
            let left = client.lifetime.1.min(timeout);
            if left < TOO_LATE {
                continue;
            }
            let mark = base(*masquerade, client.inside) + STICKY + client.id;
            let node_port = matches!(client.front, Front::NodePort(..));
            lists.entry((client.front.is_ipv6(), node_port)).or_default().push(nft::Element {
                value: Some(nft::Value::Bytes(Bytes::default().mark(mark))),
                lifetime: Some((timeout, left)),
                ..nft::Element::member(front_bytes(client.front).address(client.address))
            });
        }
        for ((ipv6, node_port), elements) in lists {
            batch.add_elements(table(ipv6), CLIENTS[usize::from(node_port)], &elements);
        }
    }
}

fn client(element: &nft::Element, ipv6: bool, node_port: bool) -> Option<Client> {
    let mut key = Reader(&element.key.0);
    let front = key.front(ipv6, node_port)?;
    let address = key.address(ipv6)?;
    let mark = Reader(element.target()).mark()?;
    let inside = mark & INSIDE != 0;
    Some(Client { front, inside, address, id: mark & !FLAGS, lifetime: element.lifetime? })
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
