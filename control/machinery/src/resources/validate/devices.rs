//! Claims of devices, and the devices there are (upstream: `pkg/apis/resource/validation`).
//!
//! - `claims`: claims, templates and classes; `status`: what was given; `selector`: expressions about devices
//! - `slices`: the devices of drivers; `capacity`: how a part of one may be asked for; `taints`: what keeps claims away
//! - `parts`: what they share
//!
//! Not judged here: what an expression may cost.

mod capacity;
pub(super) mod claims;
mod parts;
mod selector;
pub(super) mod slices;
pub(super) mod status;
pub(super) mod taints;
