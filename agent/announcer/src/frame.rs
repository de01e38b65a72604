//! ARP (RFC 826, announcements and probes of RFC 5227) and neighbour discovery (RFC 4861) as Ethernet frames. Pure.

use netlink::link::Mac;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `ETH_P_ARP`
pub(crate) const ARP: u16 = 0x0806;
/// `ETH_P_IPV6`
pub(crate) const IPV6: u16 = 0x86dd;
const BROADCAST: Mac = Mac([0xff; 6]);
const ETHERNET: usize = 14;
const REQUEST: u16 = 1;
const REPLY: u16 = 2;
/// Ethernet, IPv4, their lengths.
const ARP_KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// `SOLICITED`, `OVERRIDE`
const FLAGS: (u8, u8) = (0x40, 0x20);
const SOURCE_ADDRESS: u8 = 1;
const TARGET_ADDRESS: u8 = 2;
/// All nodes of the link.
const ALL: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// What a frame says of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// Somebody asks who has it.
    Asked { address: IpAddr, by: Asker },
    /// Somebody has it.
    Has { address: IpAddr, who: Mac },
}

/// Who asks, and is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asker {
    mac: Mac,
    ip: IpAddr,
}

/// Reads a frame as it came from the link; none where it is about something else, or no such frame.
#[must_use]
pub(crate) fn read(frame: &[u8]) -> Option<Said> {
    let (ethernet, rest) = frame.split_first_chunk::<ETHERNET>()?;
    let [_, _, _, _, _, _, source @ .., high, low] = *ethernet;
    match u16::from_be_bytes([high, low]) {
        ARP => read_arp(rest),
        IPV6 => read_neighbour(rest, Mac(source)),
        _ => None,
    }
}

fn read_arp(packet: &[u8]) -> Option<Said> {
    let (kind, rest) = packet.split_first_chunk::<6>()?;
    let (fields, _) = rest.split_first_chunk::<22>()?;
    let operation = u16::from_be_bytes([fields[0], fields[1]]);
    if *kind != ARP_KIND {
        return None;
    }
    let mac = Mac(fields[2..8].try_into().ok()?);
    let ip = |at: usize| Ipv4Addr::new(fields[at], fields[at + 1], fields[at + 2], fields[at + 3]);
    let (source, target) = (ip(8), ip(18));
    match operation {
        // Who asks for its own address tells that it has it.
        REQUEST if source != target => {
            Some(Said::Asked { address: target.into(), by: Asker { mac, ip: source.into() } })
        }
        REQUEST | REPLY => Some(Said::Has { address: source.into(), who: mac }),
        _ => None,
    }
}

fn read_neighbour(packet: &[u8], from: Mac) -> Option<Said> {
    let (header, rest) = packet.split_first_chunk::<40>()?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    // What was forwarded is nobody's of the link.
    if header[6] != ICMPV6 || header[7] != 255 {
        return None;
    }
    let message = rest.get(..length)?;
    let source = Ipv6Addr::from(<[u8; 16]>::try_from(&header[8..24]).ok()?);
    let destination = Ipv6Addr::from(<[u8; 16]>::try_from(&header[24..40]).ok()?);
    let (fixed, options) = message.split_first_chunk::<24>()?;
    if fixed[1] != 0 || checksum(source, destination, message) != 0 {
        return None;
    }
    let target = Ipv6Addr::from(<[u8; 16]>::try_from(&fixed[8..24]).ok()?);
    let option = |wanted| option(options, wanted).unwrap_or(from);
    match fixed[0] {
        SOLICITATION => {
            let by = Asker { mac: option(SOURCE_ADDRESS), ip: source.into() };
            Some(Said::Asked { address: target.into(), by })
        }
        ADVERTISEMENT => Some(Said::Has { address: target.into(), who: option(TARGET_ADDRESS) }),
        _ => None,
    }
}

/// The hardware address in an option.
fn option(mut options: &[u8], wanted: u8) -> Option<Mac> {
    while let [kind, words, ..] = *options {
        let length = usize::from(words) * 8;
        let value = options.get(..length).filter(|value| !value.is_empty())?;
        if kind == wanted {
            return value.get(2..8)?.try_into().ok().map(Mac);
        }
        options = &options[length..];
    }
    None
}

