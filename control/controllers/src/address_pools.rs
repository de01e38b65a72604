//! Pools of addresses, as a ConfigMap or a flag describes them. Pure.
//!
//! A key of the ConfigMap is a pool's name, its value YAML: `ranges` (`192.0.2.10-192.0.2.50`, `192.0.2.64/26`, `2001:db8::100`; of a CIDR
//! of IPv4 neither its first nor its last address is given), `autoAssign: false` for a pool that must be named, or `mode: nodes` for one
//! that has the addresses of nodes in place of ranges.

use ipnet::IpNet;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Pools and ranges at most.
const MOST: usize = 256;

/// Why a description of pools is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// It is no YAML, or says something unknown.
    #[error("pool {pool:?}: {why}")]
    Unreadable {
        /// Which pool.
        pool: String,
        /// In the parser's words.
        why: String,
    },
    /// A range that is none, or of addresses nobody may have.
    #[error("pool {pool:?}: {range:?} is no range of addresses that Services can have")]
    Range {
        /// Which pool.
        pool: String,
        /// As it was given.
        range: String,
    },
    /// A pool of neither ranges nor nodes, or of both.
    #[error("pool {0:?} needs either ranges or mode: nodes")]
    Kind(String),
    /// An address would be in two places.
    #[error("ranges {0} and {1} overlap")]
    Overlap(Span, Span),
    /// More than there can be.
    #[error("more than {MOST} pools or ranges")]
    Many,
}

/// Addresses from the first to the last, both in it and of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    ipv6: bool,
    first: u128,
    last: u128,
}

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.address(self.first), self.address(self.last))
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

impl Span {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Ok(net) = text.parse::<IpNet>() {
            let (mut first, mut last) = (number(net.network()), number(net.broadcast()));
            // Neither the network nor the broadcast address, where there are such.
            if net.addr().is_ipv4() && net.prefix_len() < 31 {
                (first, last) = (first + 1, last - 1);
            }
            return Self { ipv6: net.addr().is_ipv6(), first, last }.usable();
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last): (IpAddr, IpAddr) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        let same = first.is_ipv6() == last.is_ipv6();
        let span = Self { ipv6: first.is_ipv6(), first: number(first), last: number(last) };
        Some(span).filter(|span| same && span.first <= span.last)?.usable()
    }

    /// Unless its ends are addresses that no Service can have.
    fn usable(self) -> Option<Self> {
        let usable = |address: IpAddr| {
            let local = match address {
                IpAddr::V4(v4) => v4.is_broadcast() || v4.is_link_local() || v4.octets()[0] == 0,
                IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
            };
            !local && !address.is_unspecified() && !address.is_loopback() && !address.is_multicast()
        };
        (usable(self.address(self.first)) && usable(self.address(self.last))).then_some(self)
    }

    fn address(self, number: u128) -> IpAddr {
        match self.ipv6 {
            true => Ipv6Addr::from(number).into(),
            false => Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        }
    }

    fn contains(self, address: IpAddr) -> bool {
        address.is_ipv6() == self.ipv6 && (self.first..=self.last).contains(&number(address))
    }

    /// The first address that is not among `taken`, whose order is that of addresses.
    fn first_free<V>(self, taken: &BTreeMap<IpAddr, V>) -> Option<IpAddr> {
        let mut next = self.first;
        for address in taken.range(self.address(self.first)..=self.address(self.last)).map(|(ip, _)| *ip) {
            if number(address) > next {
                break;
            }
            next = number(address).checked_add(1)?;
        }
        (next <= self.last).then(|| self.address(next))
    }
}

/// Where addresses come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// How Services and events name it.
    pub name: String,
    /// Services get addresses of it without naming it.
    pub auto_assign: bool,
    /// None: the addresses are nodes' own.
    ranges: Vec<Span>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Described {
    #[serde(default)]
    ranges: Vec<String>,
    #[serde(default = "yes")]
    auto_assign: bool,
    mode: Option<Mode>,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
enum Mode {
    Nodes,
}

impl Pool {
    /// A pool of ranges that every Service may get addresses of.
    ///
    /// # Errors
    /// A range that is none, or two that overlap.
    pub fn of_ranges(name: &str, ranges: &[String]) -> Result<Self, PoolError> {
        let described = Described { ranges: ranges.to_vec(), auto_assign: true, mode: None };
        let pool = Self::of(name, described)?;
        apart(std::slice::from_ref(&pool))?;
        Ok(pool)
    }

    /// A pool of nodes' own addresses.
    #[must_use]
    pub fn of_nodes(name: &str) -> Self {
        Self { name: name.to_owned(), auto_assign: true, ranges: Vec::new() }
    }

    fn of(name: &str, described: Described) -> Result<Self, PoolError> {
        let Described { ranges, auto_assign, mode } = described;
        if mode.is_some() != ranges.is_empty() {
            return Err(PoolError::Kind(name.to_owned()));
        }
        let parse = |range: &String| {
            Span::parse(range).ok_or_else(|| PoolError::Range { pool: name.to_owned(), range: range.clone() })
        };
        let ranges = ranges.iter().map(parse).collect::<Result<_, _>>()?;
        Ok(Self { name: name.to_owned(), auto_assign, ranges })
    }

    /// Whether its addresses are nodes' own.
    #[must_use]
    pub fn is_nodes(&self) -> bool {
        self.ranges.is_empty()
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(address))
    }

    /// Whether it has addresses of a family.
    pub(crate) fn has_family(&self, ipv6: bool) -> bool {
        self.ranges.iter().any(|range| range.ipv6 == ipv6)
    }

    pub(crate) fn first_free<V>(&self, ipv6: bool, taken: &BTreeMap<IpAddr, V>) -> Option<IpAddr> {
        self.ranges.iter().filter(|range| range.ipv6 == ipv6).find_map(|range| range.first_free(taken))
    }
}

