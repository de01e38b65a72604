//! A request to a response, or to "ask elsewhere". Pure.

use crate::hosts::Found;
use crate::zone::{Kind, RecordData, SERVER, Zone};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use std::net::IpAddr;

/// Seconds an answer may be kept; upstream's DNS add-on says 30.
pub(crate) const TTL: u32 = 30;
/// The largest datagram we send without being asked for more (RFC 1035).
pub(crate) const PLAIN_PAYLOAD: u16 = 512;
/// The largest datagram we send at all: what passes every link unfragmented.
const LARGEST_PAYLOAD: u16 = 1232;
/// An alias of an alias is followed so far, as CoreDNS does.
const MOST_ALIASES: usize = 8;
/// The only version of EDNS there is (RFC 6891).
const EDNS_VERSION: u8 = 0;

/// What to do with a request.
#[derive(Debug)]
pub enum Decision {
    /// The finished response.
    Respond(Box<Message>),
    /// The name is not the cluster's: ask upstream.
    Forward,
    /// The name is an alias for one outside: ask upstream for it, and put the answer behind this response's alias.
    Chase(Box<Message>, Query),
}

/// Decides about a request. `domain` is the cluster domain.
#[must_use]
pub fn decide(request: &Message, zone: &Zone, domain: &Name) -> Decision {
    let mut response = begin(request);
    let refuse = |mut response: Message, code| {
        response.metadata.response_code = code;
        Decision::Respond(Box::new(response))
    };
    if request.edns.as_ref().is_some_and(|edns| edns.version() != EDNS_VERSION) {
        response.add_queries(request.queries.iter().cloned());
        return refuse(response, ResponseCode::BADVERS);
    }
    if request.metadata.message_type != MessageType::Query || request.metadata.op_code != OpCode::Query {
        return refuse(response, ResponseCode::NotImp);
    }
    let [query] = request.queries.as_slice() else { return refuse(response, ResponseCode::FormErr) };
    response.add_query(query.clone());
    if query.query_class() != DNSClass::IN {
        return Decision::Forward;
    }
    if !domain.zone_of(query.name()) {
        return match query.query_type() {
            RecordType::PTR => reverse(query, zone, domain, response),
            _ => Decision::Forward,
        };
    }
    response.metadata.authoritative = true;
    in_domain(query, zone, domain, response)
}

/// The beginning of every response.
fn begin(request: &Message) -> Message {
    let mut response = Message::response(request.metadata.id, request.metadata.op_code);
    response.metadata.recursion_desired = request.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    if let Some(edns) = &request.edns {
        let mut own = Edns::new();
        own.set_max_payload(LARGEST_PAYLOAD).set_version(EDNS_VERSION).set_dnssec_ok(edns.flags().dnssec_ok);
        response.set_edns(own);
    }
    response
}

/// The question of a request that has one, of the usual kind.
pub(crate) fn plain(request: &Message) -> Option<&Query> {
    let [query] = request.queries.as_slice() else { return None };
    let usual = request.edns.as_ref().is_none_or(|edns| edns.version() == EDNS_VERSION)
        && request.metadata.message_type == MessageType::Query
        && request.metadata.op_code == OpCode::Query
        && query.query_class() == DNSClass::IN;
    usual.then_some(query)
}

/// The response that says what was found in a list of hosts.
pub(crate) fn answer(request: &Message, query: &Query, found: Found, ttl: u32) -> Message {
    let mut response = begin(request);
    response.metadata.authoritative = found != Found::Failure;
    response.add_query(query.clone());
    match found {
        Found::Records(records) => {
            for data in records {
                response.add_answer(Record::from_rdata(query.name().clone(), ttl, data));
            }
        }
        Found::Failure => response.metadata.response_code = ResponseCode::ServFail,
    }
    response
}

