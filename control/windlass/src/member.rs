//! The etcd member beside a server ("stacked"), and how servers come together.
//!
//! - [`place`]: where the member's state is, and what a start finds there; [`program`]: etcd's arguments
//! - [`stacked`]: a server's member from its start until it has a vote; [`followed`]: the members there are, kept on disk and in the cluster;
//!   [`announced`]: what the cluster says of them
//! - [`seed`], [`moving`]: the embedded store becomes the first member's
//! - [`objects`]: what is known of where the objects are, for a start that would begin without them
//! - [`joining`]: another server becomes a member, of the cluster that it is of ([`agreement`]) and without harm to it ([`health`]); [`shared`]: what it must have of the others, sealed; [`token`]: what it is given
//! - [`command`]: `windlass member`

mod agreement;
pub(crate) mod announced;
pub(crate) mod command;
pub(crate) mod followed;
mod health;
mod joining;
mod moving;
pub(crate) mod objects;
mod place;
mod program;
mod seed;
pub(crate) mod shared;
pub(crate) mod stacked;
pub(crate) mod token;

pub(crate) use place::{Place, Start};
pub(crate) use stacked::Stacked;
