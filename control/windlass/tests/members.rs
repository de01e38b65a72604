//! Servers with etcd members of their own: a store that moves there, servers that join, die and come again. Skipped where there is no etcd.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

#[path = "members/joining.rs"]
mod joining;
#[path = "members/moving.rs"]
mod moving;
#[path = "members/restoring.rs"]
mod restoring;
#[path = "members/server.rs"]
mod server;
