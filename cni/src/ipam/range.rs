//! Ranges of addresses, and the order in which they are tried.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{Error, fields::Fields};

/// Addresses of one subnet that may be granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) subnet: IpNet,
    pub(crate) first: IpAddr,
    pub(crate) last: IpAddr,
    pub(crate) gateway: IpAddr,
}

/// Ranges of one family, of which a container gets one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RangeSet(pub(crate) Vec<Range>);

/// An address as a number, so that ranges can be walked.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn address(number: u128, like: IpAddr) -> IpAddr {
    match like {
        // The upper bits of an IPv4 number are zero: it came from an IPv4 address and stays within its range.
        IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX))),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::from_bits(number)),
    }
}

impl Range {
    /// Reads `{subnet, rangeStart, rangeEnd, gateway}` and fills in what is absent as upstream does:
    /// the gateway is the subnet's first address, the range is all that is not the network or the broadcast.
    pub(crate) fn read(fields: &mut Fields) -> Result<Self, Error> {
        let subnet: IpNet = fields
            .take_parsed("subnet")?
            .ok_or_else(|| Error::config(fields.path_of("subnet"), "missing"))?;
        let (length, width) = (subnet.prefix_len(), subnet.max_prefix_len());
        if length > width - 2 {
            return Err(Error::config(
                fields.path_of("subnet"),
                format!("Network {subnet} too small to allocate from"),
            ));
        }
        if subnet != subnet.trunc() {
            return Err(Error::config(
                fields.path_of("subnet"),
                format!(
                    "Network has host bits set. For a subnet mask of length {length} the network address is {}",
                    subnet.network()
                ),
            ));
        }
        let network = number(subnet.network());
        let end = number(subnet.broadcast()) - u128::from(subnet.addr().is_ipv4());
        let at = |number| address(number, subnet.addr());
        let gateway = fields.take_parsed("gateway")?.unwrap_or_else(|| at(network + 1));
        if gateway.is_ipv4() != subnet.addr().is_ipv4() {
            return Err(Error::config(
                fields.path_of("gateway"),
                format!("{gateway} not in network {subnet}"),
            ));
        }
        let mut bound = |name: &str, default: u128| -> Result<IpAddr, Error> {
            let bound: IpAddr = fields.take_parsed(name)?.unwrap_or_else(|| at(default));
            if subnet.contains(&bound) {
                Ok(bound)
            } else {
                Err(Error::config(fields.path_of(name), format!("{bound} not in network {subnet}")))
            }
        };
        let first = bound("rangeStart", network + 1)?;
        let last = bound("rangeEnd", end)?;
        if number(first) > number(last) {
            return Err(Error::config(
                fields.path_of("rangeStart"),
                format!("{first} is after rangeEnd {last}"),
            ));
        }
        Ok(Self { subnet, first, last, gateway })
    }

    pub(crate) fn contains(&self, candidate: IpAddr) -> bool {
        candidate.is_ipv4() == self.first.is_ipv4()
            && (number(self.first)..=number(self.last)).contains(&number(candidate))
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.first) || self.contains(other.last) || other.contains(self.first)
    }
}

