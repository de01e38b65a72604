//! IPAddresses and the cluster IPs of Services say the same: each looked at from both sides.

use crate::registry::kind::Kind;
use crate::registry::storage::unready;
use crate::write::Writer;
use crate::write::service::ip_address::{self, family};
use crate::write::service::{GRACE, held, is_headless, subnet};
use machinery::access::Get as _;
use machinery::object;
use machinery::status::Status;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;
use store::cache::{ChangeKind, Scope};
use tokio::time::Instant;

const COMPONENT: &str = "ipallocator-repair-controller";
const OF_SERVICE: &str = "ClusterIPAllocation";
const OF_ADDRESS: &str = "IPAddressAllocation";

/// What is wrong with a cluster IP of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// It has no IPAddress.
    Missing,
    /// Its IPAddress is of something that is not there.
    Reference,
    /// Its IPAddress is of another Service that has it, too.
    Duplicate,
    /// Its IPAddress has other labels than the allocator gives.
    Labels,
}

impl Trouble {
    /// Reason and text of the event; none for what is mended without a word.
    fn event(self, ip: IpAddr, service: &Value) -> Option<(&'static str, String)> {
        let family = family(ip);
        let (namespace, name) = (object::namespace(service), object::name(service));
        match self {
            Self::Missing => Some((
                "ClusterIPNotAllocated",
                format!("Cluster IP [{family}]: {ip} is not allocated; repairing"),
            )),
            Self::Reference => Some((
                "ClusterIPNotAllocated",
                format!(
                    "the ClusterIP [{family}]: {ip} for Service {namespace}/{name} has a wrong reference; repairing"
                ),
            )),
            Self::Duplicate => Some((
                "ClusterIPAlreadyAllocated",
                format!(
                    "Cluster IP [{family}]:{ip} was assigned to multiple services; please recreate service"
                ),
            )),
            Self::Labels => None,
        }
    }
}

/// Looks at `ip`, which `service` has. `other` is the Service that its IPAddress names, where that is another one.
fn trouble(service: &Value, ip: IpAddr, address: Option<&Value>, other: Option<&Value>) -> Option<Trouble> {
    let Some(address) = address else { return Some(Trouble::Missing) };
    let Some(parent) = ip_address::parent(address) else { return Some(Trouble::Reference) };
    if parent != (object::namespace(service), object::name(service)) {
        // One that does not have it may be about to: its IPAddress is looked at from the other side.
        let Some(other) = other else { return Some(Trouble::Reference) };
        return held(other).ips.contains(&ip).then_some(Trouble::Duplicate);
    }
    (!ip_address::is_labelled(address)).then_some(Trouble::Labels)
}

/// What becomes of an IPAddress.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Stays,
    /// It goes then, if nothing happens.
    Later(Duration),
    /// It goes; reason and text of the event.
    Goes(&'static str, String),
}

/// IPAddresses that no Service was seen to have, and when that was seen first: by this server's clock, since the servers that made them may
/// have others, and by no date.
#[derive(Clone, Debug, Default)]
pub(super) struct Suspects(BTreeMap<String, Instant>);

impl Suspects {
    /// Since when an IPAddress is suspected: now, where it was not.
    fn since(&self, address: &Value, now: Instant) -> Instant {
        self.0.get(object::uid(address)).copied().unwrap_or(now)
    }

    /// Lets time pass.
    #[cfg(test)]
    pub(super) fn age(&mut self, by: Duration) {
        self.0.values_mut().for_each(|since| *since -= by);
    }
}

