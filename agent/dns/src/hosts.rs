//! Names and addresses as they are written in a Corefile's `hosts`. Pure.

use hickory_proto::op::Query;
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{Name, RData, RecordType};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Seconds an answer may be kept where `ttl` says nothing else, as CoreDNS has it.
const TTL: u32 = 3600;

/// The entries of one section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hosts {
    /// What it is asked about; everything if empty.
    zones: Vec<Name>,
    addresses: BTreeMap<String, Vec<IpAddr>>,
    names: BTreeMap<IpAddr, Vec<Name>>,
    reverse: bool,
    /// Seconds an answer may be kept.
    pub(crate) ttl: u32,
    /// Names it does not know are looked for elsewhere: none without it, those of these zones, all where there are none.
    fallthrough: Option<Vec<Name>>,
}

/// What is known of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// These; none of that type where there are none.
    Records(Vec<RData>),
    /// It does not know the name, and nobody else is to be asked: SERVFAIL, as CoreDNS has no zone whose SOA record an NXDOMAIN could carry.
    Failure,
}

impl Hosts {
    /// Reads the lines in the braces; gives those that cannot be read, too.
    pub(crate) fn read(zones: Vec<Name>, lines: &[Vec<String>]) -> (Self, Vec<String>) {
        let mut hosts = Self {
            zones,
            addresses: BTreeMap::new(),
            names: BTreeMap::new(),
            reverse: true,
            ttl: TTL,
            fallthrough: None,
        };
        let mut unread = Vec::new();
        for line in lines {
            let Some((first, rest)) = line.split_first() else { continue };
            match (first.as_str(), rest) {
                ("fallthrough", zones) => {
                    hosts.fallthrough = Some(zones.iter().filter_map(|zone| name(zone)).collect())
                }
                ("no_reverse", []) => hosts.reverse = false,
                // the lines are read again whenever they change
                ("reload", [_]) => {}
                ("ttl", [seconds]) if seconds.parse::<u32>().is_ok() => {
                    hosts.ttl = seconds.parse().unwrap_or(TTL);
                }
                (address, names) => match address.parse::<IpAddr>() {
                    Ok(address) => {
                        names.iter().filter_map(|text| name(text)).for_each(|name| hosts.add(address, name))
                    }
                    Err(_) => unread.push(line.join(" ")),
                },
            }
        }
        (hosts, unread)
    }

    fn add(&mut self, address: IpAddr, name: Name) {
        self.addresses.entry(key(&name)).or_default().push(address);
        self.names.entry(address).or_default().push(name);
    }

    /// There is a file with more names, which is not known here: others are asked about those.
    pub(crate) fn know_in_part(&mut self) {
        self.fallthrough = Some(Vec::new());
    }

    /// What it says about a question; `None`: others are asked.
    pub(crate) fn find(&self, query: &Query) -> Option<Found> {
        let asked = query.name();
        // as CoreDNS: whatever its zones are, and of addresses it does not know others are asked without leave, too
        if query.query_type() == RecordType::PTR {
            let net = asked.parse_arpa_name().ok().filter(|_| self.reverse)?;
            let names = self.names.get(&net.addr())?;
            return Some(Found::Records(names.iter().map(|name| RData::PTR(PTR(name.clone()))).collect()));
        }
        if !self.zones.is_empty() && !self.zones.iter().any(|zone| zone.zone_of(asked)) {
            return None;
        }
        match self.addresses.get(&key(asked)) {
            Some(addresses) => {
                let of_type = addresses.iter().filter_map(|address| match (query.query_type(), address) {
                    (RecordType::A, IpAddr::V4(ip)) => Some(RData::A(A(*ip))),
                    (RecordType::AAAA, IpAddr::V6(ip)) => Some(RData::AAAA(AAAA(*ip))),
                    _ => None,
                });
                Some(Found::Records(of_type.collect()))
            }
            None => {
                let on = |zones: &Vec<Name>| zones.is_empty() || zones.iter().any(|zone| zone.zone_of(asked));
                (!self.fallthrough.as_ref().is_some_and(on)).then_some(Found::Failure)
            }
        }
    }
}

fn key(name: &Name) -> String {
    let mut name = name.to_lowercase();
    name.set_fqdn(true);
    name.to_ascii()
}

/// A name as it is written, absolute whether it ends in a dot or not.
pub(crate) fn name(text: &str) -> Option<Name> {
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(text: &str) -> Hosts {
        let lines: Vec<Vec<String>> =
            text.lines().map(|line| line.split_ascii_whitespace().map(str::to_owned).collect()).collect();
        let (hosts, unread) = Hosts::read(Vec::new(), &lines);
        assert_eq!(unread, Vec::<String>::new());
        hosts
    }

    fn ask(hosts: &Hosts, of: &str, kind: RecordType) -> Option<Vec<String>> {
        match hosts.find(&Query::query(name(of).unwrap(), kind))? {
            Found::Records(records) => Some(records.iter().map(ToString::to_string).collect()),
            Found::Failure => Some(vec!["failure".into()]),
        }
    }

    #[test]
    fn names_and_addresses_are_found_both_ways() {
        let hosts = hosts("192.0.2.1 git.example GIT\nfd00::1 git.example\nttl 60\nfallthrough");
        assert_eq!(ask(&hosts, "Git.Example", RecordType::A).unwrap(), ["192.0.2.1"]);
        assert_eq!(ask(&hosts, "git.example", RecordType::AAAA).unwrap(), ["fd00::1"]);
        assert_eq!(
            ask(&hosts, "git", RecordType::AAAA).unwrap(),
            Vec::<String>::new(),
            "it has none, and exists"
        );
        assert_eq!(ask(&hosts, "1.2.0.192.in-addr.arpa", RecordType::PTR).unwrap().len(), 2);
        assert_eq!((ask(&hosts, "other.example", RecordType::A), hosts.ttl), (None, 60));
    }

    #[test]
    fn a_name_that_is_not_there_must_not_be_asked_elsewhere_without_leave() {
        let none = || Some(vec!["failure".to_owned()]);
        assert_eq!(ask(&hosts("192.0.2.1 a.example"), "b.example", RecordType::A), none());
        let some = hosts("192.0.2.1 a.example\nfallthrough org");
        assert_eq!(ask(&some, "b.example", RecordType::A), none());
        assert_eq!(ask(&some, "b.org", RecordType::A), None);
        let (zoned, unread) = Hosts::read(vec![name("example").unwrap()], &[vec!["nonsense".to_owned()]]);
        assert_eq!((ask(&zoned, "b.org", RecordType::A), unread.len()), (None, 1));
        let plain = hosts("192.0.2.1 a\nno_reverse\nfallthrough");
        assert_eq!(ask(&plain, "1.2.0.192.in-addr.arpa", RecordType::PTR), None);
    }
}
