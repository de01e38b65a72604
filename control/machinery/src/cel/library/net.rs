//! Addresses and networks (upstream: `cel/library/ip.go`, `cidr.go`).

use super::super::cost::Cost;
use super::super::fault::{Error, Evaluated, fail};
use super::super::overload::{Overload, Sig, body, global, member};
use super::super::value::{Cidr, Value};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address without a zone, and not one family's dressed as the other's.
fn ip(text: &str) -> Option<IpAddr> {
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

/// What upstream says of an address of one family in the other's dress, or with a zone.
fn refused(text: &str, address: &str) -> Option<String> {
    let (bare, zone) = address.split_once('%').map_or((address, false), |(bare, _)| (bare, true));
    let v6: Ipv6Addr = bare.parse().ok()?;
    if zone {
        return Some(format!("IP address {text:?} with zone value is not allowed"));
    }
    v6.to_ipv4_mapped().map(|_| format!("IPv4-mapped IPv6 address {text:?} is not allowed"))
}

fn to_ip(text: &str) -> Result<IpAddr, Error> {
    let parse = || {
        let go = format!("ParseAddr({text:?}): unable to parse IP");
        format!("IP Address {text:?} parse error during conversion from string: {go}")
    };
    ip(text).map_or_else(|| fail(refused(text, text).unwrap_or_else(parse)), Ok)
}

fn to_cidr(text: &str) -> Result<Cidr, Error> {
    let what = "network address parse error during conversion from string";
    let parse = || {
        let why = match text.split_once('/') {
            None => "no '/'".to_owned(),
            Some((address, _)) if ip(address).is_none() => {
                format!("ParseAddr({address:?}): unable to parse IP")
            }
            Some((_, bits)) if !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit()) => {
                "prefix length out of range".to_owned()
            }
            Some((_, bits)) => format!("bad bits after slash: {bits:?}"),
        };
        format!("{what}: netip.ParsePrefix({text:?}): {why}")
    };
    let address = text.split('/').next().unwrap_or_default();
    let why = || {
        format!("{what}: {}", refused(text, address).filter(|_| !address.contains('%')).unwrap_or_else(parse))
    };
    cidr(text).map_or_else(|| fail(why()), Ok)
}

fn is_link_local(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn is_link_local_multicast(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => matches!(v4.octets(), [224, 0, 0, _]),
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    }
}

fn is_global(ip: &IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || is_link_local(ip) || broadcast)
}

fn within(inner: Cidr, of: Cidr) -> bool {
    inner.bits >= of.bits && contains(of, inner.ip)
}

fn is(holds: bool) -> Evaluated {
    Ok(Value::Bool(holds))
}

pub(super) fn all() -> Vec<Overload> {
    use Cost::{InNetwork, Subnet, Text as Scan};
    use Sig::{Bool, Int, Text};
    use Value::{Cidr as C, Ip as I, Text as T};
    const ONE: Cost = Cost::Fixed(1);
    let ip_type = || Sig::Named("net.IP");
    let net = || Sig::Named("net.CIDR");
    vec![
        global("ip", vec![Text], ip_type(), Scan(1), body!([T(text)] => to_ip(text).map(I))),
        global("isIP", vec![Text], Bool, Scan(1), body!([T(text)] => is(ip(text).is_some()))),
        global(
            "ip.isCanonical",
            vec![Text],
            Bool,
            Scan(2),
            body!([T(text)] => is(to_ip(text)?.to_string() == **text)),
        ),
        member(
            "family",
            vec![ip_type()],
            Int,
            ONE,
            body!([I(of)] => Ok(Value::Int(if of.is_ipv4() { 4 } else { 6 }))),
        ),
        member("isUnspecified", vec![ip_type()], Bool, ONE, body!([I(of)] => is(of.is_unspecified()))),
        member("isLoopback", vec![ip_type()], Bool, ONE, body!([I(of)] => is(of.is_loopback()))),
        member(
            "isLinkLocalMulticast",
            vec![ip_type()],
            Bool,
            ONE,
            body!([I(of)] => is(is_link_local_multicast(of))),
        ),
        member("isLinkLocalUnicast", vec![ip_type()], Bool, ONE, body!([I(of)] => is(is_link_local(of)))),
        member("isGlobalUnicast", vec![ip_type()], Bool, ONE, body!([I(of)] => is(is_global(of)))),
        global("cidr", vec![Text], net(), Scan(1), body!([T(text)] => to_cidr(text).map(C))),
        global("isCIDR", vec![Text], Bool, Scan(1), body!([T(text)] => is(cidr(text).is_some()))),
        member(
            "containsIP",
            vec![net(), Text],
            Bool,
            InNetwork(true),
            body!([C(of), T(text)] => is(contains(*of, to_ip(text)?))),
        ),
        member(
            "containsIP",
            vec![net(), ip_type()],
            Bool,
            InNetwork(false),
            body!([C(of), I(ip)] => is(contains(*of, *ip))),
        ),
        member(
            "containsCIDR",
            vec![net(), Text],
            Bool,
            Subnet(true),
            body!([C(of), T(text)] => is(within(to_cidr(text)?, *of))),
        ),
        member(
            "containsCIDR",
            vec![net(), net()],
            Bool,
            Subnet(false),
            body!([C(of), C(inner)] => is(within(*inner, *of))),
        ),
        member("ip", vec![net()], ip_type(), ONE, body!([C(of)] => Ok(I(of.ip)))),
        member("masked", vec![net()], net(), ONE, body!([C(of)] => Ok(C(masked(*of))))),
        member("prefixLength", vec![net()], Int, ONE, body!([C(of)] => Ok(Value::Int(i64::from(of.bits))))),
    ]
}
