//! Pods and nodes as scheduling sees them: what the API objects say, parsed once when they arrive.

pub(crate) mod node;
pub(crate) mod pod;
pub(crate) mod resources;
pub(crate) mod selector;
pub(crate) mod storage;
pub(crate) mod terms;

pub use node::NodeInfo;
pub(crate) use node::Snapshot;
pub use pod::Pod;
