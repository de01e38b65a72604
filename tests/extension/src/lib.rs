//! An example of a server behind the API server, for tests and as a pattern: a group of its own (`example.windlass.dev`), which an APIService
//! hands over to it, and the webhooks that admission and conversion ask.
//!
//! - [`serve`]: connections, and who may say for whom it asks; [`documents`]: what it says it serves; [`things`]: its resource;
//!   [`reviews`]: its webhooks
//!
//! It keeps everything in memory, and trusts only clients that show a certificate of the front proxy's authority.

mod answers;
pub mod documents;
pub mod reviews;
pub mod serve;
pub mod things;

pub use serve::{Extension, Seen, Settings};

/// The group it serves.
pub const GROUP: &str = "example.windlass.dev";
/// The versions of its group, the preferred one first.
pub const VERSIONS: [&str; 2] = ["v1", "v1alpha1"];
