//! `/exec`, `/attach`, `/portForward`: streams between a client and the runtime's streaming server.
//!
//! - [`options`]: what is asked for; [`target`]: which container or sandbox is meant
//! - [`upgrade`]: leaving HTTP on the runtime's side; [`websocket`]: on the client's, when it wants one
//! - [`pass`]: bytes both ways, for clients who speak what the runtime speaks
//! - [`channel`], [`remote`]: exec and attach by WebSocket, translated to SPDY; [`tunnel`]: port-forward by WebSocket

pub mod channel;
pub mod options;
pub mod pass;
pub mod remote;
pub mod target;
pub mod tunnel;
pub mod upgrade;
pub mod websocket;
