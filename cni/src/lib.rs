//! The CNI plugins `bandwidth`, `bridge`, `host-local`, `loopback` and `portmap` in one small synchronous program. Netlink is spoken by the crate `netlink`.
//!
//! | module | concern |
//! |---|---|
//! | `program` | which plugin is meant; reading the call, printing its result or error |
//! | `environment`, `call`, `fields`, `remarks`, `version`, `result`, `error` | the CNI protocol |
//! | `bridge` | veth pairs on a bridge: `plan` is pure, `apply` carries it out, `check` compares |
//! | `alias` | what an attachment is called in the kernel |
//! | `ipam` | host-local: `range` orders addresses, `store` grants them by `files`, `lease` is a file's content |
//! | `loopback` | brings `lo` up |
//! | `portmap` | host ports |
//! | `bandwidth` | how much a container may send and receive |
//! | `masquerade` | hiding containers behind the host's address |
//! | `ruleset` | the nftables table that the last two keep their elements in |
//! | `netns`, `sysctl`, `delegate` | namespaces, `/proc/sys/net`, other plugins |

#![warn(unreachable_pub)]

mod alias;
mod bandwidth;
mod bridge;
mod call;
mod delegate;
mod environment;
mod error;
mod fields;
mod ipam;
mod loopback;
mod masquerade;
mod netns;
mod portmap;
mod program;
mod remarks;
mod result;
mod ruleset;
mod sysctl;
mod version;

pub use self::{
    call::Call,
    environment::Environment,
    netns::Netns,
    program::{Plugin, run},
};
use self::{
    call::Owner,
    environment::Command,
    error::Error,
    result::{Attachment, Dns},
    version::Version,
};
