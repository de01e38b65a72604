//! Routes.

use crate::address::family;
use crate::attribute::{attributes, find, read_address, read_native};
use crate::message::{CREATE, EXCL, REPLACE, Request};
use crate::socket::{Error, Socket};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const NEW: u16 = 24;
const DELETE: u16 = 25;
const GET: u16 = 26;
/// `struct rtmsg`
const FIXED: usize = 12;
const DESTINATION: u16 = 1;
const LINK: u16 = 4;
const GATEWAY: u16 = 5;
const PRIORITY: u16 = 6;
const METRICS: u16 = 8;
const TABLE: u16 = 15;
const VIA: u16 = 18;
const METRIC_MTU: u16 = 2;
const METRIC_ADVMSS: u16 = 8;
const ONLINK: u32 = 4;

/// The table that is looked at without any rule.
pub const MAIN: u32 = 254;
/// Leads somewhere, rather than to an error or to this machine.
pub const UNICAST: u8 = 1;
/// `RT_SCOPE_UNIVERSE`
pub(crate) const UNIVERSE: u8 = 0;
/// On the link itself.
pub(crate) const ON_LINK: u8 = 253;
/// Made by an administrator at boot.
pub(crate) const BOOT: u8 = 3;

/// A route. What is listed has no priority, and of the metrics the MTU only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destination; `0.0.0.0/0` or `::/0` for a default route.
    pub dst: IpNet,
    /// Next hop; none for a directly connected network.
    pub gateway: Option<IpAddr>,
    /// `RTA_OIF`, the index of the outgoing link.
    pub link: Option<u32>,
    /// `RTA_TABLE`; 254 is the main table.
    pub table: u32,
    /// Who made it (`RTPROT_*`).
    pub protocol: u8,
    /// `RT_SCOPE_*`
    pub scope: u8,
    /// `RTN_*`
    pub kind: u8,
    /// `RTA_PRIORITY`; lower wins. The kernel takes 0 (IPv4) or 1024 (IPv6) where there is none.
    pub priority: Option<u32>,
    /// Bytes.
    pub mtu: Option<u32>,
    /// Bytes.
    pub advmss: Option<u32>,
    /// `RTNH_F_ONLINK`: the next hop is on the link, whatever addresses the link has.
    pub onlink: bool,
}

impl Route {
    /// A unicast route of the main table.
    #[must_use]
    pub fn new(dst: IpNet, gateway: Option<IpAddr>, link: u32) -> Self {
        Self {
            dst,
            gateway,
            link: Some(link),
            table: MAIN,
            protocol: BOOT,
            scope: if gateway.is_some() { UNIVERSE } else { ON_LINK },
            kind: UNICAST,
            priority: None,
            mtu: None,
            advmss: None,
            onlink: false,
        }
    }

    fn request(&self, kind: u16, flags: u16) -> Request {
        let table = u8::try_from(self.table).unwrap_or(0);
        let dst = self.dst.trunc();
        let (family, length) = (family(dst.addr()), dst.prefix_len());
        let [a, b, c, d] = if self.onlink { ONLINK } else { 0 }.to_ne_bytes();
        let fixed = [family, length, 0, 0, table, self.protocol, self.scope, self.kind, a, b, c, d];
        Request::new(kind, flags, &fixed, |w| {
            w.native(TABLE, self.table);
            w.address(DESTINATION, dst.addr());
            self.link.into_iter().for_each(|link| w.native(LINK, link));
            self.gateway.into_iter().for_each(|gateway| w.address(GATEWAY, gateway));
            self.priority.into_iter().for_each(|priority| w.native(PRIORITY, priority));
            if self.mtu.is_some() || self.advmss.is_some() {
                w.nested(METRICS, |w| {
                    self.mtu.into_iter().for_each(|mtu| w.native(METRIC_MTU, mtu));
                    self.advmss.into_iter().for_each(|advmss| w.native(METRIC_ADVMSS, advmss));
                });
            }
        })
    }

    fn read(body: &[u8]) -> Option<Self> {
        let (fixed, rest) = body.split_first_chunk::<FIXED>()?;
        let [family, length, _, _, table, protocol, scope, kind, flags @ ..] = *fixed;
        let mut address: IpAddr = match family {
            2 => Ipv4Addr::UNSPECIFIED.into(),
            10 => Ipv6Addr::UNSPECIFIED.into(),
            _ => return None,
        };
        let (mut gateway, mut link, mut table, mut mtu) = (None, None, u32::from(table), None);
        for (kind, value) in attributes(rest) {
            match kind {
                DESTINATION => address = read_address(value)?,
                LINK => link = read_native(value),
                GATEWAY => gateway = read_address(value),
                // Of another family: that comes first.
                VIA => gateway = value.get(2..).and_then(read_address),
                TABLE => table = read_native(value).unwrap_or(table),
                METRICS => mtu = find(value, METRIC_MTU).and_then(read_native),
                _ => {}
            }
        }
        let dst = IpNet::new(address, length).ok()?;
        let onlink = u32::from_ne_bytes(flags) & ONLINK != 0;
        let (priority, advmss) = (None, None);
        Some(Self { dst, gateway, link, table, protocol, scope, kind, priority, mtu, advmss, onlink })
    }
}

/// Adds a route; none like it may be there.
#[must_use]
pub fn add(route: &Route) -> Request {
    route.request(NEW, CREATE | EXCL)
}

/// Adds a route in place of the one to the same destination.
#[must_use]
pub fn replace(route: &Route) -> Request {
    route.request(NEW, CREATE | REPLACE)
}

/// Deletes the matching route of `route.table`.
#[must_use]
pub fn delete(route: &Route) -> Request {
    route.request(DELETE, 0)
}

/// Every route of the namespace, of one family.
///
/// # Errors
/// The kernel's.
pub fn list(socket: &mut Socket, ipv6: bool) -> Result<Vec<Route>, Error> {
    let mut fixed = [0; FIXED];
    fixed[0] = if ipv6 { 10 } else { 2 };
    socket.dump(&Request::new(GET, 0, &fixed, |_| {}), |body, found| found.extend(Route::read(body)))
}

/// The number of the link a packet to `destination` would leave by.
///
/// # Errors
/// The kernel's, such as that there is no route.
pub fn link_towards(socket: &mut Socket, destination: IpAddr) -> Result<Option<u32>, Error> {
    let mut fixed = [0; FIXED];
    (fixed[0], fixed[1]) = (family(destination), if destination.is_ipv4() { 32 } else { 128 });
    let replies = socket.get(Request::new(GET, 0, &fixed, |w| w.address(DESTINATION, destination)))?;
    Ok(replies.iter().find_map(|reply| Route::read(reply)?.link))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let v4 = Route::new("10.1.2.0/24".parse().unwrap(), "10.0.0.2".parse().ok(), 7);
        let v6 = Route { table: 1000, protocol: 87, ..Route::new("fd00::/64".parse().unwrap(), None, 7) };
        let overlay = Route { onlink: true, mtu: Some(1400), ..v4 };
        for route in [v4, v6, overlay] {
            assert_eq!(Route::read(&add(&route).body.bytes), Some(route));
        }
    }

    #[test]
    fn a_next_hop_of_the_other_family_must_not_be_lost() {
        let route = Route::new("10.1.2.0/24".parse().unwrap(), None, 7);
        let hop: Ipv6Addr = "fe80::1".parse().unwrap();
        let mut body = add(&route).body;
        body.raw(VIA, &[10u16.to_ne_bytes().as_slice(), &hop.octets()].concat());
        assert_eq!(Route::read(&body.bytes).unwrap().gateway, Some(hop.into()));
    }
}
