//! nftables without `nft`: transactions built as nfnetlink messages.
//!
//! - [`object`], [`element`]: tables, sets and chains, and what is in sets; pure
//! - [`expression`]: what rules are made of; pure
//! - [`interval`]: address ranges as the elements of an interval set; pure
//! - [`batch`]: a transaction as bytes; pure
//! - [`transaction`]: doing it, and reading sets
//! - [`kernel`]: the same for asynchronous tasks
//!
//! Names and numbers are those of the kernel's `include/uapi/linux/netfilter/nf_tables.h`.

pub mod batch;
pub mod element;
pub mod expression;
pub mod interval;
#[cfg(feature = "tokio")]
pub mod kernel;
pub mod object;
pub mod transaction;

pub use batch::Batch;
pub use element::{Bytes, Element, Value};
pub use expression::{Expression, Register};
#[cfg(feature = "tokio")]
pub use kernel::Kernel;
pub use object::{Chain, Family, Field, Hook, Set, Table, Verdict};
pub use transaction::Error;
