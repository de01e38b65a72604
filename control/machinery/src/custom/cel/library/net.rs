//! Addresses, networks and URLs.

use super::super::eval::{Evaluated, fail, no_overload};
use super::super::value::{Cidr, Key, Url, Value};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// An address without a zone, and not one family's dressed as the other's.
pub(super) fn ip(text: &str) -> Option<IpAddr> {
    let ip: IpAddr = text.parse().ok()?;
    match ip {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => None,
        ip => Some(ip),
    }
}

fn cidr(text: &str) -> Option<Cidr> {
    let (address, bits) = text.split_once('/')?;
    let address = ip(address)?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.parse().ok().filter(|b| *b <= most && !bits.starts_with('+'))?;
    Some(Cidr { ip: address, bits })
}

fn masked(of: Cidr) -> Cidr {
    let ip = match of.ip {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(of.bits)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from(u32::from(v4) & mask))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(of.bits)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(v6) & mask))
        }
    };
    Cidr { ip, bits: of.bits }
}

fn contains(of: Cidr, ip: IpAddr) -> bool {
    of.ip.is_ipv4() == ip.is_ipv4() && masked(Cidr { ip, bits: of.bits }).ip == masked(of).ip
}

fn url(text: &str) -> Option<Url> {
    let (scheme, rest) = match text.split_once(':') {
        Some((scheme, rest))
            if scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')) =>
        {
            (scheme.to_lowercase(), rest)
        }
        _ if text.starts_with('/') => (String::new(), text),
        _ => return None,
    };
    if text.contains(|c: char| c.is_control() || c == ' ') {
        return None;
    }
    let rest = rest.split('#').next().unwrap_or_default();
    let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (host, path) = match before.strip_prefix("//") {
        Some(after) => {
            let end = after.find('/').unwrap_or(after.len());
            let (authority, path) = after.split_at(end);
            (authority.rsplit('@').next().unwrap_or_default(), path)
        }
        None => ("", before),
    };
    if let Some((_, port)) = port_of(host)
        && !port.bytes().all(|b| b.is_ascii_digit())
    {
        return None;
    }
    Some(Url {
        text: text.to_owned(),
        scheme,
        host: host.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
    })
}

/// Host name and port.
fn port_of(host: &str) -> Option<(&str, &str)> {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => Some((name, port)),
        _ => None,
    }
}

fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut i) = (Vec::new(), 0);
    while let Some(byte) = bytes.get(i) {
        let hex = bytes.get(i + 1..i + 3).and_then(|h| std::str::from_utf8(h).ok());
        match (byte, hex.and_then(|h| u8::from_str_radix(h, 16).ok())) {
            (b'%', Some(value)) => {
                out.push(value);
                i += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(*byte),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

pub(super) fn global(function: &str, args: &[Value]) -> Option<Evaluated> {
    Some(match (function, args) {
        ("ip", [Value::Text(text)]) => match ip(text) {
            Some(ip) => Ok(Value::Ip(ip)),
            None => fail(format!("IP Address {:?} parse error during conversion from string", &**text)),
        },
        ("isIP", [Value::Text(text)]) => Ok(Value::Bool(ip(text).is_some())),
        ("cidr", [Value::Text(text)]) => match cidr(text) {
            Some(cidr) => Ok(Value::Cidr(cidr)),
            None => fail(format!("network address parse error during conversion from string: {:?}", &**text)),
        },
        ("isCIDR", [Value::Text(text)]) => Ok(Value::Bool(cidr(text).is_some())),
        ("string", [Value::Ip(_) | Value::Cidr(_)]) => Ok(Value::text_of(&args[0].text())),
        ("url", [Value::Text(text)]) => match url(text) {
            Some(url) => Ok(Value::Url(Arc::new(url))),
            None => fail(format!(
                "URL parse error during conversion from string: parse {:?}: invalid URI for request",
                &**text
            )),
        },
        ("isURL", [Value::Text(text)]) => Ok(Value::Bool(url(text).is_some())),
        _ => return None,
    })
}

pub(super) fn method(function: &str, args: &[Value]) -> Evaluated {
    match args {
        [Value::Ip(ip)] => of_ip(*ip, function),
        [Value::Cidr(of), rest @ ..] => of_cidr(*of, function, rest),
        [Value::Url(of)] => of_url(of, function),
        _ => no_overload(),
    }
}

fn of_ip(ip: IpAddr, function: &str) -> Evaluated {
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let link_local_multicast = match ip {
        IpAddr::V4(v4) => matches!(v4.octets(), [224, 0, 0, _]),
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    };
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    Ok(match function {
        "family" => Value::Int(if ip.is_ipv4() { 4 } else { 6 }),
        "isUnspecified" => Value::Bool(ip.is_unspecified()),
        "isLoopback" => Value::Bool(ip.is_loopback()),
        "isLinkLocalMulticast" => Value::Bool(link_local_multicast),
        "isLinkLocalUnicast" => Value::Bool(link_local),
        "isGlobalUnicast" => Value::Bool(
            !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || link_local || broadcast),
        ),
        _ => return no_overload(),
    })
}

fn of_cidr(of: Cidr, function: &str, args: &[Value]) -> Evaluated {
    let wrong =
        |text: &str| fail(format!("network address parse error during conversion from string: {text:?}"));
    Ok(match (function, args) {
        ("containsIP", [Value::Ip(ip)]) => Value::Bool(contains(of, *ip)),
        ("containsIP", [Value::Text(text)]) => match ip(text) {
            Some(ip) => Value::Bool(contains(of, ip)),
            None => return wrong(text),
        },
        ("containsCIDR", [Value::Cidr(inner)]) => {
            Value::Bool(inner.bits >= of.bits && contains(of, inner.ip))
        }
        ("containsCIDR", [Value::Text(text)]) => match cidr(text) {
            Some(inner) => Value::Bool(inner.bits >= of.bits && contains(of, inner.ip)),
            None => return wrong(text),
        },
        ("ip", []) => Value::Ip(of.ip),
        ("masked", []) => Value::Cidr(masked(of)),
        ("prefixLength", []) => Value::Int(i64::from(of.bits)),
        _ => return no_overload(),
    })
}

fn of_url(of: &Url, function: &str) -> Evaluated {
    let (name, port) = port_of(&of.host).unwrap_or((&of.host, ""));
    Ok(match function {
        "getScheme" => Value::text_of(&of.scheme),
        "getHost" => Value::text_of(&of.host),
        "getHostname" => Value::text_of(name.trim_start_matches('[').trim_end_matches(']')),
        "getPort" => Value::text_of(port),
        "getEscapedPath" => Value::text_of(&of.path),
        "getQuery" => {
            let mut out: BTreeMap<Key, Vec<Value>> = BTreeMap::new();
            for pair in of.query.split('&').filter(|p| !p.is_empty()) {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                let key = Key::Text(unescape(name).into());
                out.entry(key).or_default().push(Value::text_of(&unescape(value)));
            }
            Value::Map(Arc::new(out.into_iter().map(|(k, v)| (k, Value::list_of(v))).collect()))
        }
        _ => return no_overload(),
    })
}
