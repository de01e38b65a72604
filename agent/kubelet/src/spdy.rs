//! SPDY/3.1 as a client speaks it to a container runtime's streaming server.
//!
//! - [`dictionary`]: what header compression starts from; [`headers`]: header blocks
//! - [`window`]: flow control; [`frame`]: frames as bytes, pure; [`session`]: a connection, its streams, and the two halves that carry them
//!
//! Runtimes serve remote commands with moby's spdystream, whose ways are met here: it opens no streams, answers pings,
//! and knows nothing of flow control windows. Windows are therefore granted to every peer and demanded of none until it
//! has granted one itself; the transport's own flow control bounds what is under way.

pub(crate) mod dictionary;
pub mod frame;
pub mod headers;
pub(crate) mod session;
pub(crate) mod window;

pub use session::client;
