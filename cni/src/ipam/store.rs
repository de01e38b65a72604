//! Granting and releasing addresses, as files in `<dataDir>/<network>/`.
//!
//! | file | says |
//! |---|---|
//! | `lock` | nothing; its `flock` is held for every operation, by upstream's host-local as well |
//! | `<address>` | who holds the address: the lease itself, the only file that decides anything |
//! | `last_reserved_ip.<n>` | where the search in range set n resumes |
//! | `.attachments/<container>.<interface>` | the addresses an attachment may hold, so that release need not search |
//! | `.attachments/.new` | content on its way into one of the others, by rename |
//!
//! Order makes it safe to be killed anywhere. Grant: the attachment's file first, then the leases; so every lease
//! of ours can be found by its owner. Release: the leases first, then the attachment's file; so a second DEL finds
//! what the first left. An address named in an attachment's file counts only if its lease agrees.
//! Leases of an earlier boot are free for the taking; nothing sweeps them.

use std::{
    collections::BTreeSet,
    io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use ipnet::IpNet;

use super::{files::Files, lease::Lease, range::RangeSet};
use crate::call::Owner;

const ATTACHMENTS: &str = ".attachments";

/// Why no address was granted or released.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("{operation} {}", path.display())]
    Files { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("{address} has been allocated to {container}, duplicate allocation is not allowed")]
    Duplicate { address: IpAddr, container: String },
    #[error("no IP addresses available in range set: {ranges}")]
    Exhausted { ranges: String },
    #[error("requested IP address {address} is not available in range set {ranges}")]
    Taken { address: IpAddr, ranges: String },
    #[error("requested ip {0} is subnet's gateway")]
    Gateway(IpAddr),
    #[error("failed to allocate all requested IPs: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Outside(Vec<IpAddr>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) address: IpNet,
    pub(crate) gateway: IpAddr,
}

/// The leases of one network. Whoever makes one holds the directory's lock.
#[derive(Debug)]
pub(crate) struct Store<F> {
    directory: PathBuf,
    files: F,
    boot: String,
}

impl<F: Files> Store<F> {
    /// `boot` is the machine's current boot id.
    pub(crate) fn new(directory: PathBuf, files: F, boot: String) -> Self {
        Self { directory, files, boot }
    }

    /// Grants one address of each range set, the `requested` ones where a set has them.
    pub(crate) fn grant(
        &self,
        owner: &Owner,
        sets: &[RangeSet],
        requested: &[IpAddr],
    ) -> Result<Vec<Grant>, StoreError> {
        for address in self.noted(owner)?.unwrap_or_default() {
            match self.lease(address)? {
                Some(lease) if lease.is_held_by(owner) && !lease.is_of_another_boot(&self.boot) => {
                    return Err(StoreError::Duplicate { address, container: owner.container.clone() });
                }
                _ => {}
            }
        }
        let outside: Vec<IpAddr> = requested
            .iter()
            .copied()
            .filter(|address| sets.iter().all(|set| set.range_of(*address).is_none()))
            .collect();
        if !outside.is_empty() {
            return Err(StoreError::Outside(outside));
        }
        let mut grants = Vec::with_capacity(sets.len());
        for (index, set) in sets.iter().enumerate() {
            let wanted = requested.iter().copied().find(|address| set.range_of(*address).is_some());
            grants.push(self.choose(index, set, wanted)?);
        }
        let held: String = grants.iter().map(|grant| format!("{}\n", grant.address.addr())).collect();
        self.replace(&self.note(owner), &held)?;
        let lease = Lease::new(owner, &self.boot).render();
        for (index, grant) in grants.iter().enumerate() {
            let address = grant.address.addr().to_string();
            self.replace(&self.directory.join(&address), &lease)?;
            self.replace(&self.last(index), &address)?;
        }
        Ok(grants)
    }

    /// Releases what `owner` holds and returns it. Nothing held is no error.
    pub(crate) fn release(&self, owner: &Owner) -> Result<Vec<IpAddr>, StoreError> {
        let held = self.held(owner)?;
        for address in &held {
            self.remove(&self.directory.join(address.to_string()))?;
        }
        self.remove(&self.note(owner))?;
        Ok(held)
    }

    /// The addresses that `owner` holds, in the order granted.
    pub(crate) fn held(&self, owner: &Owner) -> Result<Vec<IpAddr>, StoreError> {
        let candidates = match self.noted(owner)? {
            Some(candidates) => candidates,
            // Upstream granted it, or nobody did.
            None => self.leased()?,
        };
        let mut held = Vec::new();
        for address in candidates {
            if self.lease(address)?.is_some_and(|lease| lease.is_held_by(owner)) {
                held.push(address);
            }
        }
        Ok(held)
    }

