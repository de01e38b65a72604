//! Container logs: the CRI's log files, as clients read them.
//!
//! - [`mod@line`]: bytes to pieces of lines, pure; [`select`]: which pieces are asked for, and how they are written, pure
//! - [`tail`]: where the last lines begin; [`reader`]: the file, its rotation, and waiting for more
//! - [`rotate`]: rotation of logs that grew too long

pub(crate) mod line;
pub(crate) mod reader;
pub(crate) mod rotate;
pub(crate) mod select;
pub(crate) mod tail;

pub use line::Decoder;
pub use select::{Options, Selector};