/// Looks at an IPAddress of the allocator's. `service` is what it names; `suspected` for how long it has been seen to have no such Service.
fn fate(address: &Value, service: Option<&Value>, suspected: Duration) -> Fate {
    let name = object::name(address);
    let Ok(ip) = name.parse::<IpAddr>() else { return Fate::Stays };
    let Some((namespace, of)) = ip_address::parent(address) else {
        let field = |field| address.at("spec.parentRef").text(field);
        let parent = format!(
            "&ParentReference{{Group:{},Resource:{},Namespace:{},Name:{},}}",
            field("group"),
            field("resource"),
            field("namespace"),
            field("name")
        );
        let note = format!(
            "IPAddress {name} appears to have been modified, not referencing a Service {parent}: cleaning up"
        );
        return Fate::Goes("IPAddressNotAllocated", note);
    };
    if service.is_some_and(|service| held(service).ips.contains(&ip)) {
        return Fate::Stays;
    }
    // Its Service may be on its way to the store. Upstream waits no more than five seconds where there is a Service of that name, which is
    // shorter than a second address may take to get into it.
    match (GRACE.checked_sub(suspected), service) {
        (Some(left), _) => Fate::Later(left + Duration::from_secs(1)),
        (None, None) => Fate::Goes(
            "IPAddressNotAllocated",
            format!("IPAddress: {name} for Service {namespace}/{of} appears to have leaked: cleaning up"),
        ),
        (None, Some(_)) => Fate::Goes(
            "IPAddressWrongReference",
            format!("IPAddress: {name} for Service {namespace}/{of} has a wrong reference; cleaning up"),
        ),
    }
}

fn kinds() -> Option<(Kind, Kind)> {
    Some((Kind::of("", "services")?, Kind::of("networking.k8s.io", "ipaddresses")?))
}

/// Where objects are read from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The watch caches, which may be late.
    Caches,
    Store,
}

/// The repair's view of Services and IPAddresses.
struct Look<'w> {
    writer: &'w Writer,
    services: Kind,
    addresses: Kind,
    from: Source,
}

impl Look<'_> {
    async fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Option<Value>, Status> {
        let registry = &self.writer.registry;
        if self.from == Source::Store {
            return registry.read(kind, namespace, name).await;
        }
        let key = kind.resource.key(namespace, name);
        let cached = registry.cache(kind)?.get(&key).map_err(|e| unready(kind, &e))?;
        cached.map(|object| kind.decode_wire(&object.bytes)).transpose()
    }

    /// What is wrong with an address of a Service, and its IPAddress as it was looked at.
    async fn trouble(&self, service: &Value, ip: IpAddr) -> Result<Option<(Trouble, Option<Value>)>, Status> {
        let address = self.get(&self.addresses, "", &ip.to_string()).await?;
        let other = match address.as_ref().and_then(ip_address::parent) {
            Some((namespace, name)) => self.get(&self.services, namespace, name).await?,
            None => None,
        };
        Ok(trouble(service, ip, address.as_ref(), other.as_ref()).map(|trouble| (trouble, address)))
    }

    async fn fate(&self, address: &Value, suspected: Duration) -> Result<Fate, Status> {
        let service = match ip_address::parent(address) {
            Some((namespace, name)) => self.get(&self.services, namespace, name).await?,
            None => None,
        };
        Ok(fate(address, service.as_ref(), suspected))
    }

    /// The same, by what the store has now.
    fn again(&self) -> Self {
        Look { from: Source::Store, ..*self }
    }
}

/// One object that cannot be looked at keeps nobody from the others. Nothing is done about it.
fn unless_failed<T>(looked: Result<T, Status>, key: &str) -> Option<T> {
    looked.inspect_err(|error| tracing::warn!(%error, key, "repair of cluster IPs")).ok()
}

