//! The kubelet: desired pods to calls of a CRI runtime.
//!
//! - [`config`]: what it is told; [`host`]: what it asks of its machine; [`machine`]: what the machine has.
//! - [`source`]: where pods come from: the API, manifests; and the mirrors that show static pods in the API.
//! - [`mod@run`]: the tasks; one [`worker`] a pod.
//! - [`pod`]: [`pod::plan`] (pure) decides, [`worker::execute`] does, [`pod::status`] (pure) tells; [`pod::spec`] translates
//!   a pod's fields for the runtime.
//! - [`volume`], [`cgroup`], [`image`], [`probe`]: what pods need beside containers; [`login`]: to the registries of images.
//! - `dbus`: what systemd and logind are asked over; `directory`: directories of a mode.
//! - [`csi`]: storage drivers of this node; [`user_namespace`]: ids of pods that have their own.
//! - [`report`] writes statuses to the API, [`recorder`] events; [`objects`] reads ConfigMaps, Secrets and Services,
//!   [`runtime_class`] RuntimeClasses.
//! - [`node`]: this machine's Node object and Lease; `oom`: processes the kernel ended for want of memory.
//! - [`server`]: the HTTPS port, 10250; [`spdy`]: how it asks the runtime for streams; [`logs`] reads containers' logs, `logline` a single line.
//! - [`iptables`]: chains that other programs look for.
//! - [`shutdown`]: pods that end before the machine does; [`enforcement`]: the limits of all pods together.
//! - [`eviction`]: what the machine runs out of, and who goes then; [`pressure`]: the thresholds; [`stats`]: what everything uses; [`meters`]: what the
//!   kubelet counts of its own work.
//! - [`pods`]: the registry others ask; [`admit`]: whether the node takes a pod, [`allocate`]: whether it grants a
//!   running one other resources. [`quantity`]: amounts as whole numbers.

mod admit;
mod allocate;
mod cgroup;
mod config;
pub mod csi;
mod dbus;
mod directory;
pub mod enforcement;
pub mod eviction;
mod host;
mod image;
pub mod iptables;
mod login;
mod logline;
pub mod logs;
mod machine;
mod meters;
pub mod node;
mod objects;
mod oom;
mod pod;
mod pods;
pub mod pressure;
pub mod probe;
mod quantity;
mod recorder;
mod report;
mod run;
mod runtime_class;
pub mod server;
pub mod shutdown;
mod source;
pub mod spdy;
mod stats;
#[cfg(test)]
mod until;
mod user_namespace;
mod volume;
mod worker;

pub use cgroup::{Cgroups, record as cgroup_record};
pub use config::sources::Sources;
pub use config::{Config, Error as ConfigError};
pub use login::provider::load as load_credential_providers;
pub use machine::{Machine, kept_free};
pub use pods::Pods;
pub use recorder::Recorder;
pub use report::Reports;
pub use run::{Kubelet, Pulse};
pub use source::ApiPods;
pub use stats::Stats;
pub use volume::claim::Claims;
pub use worker::{Desired, Worker, context::Context};
