//! Allocation of numbers from a range: service addresses and node ports.
//!
//! The lower part of a range is the static band: dynamic allocation leaves it to people who ask for a number, and falls
//! back to it only when the rest is used up (KEP-3070, KEP-3668). Nothing is persisted: what is taken is whatever the
//! stored Services say, so a crash can neither leak nor grant twice. A number is taken here before its Service is
//! written and given back when the write fails.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Why a number was not given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    #[error("provided {what} is already allocated")]
    Taken { what: &'static str },
    #[error("provided {what} is not in the valid range. The range of valid {what}s is {range}")]
    OutOfRange { what: &'static str, range: String },
    #[error("the provided network does not match the current range")]
    NoRange,
    #[error("range is full")]
    Full,
}

/// The first free number at or after a seeded start within `[from, to)`, wrapping once. Jumps over taken
/// numbers in order, so the cost is the length of the run of taken ones, not the size of the range.
fn free_in(taken: &BTreeMap<u128, String>, from: u128, to: u128, seed: u128) -> Option<u128> {
    if from >= to {
        return None;
    }
    let start = from + seed % (to - from);
    let gap = |low: u128, high: u128| {
        let mut n = low;
        for (&taken, _) in taken.range(low..high) {
            if taken != n {
                break;
            }
            n += 1;
        }
        (n < high).then_some(n)
    };
    gap(start, to).or_else(|| gap(from, start))
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
        let n = free_in(&self.taken, self.band, self.size, seed)
            .or_else(|| free_in(&self.taken, 0, self.band.min(self.size), seed))?;
        self.taken.insert(n, owner.to_owned());
        Some(n)
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

/// The addresses of one family: those of its service ranges, which may overlap.
#[derive(Debug)]
pub(crate) struct Addresses {
    ipv4: bool,
    /// The cluster's own range first.
    ranges: Vec<IpNet>,
    /// Who has an address, by its number; an address of a range that went away stays taken.
    taken: BTreeMap<u128, String>,
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// The first address of a range that is given, how many there are, and how many of them are the static band.
fn bounds(net: &IpNet) -> (u128, u128, u128) {
    let bits = u32::from(net.max_prefix_len() - net.prefix_len());
    let all = 1_u128.checked_shl(bits).unwrap_or(u128::MAX);
    let reserved = if net.addr().is_ipv4() { 2 } else { 1 };
    let size = all.saturating_sub(reserved);
    // min(max(16, size/16), 256), and none in ranges too small for one.
    let band = if size <= 16 { 0 } else { (size / 16).clamp(16, 256) };
    (number(net.network()) + 1, size, band)
}

impl Addresses {
    /// All addresses of the ranges of the first one's family, but each network's own (and IPv4's broadcast).
    pub(crate) fn new(net: IpNet) -> Self {
        Addresses { ipv4: net.addr().is_ipv4(), ranges: vec![net], taken: BTreeMap::new() }
    }

    pub(crate) fn is_ipv4(&self) -> bool {
        self.ipv4
    }

    /// Sets the ranges besides the cluster's own; what is taken stays.
    pub(crate) fn set_more(&mut self, more: &[IpNet]) {
        self.ranges.truncate(1);
        for net in more.iter().filter(|net| net.addr().is_ipv4() == self.ipv4) {
            if !self.ranges.contains(net) {
                self.ranges.push(*net);
            }
        }
    }

    fn address(&self, number: u128) -> IpAddr {
        if self.ipv4 {
            // an IPv4 range's numbers are below 2^32
            Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(0)).into()
        } else {
            Ipv6Addr::from_bits(number).into()
        }
    }

    /// Takes `ip` for `owner`; taking again what one owns succeeds.
    pub(crate) fn take(&mut self, ip: IpAddr, owner: &str) -> Result<(), Denied> {
        let containing: Vec<&IpNet> = self.ranges.iter().filter(|net| net.contains(&ip)).collect();
        let Some(first) = containing.first() else { return Err(Denied::NoRange) };
        let given = containing.iter().any(|net| {
            let (start, size, _) = bounds(net);
            (start..start + size).contains(&number(ip))
        });
        if !given {
            return Err(Denied::OutOfRange { what: "IP", range: first.trunc().to_string() });
        }
        self.adopt(ip, owner)
    }

    /// Takes `ip` wherever it is: a stored Service has it.
    pub(crate) fn adopt(&mut self, ip: IpAddr, owner: &str) -> Result<(), Denied> {
        match self.taken.entry(number(ip)) {
            Entry::Occupied(other) if other.get() == owner => Ok(()),
            Entry::Occupied(_) => Err(Denied::Taken { what: "IP" }),
            Entry::Vacant(free) => {
                free.insert(owner.to_owned());
                Ok(())
            }
        }
    }

    /// Takes any free address, from the cluster's own range while it has one.
    pub(crate) fn take_any(&mut self, owner: &str, seed: u128) -> Result<IpAddr, Denied> {
        let found = self.ranges.iter().find_map(|net| {
            let (start, size, band) = bounds(net);
            free_in(&self.taken, start + band, start + size, seed)
                .or_else(|| free_in(&self.taken, start, start + band.min(size), seed))
        });
        let number = found.ok_or(Denied::Full)?;
        self.taken.insert(number, owner.to_owned());
        Ok(self.address(number))
    }

    /// Everybody who holds an address.
    pub(crate) fn owners(&self) -> impl Iterator<Item = &str> {
        self.taken.values().map(String::as_str)
    }

    /// Gives back everything `owner` holds.
    pub(crate) fn release_all(&mut self, owner: &str) {
        self.taken.retain(|_, o| o != owner);
    }

    /// Gives `ip` back if `owner` holds it.
    pub(crate) fn release(&mut self, ip: IpAddr, owner: &str) {
        if ip.is_ipv4() == self.ipv4 && self.taken.get(&number(ip)).is_some_and(|o| o == owner) {
            self.taken.remove(&number(ip));
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
            "the provided network does not match the current range"
        );
        assert_eq!(
            a.take("10.96.0.0".parse().unwrap(), "default/x").unwrap_err().to_string(),
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

    #[test]
    fn more_ranges_are_given_from_when_the_first_is_full_and_overlap_without_harm() {
        let mut a = addresses("10.96.0.0/29"); // six addresses
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for _ in 0..6 {
            a.take_any("o", 3).unwrap();
        }
        assert_eq!(a.take_any("o", 3), Err(Denied::Full));
        assert_eq!(a.take(ip("10.97.0.1"), "o"), Err(Denied::NoRange));
        a.set_more(&[
            "10.96.0.0/28".parse().unwrap(),
            "10.97.0.0/30".parse().unwrap(),
            "fd00::/120".parse().unwrap(),
        ]);
        a.take(ip("10.97.0.1"), "o").unwrap();
        // the wider range holds the narrower one's addresses as taken, and its broadcast address as free
        let more: BTreeSet<IpAddr> = (0..9).map(|n| a.take_any("o", n).unwrap()).collect();
        assert!(more.contains(&ip("10.96.0.7")) && more.contains(&ip("10.97.0.2")), "{more:?}");
        assert_eq!(a.take_any("o", 0), Err(Denied::Full));
        a.set_more(&[]);
        a.release(ip("10.97.0.2"), "o");
        assert_eq!(a.take(ip("10.97.0.2"), "o"), Err(Denied::NoRange));
        assert_eq!(a.adopt(ip("10.97.0.1"), "other"), Err(Denied::Taken { what: "IP" }));
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
            prop_assert_eq!(a.taken.len(), held.len());
        }
    }
}