/// The pools of a ConfigMap's data, by name.
///
/// # Errors
/// What is wrong with the first that cannot be.
pub(crate) fn read(data: &BTreeMap<String, String>) -> Result<Vec<Pool>, PoolError> {
    let read = |(name, text): (&String, &String)| {
        let wrong = |why: String| PoolError::Unreadable { pool: name.clone(), why };
        // What is too long is too much.
        let described: Described = serde_saphyr::from_str(text).map_err(|error| {
            let why = error.to_string();
            wrong(why.lines().next().unwrap_or_default().to_owned())
        })?;
        Pool::of(name, described)
    };
    if data.len() > MOST {
        return Err(PoolError::Many);
    }
    let pools: Vec<Pool> = data.iter().map(read).collect::<Result<_, _>>()?;
    apart(&pools)?;
    Ok(pools)
}

/// That no address is in two ranges.
fn apart(pools: &[Pool]) -> Result<(), PoolError> {
    let mut all: Vec<Span> = pools.iter().flat_map(|pool| pool.ranges.iter().copied()).collect();
    if all.len() > MOST {
        return Err(PoolError::Many);
    }
    all.sort_unstable();
    let overlapping =
        all.windows(2).find(|pair| pair[0].ipv6 == pair[1].ipv6 && pair[1].first <= pair[0].last);
    overlapping.map_or(Ok(()), |pair| Err(PoolError::Overlap(pair[0], pair[1])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pools: &[(&str, &str)]) -> Result<Vec<Pool>, String> {
        let data = pools.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        read(&data).map_err(|error| error.to_string())
    }

    fn all(pool: &Pool, ipv6: bool) -> Vec<String> {
        let mut taken = BTreeMap::new();
        while let Some(address) = pool.first_free(ipv6, &taken) {
            assert!(pool.contains(address));
            taken.insert(address, ());
        }
        taken.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn every_address_of_a_pool_is_given_and_no_other() {
        let text = "ranges: [192.0.2.10-192.0.2.12, 198.51.100.0/30, 203.0.113.8/31, 192.0.2.20, '2001:db8::fe-2001:db8::101']";
        let pool = of(&[("a", text)]).unwrap().remove(0);
        assert_eq!(
            all(&pool, false),
            [
                "192.0.2.10",
                "192.0.2.11",
                "192.0.2.12",
                "192.0.2.20",
                "198.51.100.1",
                "198.51.100.2",
                "203.0.113.8",
                "203.0.113.9"
            ]
        );
        assert_eq!(all(&pool, true), ["2001:db8::fe", "2001:db8::ff", "2001:db8::100", "2001:db8::101"]);
        assert!(pool.auto_assign && !pool.is_nodes());
        let large = of(&[("a", "{ranges: ['2001:db8::/64'], autoAssign: false}")]).unwrap().remove(0);
        assert_eq!(large.first_free(true, &BTreeMap::<IpAddr, ()>::new()), "2001:db8::".parse().ok());
        assert!(!large.auto_assign && large.has_family(true) && !large.has_family(false));
        assert!(of(&[("n", "mode: nodes")]).unwrap()[0].is_nodes());
    }

    #[test]
    fn what_no_service_can_have_is_refused_by_name() {
        for (text, word) in [
            ("ranges: [192.0.2.9-192.0.2.1]", "192.0.2.9-192.0.2.1"),
            ("ranges: ['192.0.2.1-2001:db8::1']", "2001:db8::1"),
            ("ranges: [127.0.0.1]", "127.0.0.1"),
            ("ranges: [224.0.0.0/8]", "224.0.0.0/8"),
            ("ranges: [169.254.0.0/16]", "169.254"),
            ("ranges: ['fe80::1-fe80::9']", "fe80::1"),
            ("ranges: [0.0.0.0/0]", "0.0.0.0/0"),
            ("ranges: [no]", "no"),
            ("ranges: []", "needs either"),
            ("{}", "needs either"),
            ("{mode: nodes, ranges: [192.0.2.1]}", "needs either"),
            ("{ranges: [192.0.2.1], auto: true}", "auto"),
            ("mode: elsewhere", "elsewhere"),
            ("ranges: [192.0.2.1-192.0.2.9, 192.0.2.9]", "overlap"),
        ] {
            let error = of(&[("a", text)]).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
        assert!(
            of(&[("a", "ranges: [192.0.2.0/24]"), ("b", "ranges: [192.0.2.7]")])
                .unwrap_err()
                .contains("overlap")
        );
        assert!(of(&[("a", "ranges: [0.0.0.10]")]).is_err(), "a number is no address of IPv4");
    }
}
