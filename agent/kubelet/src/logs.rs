//! Container logs: the CRI's log files, as clients read them.
//!
//! - [`mod@line`]: bytes to pieces of lines, pure; [`select`]: which pieces are asked for, and how they are written, pure
//! - [`tail`]: where the last lines begin; [`reader`]: the file, its rotation, and waiting for more
//! - [`rotate`]: logs that grew too long are put aside; [`links`]: where collectors look for them

pub(crate) mod line;
pub(crate) mod links;
pub(crate) mod reader;
pub(crate) mod rotate;
pub(crate) mod select;
pub(crate) mod tail;

pub use line::Decoder;
pub use select::{Options, Selector};
