//! `host-local`: addresses from ranges of this host's own.

mod conf;
mod files;
mod lease;
mod range;
mod store;

use std::{
    fs::{self, File},
    net::IpAddr,
    path::Path,
};

use serde_json::Value;

use self::{
    conf::Conf,
    files::Disk,
    store::{Store, StoreError},
};
use crate::{
    Call, Error,
    error::IoContext,
    result::{Address, Attachment, Dns},
};

/// Reads the configuration and does nothing else.
pub(crate) fn read(call: &Call) -> Result<(), Error> {
    Conf::read(call).map(drop)
}

/// The plugin's answer to a command given to it by name.
pub(crate) fn answer(call: &Call) -> Result<Option<Value>, Error> {
    use crate::Command;
    match call.environment.command {
        Command::Add => return add(call).map(|attachment| Some(attachment.to_json(call.version))),
        Command::Del => drop(del(call)?),
        Command::Check => check(call)?,
        Command::Gc => gc(call)?,
        Command::Status => status(call)?,
        Command::Version => {}
    }
    Ok(None)
}

pub(crate) fn add(call: &Call) -> Result<Attachment, Error> {
    let conf = Conf::read(call)?;
    let dns = conf.resolv_conf.as_deref().map(read_resolv_conf).transpose()?.unwrap_or_default();
    let grants = lock(&conf.directory)?.store.grant(&call.owner(), &conf.sets, &conf.requested)?;
    let ips = grants
        .into_iter()
        .map(|grant| Address { interface: None, address: grant.address, gateway: Some(grant.gateway) })
        .collect();
    Ok(Attachment { ips, routes: conf.routes, dns, ..Attachment::default() })
}

/// Releases what the attachment holds and returns it.
pub(crate) fn del(call: &Call) -> Result<Vec<IpAddr>, Error> {
    let conf = Conf::read(call)?;
    Ok(lock(&conf.directory)?.store.release(&call.owner())?)
}

/// What the attachment holds.
pub(crate) fn held(call: &Call) -> Result<Vec<IpAddr>, Error> {
    let conf = Conf::read(call)?;
    Ok(lock(&conf.directory)?.store.held(&call.owner())?)
}

/// Fails if the attachment holds nothing.
pub(crate) fn check(call: &Call) -> Result<(), Error> {
    if held(call)?.is_empty() {
        return Err(Error::NotAsAdded(format!(
            "host-local: Failed to find address added by container {}",
            call.environment.container
        )));
    }
    Ok(())
}

/// Releases what no valid attachment holds.
pub(crate) fn gc(call: &Call) -> Result<(), Error> {
    let (conf, valid) = (Conf::read(call)?, call.valid_attachments()?);
    lock(&conf.directory)?.store.retain(&valid)?;
    Ok(())
}

/// Fails if leases could not be written. A full range is no failure: the node can still run host-network pods.
pub(crate) fn status(call: &Call) -> Result<(), Error> {
    let conf = Conf::read(call)?;
    lock(&conf.directory).map(drop).map_err(|error| {
        let cause = error.to_json("")["msg"].as_str().unwrap_or_default().to_owned();
        Error::Unavailable(format!("host-local: {cause}"))
    })
}

/// A network's leases with the lock on them; dropping it gives the lock back.
struct Locked {
    store: Store<Disk>,
    _lock: File,
}

fn lock(directory: &Path) -> Result<Locked, Error> {
    let notes = directory.join(".attachments");
    fs::create_dir_all(&notes).during(|| format!("create {}", notes.display()))?;
    let path = directory.join("lock");
    let lock = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .during(|| format!("open {}", path.display()))?;
    lock.lock().during(|| format!("lock {}", path.display()))?;
    let boot = "/proc/sys/kernel/random/boot_id";
    let boot = fs::read_to_string(boot).during(|| format!("read {boot}"))?.trim().to_owned();
    Ok(Locked { store: Store::new(directory.to_owned(), Disk, boot), _lock: lock })
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Files { operation, ref path, .. } => {
                let operation = format!("{operation} {}", path.display());
                let StoreError::Files { source, .. } = error else { return Self::Ipam(operation) };
                Self::Io { operation, source }
            }
            other => Self::Ipam(other.to_string()),
        }
    }
}

fn read_resolv_conf(path: &Path) -> Result<Dns, Error> {
    let text = fs::read_to_string(path).during(|| format!("read ipam.resolvConf {}", path.display()))?;
    let mut dns = Dns::default();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        let mut words = line.split_ascii_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => dns.nameservers.extend(words.next()),
            Some("domain") => dns.domain = words.next().unwrap_or_default(),
            Some("search") => dns.search.extend(words),
            Some("options") => dns.options.extend(words),
            _ => {}
        }
    }
    Ok(dns)
}