fn reverse(query: &Query, zone: &Zone, domain: &Name, mut response: Message) -> Decision {
    let Ok(net) = query.name().parse_arpa_name() else { return Decision::Forward };
    let names = zone.reverse(net.addr());
    if names.is_empty() {
        return Decision::Forward;
    }
    response.metadata.authoritative = true;
    for name in names {
        if let Some(host) = below(&name, domain) {
            response.add_answer(Record::from_rdata(query.name().clone(), TTL, RData::PTR(PTR(host))));
        }
    }
    Decision::Respond(Box::new(response))
}

fn in_domain(query: &Query, zone: &Zone, domain: &Name, mut response: Message) -> Decision {
    let kind = match query.query_type() {
        RecordType::A => Kind::A,
        RecordType::AAAA => Kind::Aaaa,
        RecordType::SRV => Kind::Srv,
        RecordType::CNAME => Kind::Cname,
        RecordType::TXT => Kind::Txt,
        RecordType::NS => Kind::Ns,
        _ => Kind::Other,
    };
    let Some(found) = look(query.name(), kind, zone, domain) else {
        response.metadata.response_code = ResponseCode::NXDomain;
        response.add_authority(authority(domain));
        return Decision::Respond(Box::new(response));
    };
    if found.is_empty() {
        if query.query_type() == RecordType::SOA && query.name().num_labels() == domain.num_labels() {
            response.add_answer(authority(domain));
        } else {
            response.add_authority(authority(domain));
        }
        return Decision::Respond(Box::new(response));
    }
    for item in found {
        let owner = query.name().clone();
        match item {
            RecordData::Address(ip) => {
                response.add_answer(Record::from_rdata(owner, TTL, address(ip)));
            }
            RecordData::Text(text) => {
                response.add_answer(Record::from_rdata(owner, TTL, RData::TXT(TXT::new(vec![text]))));
            }
            RecordData::Alias(target) => {
                let Some(target) = absolute(&target) else { continue };
                // such a name has nothing else
                if kind != Kind::Cname {
                    return follow(query, target, kind, zone, domain, response);
                }
                response.add_answer(Record::from_rdata(owner, TTL, RData::CNAME(CNAME(target))));
            }
            RecordData::Port { number, host, addresses } => {
                let Some(host) = below(&host, domain) else { continue };
                response.add_answer(Record::from_rdata(
                    owner,
                    TTL,
                    RData::SRV(SRV::new(0, 100, number, host.clone())),
                ));
                add_hosts(&mut response, &host, addresses);
            }
            RecordData::Server { host, addresses } => {
                let Some(host) = below(&host, domain) else { continue };
                response.add_answer(Record::from_rdata(owner, TTL, RData::NS(NS(host.clone()))));
                add_hosts(&mut response, &host, addresses);
            }
        }
    }
    Decision::Respond(Box::new(response))
}

/// What is found under a name of the domain.
fn look(name: &Name, kind: Kind, zone: &Zone, domain: &Name) -> Option<Vec<RecordData>> {
    let name = name.to_lowercase();
    let extra = usize::from(name.num_labels().saturating_sub(domain.num_labels()));
    let labels: Option<Vec<&str>> = name.iter().take(extra).map(|l| std::str::from_utf8(l).ok()).collect();
    zone.lookup(&labels?, kind)
}