/// The group that is asked for an address.
#[must_use]
pub(crate) fn group(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    let low = u16::from_be_bytes([b, c]);
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), low)
}

/// The hardware address of a group.
fn group_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    Mac([0x33, 0x33, a, b, c, d])
}

/// To one who asked: the address is at `own`.
#[must_use]
pub(crate) fn answer(address: IpAddr, own: Mac, to: Asker) -> Option<Vec<u8>> {
    match (address, to.ip) {
        (IpAddr::V4(address), IpAddr::V4(asker)) => Some(arp(REPLY, (own, address), (to.mac, asker), to.mac)),
        (IpAddr::V6(address), IpAddr::V6(asker)) if asker.is_unspecified() => {
            Some(advertisement(address, own, (ALL, group_mac(ALL)), FLAGS.1))
        }
        (IpAddr::V6(address), IpAddr::V6(asker)) => {
            Some(advertisement(address, own, (asker, to.mac), FLAGS.0 | FLAGS.1))
        }
        _ => None,
    }
}

/// To everybody: the address is at `own`. In both forms that there are for IPv4: some listen to the one, some to the other.
#[must_use]
pub(crate) fn announcement(address: IpAddr, own: Mac) -> Vec<Vec<u8>> {
    match address {
        IpAddr::V4(address) => vec![
            arp(REQUEST, (own, address), (Mac([0; 6]), address), BROADCAST),
            arp(REPLY, (own, address), (BROADCAST, address), BROADCAST),
        ],
        IpAddr::V6(address) => vec![advertisement(address, own, (ALL, group_mac(ALL)), FLAGS.1)],
    }
}

/// Who has the address? Of the one at `to`, or of everybody. `source` is an address of the link's own, for IPv6; what is asked tells nobody
/// where anything is.
#[must_use]
pub(crate) fn question(address: IpAddr, own: Mac, source: Option<Ipv6Addr>, to: Option<Mac>) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => {
            let (nobody, nothing) = (Ipv4Addr::UNSPECIFIED, Mac([0; 6]));
            arp(REQUEST, (own, nobody), (nothing, address), to.unwrap_or(BROADCAST))
        }
        IpAddr::V6(address) => {
            let (destination, mac) = match to {
                Some(mac) => (address, mac),
                None => (group(address), group_mac(group(address))),
            };
            let source = source.unwrap_or(Ipv6Addr::UNSPECIFIED);
            // From no address there is nothing to say of it.
            let option = (!source.is_unspecified()).then_some((SOURCE_ADDRESS, own));
            neighbour(SOLICITATION, 0, address, option, (source, own), (destination, mac))
        }
    }
}

fn ethernet(to: Mac, from: Mac, kind: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ETHERNET + 72);
    frame.extend_from_slice(&to.0);
    frame.extend_from_slice(&from.0);
    frame.extend_from_slice(&kind.to_be_bytes());
    frame
}

fn arp(operation: u16, from: (Mac, Ipv4Addr), about: (Mac, Ipv4Addr), to: Mac) -> Vec<u8> {
    let mut frame = ethernet(to, from.0, ARP);
    frame.extend_from_slice(&ARP_KIND);
    frame.extend_from_slice(&operation.to_be_bytes());
    for (mac, ip) in [from, about] {
        frame.extend_from_slice(&mac.0);
        frame.extend_from_slice(&ip.octets());
    }
    frame
}

fn advertisement(address: Ipv6Addr, own: Mac, to: (Ipv6Addr, Mac), flags: u8) -> Vec<u8> {
    neighbour(ADVERTISEMENT, flags, address, Some((TARGET_ADDRESS, own)), (address, own), to)
}

