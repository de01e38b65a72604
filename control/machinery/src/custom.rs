//! Custom resources: what a CustomResourceDefinition says, as pure functions.
//!
//! - [`outline`]: a CustomResourceDefinition but for its schemas; [`definition`]: with them, ready to serve; [`declared`]: what both have; [`intern`]: names that live as long as the program
//! - [`schema`]: one node a value; `expression`: a rule's, parsed when it is asked for; [`node`]: as all walks see it; [`prune`]: unknown fields, nulls, defaults; [`meta`]: metadata of the
//!   object and of objects in it; [`lists`]: sets and maps; [`validate`]: errors in upstream's words
//! - [`strategy`]: what becomes of an object on its way in; [`columns`] and [`jsonpath`]: printing and selecting
//! - [`names`]: who gets which name; [`conditions`]: the other conditions of a definition
//! - [`check`]: which definitions are refused; [`structural`]: which schemas are structural; [`rules`]: rules in CEL
//! - [`review`]: what a conversion webhook is asked, and what of its answer is taken
//! - `merge`: how values merge under server-side apply; [`openapi`]: the schema as clients read it

pub(crate) mod check;
pub(crate) mod columns;
pub mod conditions;
mod declared;
pub mod definition;
mod expression;
pub(crate) mod intern;
pub(crate) mod jsonpath;
pub(crate) mod lists;
mod merge;
pub(crate) mod meta;
pub mod names;
pub mod node;
pub mod openapi;
pub mod outline;
pub(crate) mod prune;
pub mod review;
pub mod rules;
pub(crate) mod schema;
pub mod strategy;
pub(crate) mod structural;
pub(crate) mod validate;

pub use definition::{Conversion, Definition, Origin, Version};
pub use names::Register;
pub use outline::{Outline, Sketch};
pub use schema::sweep as sweep_schemas;
