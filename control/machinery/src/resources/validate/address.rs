//! Addresses and networks as fields hold them.
//!
//! Old fields take any spelling of an address that every reader understands alike; new fields take the canonical one only.
//! A spelling that an object has already is never refused ([`ip`], [`cidr`]: `known`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Errors;
use crate::{
    field::{FieldError, Path},
    goformat::go_quote,
};

/// Reads an address in any spelling upstream's oldest parser took: octets may have leading zeros.
pub(in crate::resources) fn parse(value: &str) -> Option<IpAddr> {
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
pub(in crate::resources) fn parse_cidr(value: &str) -> Option<(IpAddr, u8)> {
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
pub(in crate::resources) fn masked(address: IpAddr, length: u8) -> IpAddr {
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

fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

/// An address in an old field. False where it cannot be read at all.
pub(super) fn ip(path: &Path, value: &str, known: &[&str], errors: &mut Errors) -> bool {
    let Some(address) = parse(value) else {
        if known.contains(&value) {
            return true;
        }
        let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        errors.push(FieldError::invalid(path, value, detail));
        return false;
    };
    if known.contains(&value) {
        return true;
    }
    let before = errors.len();
    if value.parse::<IpAddr>().is_err() {
        errors.push(FieldError::invalid(path, value, "must not have leading 0s"));
    }
    if is_mapped(address) {
        errors.push(FieldError::invalid(path, value, "must not be an IPv4-mapped IPv6 address"));
    }
    errors.len() == before
}

/// An address in a new field: in its one canonical spelling.
pub(super) fn canonical_ip(path: &Path, value: &str, errors: &mut Errors) -> bool {
    if !ip(path, value, &[], errors) {
        return false;
    }
    let canonical = parse(value).map(|address| address.to_string()).unwrap_or_default();
    if canonical != value {
        let detail = format!("must be in canonical form ({})", go_quote(&canonical));
        errors.push(FieldError::invalid(path, value, detail));
        return false;
    }
    true
}

/// A network in an old field. False where it cannot be read at all.
pub(super) fn cidr(path: &Path, value: &str, known: &[&str], errors: &mut Errors) -> bool {
    if known.contains(&value) {
        return true;
    }
    let Some((address, length)) = parse_cidr(value) else {
        let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
        errors.push(FieldError::invalid(path, value, detail));
        return false;
    };
    let (text, digits) = value.split_once('/').unwrap_or((value, ""));
    let detail = if text.parse::<IpAddr>().is_err() || (digits.len() > 1 && digits.starts_with('0')) {
        "must not have leading 0s in IP or prefix length"
    } else if is_mapped(address) {
        "must not have an IPv4-mapped IPv6 address"
    } else if masked(address, length) != address {
        "must not have bits set beyond the prefix length"
    } else {
        return true;
    };
    errors.push(FieldError::invalid(path, value, detail));
    false
}

/// A network in a new field: in its one canonical spelling.
pub(super) fn canonical_cidr(path: &Path, value: &str, errors: &mut Errors) {
    if !cidr(path, value, &[], errors) {
        return;
    }
    let canonical =
        parse_cidr(value).map(|(address, length)| format!("{address}/{length}")).unwrap_or_default();
    if canonical != value {
        let detail = format!("must be in canonical form ({})", go_quote(&canonical));
        errors.push(FieldError::invalid(path, value, detail));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said<T>(check: impl Fn(&Path, &mut Errors) -> T) -> Vec<String> {
        let mut errors = Errors::new();
        check(&Path::new("f"), &mut errors);
        errors.into_iter().map(|e| e.detail).collect()
    }

    #[test]
    fn old_fields_take_what_all_read_alike() {
        let ip = |value: &str| said(|p, e| ip(p, value, &["010.0.0.1"], e));
        for fine in ["10.0.0.1", "::1", "FE80:0:0:0:0:0:0:0abc", "010.0.0.1"] {
            assert!(ip(fine).is_empty(), "{fine}");
        }
        assert_eq!(ip("10.0.0.01"), ["must not have leading 0s"]);
        assert_eq!(ip("::ffff:1.2.3.4"), ["must not be an IPv4-mapped IPv6 address"]);
        assert_eq!(ip("1.2.3"), ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]);
        let cidr = |value: &str| said(|p, e| cidr(p, value, &[], e));
        assert!(cidr("10.0.0.0/8").is_empty() && cidr("0.0.0.0/0").is_empty() && cidr("::/0").is_empty());
        assert_eq!(cidr("10.0.0.0/08"), ["must not have leading 0s in IP or prefix length"]);
        assert_eq!(cidr("10.0.0.1/8"), ["must not have bits set beyond the prefix length"]);
        assert_eq!(cidr("10.0.0.0/33"), ["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"]);
    }

    #[test]
    fn new_fields_take_the_canonical_spelling_only() {
        assert_eq!(
            said(|p, e| canonical_ip(p, "2001:DB8::1", e)),
            ["must be in canonical form (\"2001:db8::1\")"]
        );
        assert_eq!(
            said(|p, e| canonical_cidr(p, "2001:db8:0::/64", e)),
            ["must be in canonical form (\"2001:db8::/64\")"]
        );
    }
}
