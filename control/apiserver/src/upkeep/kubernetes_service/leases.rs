//! Leases of API servers: a key each, by its address, that goes unless it is renewed. Upstream's servers keep theirs in the same place and
//! form: Endpoints whose generation counts the renewals (`pkg/controlplane/reconcilers/lease.go`).

use crate::registry::Registry;
use crate::registry::kind::Kind;
use crate::registry::storage;
use crate::registry::stored;
use machinery::access::{Get as _, set_at};
use machinery::object;
use machinery::status::Status;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use store::{Error, Expect};

const PREFIX: &str = "/registry/masterleases/";
/// How long a lease lasts (upstream: `DefaultEndpointReconcilerTTL`).
const TTL: Duration = Duration::from_secs(15);
/// Lost races of one renewal: only a server of the same address takes part.
const TRIES: usize = 10;

fn failed(operation: &str, error: &Error) -> Status {
    match Kind::of("", "endpoints") {
        Some(kind) => storage::failed(&kind, "masterleases", operation, error),
        None => Status::internal_error(error),
    }
}

/// Makes or renews the lease of the server at `ip`.
pub(super) async fn renew(registry: &Registry, ip: &str) -> Result<(), Status> {
    let key = format!("{PREFIX}{ip}");
    for _ in 0..TRIES {
        let entry = registry.backend.get(&key).await.map_err(|e| failed("get", &e))?;
        let mut lease = match &entry {
            Some(entry) => serde_json::from_slice(&entry.value).map_err(Status::internal_error)?,
            None => json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {}}),
        };
        let generation = object::generation(&lease) + 1;
        object::set_generation(&mut lease, generation);
        set_at(&mut lease, "subsets", json!([{"addresses": [{"ip": ip}]}]));
        let bytes = stored::encode(&lease).map_err(Status::internal_error)?;
        let expect = entry.map_or(Expect::Absent, |entry| Expect::At(entry.mod_revision));
        match registry.backend.put(&key, bytes, expect, Some(TTL)).await {
            Ok(_) => return Ok(()),
            Err(Error::Conflict { .. }) => {}
            Err(error) => return Err(failed("write", &error)),
        }
    }
    Err(Status::too_many_requests(format!("the lease of {ip} is written by others"), 1))
}

/// Ends the lease of the server at `ip`; it may have ended already.
pub(super) async fn remove(registry: &Registry, ip: &str) -> Result<(), Status> {
    let key = format!("{PREFIX}{ip}");
    while let Some(entry) = registry.backend.get(&key).await.map_err(|e| failed("get", &e))? {
        match registry.backend.delete(&key, Expect::At(entry.mod_revision)).await {
            Ok(_) => return Ok(()),
            // Renewed in between, or gone.
            Err(Error::Conflict { .. }) => {}
            Err(error) => return Err(failed("delete", &error)),
        }
    }
    Ok(())
}

/// The addresses of the servers that have a lease, in order.
pub(super) async fn list(registry: &Registry) -> Result<Vec<String>, Status> {
    let page = registry.backend.list(PREFIX, None, 0, None).await.map_err(|e| failed("list", &e))?;
    let mut found = BTreeSet::new();
    for entry in page.entries {
        let lease: Value = serde_json::from_slice(&entry.value).map_err(Status::internal_error)?;
        let first = lease.items("subsets").first().and_then(|s| s.items("addresses").first().cloned());
        let ip = first.map(|address| address.text("ip").to_owned()).unwrap_or_default();
        if !ip.is_empty() {
            found.insert(ip);
        }
    }
    Ok(found.into_iter().collect())
}
