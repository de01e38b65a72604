//! `ipMasq`: what a container sends beyond its subnet seems to come from the host.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink::nft::{Bytes, Element, Value, Verdict};

use crate::{
    Call, Error, Owner,
    alias::{alias, alias_prefix},
    error::IoContext,
    ruleset::{self, FAMILY4, FAMILY6, Family, Placed},
};

/// Masquerades these addresses of the attachment.
pub(crate) fn add(call: &Call, addresses: &[IpNet]) -> Result<(), Error> {
    let comment = alias(&call.network, &call.owner());
    let placed: Vec<Placed> = addresses
        .iter()
        .map(|address| Placed {
            set: Family::of(address.addr().is_ipv4()).masquerade,
            element: Element {
                value: Some(Value::Verdict(Verdict::Goto(ruleset::chain_of(address).into()))),
                comment: Some(comment.clone()),
                ..Element::member(Bytes::default().address(address.addr()))
            },
        })
        .collect();
    let subnets: Vec<IpNet> = addresses.iter().map(IpNet::trunc).collect();
    // An element of a container that went without a DEL has no right to an address that was granted again.
    let stale: Vec<Bytes> = placed.iter().map(|placed| placed.element.key.clone()).collect();
    match ruleset::add(&placed, &subnets) {
        Err(error) if error.errno() == libc::EEXIST => {
            ruleset::remove(&sets(), |element| stale.contains(&element.key))?;
            ruleset::add(&placed, &subnets)
        }
        other => other,
    }
    .during(|| format!("masquerade {}", list(addresses.iter().map(IpNet::addr))))
}

/// Removes the attachment's elements.
pub(crate) fn remove(network: &str, owner: &Owner) -> Result<(), Error> {
    let comment = alias(network, owner);
    ruleset::remove(&sets(), |element| element.comment.as_ref() == Some(&comment)).map(drop)
}

/// Removes the network's elements that none of `valid` has.
pub(crate) fn retain(network: &str, valid: &[Owner]) -> Result<(), Error> {
    let prefix = alias_prefix(network);
    let kept: Vec<String> = valid.iter().map(|owner| alias(network, owner)).collect();
    ruleset::remove(&sets(), |element| {
        element
            .comment
            .as_ref()
            .is_some_and(|comment| comment.starts_with(&prefix) && !kept.contains(comment))
    })
    .map(drop)
}

/// Fails if one of the addresses is not masqueraded.
pub(crate) fn check(network: &str, owner: &Owner, addresses: &[IpAddr]) -> Result<(), Error> {
    let comment = alias(network, owner);
    let found = ruleset::find(&sets(), |element| element.comment.as_ref() == Some(&comment))
        .during(|| "list masqueraded addresses".to_owned())?;
    let lacking = addresses.iter().filter(|address| {
        !found.iter().any(|placed| placed.element.key == Bytes::default().address(**address))
    });
    let lacking = list(lacking.copied());
    if lacking.is_empty() { Ok(()) } else { Err(Error::NotAsAdded(format!("{lacking} is not masqueraded"))) }
}

fn sets() -> [&'static str; 2] {
    [FAMILY4.masquerade, FAMILY6.masquerade]
}

fn list(addresses: impl Iterator<Item = IpAddr>) -> String {
    addresses.map(|address| address.to_string()).collect::<Vec<_>>().join(", ")
}