/// Looks at everything; when the first of what is to go later is due.
pub(super) async fn round(writer: &Writer, suspects: &mut Suspects) -> Result<Option<Duration>, Status> {
    let Some((services, addresses)) = kinds() else { return Ok(None) };
    let look = Look { writer, services, addresses, from: Source::Caches };
    let ranges = subnet::all(writer.stored_ranges()?.iter());
    let snapshot = writer.registry.cache(&services)?.snapshot().map_err(|e| unready(&services, &e))?;
    for cached in snapshot.range(&services.resource.list_key(Some("")), None) {
        let looked = async {
            let service = services.decode_wire(&cached.bytes)?;
            outside(writer, &service, &ranges);
            of_service(&look, &service).await
        };
        unless_failed(looked.await, &cached.key);
        tokio::task::coop::consume_budget().await;
    }
    let (mut due, mut still) = (None, Suspects::default());
    let snapshot = writer.registry.cache(&addresses)?.snapshot().map_err(|e| unready(&addresses, &e))?;
    for cached in snapshot.range(&addresses.resource.list_key(None), None) {
        let looked = async {
            let (address, now) = (addresses.decode_wire(&cached.bytes)?, Instant::now());
            let since = suspects.since(&address, now);
            let left = of_address(&look, &address, now.duration_since(since)).await?;
            Ok(left.map(|left| (object::uid(&address).to_owned(), since, left)))
        };
        if let Some((uid, since, left)) = unless_failed(looked.await, &cached.key).flatten() {
            still.0.insert(uid, since);
            due = Some(due.map_or(left, |due: Duration| due.min(left)));
        }
        tokio::task::coop::consume_budget().await;
    }
    *suspects = still;
    Ok(due)
}

/// Looks at what an IPAddress was of, as it goes or changes.
pub(super) async fn follow(writer: &Writer) {
    let Some((services, addresses)) = kinds() else { return };
    let look = Look { writer, services, addresses, from: Source::Caches };
    let Ok(cache) = writer.registry.cache(&addresses) else { return };
    loop {
        cache.ready().await;
        let Ok((_, mut watcher)) = cache.snapshot_and_watch(&Scope::All) else { return };
        while let Some(change) = watcher.next().await {
            if change.kind == ChangeKind::Added {
                continue;
            }
            for state in change.prev.iter().chain([&change.object]) {
                let looked = async {
                    let address = addresses.decode_wire(&state.bytes)?;
                    let Some((namespace, name)) = ip_address::parent(&address) else { return Ok(()) };
                    match writer.registry.lookup(&services, namespace, name).await? {
                        Some(service) => of_service(&look, &service).await,
                        None => Ok(()),
                    }
                };
                unless_failed(looked.await, &state.key);
            }
        }
    }
}

/// Says what cannot be mended.
fn outside(writer: &Writer, service: &Value, ranges: &[subnet::Subnet]) {
    if service.text("spec.type") == "ExternalName" || is_headless(service) {
        return;
    }
    for ip in service.items("spec.clusterIPs").iter().filter_map(Value::as_str) {
        let (reason, action, note) = match ip.parse::<IpAddr>() {
            Err(_) => (
                "ClusterIPNotValid",
                "ClusterIPValidation",
                "Cluster IP <nil> is not a valid IP; please recreate Service".to_owned(),
            ),
            Ok(ip) if !ranges.iter().any(|range| range.holds(ip)) => {
                let family = family(ip);
                let note = format!(
                    "Cluster IP [{family}]: {ip} is not within any configured Service CIDR; please recreate service"
                );
                ("ClusterIPOutOfRange", OF_SERVICE, note)
            }
            Ok(_) => continue,
        };
        writer.warn_of(COMPONENT, service, reason, action, note);
    }
}

/// Mends what is wrong with a Service's addresses. What the caches say is looked at again in the store before anything is done.
async fn of_service(look: &Look<'_>, service: &Value) -> Result<(), Status> {
    let writer = look.writer;
    for ip in held(service).ips {
        if look.trouble(service, ip).await?.is_none() {
            continue;
        }
        let (namespace, name) = (object::namespace(service), object::name(service));
        let Some(service) = writer.registry.read(&look.services, namespace, name).await? else {
            return Ok(());
        };
        if !held(&service).ips.contains(&ip) {
            continue;
        }
        let Some((trouble, address)) = look.again().trouble(&service, ip).await? else { continue };
        let ranges = subnet::all(writer.stored_ranges()?.iter());
        if !ranges.iter().any(|range| range.holds(ip)) {
            continue;
        }
        if let Some((reason, note)) = trouble.event(ip, &service) {
            writer.warn_of(COMPONENT, &service, reason, OF_SERVICE, note);
        }
        if let Some(address) = address.filter(|_| matches!(trouble, Trouble::Reference | Trouble::Labels)) {
            writer.discard_seen(&look.addresses, &address).await?;
        }
        if trouble != Trouble::Duplicate {
            tracing::warn!(%ip, namespace, name, "the cluster IP of a Service is taken for it again");
            writer.make_address(ip, (namespace, name)).await?;
        }
    }
    Ok(())
}

