//! Addresses and networks as old fields spell them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Reads an address in any spelling upstream's oldest parser took: octets may have leading zeros.
pub(crate) fn parse(value: &str) -> Option<IpAddr> {
    if let Ok(ip) = value.parse() {
        return Some(ip);
    }
    match value.rsplit_once(':') {
        None => octets(value).map(IpAddr::V4),
        Some((head, tail)) if tail.contains('.') => {
            format!("{head}:{}", octets(tail)?).parse::<Ipv6Addr>().ok().map(IpAddr::V6)
        }
        Some(_) => None,
    }
}

/// Four decimal numbers up to 255, leading zeros or not.
fn octets(value: &str) -> Option<Ipv4Addr> {
    let mut parts = value.split('.').map(|part| {
        let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let trimmed = part.trim_start_matches('0');
        if digits { if trimmed.is_empty() { Some(0) } else { trimmed.parse::<u8>().ok() } } else { None }
    });
    let octets = [parts.next()??, parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then(|| Ipv4Addr::from(octets))
}

/// A network: its address as written and the length of its prefix, in bits.
pub(crate) fn parse_cidr(value: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = value.split_once('/')?;
    let address = parse(address)?;
    if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let length = length.trim_start_matches('0');
    let length = if length.is_empty() { 0 } else { length.parse::<u8>().ok()? };
    (length <= bits(address)).then_some((address, length))
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address with everything behind the prefix cleared.
pub(crate) fn masked(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or_default();
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or_default();
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
    }
}

pub(crate) fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}
