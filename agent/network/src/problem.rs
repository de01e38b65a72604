//! Why a node's pods cannot be reached.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;

use crate::overlay::Device;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Problem {
    NoAddress {
        node: String,
        cidr: IpNet,
    },
    OtherLink {
        node: String,
        cidr: IpNet,
        address: IpAddr,
    },
    OurAddress {
        node: String,
        cidr: IpNet,
        address: IpAddr,
    },
    Overlaps {
        node: String,
        cidr: IpNet,
        with: String,
    },
    TakenByOther {
        node: String,
        cidr: IpNet,
    },
    Malformed {
        node: String,
        text: String,
    },
    /// The kernel does not make the link.
    NoOverlay {
        node: String,
        cidr: IpNet,
        device: Device,
        why: String,
    },
    /// A link of our name is somebody else's.
    NameTaken {
        device: Device,
    },
    SameHardware {
        node: String,
        cidr: IpNet,
        with: String,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAddress { node, cidr } => write!(
                formatter,
                "no route to pods {cidr}: node {node} has no InternalIP of that family, or of one that we have"
            ),
            Self::OtherLink { node, cidr, address } => write!(
                formatter,
                "no route to pods {cidr}: node {node} at {address} is not on a directly connected link"
            ),
            Self::OurAddress { node, cidr, address } => {
                write!(formatter, "no route to pods {cidr}: node {node} claims {address}, which is ours")
            }
            Self::Overlaps { node, cidr, with } => {
                write!(formatter, "no route to pods {cidr} of node {node}: the range overlaps with {with}")
            }
            Self::TakenByOther { node, cidr } => {
                write!(formatter, "no route to pods {cidr} of node {node}: another program has a route there")
            }
            Self::Malformed { node, text } => {
                write!(formatter, "node {node} claims {text:?}, which is no pod range or address")
            }
            Self::NoOverlay { node, cidr, device, why } => {
                write!(
                    formatter,
                    "no route to pods {cidr} of node {node}: link {device} cannot be made: {why}"
                )
            }
            Self::NameTaken { device } => {
                write!(formatter, "no overlay: there is a link {device} that is no VXLAN link of ours")
            }
            Self::SameHardware { node, cidr, with } => write!(
                formatter,
                "no route to pods {cidr}: nodes {node} and {with} have the same hardware address by their names; \
                 rename one"
            ),
        }
    }
}
