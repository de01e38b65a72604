//! One suite on both engines: what is true of a store is true of the embedded one and of a real etcd. Then what only etcd has.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail by panic")]
#![allow(clippy::disallowed_methods, reason = "a test sees how what it spawns ends")]

#[path = "engines/rig.rs"]
#[macro_use]
mod rig;

#[path = "engines/cache.rs"]
mod cache;
#[path = "engines/contract.rs"]
mod contract;
#[path = "engines/etcd.rs"]
mod etcd;
#[path = "engines/failover.rs"]
mod failover;
#[path = "engines/member.rs"]
mod member;
#[path = "engines/model.rs"]
mod model;
#[path = "engines/shifted.rs"]
mod shifted;