    /// Releases whatever none of `valid` holds and returns it.
    pub(crate) fn retain(&self, valid: &[Owner]) -> Result<Vec<IpAddr>, StoreError> {
        let mut released = Vec::new();
        for address in self.leased()? {
            let lease = self.lease(address)?;
            let kept = lease.is_some_and(|lease| {
                !lease.is_of_another_boot(&self.boot) && valid.iter().any(|owner| lease.is_held_by(owner))
            });
            if !kept {
                self.remove(&self.directory.join(address.to_string()))?;
                released.push(address);
            }
        }
        let kept: BTreeSet<PathBuf> = valid.iter().map(|owner| self.note(owner)).collect();
        let notes = self.directory.join(ATTACHMENTS);
        for name in self.names(&notes)? {
            let path = notes.join(name);
            if !kept.contains(&path) {
                self.remove(&path)?;
            }
        }
        Ok(released)
    }

    fn choose(&self, index: usize, set: &RangeSet, wanted: Option<IpAddr>) -> Result<Grant, StoreError> {
        let ranges = || {
            set.0.iter().map(|range| format!("{}-{}", range.first, range.last)).collect::<Vec<_>>().join(",")
        };
        if let Some((address, range)) = wanted.and_then(|address| Some((address, set.range_of(address)?))) {
            if address == range.gateway {
                return Err(StoreError::Gateway(address));
            }
            if !self.is_free(address)? {
                return Err(StoreError::Taken { address, ranges: ranges() });
            }
            return Ok(grant(address, &range.subnet, range.gateway));
        }
        let last = self.read(&self.last(index))?;
        let last = last.and_then(|content| std::str::from_utf8(&content).ok()?.trim().parse().ok());
        for (address, range) in set.after(last) {
            if self.is_free(address)? {
                return Ok(grant(address, &range.subnet, range.gateway));
            }
        }
        Err(StoreError::Exhausted { ranges: ranges() })
    }

    fn is_free(&self, address: IpAddr) -> Result<bool, StoreError> {
        Ok(self.lease(address)?.is_none_or(|lease| lease.is_of_another_boot(&self.boot)))
    }

    fn lease(&self, address: IpAddr) -> Result<Option<Lease>, StoreError> {
        let content = self.read(&self.directory.join(address.to_string()))?;
        Ok(content.and_then(|content| Lease::parse(&content)))
    }

    fn leased(&self) -> Result<Vec<IpAddr>, StoreError> {
        Ok(self.names(&self.directory)?.iter().filter_map(|name| name.parse().ok()).collect())
    }

    fn note(&self, owner: &Owner) -> PathBuf {
        self.directory.join(ATTACHMENTS).join(format!("{}.{}", owner.container, owner.interface))
    }

    /// What the attachment's file says it may hold; `None` without one.
    fn noted(&self, owner: &Owner) -> Result<Option<Vec<IpAddr>>, StoreError> {
        let content = self.read(&self.note(owner))?;
        // An empty one is a power cut's, and what it named is of another boot.
        Ok(content.map(|content| {
            String::from_utf8_lossy(&content).lines().filter_map(|line| line.trim().parse().ok()).collect()
        }))
    }

    fn last(&self, index: usize) -> PathBuf {
        self.directory.join(format!("last_reserved_ip.{index}"))
    }

    fn replace(&self, path: &Path, content: &str) -> Result<(), StoreError> {
        let new = self.directory.join(ATTACHMENTS).join(".new");
        self.files.write(&new, content.as_bytes()).map_err(failed("write", &new))?;
        self.files.rename(&new, path).map_err(failed("rename a new file to", path))
    }

    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
        self.files.read(path).map_err(failed("read", path))
    }

    fn remove(&self, path: &Path) -> Result<(), StoreError> {
        self.files.remove(path).map_err(failed("remove", path))
    }

    fn names(&self, directory: &Path) -> Result<Vec<String>, StoreError> {
        self.files.names(directory).map_err(failed("list", directory))
    }
}

fn grant(address: IpAddr, subnet: &IpNet, gateway: IpAddr) -> Grant {
    // A subnet's own prefix length fits its addresses.
    let address = IpNet::new(address, subnet.prefix_len()).unwrap_or_else(|_| IpNet::from(address));
    Grant { address, gateway }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Files { operation, path, source }
}

#[cfg(test)]
mod tests;
