//! The addresses of a service range, and in which order they are tried.
//!
//! The lower part of a range is the static band: what is chosen freely comes from above it, and from it only when the rest is used up
//! (KEP-3070). Upstream: `ipallocator/ipallocator.go`, `pkg/api/servicecidr`.

use crate::registry::metadata::deleting;
use ipnet::IpNet;
use machinery::access::Get as _;
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A service range: all of a network's addresses but its own, and IPv4's broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subnet {
    pub(crate) net: IpNet,
    first: u128,
    size: u128,
    band: u128,
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

impl Subnet {
    pub(crate) fn new(net: IpNet) -> Self {
        let net = net.trunc();
        let bits = u32::from(net.max_prefix_len() - net.prefix_len());
        let all = 1_u128.checked_shl(bits).unwrap_or(u128::MAX);
        let size = all.saturating_sub(if net.addr().is_ipv4() { 2 } else { 1 });
        // min(max(16, all/16), 256), and none in ranges too small for one.
        let band = if all <= 16 { 0 } else { (all / 16).clamp(16, 256) };
        Self { net, first: number(net.network()) + 1, size, band: band.min(size) }
    }

    pub(crate) fn is_ipv4(&self) -> bool {
        self.net.addr().is_ipv4()
    }

    /// Whether the range gives `ip`.
    pub(crate) fn holds(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.is_ipv4() && (self.first..self.first + self.size).contains(&number(ip))
    }

    /// Every address once: those above the static band, from a place chosen by `seed` on, then those in it.
    pub(crate) fn candidates(&self, seed: u128) -> impl Iterator<Item = IpAddr> + use<> {
        let (ipv4, first, size, band) = (self.is_ipv4(), self.first, self.size, self.band);
        let part =
            move |from: u128, length: u128| (0..length).map(move |i| from + (seed % length + i) % length);
        part(first + band, size - band).chain(part(first, band)).map(move |number| {
            match u32::try_from(number) {
                Ok(bits) if ipv4 => Ipv4Addr::from_bits(bits).into(),
                _ => Ipv6Addr::from_bits(number).into(),
            }
        })
    }
}

/// The ranges of stored ServiceCIDRs that addresses may be given from: of those that are not said to be unready, and stay.
pub(crate) fn ready(stored: &[Value]) -> Vec<Subnet> {
    let is_ready = |range: &&Value| {
        let mut conditions = range.items("status.conditions").iter();
        // Nobody may have said so yet.
        let said = conditions.find(|c| c.text("type") == "Ready");
        !deleting(range) && said.is_none_or(|c| c.text("status") == "True")
    };
    all(stored.iter().filter(is_ready))
}

/// The ranges of stored ServiceCIDRs, whatever is said of them.
pub(crate) fn all<'a>(stored: impl Iterator<Item = &'a Value>) -> Vec<Subnet> {
    let cidrs = stored.flat_map(|range| range.items("spec.cidrs"));
    cidrs.filter_map(|cidr| cidr.as_str()?.parse().ok()).map(Subnet::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    use std::collections::BTreeSet;

    fn subnet(net: &str) -> Subnet {
        Subnet::new(net.parse().unwrap())
    }

    #[test]
    fn dynamic_addresses_avoid_the_static_band_until_the_rest_is_used_up() {
        let mut seen = BTreeSet::new();
        // 254 addresses, a band of 16
        for (i, ip) in subnet("10.96.0.0/24").candidates(7919).enumerate() {
            assert!(seen.insert(ip), "{ip} twice");
            let IpAddr::V4(v4) = ip else { panic!("family") };
            assert_eq!(v4.octets()[3] > 16, i < 238, "{i}: {ip}");
        }
        assert_eq!(seen.len(), 254);
    }

    #[test]
    fn bands_are_as_wide_as_upstreams() {
        for (net, band) in [
            ("10.0.0.0/28", 0),
            ("10.0.0.0/27", 16),
            ("10.0.0.0/23", 32),
            ("10.0.0.0/12", 256),
            ("fd00::/64", 256),
        ] {
            assert_eq!(subnet(net).band, band, "{net}");
        }
    }

    #[test]
    fn a_range_must_not_give_its_networks_address_nor_the_broadcast() {
        for (net, inside, outside) in [
            ("10.96.0.0/16", ["10.96.0.1", "10.96.255.254"], ["10.96.0.0", "10.96.255.255"]),
            ("fd00::/112", ["fd00::1", "fd00::ffff"], ["fd00::", "10.96.0.1"]),
        ] {
            let holds = |ip: &str| subnet(net).holds(ip.parse().unwrap());
            assert_eq!([holds(inside[0]), holds(inside[1])], [true; 2], "{net}");
            assert_eq!([holds(outside[0]), holds(outside[1])], [false; 2], "{net}");
        }
    }

    #[test]
    fn a_range_that_goes_or_is_said_to_be_unready_must_not_give_addresses() {
        let range = |cidr: &str, status: Option<&str>, deleted: Option<&str>| {
            let conditions: Vec<Value> =
                status.iter().map(|status| json!({"type": "Ready", "status": status})).collect();
            json!({"metadata": {"deletionTimestamp": deleted}, "spec": {"cidrs": [cidr]}, "status": {"conditions": conditions}})
        };
        let stored = [
            range("10.0.0.0/24", None, None),
            range("10.1.0.0/24", Some("True"), None),
            range("10.2.0.0/24", Some("False"), None),
            range("10.3.0.0/24", Some("True"), Some("2026-01-01T00:00:00Z")),
        ];
        assert_eq!(ready(&stored), [subnet("10.0.0.0/24"), subnet("10.1.0.0/24")]);
        assert_eq!(all(stored.iter()).len(), 4);
    }

    proptest! {
        #[test]
        fn every_address_is_a_candidate_once(length in 20_u8..=32, seed: u64) {
            let subnet = subnet(&format!("10.96.0.0/{length}"));
            let all: Vec<IpAddr> = subnet.candidates(seed.into()).collect();
            prop_assert!(all.iter().all(|ip| subnet.holds(*ip)));
            prop_assert_eq!(all.len() as u128, subnet.size);
            prop_assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        }
    }
}
