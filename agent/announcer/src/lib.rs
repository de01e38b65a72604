//! Addresses of LoadBalancer Services on the links of their nodes: for each one node answers ARP and neighbour solicitations.
//!
//! | module | concern |
//! |---|---|
//! | `run` | the loop: what wakes it, what it reads and writes, what it promises, and why nodes agree without a lease |
//! | `addresses` | every address at this node: its claim, its link, what is said and heard of it |
//! | `model` | Services, nodes and endpoints to the addresses there are, and the nodes that could answer for each; pure |
//! | `rank` | in which order nodes answer for an address; pure |
//! | `claim` | whether this node answers for an address: what it hears, when it speaks; pure |
//! | `frame` | ARP and neighbour discovery as bytes; pure |
//! | `link` | which link an address is on |
//! | `wire` | a link's sockets |
//! | `packet` | the kernel's packet sockets |

#![warn(unreachable_pub)]

mod addresses;
mod claim;
mod frame;
mod link;
mod model;
mod packet;
mod rank;
mod run;
mod wire;

pub use run::{Error, run};
