//! Container logs: the CRI's log files, read for somebody who asks.
//!
//! - [`mod@line`]: bytes to pieces of lines, pure; [`select`]: which pieces are asked for, and how they are written, pure
//! - [`tail`]: where the last lines begin; [`reader`]: the file, its rotation, and waiting for more
//! - [`rotate`]: logs that grew too long are put aside

pub mod line;
pub(crate) mod reader;
pub(crate) mod rotate;
pub mod select;
pub(crate) mod tail;
