//! Forgetting flows whose translation no longer holds. A UDP flow has no end the kernel could see: while its client goes on sending,
//! the flow's old entry would carry it to an endpoint that is gone, or keep it from one that has come (upstream: `pkg/proxy/conntrack`).

use crate::element::{Difference, Element, Key, Set, Value};
use crate::model::{Endpoint, Front};
use crate::service::Protocol;
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::conntrack::{ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Tuple};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Why entries could not be forgotten.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The netlink socket failed.
    #[error("{0} conntrack entries")]
    Socket(&'static str, #[source] std::io::Error),
    /// The kernel's answer cannot be read.
    #[error("read the kernel's conntrack entries")]
    Decode(#[source] netlink_packet_core::DecodeError),
    /// The blocking task ended early.
    #[error("list conntrack entries: the task ended early")]
    Task,
}

/// Which UDP flows to forget.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stale {
    /// Flows to a front that were translated to this endpoint.
    translated: BTreeSet<(Front, Endpoint)>,
    /// Flows to a front that were not translated: it had no endpoint, now it has.
    untranslated: BTreeSet<Front>,
}

impl Stale {
    /// What a difference makes stale.
    #[must_use]
    pub fn of(difference: &Difference) -> Self {
        let mut stale = Self::default();
        let slots = |list: &[Element]| -> BTreeSet<(Front, Endpoint)> {
            let pairs = list.iter().filter_map(|e| match (&e.key, &e.value) {
                (Key::Slot(front, _), Value::Endpoint(endpoint)) if front.port().0 == Protocol::Udp => {
                    Some((*front, *endpoint))
                }
                _ => None,
            });
            pairs.collect()
        };
        let fronts = |list: &[Element]| -> BTreeSet<Front> {
            let keys = list
                .iter()
                .filter(|e| matches!(e.set, Set::Services | Set::NodePorts | Set::Inside | Set::InsidePorts))
                .filter_map(|e| match e.key {
                    Key::Front(front) if front.port().0 == Protocol::Udp => Some(front),
                    _ => None,
                });
            keys.collect()
        };
        // an endpoint that only changed its slot is in both lists
        let added = slots(&difference.add);
        stale.translated =
            slots(&difference.delete).into_iter().filter(|pair| !added.contains(pair)).collect();
        let before = fronts(&difference.delete);
        stale.untranslated =
            fronts(&difference.add).into_iter().filter(|front| !before.contains(front)).collect();
        stale
    }

    fn is_empty(&self) -> bool {
        self.translated.is_empty() && self.untranslated.is_empty()
    }

    fn matches(&self, flow: &Flow) -> bool {
        let (to, port) = flow.destination;
        let fronts =
            [Front::Address(to, Protocol::Udp, port), Front::NodePort(to.is_ipv6(), Protocol::Udp, port)];
        if flow.destination == flow.answers_from {
            return fronts.iter().any(|front| self.untranslated.contains(front));
        }
        let endpoint = Endpoint { address: flow.answers_from.0, port: flow.answers_from.1 };
        fronts.iter().any(|front| self.translated.contains(&(*front, endpoint)))
    }
}

/// A UDP flow: where its client sends, and who answers.
#[derive(Clone, Copy, Debug)]
struct Flow {
    destination: (IpAddr, u16),
    answers_from: (IpAddr, u16),
}

/// Deletes the entries a difference made stale. Costs nothing when no UDP front is touched.
///
/// # Errors
/// The kernel does not list or delete entries.
pub async fn forget(difference: &Difference) -> Result<usize, Error> {
    let stale = Stale::of(difference);
    if stale.is_empty() {
        return Ok(0);
    }
    tokio::task::spawn_blocking(move || delete(&stale)).await.map_err(|_| Error::Task)?
}

fn delete(stale: &Stale) -> Result<usize, Error> {
    let mut socket = Socket::new(NETLINK_NETFILTER).map_err(|e| Error::Socket("open a socket for", e))?;
    socket.bind_auto().map_err(|e| Error::Socket("open a socket for", e))?;
    socket.connect(&SocketAddr::new(0, 0)).map_err(|e| Error::Socket("open a socket for", e))?;
    let mut deleted = 0;
    for family in [NetfilterProtoFamily::IPv4, NetfilterProtoFamily::IPv6] {
        for attributes in list(&socket, family, stale)? {
            send(&socket, family, ConntrackMessage::Delete(attributes), NLM_F_REQUEST)
                .map_err(|e| Error::Socket("delete", e))?;
            deleted += 1;
        }
    }
    Ok(deleted)
}

fn send(
    socket: &Socket,
    family: NetfilterProtoFamily,
    message: ConntrackMessage,
    flags: u16,
) -> std::io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let message = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), message);
    let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    socket.send(&bytes, 0).map(drop)
}

/// The original tuples of the stale flows of a family: what identifies them to the kernel.
fn list(
    socket: &Socket,
    family: NetfilterProtoFamily,
    stale: &Stale,
) -> Result<Vec<Vec<ConntrackAttribute>>, Error> {
    send(socket, family, ConntrackMessage::Get(Vec::new()), NLM_F_REQUEST | NLM_F_DUMP)
        .map_err(|e| Error::Socket("list", e))?;
    let mut found = Vec::new();
    loop {
        let (bytes, _) = socket.recv_from_full().map_err(|e| Error::Socket("list", e))?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let length = NetlinkBuffer::new_checked(rest).map_err(Error::Decode)?.length() as usize;
            let packet = <NetlinkMessage<NetfilterMessage>>::deserialize(rest).map_err(Error::Decode)?;
            match packet.payload {
                NetlinkPayload::Done(_) => return Ok(found),
                NetlinkPayload::Error(error) => return Err(Error::Socket("list", error.to_io())),
                NetlinkPayload::InnerMessage(NetfilterMessage {
                    inner: NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)),
                    ..
                }) if flow(&attributes).is_some_and(|flow| stale.matches(&flow)) => {
                    found.push(
                        attributes
                            .into_iter()
                            .filter(|a| matches!(a, ConntrackAttribute::CtaTupleOrig(_)))
                            .collect(),
                    );
                }
                _ => {}
            }
            // messages are padded to four bytes
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

fn flow(attributes: &[ConntrackAttribute]) -> Option<Flow> {
    let mut destination = None;
    let mut answers_from = None;
    for attribute in attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(tuple) => destination = end(tuple, false),
            ConntrackAttribute::CtaTupleReply(tuple) => answers_from = end(tuple, true),
            _ => {}
        }
    }
    Some(Flow { destination: destination?, answers_from: answers_from? })
}

/// One end of a tuple, when it is UDP's.
fn end(tuple: &[Tuple], source: bool) -> Option<(IpAddr, u16)> {
    let (mut address, mut port, mut udp) = (None, None, false);
    for part in tuple {
        match part {
            Tuple::Ip(parts) => {
                for part in parts {
                    match part {
                        IPTuple::SourceAddress(ip) if source => address = Some(*ip),
                        IPTuple::DestinationAddress(ip) if !source => address = Some(*ip),
                        _ => {}
                    }
                }
            }
            Tuple::Proto(parts) => {
                for part in parts {
                    match part {
                        ProtoTuple::Protocol(protocol) => udp = u8::from(*protocol) == Protocol::Udp.number(),
                        ProtoTuple::SourcePort(number) if source => port = Some(*number),
                        ProtoTuple::DestinationPort(number) if !source => port = Some(*number),
                        _ => {}
                    }
                }
            }
            Tuple::Other(_) | _ => {}
        }
    }
    udp.then_some((address?, port?))
}
