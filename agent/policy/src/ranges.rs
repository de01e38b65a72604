//! Address blocks without their exceptions, and ports, as ranges that do not overlap. Pure.

use ipnet::IpNet;

/// Ports of a protocol, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// `IPPROTO_*`
    pub protocol: u8,
    /// The lowest port.
    pub first: u16,
    /// The highest port.
    pub last: u16,
}

impl PortRange {
    /// Whether a port is in it.
    #[must_use]
    pub fn holds(&self, protocol: u8, port: u16) -> bool {
        self.protocol == protocol && (self.first..=self.last).contains(&port)
    }
}

/// The protocol's number; TCP where none is given, none for one that policies do not know.
pub(crate) fn protocol(name: Option<&str>) -> Option<u8> {
    match name.unwrap_or("TCP") {
        "TCP" => Some(6),
        "UDP" => Some(17),
        "SCTP" => Some(132),
        _ => None,
    }
}

/// Sorted, and what overlaps or lies side by side made one.
pub(crate) fn merge(mut ranges: Vec<PortRange>) -> Vec<PortRange> {
    ranges.sort_unstable();
    let mut out: Vec<PortRange> = Vec::new();
    for range in ranges {
        match out.last_mut() {
            Some(before)
                if before.protocol == range.protocol && range.first <= before.last.saturating_add(1) =>
            {
                before.last = before.last.max(range.last);
            }
            _ => out.push(range),
        }
    }
    out
}

/// The addresses of a block that are in none of its exceptions; nothing where one of them cannot be read.
pub(crate) fn block(cidr: &str, except: &[String]) -> Vec<IpNet> {
    let Ok(net) = cidr.parse::<IpNet>() else { return Vec::new() };
    let mut rest = vec![net.trunc()];
    for text in except {
        let Ok(hole) = text.parse::<IpNet>() else { return Vec::new() };
        rest = rest.into_iter().flat_map(|net| without(net, hole.trunc())).collect();
    }
    rest
}

/// A net less another: the halves beside the hole, ever smaller ones.
fn without(net: IpNet, hole: IpNet) -> Vec<IpNet> {
    if hole.contains(&net) {
        return Vec::new();
    }
    let mut out = Vec::new();
    let mut around = net;
    while around != hole {
        if !around.contains(&hole) {
            out.push(around);
            return out;
        }
        let Ok(halves) = around.subnets(around.prefix_len() + 1) else { return out };
        let halves: Vec<IpNet> = halves.collect();
        let [one, other] = halves[..] else { return out };
        let (inner, outer) = if one.contains(&hole) { (one, other) } else { (other, one) };
        out.push(outer);
        around = inner;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr};

    #[test]
    fn a_block_must_not_hold_its_exceptions() {
        let described = |cidr: &str, except: &[&str]| {
            let except: Vec<String> = except.iter().map(|text| (*text).to_owned()).collect();
            block(cidr, &except).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(described("10.0.0.0/24", &[]), "10.0.0.0/24");
        assert_eq!(described("10.0.0.7/24", &["10.0.0.0/26"]), "10.0.0.128/25 10.0.0.64/26");
        assert_eq!(described("10.0.0.0/24", &["10.0.0.0/24"]), "");
        assert_eq!(described("10.0.0.0/24", &["10.0.0.0/8"]), "");
        assert_eq!(described("10.0.0.0/24", &["10.0.1.0/24", "fd00::/8"]), "10.0.0.0/24");
        assert_eq!(described("10.0.0.0/24", &["nonsense"]), "", "who knows what it should be");
        assert_eq!(described("fd00::/126", &["fd00::1/128"]), "fd00::2/127 fd00::/128");
        assert_eq!(described("10.0.0.9/32", &["10.0.0.9/32"]), "");
    }

    proptest! {
        #[test]
        fn an_address_is_in_the_block_and_in_no_exception_or_in_no_range(
            (cidr, length) in (any::<u8>(), 24u8..=32), holes in proptest::collection::vec((any::<u8>(), 25u8..=32), 0..4)
        ) {
            let net = |last: u8, length: u8| IpNet::new(IpAddr::from([10, 0, 0, last]), length).unwrap();
            let texts: Vec<String> = holes.iter().map(|(last, length)| net(*last, *length).to_string()).collect();
            let rest = block(&net(cidr, length).to_string(), &texts);
            for last in 0..=255u8 {
                let ip = IpAddr::from(Ipv4Addr::new(10, 0, 0, last));
                let expected = net(cidr, length).contains(&ip) && !holes.iter().any(|(l, n)| net(*l, *n).contains(&ip));
                prop_assert_eq!(rest.iter().filter(|net| net.contains(&ip)).count(), usize::from(expected), "{}", ip);
            }
        }
    }
}
