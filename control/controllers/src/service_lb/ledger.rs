//! Who has which address: what the Services' statuses say, and what was written and is not seen in them yet. Pure.

use super::allocate::{Holder, Taken};
use crate::queue::Key;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What the ledger reads of a Service.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub holder: Holder,
    /// `metadata.resourceVersion`, which grows.
    pub version: u64,
    /// Those in its status that are ours.
    pub addresses: Vec<IpAddr>,
}

/// What was written last, by Service: the version it has since, and its addresses.
#[derive(Debug, Default)]
pub(super) struct Ledger(BTreeMap<Key, (u64, Vec<IpAddr>)>);

impl Ledger {
    /// Notes what was written.
    pub(super) fn wrote(&mut self, key: &Key, version: u64, addresses: Vec<IpAddr>) {
        self.0.insert(key.clone(), (version, addresses));
    }

    /// The Service is gone.
    pub(super) fn forget(&mut self, key: &Key) {
        self.0.remove(key);
    }

    /// Whether what is known of a Service has what we wrote in it.
    pub(super) fn is_seen(&mut self, key: &Key, version: u64) -> bool {
        if self.0.get(key).is_some_and(|(written, _)| version < *written) {
            return false;
        }
        self.0.remove(key);
        true
    }

    /// Who has which address, but for `asking`; `reserved` are nobody's.
    pub(super) fn taken(
        &self,
        entries: &[Entry],
        asking: &Key,
        reserved: impl IntoIterator<Item = IpAddr>,
    ) -> Taken {
        let mut taken: Taken = reserved.into_iter().map(|address| (address, Vec::new())).collect();
        for entry in entries.iter().filter(|entry| entry.holder.key != *asking) {
            let written = self.0.get(&entry.holder.key).filter(|(version, _)| entry.version < *version);
            let mut all = entry.addresses.clone();
            all.extend(written.into_iter().flat_map(|(_, addresses)| addresses));
            all.sort_unstable();
            all.dedup();
            for address in all {
                // What is reserved stays nobody's.
                match taken.get_mut(&address) {
                    Some(holders) if holders.is_empty() => {}
                    Some(holders) => holders.push(entry.holder.clone()),
                    None => drop(taken.insert(address, vec![entry.holder.clone()])),
                }
            }
        }
        taken
    }
}
