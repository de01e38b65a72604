//! What an API object is: its schema, its encodings, its small languages. No IO, no clock, no tokio.
//!
//! - [`field`]: paths and field errors; [`status`]: the error a client sees.
//! - [`object`]: `metadata` of a `serde_json::Value`, kinds and resources by name; [`access`]: values by dotted paths.
//! - [`quantity`], [`intstr`], [`time`], [`duration`], [`cron`], [`names`], [`labels`], [`fields`], [`formats`]: the scalar languages of the API.
//! - [`goformat`]: Go's `%q` and `%v`, for error texts; [`release`]: the version of Kubernetes this is, [`gates`]: its feature gates.
//! - [`re2`]: regular expressions, [`url`]: URLs, both as Go reads them.
//! - [`unset`]: whether a value of a configuration says anything.
//! - [`custom`]: custom resources: their definitions, schemas, rules and printing
//! - [`schema`]: the field table, pruning and the canonical form; [`codec`]: JSON, YAML, protobuf.
//! - [`patch`]: JSON patch, merge patch, strategic merge patch.
//! - [`totals`]: what a pod asks for over all its containers; [`taints`]: which taints a pod tolerates; [`node_terms`]: which nodes it means.
//! - [`pod_security`]: what pods may ask of their node; [`pod_secrets`]: which secrets they name.
//! - [`apply`]: server-side apply and `managedFields`.
//! - [`binding`]: which volume serves a claim.
//! - [`load_balancer`]: what is said of LoadBalancer Services of the built-in provider.
//! - [`cel`]: the expression language CEL, with types and costs; [`admission`]: expressions of policies and webhooks in it; [`entry`]: those of who may enter.
//! - [`resources`]: the built-in resources, their defaulting, strategy, validation and printing; [`validation`]: what is refused

#![warn(unreachable_pub)]

pub mod access;
mod address;
pub mod admission;
pub mod apply;
pub mod binding;
pub mod cel;
pub mod codec;
pub mod cron;
pub mod custom;
pub mod duration;
pub mod entry;
pub mod field;
pub mod fields;
mod formats;
pub mod gates;
pub mod goformat;
pub mod intstr;
pub mod labels;
pub mod load_balancer;
pub mod names;
pub mod node_terms;
pub mod object;
pub mod patch;
pub mod pod_secrets;
pub mod pod_security;
pub mod quantity;
pub mod re2;
pub mod release;
pub mod resources;
pub mod schema;
pub mod status;
pub mod taints;
pub mod time;
pub mod totals;
pub mod unset;
pub mod url;
pub mod validation;
