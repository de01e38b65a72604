//! The lab suite: one cluster of two nodes, real containerd, real packets, real clients. Tests run one after another in order of their
//! names (`--test-threads=1`); each has a namespace of its own. The last one takes the cluster away and looks for what is left.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

mod bad_input;
mod clients;
mod families;
mod harness;
mod helm;
mod identities;
mod kills;
mod kubectl;
mod load_balancers;
mod machines;
mod operators;
mod overlay;
mod policies;
mod private_images;
mod python;
mod restoring;
mod services;
mod skew;
mod workloads;
mod zz_teardown;