impl RangeSet {
    /// Joins ranges, which must be of one family and apart.
    pub(crate) fn new(path: &str, ranges: Vec<Range>) -> Result<Self, Error> {
        let Some(first) = ranges.first() else {
            return Err(Error::config(path, "empty range set"));
        };
        if ranges.iter().any(|range| range.first.is_ipv4() != first.first.is_ipv4()) {
            return Err(Error::config(path, "mixed address families"));
        }
        for (index, range) in ranges.iter().enumerate() {
            if ranges[index + 1..].iter().any(|other| range.overlaps(other)) {
                return Err(Error::config(path, "ranges overlap"));
            }
        }
        Ok(Self(ranges))
    }

    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().any(|range| other.0.iter().any(|theirs| range.overlaps(theirs)))
    }

    pub(crate) fn range_of(&self, candidate: IpAddr) -> Option<&Range> {
        self.0.iter().find(|range| range.contains(candidate))
    }

    /// Every address that may be granted, once, beginning after `last`.
    pub(crate) fn after(&self, last: Option<IpAddr>) -> impl Iterator<Item = (IpAddr, &Range)> {
        let resume = last.and_then(|last| {
            let place = self.0.iter().position(|range| range.contains(last))?;
            Some((place, number(last)))
        });
        let (place, _) = resume.unwrap_or((0, 0));
        let count = self.0.len();
        // The range that holds `last` comes twice: its upper part first, its lower part at the end.
        (0..=count).flat_map(move |turn| {
            let range = &self.0[(place + turn) % count];
            let (low, high) = (number(range.first), number(range.last));
            let bounds = match resume {
                Some((_, from)) if turn == 0 => from.checked_add(1).map(|low| (low, high)),
                Some((_, from)) if turn == count => Some((low, from)),
                None if turn == count => None,
                _ => Some((low, high)),
            };
            bounds
                .into_iter()
                .flat_map(|(low, high)| low..=high)
                .map(move |number| (address(number, range.first), range))
                .filter(|(candidate, range)| *candidate != range.gateway)
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn range(value: Value) -> Result<Range, Error> {
        Range::read(&mut Fields::of("ipam.ranges[0][0]", value).unwrap())
    }

    fn set(values: Vec<Value>) -> RangeSet {
        RangeSet::new("ipam.ranges[0]", values.into_iter().map(|value| range(value).unwrap()).collect())
            .unwrap()
    }

    #[test]
    fn what_is_absent_is_filled_in() {
        let filled = range(json!({ "subnet": "192.0.2.0/24" })).unwrap();
        assert_eq!(filled.gateway.to_string(), "192.0.2.1");
        assert_eq!(filled.first.to_string(), "192.0.2.1");
        assert_eq!(filled.last.to_string(), "192.0.2.254");
        let six = range(json!({ "subnet": "2001:db8::/64" })).unwrap();
        assert_eq!(six.last.to_string(), "2001:db8::ffff:ffff:ffff:ffff");
    }

    #[test]
    fn bad_ranges_name_the_field() {
        for (value, field, words) in [
            (json!({}), "ipam.ranges[0][0].subnet", "missing"),
            (json!({ "subnet": "192.0.2.0/31" }), "ipam.ranges[0][0].subnet", "too small"),
            (json!({ "subnet": "192.0.2.9/24" }), "ipam.ranges[0][0].subnet", "192.0.2.0"),
            (json!({ "subnet": "192.0.2.0" }), "ipam.ranges[0][0].subnet", "192.0.2.0"),
            (
                json!({ "subnet": "192.0.2.0/24", "rangeStart": "192.0.3.1" }),
                "ipam.ranges[0][0].rangeStart",
                "not in network",
            ),
            (
                json!({ "subnet": "192.0.2.0/24", "rangeStart": "192.0.2.9", "rangeEnd": "192.0.2.8" }),
                "ipam.ranges[0][0].rangeStart",
                "after rangeEnd",
            ),
        ] {
            let error = range(value.clone()).unwrap_err();
            assert_eq!(error.code(), 7, "{value}");
            let text = error.to_string();
            assert!(text.contains(field) && text.contains(words), "{value}: {text}");
        }
    }

    #[test]
    fn every_address_once_from_wherever_it_begins() {
        let set = set(vec![
            json!({ "subnet": "192.0.2.0/29" }),
            json!({ "subnet": "198.51.100.0/30", "gateway": "198.51.100.9" }),
        ]);
        let mut all: Vec<IpAddr> = set.after(None).map(|(address, _)| address).collect();
        assert_eq!(all.len(), 5 + 2);
        all.sort();
        for start in [
            None,
            Some("192.0.2.1"),
            Some("192.0.2.3"),
            Some("192.0.2.6"),
            Some("198.51.100.2"),
            Some("9.9.9.9"),
        ] {
            let start: Option<IpAddr> = start.map(|text| text.parse().unwrap());
            let order: Vec<IpAddr> = set.after(start).map(|(address, _)| address).collect();
            let mut sorted = order.clone();
            sorted.sort();
            assert_eq!(sorted, all, "{start:?}");
            if let Some(start) = start.filter(|start| all.contains(start)) {
                assert_eq!(order.last(), Some(&start), "what was granted last is tried last");
            }
        }
    }

    #[test]
    fn the_end_of_the_number_space_is_no_panic() {
        let set = set(vec![json!({ "subnet": "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff0/124" })]);
        let last = set.0[0].last;
        assert_eq!(set.after(Some(last)).count(), 14);
    }
}
