//! Who signs for which of upstream's signers.

use pki::authority::Authority;
use pki::signer::Signer;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::watch;

/// The authority of each signer, as it is at the time; requests to a signer without one are left to others.
#[derive(Clone, Debug, Default)]
pub struct Authorities(HashMap<Signer, watch::Receiver<Arc<Authority>>>);

impl Authorities {
    /// One authority for every signer.
    #[must_use]
    pub fn all(authority: &watch::Receiver<Arc<Authority>>) -> Self {
        Self(Signer::ALL.into_iter().map(|signer| (signer, authority.clone())).collect())
    }

    /// Gives a signer an authority.
    pub fn set(&mut self, signer: Signer, authority: watch::Receiver<Arc<Authority>>) {
        self.0.insert(signer, authority);
    }

    /// Whether nobody signs anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Who signs for it now.
    #[must_use]
    pub fn of(&self, signer: Signer) -> Option<Arc<Authority>> {
        self.0.get(&signer).map(|authority| authority.borrow().clone())
    }
}
