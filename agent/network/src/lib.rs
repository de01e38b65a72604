//! The pod network of a node and between nodes.
//!
//! | module | concern |
//! |---|---|
//! | `config` | what it is told |
//! | `run` | the reconciler: what wakes it, what it reads and writes, what it promises |
//! | `node` | what the network needs of a Node object |
//! | `plan` | which routes are to be added, replaced and removed; pure |
//! | `routes` | observing and changing the kernel's routes |
//! | `masquerade` | the nftables table `windlass-network`; pure |
//! | `conflist` | the CNI configuration; rendering is pure |
//! | `garbage` | what pods left behind that the runtime forgot |
//! | `ports` | host ports of pods, once others took all tables away |
//! | `torn` | what a power cut left of libcni's results |
//! | `sysctl` | forwarding, and bridged packets seen by nftables |

#![warn(unreachable_pub)]

mod config;
mod conflist;
mod garbage;
mod masquerade;
mod node;
mod plan;
mod ports;
mod routes;
mod run;
mod sysctl;
mod torn;

pub use self::{
    config::{Config, Plugins},
    conflist::{ConflistError, is_used, write_static},
    garbage::{Attached, GarbageError, collect_garbage, release_lost},
    run::run,
    torn::{RESULTS, remove_torn},
};