/// Removes an IPAddress that is nobody's, once that has been so for long enough; how long until then.
async fn of_address(
    look: &Look<'_>,
    address: &Value,
    suspected: Duration,
) -> Result<Option<Duration>, Status> {
    if !ip_address::is_managed(address) || address.present("metadata.deletionTimestamp").is_some() {
        return Ok(None);
    }
    match look.fate(address, suspected).await? {
        Fate::Stays => return Ok(None),
        Fate::Later(left) => return Ok(Some(left)),
        Fate::Goes(..) => {}
    }
    match look.again().fate(address, suspected).await? {
        Fate::Goes(reason, note) => {
            look.writer.warn_of(COMPONENT, address, reason, OF_ADDRESS, note);
            look.writer.discard_seen(&look.addresses, address).await.map(|()| None)
        }
        Fate::Stays | Fate::Later(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const IP: &str = "10.96.0.7";

    fn ip() -> IpAddr {
        IP.parse().unwrap()
    }

    fn service(name: &str, ip: &str) -> Value {
        json!({"metadata": {"namespace": "d", "name": name}, "spec": {"clusterIP": ip, "clusterIPs": [ip]}})
    }

    fn address(of: &str) -> Value {
        ip_address::of(ip(), "d", of)
    }

    #[test]
    fn a_services_address_is_looked_at() {
        let a = service("a", IP);
        let of = |address: Option<Value>, other: Option<Value>| {
            trouble(&a, ip(), address.as_ref(), other.as_ref())
        };
        assert_eq!(of(Some(address("a")), None), None);
        assert_eq!(of(None, None), Some(Trouble::Missing));
        assert_eq!(of(Some(address("gone")), None), Some(Trouble::Reference));
        assert_eq!(of(Some(address("b")), Some(service("b", IP))), Some(Trouble::Duplicate));
        assert_eq!(of(Some(address("b")), Some(service("b", "10.96.0.8"))), None);
        let (mut gateway, mut bare) = (address("a"), address("a"));
        gateway["spec"]["parentRef"]["group"] = "gateway.networking.k8s.io".into();
        bare["metadata"]["labels"] = json!({});
        assert_eq!(of(Some(gateway), None), Some(Trouble::Reference));
        assert_eq!(of(Some(bare), None), Some(Trouble::Labels));
    }

    #[test]
    fn an_address_whose_service_is_being_made_must_not_be_taken_away() {
        let (address, half) = (address("a"), Duration::from_secs(30));
        assert_eq!(fate(&address, None, half), Fate::Later(Duration::from_secs(31)));
        // A second address of a Service that is there, or the first of one that had another type.
        let another = service("a", "10.96.0.8");
        assert_eq!(fate(&address, Some(&another), half), Fate::Later(Duration::from_secs(31)));
        let goes = |service: Option<&Value>| match fate(&address, service, Duration::from_secs(600)) {
            Fate::Goes(reason, note) => format!("{reason}: {note}"),
            other => format!("{other:?}"),
        };
        assert_eq!(
            goes(None),
            "IPAddressNotAllocated: IPAddress: 10.96.0.7 for Service d/a appears to have leaked: cleaning up"
        );
        assert_eq!(
            goes(Some(&service("a", "10.96.0.8"))),
            "IPAddressWrongReference: IPAddress: 10.96.0.7 for Service d/a has a wrong reference; cleaning up"
        );
        assert_eq!(goes(Some(&service("a", IP))), "Stays");
    }
}