fn neighbour(
    kind: u8,
    flags: u8,
    target: Ipv6Addr,
    option: Option<(u8, Mac)>,
    (source, own): (Ipv6Addr, Mac),
    (destination, mac): (Ipv6Addr, Mac),
) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    message.extend_from_slice(&target.octets());
    if let Some((kind, mac)) = option {
        message.extend_from_slice(&[kind, 1]);
        message.extend_from_slice(&mac.0);
    }
    let sum = checksum(source, destination, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = ethernet(mac, own, IPV6);
    frame.extend_from_slice(&[0x60, 0, 0, 0]);
    frame.extend_from_slice(&u16::try_from(message.len()).unwrap_or(0).to_be_bytes());
    frame.extend_from_slice(&[ICMPV6, 255]);
    frame.extend_from_slice(&source.octets());
    frame.extend_from_slice(&destination.octets());
    frame.extend_from_slice(&message);
    frame
}

/// Of a message whose own sum is zero; zero of one whose sum is right.
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let length = u32::try_from(message.len()).unwrap_or(0).to_be_bytes();
    let pseudo = [&source.octets()[..], &destination.octets(), &length, &[0, 0, 0, ICMPV6]].concat();
    let words = pseudo.chunks(2).chain(message.chunks(2));
    let sum: u32 = words.map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_question_is_read_and_its_answer_says_where_the_address_is() {
        for (address, source) in [("192.0.2.1", None), ("2001:db8::1:2:3", "fe80::2".parse().ok())] {
            let address = ip(address);
            for to in [None, Some(OWN)] {
                let frame = question(address, OTHER, source, to);
                let Some(Said::Asked { address: asked, by }) = read(&frame) else { panic!("{frame:?}") };
                assert_eq!((asked, by.mac), (address, OTHER));
                let frame = answer(address, OWN, by).unwrap();
                assert_eq!(frame[..6], OTHER.0, "to the one who asks");
                assert_eq!(read(&frame), Some(Said::Has { address, who: OWN }));
            }
        }
    }

    #[test]
    fn a_question_must_not_tell_that_the_asker_has_an_address() {
        let frame = question(ip("192.0.2.1"), OTHER, None, None);
        assert_eq!(frame[28..32], [0; 4]);
        let frame = question(ip("2001:db8::1"), OTHER, None, None);
        assert_eq!(frame.len(), 14 + 40 + 24, "without a source there is no option");
        let Some(Said::Asked { by, .. }) = read(&frame) else { panic!() };
        assert_eq!(answer(ip("2001:db8::1"), OWN, by).unwrap()[..6], [0x33, 0x33, 0, 0, 0, 1], "to all");
    }

    #[test]
    fn announcements_go_to_everybody() {
        let frames = announcement(ip("192.0.2.1"), OWN);
        assert_eq!(frames.len(), 2);
        for frame in frames.iter().chain(&announcement(ip("2001:db8::1"), OWN)) {
            assert_eq!(frame[0] & 1, 1);
            assert!(matches!(read(frame), Some(Said::Has { who: OWN, .. })));
        }
    }

    #[test]
    fn the_group_of_an_address_ends_as_it_does() {
        let group = group("2001:db8::1234:5678".parse().unwrap());
        assert_eq!(group.to_string(), "ff02::1:ff34:5678");
        assert_eq!(group_mac(group), Mac([0x33, 0x33, 0xff, 0x34, 0x56, 0x78]));
    }

    #[test]
    fn what_was_forwarded_or_damaged_must_not_be_believed() {
        let good = announcement(ip("2001:db8::1"), OWN).remove(0);
        for at in [14 + 7, 14 + 40 + 2, 14 + 40 + 8 + 3] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(read(&bad), None, "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn no_frame_must_make_it_panic(frame in proptest::collection::vec(any::<u8>(), 0..120), kind in 0..3_usize) {
            let mut frame = frame;
            let kinds = [ARP, IPV6, 0x0800];
            if frame.len() >= 14 {
                frame[12..14].copy_from_slice(&kinds[kind].to_be_bytes());
            }
            let _ = read(&frame);
            let mut whole = announcement(ip("2001:db8::1"), OWN).remove(0);
            whole.truncate(frame.len());
            let _ = read(&whole);
        }
    }
}
