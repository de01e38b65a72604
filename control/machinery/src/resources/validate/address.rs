//! Addresses and networks as fields hold them.
//!
//! Old fields take any spelling of an address that every reader understands alike; new fields take the canonical one only.
//! A spelling that an object has already is never refused (`known`).

use std::net::IpAddr;

use super::cursor::Cursor;
use crate::{
    address::{is_mapped, masked, parse, parse_cidr},
    goformat::go_quote,
};

impl Cursor<'_> {
    /// An address in an old field. False where it cannot be read at all.
    pub(super) fn ip(self, known: &[&str]) -> bool {
        let value = self.str();
        let Some(address) = parse(value) else {
            if !known.contains(&value) {
                self.invalid("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
            }
            return known.contains(&value);
        };
        let leading = value.parse::<IpAddr>().is_err();
        if known.contains(&value) || !(leading || is_mapped(address)) {
            return true;
        }
        if leading {
            self.invalid("must not have leading 0s");
        }
        if is_mapped(address) {
            self.invalid("must not be an IPv4-mapped IPv6 address");
        }
        false
    }

    /// An address in a new field: in its one canonical spelling.
    pub(super) fn canonical_ip(self) -> bool {
        self.ip(&[])
            && self.canonical(&parse(self.str()).map(|address| address.to_string()).unwrap_or_default())
    }

    fn canonical(self, canonical: &str) -> bool {
        let same = canonical == self.str();
        if !same {
            self.invalid(format!("must be in canonical form ({})", go_quote(canonical)));
        }
        same
    }

    /// A network in an old field. False where it cannot be read at all.
    pub(super) fn cidr(self, known: &[&str]) -> bool {
        self.cidr_of(self.str(), known)
    }

    /// A network that is part of the text there.
    pub(super) fn cidr_of(self, value: &str, known: &[&str]) -> bool {
        if known.contains(&value) {
            return true;
        }
        let (text, digits) = value.split_once('/').unwrap_or((value, ""));
        let detail = match parse_cidr(value) {
            None => "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            _ if text.parse::<IpAddr>().is_err() || (digits.len() > 1 && digits.starts_with('0')) => {
                "must not have leading 0s in IP or prefix length"
            }
            Some((address, _)) if is_mapped(address) => "must not have an IPv4-mapped IPv6 address",
            Some((address, length)) if masked(address, length) != address => {
                "must not have bits set beyond the prefix length"
            }
            Some(_) => return true,
        };
        self.invalid_value(value, detail);
        false
    }

    /// A network in a new field: in its one canonical spelling.
    pub(super) fn canonical_cidr(self) {
        if self.cidr(&[]) {
            let network = parse_cidr(self.str()).map(|(address, length)| format!("{address}/{length}"));
            self.canonical(&network.unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::validate::cursor::look;
    use serde_json::json;

    fn said<T>(value: &str, check: impl Fn(Cursor<'_>) -> T) -> Vec<String> {
        let errors = look(None, &json!(value), None, |c| {
            check(c);
        });
        errors.into_iter().map(|e| e.detail).collect()
    }

    #[test]
    fn old_fields_take_what_all_read_alike() {
        let ip = |value: &str| said(value, |c| c.ip(&["010.0.0.1"]));
        for fine in ["10.0.0.1", "::1", "FE80:0:0:0:0:0:0:0abc", "010.0.0.1"] {
            assert!(ip(fine).is_empty(), "{fine}");
        }
        assert_eq!(ip("10.0.0.01"), ["must not have leading 0s"]);
        assert_eq!(ip("::ffff:1.2.3.4"), ["must not be an IPv4-mapped IPv6 address"]);
        assert_eq!(ip("1.2.3"), ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]);
        let cidr = |value: &str| said(value, |c| c.cidr(&[]));
        assert!(cidr("10.0.0.0/8").is_empty() && cidr("0.0.0.0/0").is_empty() && cidr("::/0").is_empty());
        assert_eq!(cidr("10.0.0.0/08"), ["must not have leading 0s in IP or prefix length"]);
        assert_eq!(cidr("10.0.0.1/8"), ["must not have bits set beyond the prefix length"]);
        assert_eq!(cidr("10.0.0.0/33"), ["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"]);
    }

    #[test]
    fn new_fields_take_the_canonical_spelling_only() {
        let ip = said("2001:DB8::1", |c| c.canonical_ip());
        assert_eq!(ip, ["must be in canonical form (\"2001:db8::1\")"]);
        let cidr = said("2001:db8:0::/64", |c| c.canonical_cidr());
        assert_eq!(cidr, ["must be in canonical form (\"2001:db8::/64\")"]);
    }
}
