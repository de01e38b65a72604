//! Issuers on the network, each once: one that a changed configuration names as before keeps the keys that are known of it.

use apiserver::jwt::keys::Remote;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// URL, place of the discovery document, authorities.
type Name = (String, Option<String>, Option<String>);
/// Why authorities are none.
type Error = apiserver::trusted::BundleError;

/// Those in use, by what they were made of.
#[derive(Debug, Default)]
pub(super) struct Remotes(Mutex<BTreeMap<Name, Arc<Remote>>>);

impl Remotes {
    pub(super) fn of(
        &self,
        url: &str,
        discovery: Option<&str>,
        authority: Option<&str>,
    ) -> Result<Arc<Remote>, Error> {
        let name = (url.to_owned(), discovery.map(str::to_owned), authority.map(str::to_owned));
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(remote) = known.get(&name) {
            return Ok(remote.clone());
        }
        let made = Arc::new(Remote::new(url, discovery, authority)?);
        known.insert(name, made.clone());
        Ok(made)
    }

    /// Forgets those that nobody else holds.
    pub(super) fn prune(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|_, remote| Arc::strong_count(remote) > 1);
    }
}
