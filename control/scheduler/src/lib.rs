//! Chooses a node for each pod, and binds it.
//!
//! - The pure core: [`model`] (pods and nodes as scheduling sees them), [`plugins`] (filters and scores, one file each),
//!   [`schedule`] (snapshot and pod to node or [`fit::FitError`]), [`preempt`] (whom to evict), [`mod@attempt`] (both), [`profile`] (which plugins, and how much each counts), [`queue`] (whose turn it is;
//!   `now` is an argument), [`cache`] (the cluster with the pods assumed on their nodes).
//! - [`extender`]: services outside that have a say; `extended`: an attempt with them
//! - The shell: [`mod@run`] watches (`watch`), schedules, and hands the outcome to [`report`] (bindings, events, conditions), and to [`volumes`] where the pod's
//!   volumes must be bound first.
//!
//! Behaviour, orders, weights and texts are kube-scheduler's of 1.36.

#![warn(unreachable_pub)]

mod attempt;
mod cache;
mod extended;
pub mod extender;
mod extenders;
mod fit;
mod model;
mod plugins;
mod preempt;
pub mod profile;
mod queue;
mod report;
mod run;
mod schedule;
mod volumes;
mod watch;

pub use attempt::{Attempt, attempt};
pub use cache::Cluster;
pub use fit::Plugin;
pub use model::{
    NodeInfo, Pod,
    node::{Budget, Grouping},
    selector::compile as compile_selector,
    storage::{Class, Disk},
};
pub use plugins::volume_needs;
pub use profile::{Config, Waits};
pub use run::{Error, run};
