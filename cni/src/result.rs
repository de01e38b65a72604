//! The result of an ADD, in the shape of whichever version is asked for.

mod old;

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Error, Version};

/// What an attachment came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Attachment {
    /// Host-side and container-side interfaces.
    pub interfaces: Vec<Interface>,
    /// Addresses given to the container.
    pub ips: Vec<Address>,
    /// Routes given to the container.
    pub routes: Vec<Route>,
    /// Name resolution the container should use.
    pub dns: Dns,
}

/// An interface made by ADD.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Interface {
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Bytes; since 1.1.0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Path of the namespace it is in; empty on the host.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
    /// Of a vhost-user interface; since 1.1.0.
    #[serde(rename = "socketPath", skip_serializing_if = "String::is_empty")]
    pub socket_path: String,
    /// Of a hardware interface; since 1.1.0.
    #[serde(rename = "pciID", skip_serializing_if = "String::is_empty")]
    pub pci_id: String,
}

/// An address given to the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// Index in `interfaces`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<usize>,
    /// The address with its subnet's prefix length.
    pub address: IpNet,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

/// A route given to the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    pub dst: IpNet,
    /// Next hop; the address's gateway if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
    /// Bytes; since 1.1.0, as all below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advmss: Option<u32>,
    /// The metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// `RT_SCOPE_*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<u8>,
}

impl Route {
    /// As the kernel is asked for it.
    #[must_use]
    pub fn through(&self, link: u32) -> netlink::route::Route {
        let plain = netlink::route::Route::new(self.dst, self.gw, link);
        netlink::route::Route {
            table: self.table.unwrap_or(plain.table),
            scope: self.scope.unwrap_or(plain.scope),
            priority: self.priority,
            mtu: self.mtu,
            advmss: self.advmss,
            ..plain
        }
    }

    /// A route with nothing but a destination and a next hop.
    #[must_use]
    pub fn via(dst: IpNet, gw: Option<IpAddr>) -> Self {
        Self { dst, gw, mtu: None, advmss: None, priority: None, table: None, scope: None }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// Servers, by address.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl Attachment {
    /// Reads a `prevResult` or a delegated plugin's result. From 0.3.0 on versions differ in added fields only.
    ///
    /// # Errors
    /// Code 6 with the subject's name.
    pub fn parse(subject: &str, value: &Value) -> Result<Self, Error> {
        let read = if old::is_old(value) { old::read(value) } else { Self::deserialize(value) };
        read.map_err(|error| Error::decode(subject, &error))
    }

    /// The JSON a runtime of that version expects.
    #[must_use]
    pub fn to_json(&self, version: Version) -> Value {
        if version < Version::V0_3_0 {
            return old::write(self, version);
        }
        let interfaces: Vec<Value> = self
            .interfaces
            .iter()
            .map(|interface| {
                let mut interface = interface.clone();
                if version < Version::V1_1_0 {
                    (interface.mtu, interface.socket_path, interface.pci_id) =
                        (None, String::new(), String::new());
                }
                json!(interface)
            })
            .collect();
        let ips: Vec<Value> = self
            .ips
            .iter()
            .map(|ip| {
                let mut value = json!(ip);
                if version < Version::V1_0_0 {
                    value["version"] = if ip.address.addr().is_ipv4() { "4" } else { "6" }.into();
                }
                value
            })
            .collect();
        let routes: Vec<Value> = self
            .routes
            .iter()
            .map(|route| {
                if version < Version::V1_1_0 { json!(Route::via(route.dst, route.gw)) } else { json!(route) }
            })
            .collect();
        let mut object = json!({ "cniVersion": version.as_str(), "dns": self.dns });
        for (name, list) in [("interfaces", interfaces), ("ips", ips), ("routes", routes)] {
            if !list.is_empty() {
                object[name] = list.into();
            }
        }
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment() -> Attachment {
        Attachment {
            interfaces: vec![Interface { name: "eth0".into(), mtu: Some(1500), ..Interface::default() }],
            ips: vec![Address {
                interface: Some(0),
                address: "10.0.0.2/24".parse().unwrap(),
                gateway: Some("10.0.0.1".parse().unwrap()),
            }],
            routes: vec![Route { mtu: Some(1400), ..Route::via("0.0.0.0/0".parse().unwrap(), None) }],
            dns: Dns::default(),
        }
    }

    #[test]
    fn old_versions_see_no_new_fields() {
        let old = attachment().to_json(Version::V0_3_1);
        assert_eq!(
            old,
            json!({
                "cniVersion": "0.3.1",
                "interfaces": [{ "name": "eth0" }],
                "ips": [{ "version": "4", "interface": 0, "address": "10.0.0.2/24", "gateway": "10.0.0.1" }],
                "routes": [{ "dst": "0.0.0.0/0" }],
                "dns": {},
            })
        );
        let new = attachment().to_json(Version::V1_1_0);
        assert_eq!(new["interfaces"][0]["mtu"], 1500);
        assert_eq!(new["routes"][0]["mtu"], 1400);
        assert_eq!(new["ips"][0].get("version"), None);
    }

    #[test]
    fn a_result_reads_back_in_every_version() {
        for version in Version::ALL {
            let back = Attachment::parse("prevResult", &attachment().to_json(version)).unwrap();
            let mut ips = attachment().ips;
            if version < Version::V0_3_0 {
                ips[0].interface = None;
            }
            assert_eq!(back.ips, ips, "{version:?}");
        }
    }
}
