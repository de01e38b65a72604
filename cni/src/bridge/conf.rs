//! The bridge plugin's configuration.

use std::path::PathBuf;

use serde_json::Value;

use netlink::link::Mac;

use crate::{Call, Error, fields::Fields};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ipam {
    /// Nobody: the container is joined at layer 2 only.
    None,
    /// `host-local`, in this process.
    HostLocal,
    /// A plugin of that name.
    Foreign(String),
}

/// A bridge configuration, checked, with what capabilities and arguments add to it.
#[derive(Clone, Debug)]
pub(crate) struct Conf {
    pub(crate) bridge: String,
    /// The bridge has the gateway's address.
    pub(crate) gateway: bool,
    /// The container's default route is by it.
    pub(crate) default_gateway: bool,
    /// Another address on the bridge gives way.
    pub(crate) force_address: bool,
    pub(crate) masquerade: bool,
    pub(crate) mtu: Option<u32>,
    pub(crate) hairpin: bool,
    pub(crate) promiscuous: bool,
    pub(crate) isolated: bool,
    pub(crate) mac: Option<Mac>,
    /// Where it is asked for rules for the container's addresses, before it has them.
    pub(crate) policy_socket: Option<PathBuf>,
    pub(crate) ipam: Ipam,
}

impl Conf {
    pub(crate) fn read(call: &Call) -> Result<Self, Error> {
        let mut fields = call.fields()?;
        let bridge = fields
            .take::<String>("bridge")?
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "cni0".to_owned());
        if bridge.len() > 15 || bridge.contains(|c: char| c == '/' || c == ':' || c.is_whitespace()) {
            return Err(Error::config("bridge", format!("{bridge:?} is not an interface name")));
        }
        let default_gateway = fields.take_or_default("isDefaultGateway")?;
        let gateway = fields.take_or_default::<bool>("isGateway")? || default_gateway;
        let hairpin = fields.take_or_default("hairpinMode")?;
        let promiscuous = fields.take_or_default("promiscMode")?;
        if hairpin && promiscuous {
            return Err(Error::config(
                "promiscMode",
                "cannot set hairpin mode and promiscuous mode at the same time",
            ));
        }
        let mtu = read_mtu(&mut fields)?;
        let masquerade = fields.take_or_default("ipMasq")?;
        fields.take_backend("ipMasqBackend", &call.remarks)?;
        for name in ["vlan", "vlanTrunk", "macspoofchk", "disableContainerInterface"] {
            fields.refuse(name)?;
        }
        if fields.take_or_default("enabledad")? {
            call.remarks.add("enabledad: addresses are granted, and not looked for at others");
        }
        // Says whether the port stays in the default VLAN beside its own; without VLANs there is nothing to say.
        fields.take::<bool>("preserveDefaultVlan")?;
        let force_address = fields.take_or_default("forceAddress")?;
        let isolated = fields.take_or_default("portIsolation")?;
        let mac = read_mac(call, &mut fields)?;
        let policy_socket = fields.take("policySocket")?;
        let ipam = match fields.take_fields("ipam")? {
            None => Ipam::None,
            Some(mut ipam) => match ipam.take_or_default::<String>("type")?.as_str() {
                "" => Ipam::None,
                "host-local" => Ipam::HostLocal,
                other => Ipam::Foreign(other.to_owned()),
            },
        };
        fields.finish(&call.remarks);
        Ok(Self {
            bridge,
            gateway,
            default_gateway,
            force_address,
            masquerade,
            mtu,
            hairpin,
            promiscuous,
            isolated,
            mac,
            policy_socket,
            ipam,
        })
    }
}

fn read_mtu(fields: &mut Fields) -> Result<Option<u32>, Error> {
    match fields.take_or_default::<u32>("mtu")? {
        0 => Ok(None),
        mtu @ 68..=65535 => Ok(Some(mtu)),
        mtu => Err(Error::config("mtu", format!("{mtu} is not between 68 and 65535"))),
    }
}

/// The container's hardware address: `CNI_ARGS`, then `args.cni.mac`, then the capability, then `mac`; the later wins
/// as upstream has it, save that the plain field is the weakest.
fn read_mac(call: &Call, fields: &mut Fields) -> Result<Option<Mac>, Error> {
    let mut mac = fields.take_parsed("mac")?;
    if let Some(text) = call.environment.known_args(&["MAC", "IP", "GATEWAY"])?.get("MAC") {
        mac = Some(
            text.parse()
                .map_err(|reason: String| Error::config("CNI_ARGS: MAC", format!("{text:?}: {reason}")))?,
        );
    }
    if let Some(mut args) = fields.take_fields("args")?
        && let Some(mut cni) = args.take_fields("cni")?
    {
        mac = cni.take_parsed("mac")?.or(mac);
    }
    if let Some(mut runtime) = fields.take_fields("runtimeConfig")? {
        mac = runtime.take_parsed("mac")?.or(mac);
    }
    // Of the remaining runtime configuration, host-local reads what it knows; the rest was not asked for.
    fields.take::<Value>("runtimeConfig")?;
    Ok(mac)
}
