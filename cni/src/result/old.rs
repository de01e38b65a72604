//! Results of versions 0.1.0 and 0.2.0: one address of each family, with a gateway and routes of its own, and no interfaces.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Address, Attachment, Dns, Route};
use crate::Version;

/// What one family of addresses came to.
#[derive(Serialize, Deserialize)]
struct Part {
    /// With the subnet's prefix length.
    ip: IpNet,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    routes: Option<Vec<Route>>,
}

#[derive(Deserialize)]
struct Whole {
    #[serde(default)]
    ip4: Option<Part>,
    #[serde(default)]
    ip6: Option<Part>,
    #[serde(default)]
    dns: Dns,
}

/// Only these versions have these keys.
pub(super) fn is_old(value: &Value) -> bool {
    ["ip4", "ip6"].iter().any(|key| value.get(key).is_some_and(|part| !part.is_null()))
}

pub(super) fn read(value: &Value) -> Result<Attachment, serde_json::Error> {
    let Whole { ip4, ip6, dns } = Whole::deserialize(value)?;
    let mut attachment = Attachment { dns, ..Attachment::default() };
    for part in [ip4, ip6].into_iter().flatten() {
        attachment.ips.push(Address { interface: None, address: part.ip, gateway: part.gateway });
        attachment.routes.extend(part.routes.unwrap_or_default());
    }
    Ok(attachment)
}

/// The first address of each family; more cannot be said in these versions.
pub(super) fn write(attachment: &Attachment, version: Version) -> Value {
    let mut object = json!({ "cniVersion": version.as_str(), "dns": attachment.dns });
    for (key, v4) in [("ip4", true), ("ip6", false)] {
        let Some(ip) = attachment.ips.iter().find(|ip| ip.address.addr().is_ipv4() == v4) else { continue };
        let routes: Vec<Route> = attachment
            .routes
            .iter()
            .filter(|route| route.dst.addr().is_ipv4() == v4)
            .map(|route| Route::via(route.dst, route.gw))
            .collect();
        let routes = Some(routes).filter(|routes| !routes.is_empty());
        object[key] = json!(Part { ip: ip.address, gateway: ip.gateway, routes });
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_has_its_own_routes_and_comes_back() {
        let old = json!({
            "cniVersion": "0.2.0",
            "ip4": { "ip": "10.0.0.2/24", "gateway": "10.0.0.1", "routes": [{ "dst": "0.0.0.0/0", "gw": "10.0.0.1" }] },
            "ip6": { "ip": "fd00::2/64" },
            "dns": { "nameservers": ["10.96.0.10"] },
        });
        assert!(is_old(&old) && !is_old(&json!({ "cniVersion": "0.2.0", "ip4": null })));
        let read = read(&old).unwrap();
        assert_eq!((read.ips.len(), read.routes.len(), read.interfaces.len()), (2, 1, 0));
        assert_eq!(write(&read, Version::V0_2_0), old);
    }

    #[test]
    fn a_second_address_of_a_family_must_not_take_the_firsts_place() {
        let address =
            |text: &str| Address { interface: Some(2), address: text.parse().unwrap(), gateway: None };
        let ips = vec![address("10.0.0.2/24"), address("10.1.0.2/24")];
        let written = write(&Attachment { ips, ..Attachment::default() }, Version::V0_1_0);
        assert_eq!(written, json!({ "cniVersion": "0.1.0", "ip4": { "ip": "10.0.0.2/24" }, "dns": {} }));
    }

    #[test]
    fn no_address_is_no_object() {
        let written = write(&Attachment::default(), Version::V0_2_0);
        assert_eq!(written, json!({ "cniVersion": "0.2.0", "dns": {} }));
    }
}
