//! Aggregation: API groups served by other servers, reached through this one. Upstream: `kube-aggregator`.
//!
//! An APIService that names a Service hands its group version over. Requests for it are authenticated and authorised here,
//! then carried to some endpoint of that Service with the caller's name in headers, which the other server believes because
//! of the front proxy's certificate. Reads APIServices, Services and EndpointSlices in the watch cache; writes the Available
//! condition. Promises that a group version served here is never handed over.
//!
//! - [`remote`]: an APIService as it is used; [`availability`]: whether it answers; [`proxy`]: requests carried there; [`description`]: how it
//!   describes itself

mod availability;
mod description;
mod proxy;
mod remote;

use crate::context::{Context, Request, RequestInfo, Response};
use crate::discovery::{Described, Group, Resource, Source, Version};
use crate::registry::kind::Kind;
use crate::registry::parsed::Parsed;
use crate::tasks::Tasks;
use crate::upkeep::reconcile;
use crate::write::Writer;
use description::Description;
use machinery::names::compare_versions;
use parking_lot::Mutex;
use remote::Remote;
use sha2::{Digest as _, Sha512};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often what does not change is asked whether it still answers.
const EVERY: Duration = Duration::from_secs(30);

/// The certificate shown to other servers, and its key: PEM.
pub type Identity = (String, String);

/// A group and a version of it.
type Place = (String, String);

/// What is known of other servers.
pub struct Aggregator {
    writer: Arc<Writer>,
    tasks: Tasks,
    identity: Mutex<Identity>,
    remotes: Parsed<Arc<Remote>>,
    /// What servers said they serve.
    discovered: Mutex<BTreeMap<Place, Said>>,
    /// How they described it.
    described: Mutex<BTreeMap<Place, Description>>,
    /// The priorities of the group versions that are theirs.
    priorities: Mutex<BTreeMap<Place, (i64, i64)>>,
    generation: AtomicU64,
}

/// What a server said it serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Said {
    resources: Vec<Resource>,
    /// It does not answer any more.
    stale: bool,
}

impl Said {
    /// What counts after a server has been asked, and may have said nothing.
    fn after(before: Option<&Said>, resources: Option<Vec<Resource>>) -> Said {
        match resources {
            Some(resources) => Said { resources, stale: false },
            None => Said { stale: true, ..before.cloned().unwrap_or_default() },
        }
    }
}

impl Aggregator {
    /// Finds other servers by the APIServices among what is stored; connections to them show `identity`.
    #[must_use]
    pub fn new(writer: Arc<Writer>, tasks: Tasks, identity: Identity) -> Arc<Self> {
        Arc::new(Aggregator {
            writer,
            tasks,
            identity: Mutex::new(identity),
            remotes: Parsed::default(),
            discovered: Mutex::default(),
            described: Mutex::default(),
            priorities: Mutex::default(),
            generation: AtomicU64::new(0),
        })
    }

    /// Whether servers may send clients elsewhere.
    fn passes_redirects(&self) -> bool {
        self.writer.registry.config.pass_redirects
    }

    /// Shows another certificate from the next connection on.
    pub fn replace_identity(&self, identity: Identity) {
        *self.identity.lock() = identity;
    }

    fn remotes(&self) -> Arc<Vec<Arc<Remote>>> {
        let Some(kind) = Kind::of("apiregistration.k8s.io", "apiservices") else { return Arc::default() };
        let parse = |object: &serde_json::Value, out: &mut Vec<Arc<Remote>>| {
            out.extend(Remote::parse(object).map(Arc::new));
        };
        self.remotes.get(&self.writer.registry, &kind, parse).unwrap_or_default()
    }

    /// The server a request is for, unless it is this one.
    fn remote_for(&self, info: &RequestInfo) -> Option<Arc<Remote>> {
        let (group, version) = if info.is_resource {
            (info.group.as_str(), info.version.as_str())
        } else {
            let mut parts = info.path.strip_prefix("/apis/")?.splitn(3, '/');
            (parts.next()?, parts.next()?)
        };
        self.remotes().iter().find(|r| r.group == group && r.version == version).cloned()
    }

    /// Carries the request to the server it is for; gives it back where that is this one.
    pub async fn serve(&self, context: &Context, request: Request) -> Result<Response, Request> {
        match self.remote_for(&context.info) {
            Some(remote) => Ok(proxy::carry(self, &remote, context, request).await),
            None => Err(request),
        }
    }

    /// Whether anything but this server answers such requests.
    #[must_use]
    pub fn takes(&self, info: &RequestInfo) -> bool {
        self.remote_for(info).is_some()
    }

    /// Keeps the Available conditions, and what is known of other servers, until `stop`.
    pub fn start(self: &Arc<Self>, stop: &CancellationToken) {
        let kinds = [
            ("apiregistration.k8s.io", "apiservices"),
            ("", "services"),
            ("discovery.k8s.io", "endpointslices"),
        ];
        let reads = kinds.into_iter().filter_map(|(group, plural)| reconcile::all(group, plural)).collect();
        description::keep(self, stop);
        let aggregator = self.clone();
        let _ = reconcile::keep_up(
            &self.writer.registry,
            "aggregated-servers",
            reads,
            EVERY,
            move || {
                let aggregator = aggregator.clone();
                Box::pin(async move { availability::check_all(&aggregator).await })
            },
            stop,
        );
    }

