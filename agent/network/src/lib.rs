//! The pod network of a node and between nodes.
//!
//! | module | concern |
//! |---|---|
//! | `config` | what it is told |
//! | `run` | the reconciler: what wakes it, what it reads and writes, what it promises |
//! | `node` | what the network needs of a Node object |
//! | `settings` | by which way, as flags and the ConfigMap say |
//! | `plan`, `problem` | which routes and overlay links there are to be, and which cannot be; pure |
//! | `overlay` | links that carry packets to nodes no link leads to: names, addresses, MTU; pure |
//! | `difference` | the steps from what is there to that, in order; pure |
//! | `kernel` | what the kernel has, and the steps taken |
//! | `masquerade` | the nftables table `windlass-network`; pure |
//! | `condition` | that no other node's pods are reached; pure |
//! | `guard` | nobody but nodes sends by an overlay; pure |
//! | `conflist` | the CNI configuration; rendering is pure |
//! | `garbage` | what pods left behind that the runtime forgot |
//! | `ports` | host ports of pods, once others took all tables away |
//! | `torn` | what a power cut left of libcni's results |
//! | `sysctl` | forwarding, and bridged packets seen by nftables |

#![warn(unreachable_pub)]

mod condition;
mod config;
mod conflist;
mod difference;
mod garbage;
mod guard;
mod kernel;
mod masquerade;
mod node;
mod overlay;
mod plan;
mod ports;
mod problem;
mod run;
mod settings;
mod sysctl;
mod torn;

pub use self::{
    config::{Config, Plugins},
    conflist::{ConflistError, is_used, write_static},
    garbage::{Attached, GarbageError, collect_garbage, release_lost},
    overlay::links,
    run::run,
    settings::{Backend, CONFIG_MAP, Settings},
    torn::{RESULTS, remove_torn},
};
