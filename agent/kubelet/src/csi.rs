//! Storage drivers of this node, and what the API knows of them.
//!
//! - [`register`]: drivers make themselves known by a socket; [`node_object`]: the CSINode object, and the Node's annotation

pub(crate) mod node_object;
pub mod register;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cri_proto::csi::Driver;
use parking_lot::Mutex;
use tokio::sync::watch;

/// Where drivers' sockets for registration appear, below the kubelet's root.
pub(crate) const REGISTRY: &str = "plugins_registry";

/// A driver that is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("driver name {0} not found in the list of registered CSI drivers")]
pub struct Unknown(pub String);

#[derive(Clone, Debug)]
struct Registered {
    /// The socket it registered by: when that goes, so does the driver.
    by: PathBuf,
    driver: Driver,
}

#[derive(Debug, Default)]
struct Shared {
    drivers: Mutex<HashMap<String, Registered>>,
    /// Mount points that were published by this process.
    published: Mutex<HashSet<PathBuf>>,
    /// One at a time for each volume.
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// Volumes that must not be detached: `kubernetes.io/csi/<driver>^<handle>`.
    in_use: watch::Sender<BTreeSet<String>>,
}

/// A shared handle to the drivers that are registered, and to what they hold for this node.
#[derive(Clone, Debug, Default)]
pub struct Drivers(Arc<Shared>);

impl Drivers {
    /// Whether this process had it published; after a restart nothing is.
    pub fn is_published(&self, target: &Path) -> bool {
        self.0.published.lock().contains(target)
    }

    /// Remembers that `target` is published.
    pub fn published(&self, target: &Path) {
        self.0.published.lock().insert(target.to_owned());
    }

    /// Forgets that `target` is published.
    pub fn unpublished(&self, target: &Path) {
        self.0.published.lock().remove(target);
    }

    /// The turn of a volume: who holds it may stage or unstage.
    pub fn turn(&self, volume: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.0.turns.lock();
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(volume.to_owned()).or_default())
    }

    /// A volume is in use on this node.
    pub fn hold(&self, volume: &str) {
        self.0.in_use.send_if_modified(|all| all.insert(volume.to_owned()));
    }

    /// A volume is not in use any more.
    pub fn release(&self, volume: &str) {
        self.0.in_use.send_if_modified(|all| all.remove(volume));
    }

    /// What the Node's status must show as in use.
    pub fn in_use(&self) -> watch::Receiver<BTreeSet<String>> {
        self.0.in_use.subscribe()
    }

    /// The registered driver of that name.
    pub fn get(&self, name: &str) -> Result<Driver, Unknown> {
        let known = self.0.drivers.lock();
        known.get(name).map(|r| r.driver.clone()).ok_or_else(|| Unknown(name.to_owned()))
    }

    fn add(&self, name: &str, by: &Path, driver: Driver) {
        self.0.drivers.lock().insert(name.to_owned(), Registered { by: by.to_owned(), driver });
    }

    /// Forgets the driver that registered by this socket; a newer registration of its name stays.
    fn remove(&self, name: &str, by: &Path) -> bool {
        let mut known = self.0.drivers.lock();
        let own = known.get(name).is_some_and(|r| r.by == by);
        if own {
            known.remove(name);
        }
        own
    }
}
