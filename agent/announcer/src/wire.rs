//! A link's sockets, and the groups it listens to.

use crate::frame::{self, ARP, IPV6, Said};
use crate::link::Link;
use crate::packet::Packets;
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::task::{Context, Poll};

/// Room for any frame that is of interest.
const ROOM: usize = 256;

/// What is open of a link.
pub(crate) struct Wire {
    pub(crate) link: Link,
    /// For IPv4.
    arp: Option<Packets>,
    /// For IPv6, and what joins groups: a socket of UDP, whose kernel tells switches.
    neighbours: Option<(Packets, UdpSocket)>,
    groups: BTreeSet<Ipv6Addr>,
}

impl Wire {
    /// Nothing of it is open yet.
    pub(crate) fn new(link: Link) -> Self {
        Self { link, arp: None, neighbours: None, groups: BTreeSet::new() }
    }

    /// Opens what these addresses need, and closes the rest.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn listen(&mut self, addresses: &[IpAddr]) -> io::Result<()> {
        if addresses.iter().any(IpAddr::is_ipv4) {
            if self.arp.is_none() {
                self.arp = Some(Packets::open(self.link.index, ARP)?);
            }
        } else {
            self.arp = None;
        }
        let group = |address: &IpAddr| match address {
            IpAddr::V6(v6) => Some(frame::group(*v6)),
            IpAddr::V4(_) => None,
        };
        let groups: BTreeSet<Ipv6Addr> = addresses.iter().filter_map(group).collect();
        if groups.is_empty() {
            (self.neighbours, self.groups) = (None, groups);
            return Ok(());
        }
        if self.neighbours.is_none() {
            let joining = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0))?;
            self.neighbours = Some((Packets::open(self.link.index, IPV6)?, joining));
        }
        let Some((_, joining)) = &self.neighbours else { return Ok(()) };
        for gone in self.groups.difference(&groups) {
            // Of a link that was down the kernel may have forgotten it.
            let _ = joining.leave_multicast_v6(gone, self.link.index);
        }
        self.groups.retain(|group| groups.contains(group));
        for new in groups {
            if !self.groups.contains(&new) {
                joining.join_multicast_v6(&new, self.link.index)?;
                self.groups.insert(new);
            }
        }
        Ok(())
    }

    /// What is said next on the link. The sockets' errors are the link's state, which the kernel tells of by another way.
    pub(crate) fn poll_said(&self, cx: &mut Context<'_>) -> Poll<Said> {
        let mut room = [0; ROOM];
        for packets in self.arp.iter().chain(self.neighbours.as_ref().map(|(packets, _)| packets)) {
            while let Poll::Ready(received) = packets.poll_receive(cx, &mut room) {
                // Where that is the link's end, word of it is on its way.
                let Ok(length) = received else { break };
                if let Some(said) = frame::read(&room[..length.min(ROOM)]) {
                    return Poll::Ready(said);
                }
            }
        }
        Poll::Pending
    }

    /// Sends a frame about an address.
    pub(crate) fn send(&self, address: IpAddr, frame: &[u8]) {
        let packets = match address {
            IpAddr::V4(_) => self.arp.as_ref(),
            IpAddr::V6(_) => self.neighbours.as_ref().map(|(packets, _)| packets),
        };
        if let Some(Err(error)) = packets.map(|packets| packets.send(frame)) {
            tracing::debug!(link = self.link.name, %address, %error, "a frame was not sent");
        }
    }
}
