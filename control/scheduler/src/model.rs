//! Pods and nodes as scheduling sees them: what the API objects say, parsed once when they arrive.

pub mod node;
pub mod pod;
pub mod resources;
pub mod selector;
pub mod storage;
pub mod terms;

pub use node::{NodeInfo, Snapshot};
pub use pod::Pod;
pub use resources::Resources;