/// Follows an alias to what it stands for, or out of the domain. One that leads nowhere, in circles or too far has nothing of what was
/// asked for, as CoreDNS answers.
fn follow(
    query: &Query,
    target: Name,
    kind: Kind,
    zone: &Zone,
    domain: &Name,
    mut response: Message,
) -> Decision {
    let (mut owner, mut target) = (query.name().clone(), target);
    let mut seen = vec![owner.to_lowercase()];
    for _ in 0..MOST_ALIASES {
        response.add_answer(Record::from_rdata(owner, TTL, RData::CNAME(CNAME(target.clone()))));
        if !domain.zone_of(&target) {
            return Decision::Chase(Box::new(response), Query::query(target, query.query_type()));
        }
        let lower = target.to_lowercase();
        if seen.contains(&lower) {
            break;
        }
        seen.push(lower);
        let (aliases, mut next) = (response.answers.len(), None);
        for item in look(&target, kind, zone, domain).unwrap_or_default() {
            let data = match item {
                RecordData::Address(ip) => address(ip),
                RecordData::Text(text) => RData::TXT(TXT::new(vec![text])),
                RecordData::Alias(name) => {
                    next = absolute(&name);
                    continue;
                }
                RecordData::Port { .. } | RecordData::Server { .. } => continue,
            };
            response.add_answer(Record::from_rdata(target.clone(), TTL, data));
        }
        if response.answers.len() > aliases {
            return Decision::Respond(Box::new(response));
        }
        let Some(name) = next else { break };
        owner = std::mem::replace(&mut target, name);
    }
    response.answers.clear();
    response.add_authority(authority(domain));
    Decision::Respond(Box::new(response))
}

fn absolute(name: &str) -> Option<Name> {
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// The addresses of a host an answer names, each once.
fn add_hosts(response: &mut Message, host: &Name, addresses: Vec<IpAddr>) {
    for ip in addresses {
        let record = Record::from_rdata(host.clone(), TTL, address(ip));
        if !response.additionals.contains(&record) {
            response.add_additional(record);
        }
    }
}

fn address(ip: IpAddr) -> RData {
    match ip {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    }
}

fn below(name: &str, domain: &Name) -> Option<Name> {
    Name::from_ascii(name).ok()?.append_domain(domain).ok()
}

/// The record that says how long a "no" may be kept.
fn authority(domain: &Name) -> Record {
    let named = |label: &str| below(label, domain).unwrap_or_else(|| domain.clone());
    let soa = SOA::new(named(SERVER), named("hostmaster"), 1, 7200, 1800, 86400, TTL);
    Record::from_rdata(domain.clone(), TTL, RData::SOA(soa))
}

/// Turns the addresses in an answer by so many places: clients that always take the first spread over all of them, and where not all fit
/// into a datagram each comes to be sent.
pub(crate) fn rotate(response: &mut Message, by: usize) {
    let is_address = |r: &Record| matches!(r.record_type(), RecordType::A | RecordType::AAAA);
    let from = response.answers.iter().position(is_address).unwrap_or(response.answers.len());
    let addresses = &mut response.answers[from..];
    if !addresses.is_empty() && addresses.iter().all(is_address) {
        addresses.rotate_left(by % addresses.len());
    }
}

/// The bytes of a response. Over UDP it is cut to what the client takes: as much of it as fits, since not every client asks again over TCP.
/// It is flagged as truncated when answers are missing; additional records are a courtesy.
///
/// # Errors
/// The message cannot be encoded.
pub fn encode(
    response: &Message,
    request: &Message,
    udp: bool,
) -> Result<Vec<u8>, hickory_proto::ProtoError> {
    let bytes = response.to_vec()?;
    let limit = request
        .edns
        .as_ref()
        .map_or(PLAIN_PAYLOAD, |e| e.max_payload().clamp(PLAIN_PAYLOAD, LARGEST_PAYLOAD));
    let fits = |bytes: &[u8]| bytes.len() <= usize::from(limit);
    if !udp || fits(&bytes) {
        return Ok(bytes);
    }
    let mut cut = response.clone();
    cut.additionals.clear();
    let bytes = cut.to_vec()?;
    if fits(&bytes) {
        return Ok(bytes);
    }
    cut.metadata.truncation = true;
    cut.authorities.clear();
    // how many fit is found by halving: names are compressed, so that lengths do not simply add up
    let with = |count: usize| {
        let mut some = cut.clone();
        some.answers.truncate(count);
        some.to_vec()
    };
    let (mut least, mut most) = (0, response.answers.len());
    while least < most {
        let middle = (least + most).div_ceil(2);
        if fits(&with(middle)?) {
            least = middle;
        } else {
            most = middle - 1;
        }
    }
    with(least)
}

#[cfg(test)]
mod tests;
