//! The built-in controllers, one module each: what wakes it, what it reads and writes, what it promises stands at the top of each file.
//!
//! Shared parts: [`informer`] (one watch a kind), [`queue`] (keys to work on) and [`recorder`] (events) of the crate `client`,
//! [`reconcile`] (the worker loop and its errors), [`cluster`] (the informers together), [`expectations`] (own writes not seen yet), [`pods`] (making and
//! removing pods for an owner), [`claim`] (which pods an owner has), [`inventory`] (every kind there is), [`history`] (controller revisions), [`backoff`]. Deciding is pure and lives in each controller's `plan` file.

pub mod attach_detach;
pub mod autoscaler;
pub mod backoff;
pub mod bootstrap_token;
pub mod claim;
pub mod cluster;
pub mod cron_job;
pub mod daemon_set;
pub mod deployment;
pub mod disruption;
pub mod endpoint_mirror;
pub mod endpoints;
pub mod ephemeral_volume;
pub mod expectations;
#[cfg(test)]
mod fake;
pub mod garbage;
pub mod history;
pub mod inventory;
pub mod job;
pub mod namespace;
pub mod node_ipam;
pub mod node_lifecycle;
pub mod node_ttl;
pub mod pod_garbage;
pub mod pods;
pub mod reconcile;
pub mod replica_set;
pub mod resource_quota;
pub mod role_aggregation;
pub mod root_ca;
mod run;
pub mod service_account;
pub mod service_account_token;
pub mod service_address;
pub mod service_cidr;
pub mod signing;
pub mod stateful_set;
pub mod taint_eviction;
pub mod ttl_after_finished;
pub mod volume_binder;
pub mod volume_expand;
pub mod volume_protection;

pub use client::{informer, queue, recorder};
pub use run::{Config, run};
