//! Allocation of numbers from a range: service addresses and node ports.
//!
//! The lower part of a range is the static band: dynamic allocation leaves it to people who ask for a number, and falls
//! back to it only when the rest is used up (KEP-3070, KEP-3668). Nothing is persisted: what is taken is whatever the
//! stored Services say, so a crash can neither leak nor grant twice. A number is taken here before its Service is
//! written and given back when the write fails.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Why a number was not given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    #[error("provided {what} is already allocated")]
    Taken { what: &'static str },
    #[error("provided {what} is not in the valid range. The range of valid {what}s is {range}")]
    OutOfRange { what: &'static str, range: String },
    #[error("range is full")]
    Full,
}

/// A range of numbers `0..size`, each taken by at most one owner.
#[derive(Debug)]
struct Range {
    size: u128,
    band: u128,
    taken: BTreeMap<u128, String>,
}

impl Range {
    fn take(&mut self, n: u128, owner: &str) -> bool {
        match self.taken.get(&n) {
            Some(other) => other == owner,
            None => {
                self.taken.insert(n, owner.to_owned());
                true
            }
        }
    }

    /// Takes a free number, from above the static band first; `seed` chooses where the search starts.
    fn take_any(&mut self, owner: &str, seed: u128) -> Option<u128> {
        let n = self
            .free_in(self.band, self.size, seed)
            .or_else(|| self.free_in(0, self.band.min(self.size), seed))?;
        self.taken.insert(n, owner.to_owned());
        Some(n)
    }

    /// The first free number at or after a seeded start within `[from, to)`, wrapping once. Jumps over taken
    /// numbers in order, so the cost is the length of the run of taken ones, not the size of the range.
    fn free_in(&self, from: u128, to: u128, seed: u128) -> Option<u128> {
        if from >= to {
            return None;
        }
        let start = from + seed % (to - from);
        let gap = |low: u128, high: u128| {
            let mut n = low;
            for (&taken, _) in self.taken.range(low..high) {
                if taken != n {
                    break;
                }
                n += 1;
            }
            (n < high).then_some(n)
        };
        gap(start, to).or_else(|| gap(from, start))
    }

    fn owners(&self) -> impl Iterator<Item = &str> {
        self.taken.values().map(String::as_str)
    }

    fn release_all(&mut self, owner: &str) {
        self.taken.retain(|_, o| o != owner);
    }

    fn release(&mut self, n: u128, owner: &str) {
        if self.taken.get(&n).is_some_and(|o| o == owner) {
            self.taken.remove(&n);
        }
    }
}

/// The addresses of one service range.
#[derive(Debug)]
pub(crate) struct Addresses {
    net: IpNet,
    range: Range,
}

impl Addresses {
    /// All addresses of `net` but the network's own (and IPv4's broadcast).
    pub(crate) fn new(net: IpNet) -> Self {
        let bits = u32::from(net.max_prefix_len() - net.prefix_len());
        let all = 1_u128.checked_shl(bits).unwrap_or(u128::MAX);
        let reserved = if net.addr().is_ipv4() { 2 } else { 1 };
        let size = all.saturating_sub(reserved);
        // min(max(16, size/16), 256), and none in ranges too small for one.
        let band = if size <= 16 { 0 } else { (size / 16).clamp(16, 256) };
        Addresses { net, range: Range { size, band, taken: BTreeMap::new() } }
    }

    pub(crate) fn is_ipv4(&self) -> bool {
        self.net.addr().is_ipv4()
    }

    fn index(&self, ip: IpAddr) -> Option<u128> {
        let (base, at) = match (self.net.network(), ip) {
            (IpAddr::V4(base), IpAddr::V4(ip)) => (u128::from(base.to_bits()), u128::from(ip.to_bits())),
            (IpAddr::V6(base), IpAddr::V6(ip)) => (base.to_bits(), ip.to_bits()),
            _ => return None,
        };
        let n = at.checked_sub(base)?.checked_sub(1)?;
        (n < self.range.size).then_some(n)
    }

    fn address(&self, n: u128) -> IpAddr {
        match self.net.network() {
            // An index is below the size of the range, which is at most 2^32.
            IpAddr::V4(base) => {
                Ipv4Addr::from_bits(base.to_bits() + 1 + u32::try_from(n).unwrap_or(0)).into()
            }
            IpAddr::V6(base) => Ipv6Addr::from_bits(base.to_bits() + 1 + n).into(),
        }
    }

    /// Takes `ip` for `owner`; taking again what one owns succeeds.
    pub(crate) fn take(&mut self, ip: IpAddr, owner: &str) -> Result<(), Denied> {
        let n = self
            .index(ip)
            .ok_or_else(|| Denied::OutOfRange { what: "IP", range: self.net.trunc().to_string() })?;
        if self.range.take(n, owner) { Ok(()) } else { Err(Denied::Taken { what: "IP" }) }
    }

    /// Takes any free address.
    pub(crate) fn take_any(&mut self, owner: &str, seed: u128) -> Result<IpAddr, Denied> {
        self.range.take_any(owner, seed).map(|n| self.address(n)).ok_or(Denied::Full)
    }

    /// Everybody who holds an address.
    pub(crate) fn owners(&self) -> impl Iterator<Item = &str> {
        self.range.owners()
    }

    /// Gives back everything `owner` holds.
    pub(crate) fn release_all(&mut self, owner: &str) {
        self.range.release_all(owner);
    }

    /// Gives `ip` back if `owner` holds it.
    pub(crate) fn release(&mut self, ip: IpAddr, owner: &str) {
        if let Some(n) = self.index(ip) {
            self.range.release(n, owner);
        }
    }
}

/// The node ports.
#[derive(Debug)]
pub(crate) struct Ports {
    first: u16,
    last: u16,
    range: Range,
}

impl Ports {
    /// The ports `first..=last`.
    pub(crate) fn new(first: u16, last: u16) -> Self {
        let size = u128::from(last.saturating_sub(first)) + 1;
        // min(max(16, size/32), 128)
        let band = if size <= 16 { 0 } else { (size / 32).clamp(16, 128) };
        Ports { first, last, range: Range { size, band, taken: BTreeMap::new() } }
    }

    /// Takes `port` for `owner`; taking again what one owns succeeds.
    pub(crate) fn take(&mut self, port: u16, owner: &str) -> Result<(), Denied> {
        if port < self.first || port > self.last {
            return Err(Denied::OutOfRange { what: "port", range: format!("{}-{}", self.first, self.last) });
        }
        if self.range.take(u128::from(port - self.first), owner) {
            Ok(())
        } else {
            Err(Denied::Taken { what: "port" })
        }
    }

    /// Takes any free port.
    pub(crate) fn take_any(&mut self, owner: &str, seed: u128) -> Result<u16, Denied> {
        let n = self.range.take_any(owner, seed).ok_or(Denied::Full)?;
        u16::try_from(n).map(|n| self.first + n).map_err(|_| Denied::Full)
    }

    /// Everybody who holds a port.
    pub(crate) fn owners(&self) -> impl Iterator<Item = &str> {
        self.range.owners()
    }

    /// Gives back everything `owner` holds.
    pub(crate) fn release_all(&mut self, owner: &str) {
        self.range.release_all(owner);
    }

    /// Gives `port` back if `owner` holds it.
    pub(crate) fn release(&mut self, port: u16, owner: &str) {
        if (self.first..=self.last).contains(&port) {
            self.range.release(u128::from(port - self.first), owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn addresses(net: &str) -> Addresses {
        Addresses::new(net.parse().unwrap())
    }

    #[test]
    fn dynamic_addresses_avoid_the_static_band_until_the_rest_is_used_up() {
        let mut a = addresses("10.96.0.0/24"); // 254 addresses, a band of 16
        let mut seen = BTreeSet::new();
        for i in 0..254_u128 {
            let ip = a.take_any("o", i * 7919).unwrap();
            assert!(seen.insert(ip), "{ip} granted twice");
            let IpAddr::V4(v4) = ip else { panic!("family") };
            assert_eq!(v4.octets()[3] > 16, i < 238, "grant {i}: {ip}");
        }
        assert_eq!(a.take_any("o", 0), Err(Denied::Full));
    }

    #[test]
    fn refusals_are_worded_as_upstream() {
        let mut a = addresses("10.96.0.0/16");
        a.take("10.96.0.10".parse().unwrap(), "kube-system/kube-dns").unwrap();
        a.take("10.96.0.10".parse().unwrap(), "kube-system/kube-dns").unwrap();
        assert_eq!(
            a.take("10.96.0.10".parse().unwrap(), "default/x").unwrap_err().to_string(),
            "provided IP is already allocated"
        );
        assert_eq!(
            a.take("10.97.0.10".parse().unwrap(), "default/x").unwrap_err().to_string(),
            "provided IP is not in the valid range. The range of valid IPs is 10.96.0.0/16"
        );
        for edge in ["10.96.0.0", "10.96.255.255", "fd00::1"] {
            assert!(a.take(edge.parse().unwrap(), "x").is_err(), "{edge}");
        }
        let mut p = Ports::new(30000, 32767);
        assert_eq!(
            p.take(80, "x").unwrap_err().to_string(),
            "provided port is not in the valid range. The range of valid ports is 30000-32767"
        );
        assert!(p.take_any("x", 0).unwrap() >= 30086);
    }

    proptest! {
        #[test]
        fn nothing_is_granted_twice(ops in proptest::collection::vec((any::<u128>(), any::<bool>()), 1..200)) {
            let mut a = addresses("fd00:10:96::/112");
            let mut held: Vec<IpAddr> = Vec::new();
            for (seed, give_back) in ops {
                if give_back && !held.is_empty() {
                    let ip = held.swap_remove(usize::try_from(seed % held.len() as u128).unwrap());
                    a.release(ip, "o");
                } else {
                    let ip = a.take_any("o", seed % 64).unwrap();
                    prop_assert!(!held.contains(&ip));
                    held.push(ip);
                }
            }
            prop_assert_eq!(a.range.taken.len(), held.len());
        }
    }
}
