//! An example of an operator on the kube crate, for the lab's suite and as a pattern. A `Gadget` has a size, which three versions of its
//! definition write in three ways; the operator keeps a ConfigMap with its area, its status, and a line in a ledger that outlives nobody.
//!
//! - [`definition`]: the definition and the configurations of its webhooks; [`gadget`]: the type, and what is to be there for one; both pure
//! - [`reconcile`]: the controller; [`migrate`]: moves what is stored to another version
//!
//! The webhooks themselves are those of the crate `extension`.

pub mod definition;
pub mod gadget;
pub mod migrate;
pub mod reconcile;

/// The group of gadgets.
pub const GROUP: &str = "operator.windlass.dev";
/// The versions, from the oldest on. The operator itself reads and writes the newest.
pub const VERSIONS: [&str; 3] = ["v1", "v2", "v3"];
/// The definition's name.
pub const DEFINITION: &str = "gadgets.operator.windlass.dev";
/// What keeps a gadget until its line in the ledger is gone.
pub const FINALIZER: &str = "operator.windlass.dev/ledger";
/// Who owns what the operator applies.
pub const MANAGER: &str = "operator";
