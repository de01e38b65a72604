//! nftables without `nft`: transactions built as nfnetlink messages and sent over one socket that stays open. A program that
//! ends waits for the kernel's grace period when its socket closes, many times what a small change takes.
//!
//! - [`attribute`]: writing and reading netlink attributes
//! - [`object`]: tables, sets, chains and elements as data; pure
//! - [`expression`]: what rules are made of; pure
//! - [`interval`]: address ranges as the elements of an interval set; pure
//! - [`batch`]: a transaction as bytes; pure
//! - [`socket`]: the socket: one transaction, its answers, reading sets
//! - [`kernel`]: the socket kept open for tasks
//!
//! Names and numbers are those of the kernel's `include/uapi/linux/netfilter/nf_tables.h`.

mod attribute;
pub mod batch;
pub mod expression;
pub mod interval;
pub mod kernel;
pub mod object;
pub mod socket;

pub use batch::Batch;
pub use expression::{Expression, Register};
pub use kernel::Kernel;
pub use object::{Chain, Element, Family, Field, Hook, Set, Table, Value, Verdict};
pub use socket::Error;
