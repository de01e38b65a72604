//! The built-in controllers, one module each: what wakes it, what it reads and writes, what it promises stands at the top of each file.
//!
//! - Workloads: [`replica_set`], [`deployment`], [`stateful_set`], [`daemon_set`], [`job`], [`cron_job`], [`ttl_after_finished`], [`autoscaler`],
//!   [`disruption`]
//! - Services: [`endpoints`], [`endpoint_mirror`], [`service_cidr`], [`service_lb`]
//! - Volumes: [`volume_binder`], [`ephemeral_volume`], [`volume_expand`], [`volume_protection`], [`attributes_class_protection`],
//!   [`attach_detach`]
//! - Nodes: [`node_ipam`], [`node_lifecycle`], [`node_ttl`], [`taint_eviction`], [`pod_garbage`]
//! - Accounts and trust: [`service_account`], [`service_account_token`], [`legacy_token`], [`root_ca`], [`role_aggregation`], [`signing`], [`bootstrap_token`]
//! - Everything: [`garbage`], [`namespace`], [`resource_quota`]
//!
//! [`mod@run`] starts them, in one list, those that the [`Selection`] has; [`options`] and [`workers`]: what may be set of them.
//!
//! Shared parts: [`informer`] (one watch a kind), [`queue`] (keys to work on) and [`recorder`] (events) of the crate `client`,
//! [`reconcile`] (the worker loop and its errors), [`cluster`] (the informers together), [`expectations`] (own writes not seen yet), [`pods`] (making and
//! removing pods for an owner), [`claim`] (which pods an owner has), [`adoption`] (whether it may take in more), [`discovery`] and [`inventory`] (every kind there is), [`address_pools`] (of load balancers), [`history`] (controller revisions), [`backoff`]. Deciding is pure and lives in each controller's `plan` file.

#![warn(unreachable_pub)]

mod address_pools;
mod adoption;
mod attach_detach;
mod attributes_class_protection;
mod autoscaler;
mod backoff;
mod bootstrap_token;
mod claim;
mod cluster;
mod cron_job;
mod daemon_set;
mod deployment;
mod discovery;
mod disruption;
mod endpoint_mirror;
mod endpoints;
mod ephemeral_volume;
mod expectations;
#[cfg(test)]
mod fake;
mod garbage;
mod history;
mod inventory;
mod job;
mod legacy_token;
mod namespace;
mod node_ipam;
mod node_lifecycle;
mod node_ttl;
mod options;
mod pod_garbage;
mod pods;
mod reconcile;
mod replica_set;
mod resource_quota;
mod role_aggregation;
mod root_ca;
mod run;
mod selection;
mod service_account;
mod service_account_token;
mod service_cidr;
mod service_lb;
mod signing;
mod stateful_set;
mod taint_eviction;
mod ttl_after_finished;
mod volume_binder;
mod volume_expand;
mod volume_protection;
mod workers;

pub use address_pools::{Pool, PoolError};
use client::{informer, queue, recorder};
pub use node_ipam::Ranges;
pub use options::{Autoscaling, EndpointWrites, LoadBalancing, NodeHealth, Options, Volumes};
pub use run::{Clients, Config, run};
pub use selection::{Selection, UnknownController};
pub use signing::Authorities;
pub use workers::{Refused, Workers};
