//! Address ranges as the elements of an interval set: where each begins, and the first address after it. Pure.

use super::element::{Bytes, Element};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The elements for the ranges of one family; overlapping and neighbouring ranges are merged, as the kernel refuses them.
///
/// A set that does not begin with address zero gets that as the end of a range before, as `nft` writes it.
#[must_use]
pub fn intervals(ranges: impl IntoIterator<Item = IpNet>, ipv6: bool) -> Vec<Element> {
    let numbers = ranges.into_iter().filter(|net| net.addr().is_ipv6() == ipv6).map(|net| {
        let net = net.trunc();
        (number(net.network()), number(net.broadcast()))
    });
    let mut sorted: Vec<(u128, u128)> = numbers.collect();
    sorted.sort_unstable();
    let mut merged: Vec<(u128, u128)> = Vec::new();
    for (first, last) in sorted {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    let largest = if ipv6 { u128::MAX } else { u128::from(u32::MAX) };
    let element = |at, interval_end| Element {
        interval_end,
        ..Element::member(Bytes::default().address(address(at, ipv6)))
    };
    let mut out = Vec::new();
    if merged.first().is_some_and(|(first, _)| *first > 0) {
        out.push(element(0, true));
    }
    for (first, last) in merged {
        out.push(element(first, false));
        if last < largest {
            out.push(element(last + 1, true));
        }
    }
    out
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

fn address(number: u128, ipv6: bool) -> IpAddr {
    if ipv6 {
        Ipv6Addr::from_bits(number).into()
    } else {
        Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX)).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipnet::Ipv4Net;
    use proptest::prelude::*;

    fn holds(elements: &[Element], ip: Ipv4Addr) -> bool {
        let key = ip.octets().to_vec();
        elements.iter().rev().find(|e| e.key.0 <= key).is_some_and(|e| !e.interval_end)
    }

    proptest! {
        #[test]
        fn holds_what_the_ranges_hold_and_no_key_twice(nets in proptest::collection::vec((any::<u32>(), 0u8..=32), 0..12), ips in proptest::collection::vec(any::<u32>(), 20)) {
            let nets: Vec<IpNet> = nets.into_iter().map(|(ip, len)| Ipv4Net::new(Ipv4Addr::from_bits(ip), len).unwrap().into()).collect();
            let elements = intervals(nets.clone(), false);
            prop_assert!(elements.windows(2).all(|w| w[0].key < w[1].key));
            let edges = nets.iter().flat_map(|n| [n.trunc().addr(), n.broadcast()]).map(|ip| u32::try_from(number(ip)).unwrap());
            for at in edges.flat_map(|at| [at.wrapping_sub(1), at, at.wrapping_add(1)]).chain(ips) {
                let ip = Ipv4Addr::from_bits(at);
                prop_assert_eq!(holds(&elements, ip), nets.iter().any(|n| n.contains(&IpAddr::from(ip))));
            }
        }
    }
}
