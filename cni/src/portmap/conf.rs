//! portmap's configuration.

use std::net::IpAddr;

use serde_json::Value;

use crate::{Call, Error, fields::Fields, remarks::Remarks};

/// A transport protocol with its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Protocol(pub(crate) u8);

impl Protocol {
    const TABLE: [(&'static str, u8); 3] = [("tcp", 6), ("udp", 17), ("sctp", 132)];
    pub(crate) const UDP: Self = Self(17);

    fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        Self::TABLE.iter().find(|(name, _)| *name == text).map(|(_, number)| Self(*number))
    }

    pub(crate) fn name(self) -> &'static str {
        Self::TABLE.iter().find(|(_, number)| *number == self.0).map_or("?", |(name, _)| name)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) host_port: u16,
    pub(crate) container_port: u16,
    pub(crate) protocol: Protocol,
    /// Every address of the host, if absent.
    pub(crate) host_ip: Option<IpAddr>,
    /// Which family, if the host address was given as an unspecified one.
    pub(crate) only_v4: Option<bool>,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Conf {
    pub(crate) mappings: Vec<Mapping>,
    /// Containers of the same subnet and the host itself may use the host's ports as well.
    pub(crate) snat: bool,
    /// Whoever uses a host port seems to be the host.
    pub(crate) masquerade_all: bool,
}

impl Conf {
    pub(crate) fn read(call: &Call) -> Result<Self, Error> {
        let mut fields = call.fields()?;
        let snat = fields.take("snat")?.unwrap_or(true);
        let masquerade_all = fields.take_or_default("masqAll")?;
        fields.take_backend("backend", &call.remarks)?;
        // Arguments of a program. Without them the port would be open to more than was asked for.
        for name in ["conditionsV4", "conditionsV6"] {
            fields.refuse(name)?;
        }
        // A bit of the packet's mark, or a chain that sets one: upstream's iptables rules need either, and these do not.
        fields.take::<u32>("markMasqBit")?;
        fields.take::<String>("externalSetMarkChain")?;
        fields.take::<Value>("args")?;
        let mut mappings = Vec::new();
        if let Some(mut runtime) = fields.take_fields("runtimeConfig")? {
            let path = runtime.path_of("portMappings");
            for (index, mapping) in
                runtime.take_or_default::<Vec<Value>>("portMappings")?.into_iter().enumerate()
            {
                mappings
                    .push(read_mapping(Fields::of(&format!("{path}[{index}]"), mapping)?, &call.remarks)?);
            }
        }
        fields.finish(&call.remarks);
        Ok(Self { mappings, snat, masquerade_all })
    }
}

fn read_mapping(mut fields: Fields, remarks: &Remarks) -> Result<Mapping, Error> {
    let host_port = read_port(&mut fields, "hostPort", "host")?;
    let container_port = read_port(&mut fields, "containerPort", "container")?;
    let text = fields.take_or_default::<String>("protocol")?;
    let text = if text.is_empty() { "tcp" } else { &text };
    let protocol = Protocol::parse(text)
        .ok_or_else(|| Error::config(fields.path_of("protocol"), format!("unsupported protocol {text:?}")))?;
    let given: Option<IpAddr> = fields.take_parsed("hostIP")?;
    fields.finish(remarks);
    Ok(Mapping {
        host_port,
        container_port,
        protocol,
        host_ip: given.filter(|ip| !ip.is_unspecified()),
        only_v4: given.map(|ip| ip.is_ipv4()),
    })
}

fn read_port(fields: &mut Fields, name: &str, whose: &str) -> Result<u16, Error> {
    let number = fields.take_or_default::<i64>(name)?;
    u16::try_from(number)
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| Error::config(fields.path_of(name), format!("Invalid {whose} port number: {number}")))
}