    /// Notes what a server says it serves; with `None` that it does not say, and what it said before may be out of date.
    fn note(&self, remote: &Remote, resources: Option<Vec<Resource>>) {
        let key = remote.place();
        let mut discovered = self.discovered.lock();
        let before = discovered.get(&key);
        let said = Said::after(before, resources);
        if before != Some(&said) {
            discovered.insert(key, said);
            self.generation.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What is known of how a group version is described.
    fn description(&self, remote: &Remote) -> Option<Description> {
        self.described.lock().get(&remote.place()).cloned()
    }

    /// Notes how a server describes its group version now.
    fn describe(&self, remote: &Remote, now: Description) {
        let said = now.said();
        let before = self.described.lock().insert(remote.place(), now).as_ref().map(Description::said);
        let before = before.unwrap_or_default();
        if (&before.v2, &before.v3) != (&said.v2, &said.v3) {
            self.generation.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes which group versions are other servers' now, and forgets what was known of others.
    fn retain(&self, remotes: &[Arc<Remote>]) {
        let now: BTreeMap<Place, _> = remotes.iter().map(|r| (r.place(), r.priorities)).collect();
        self.discovered.lock().retain(|place, _| now.contains_key(place));
        // An answer may have come when its APIService was gone.
        let late = {
            let mut described = self.described.lock();
            let before = described.len();
            described.retain(|place, _| now.contains_key(place));
            described.len() != before
        };
        let mut before = self.priorities.lock();
        if late || *before != now {
            *before = now;
            self.generation.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Source for Aggregator {
    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    fn groups(&self) -> Vec<Group> {
        ordered(&self.discovered.lock(), &self.priorities.lock())
    }

    fn content(&self, group: &str, version: &str, into: &mut Sha512) {
        if let Some(v3) = self.described(group, version).and_then(|described| described.v3) {
            into.update(&v3);
        }
    }

    fn described(&self, group: &str, version: &str) -> Option<Described> {
        let place = (group.to_owned(), version.to_owned());
        self.described.lock().get(&place).map(Description::said)
    }
}

/// A group's priority, and its versions with theirs.
type Ranked = (i64, Vec<(i64, Version)>);

/// Groups, each as far in front as its APIServices say, and so its versions (upstream: `SortedByGroupAndVersion`).
fn ordered(discovered: &BTreeMap<Place, Said>, priorities: &BTreeMap<Place, (i64, i64)>) -> Vec<Group> {
    let mut groups: BTreeMap<&str, Ranked> = BTreeMap::new();
    for (place, Said { resources, stale }) in discovered {
        let (of_group, of_version) = priorities.get(place).copied().unwrap_or_default();
        let (group, name) = place;
        let version = Version { name: name.clone(), resources: resources.clone(), stale: *stale };
        let (priority, versions) = groups.entry(group.as_str()).or_default();
        *priority = of_group.max(*priority);
        versions.push((of_version, version));
    }
    let in_order = |(name, (priority, mut versions)): (&str, Ranked)| {
        versions.sort_by(|(a, left), (b, right)| {
            b.cmp(a).then_with(|| compare_versions(&right.name, &left.name))
        });
        let versions = versions.into_iter().map(|(_, version)| version).collect();
        Group { name: name.to_owned(), priority, versions }
    };
    let mut groups: Vec<Group> = groups.into_iter().map(in_order).collect();
    groups.sort_by_key(|group| Reverse(group.priority));
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_falls_silent_must_not_seem_to_have_nothing() {
        let has = vec![Resource { plural: "flunders".into(), ..Resource::default() }];
        let current = Said::after(None, Some(has.clone()));
        assert_eq!(current, Said { resources: has.clone(), stale: false });
        let silent = Said::after(Some(&current), None);
        assert_eq!(silent, Said { resources: has.clone(), stale: true });
        assert!(Said::after(None, None).stale, "it never said anything");
        assert!(!Said::after(Some(&silent), Some(has)).stale);
    }

    #[test]
    fn a_stable_version_must_not_stand_behind_others_for_its_name() {
        let place = |group: &str, version: &str| (group.to_owned(), version.to_owned());
        let known = [
            ("b.io", "v1alpha1", (100, 10)),
            ("b.io", "v1", (100, 10)),
            ("b.io", "v1beta1", (100, 10)),
            ("a.io", "v1", (100, 10)),
            ("c.io", "v1", (100, 10)),
            ("c.io", "v2alpha1", (2000, 20)),
        ];
        let discovered = known.iter().map(|(g, v, _)| (place(g, v), Said::default())).collect();
        let priorities = known.iter().map(|(g, v, p)| (place(g, v), *p)).collect();
        let groups = ordered(&discovered, &priorities);
        let named = |group: &Group| {
            let versions: Vec<&str> = group.versions.iter().map(|v| v.name.as_str()).collect();
            format!("{} {}", group.name, versions.join(" "))
        };
        let named: Vec<String> = groups.iter().map(named).collect();
        assert_eq!(named, ["c.io v2alpha1 v1", "a.io v1", "b.io v1 v1beta1 v1alpha1"]);
    }
}
