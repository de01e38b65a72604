//! Addresses and ranges that are taken as they are written, and should be written otherwise.

use std::net::{IpAddr, Ipv6Addr};

use crate::{
    address::{masked, parse, parse_cidr},
    field::Path,
    goformat::go_quote,
};

fn unmapped(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

/// Whether every reader understands the text alike.
fn standard(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok_and(|ip| unmapped(ip) == ip)
}

pub(super) fn ip(path: &Path, value: &str, found: &mut Vec<String>) {
    let Some(address) = parse(value) else { return };
    let quoted = go_quote(value);
    if !standard(value) {
        let wanted = go_quote(&unmapped(address).to_string());
        found.push(format!("{path}: non-standard IP address {quoted} is invalid: use {wanted}"));
    } else if let Ok(v6) = value.parse::<Ipv6Addr>()
        && v6.to_string() != value
    {
        let wanted = go_quote(&v6.to_string());
        found
            .push(format!("{path}: IPv6 address {quoted} should be in RFC 5952 canonical format ({wanted})"));
    }
}

pub(super) fn cidr(path: &Path, value: &str, found: &mut Vec<String>) {
    let Some((address, length)) = parse_cidr(value) else { return };
    let quoted = go_quote(value);
    let (network, before) = (masked(address, length), found.len());
    let range = format!("{network}/{length}");
    if network != address {
        let single = format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 });
        found.push(format!(
            "{path}: CIDR value {quoted} is ambiguous in this context (should be {} or {}?)",
            go_quote(&range),
            go_quote(&single)
        ));
    }
    let (text, bits) = value.split_once('/').unwrap_or((value, ""));
    if !standard(text) || bits != length.to_string() {
        found.push(format!("{path}: non-standard CIDR value {quoted} is invalid: use {}", go_quote(&range)));
    }
    if found.len() == before && address.is_ipv6() && format!("{address}/{length}") != value {
        let wanted = go_quote(&format!("{address}/{length}"));
        found.push(format!(
            "{path}: IPv6 CIDR value {quoted} should be in RFC 5952 canonical format ({wanted})"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_are_warned_of_in_upstreams_words() {
        let of = |check: fn(&Path, &str, &mut Vec<String>), value: &str| {
            let mut found = Vec::new();
            check(&Path::new("f"), value, &mut found);
            found
        };
        assert!(of(ip, "1.2.3.4").is_empty() && of(ip, "fd00::1").is_empty());
        assert_eq!(
            of(ip, "1.2.3.04"),
            ["f: non-standard IP address \"1.2.3.04\" is invalid: use \"1.2.3.4\""]
        );
        assert_eq!(
            of(ip, "FD00:0::1"),
            ["f: IPv6 address \"FD00:0::1\" should be in RFC 5952 canonical format (\"fd00::1\")"]
        );
        assert!(of(cidr, "10.0.0.0/8").is_empty());
        assert_eq!(
            of(cidr, "10.1.0.0/8"),
            [
                "f: CIDR value \"10.1.0.0/8\" is ambiguous in this context (should be \"10.0.0.0/8\" or \"10.1.0.0/32\"?)"
            ]
        );
        assert_eq!(
            of(cidr, "10.0.00.0/8"),
            ["f: non-standard CIDR value \"10.0.00.0/8\" is invalid: use \"10.0.0.0/8\""]
        );
        assert_eq!(
            of(cidr, "FD00::/8"),
            ["f: IPv6 CIDR value \"FD00::/8\" should be in RFC 5952 canonical format (\"fd00::/8\")"]
        );
    }
}
