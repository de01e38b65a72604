//! Priority and fairness: which flow a request belongs to, and whether it may be worked on now, later, or not.
//!
//! Follows every change to FlowSchemas and PriorityLevelConfigurations; until it has, it works by the two mandatory ones.
//! The server's concurrency is divided among the levels by their shares. Long-running requests hold no seat, watches are
//! classified all the same. Upstream: `apiserver/pkg/util/flowcontrol`.
//!
//! - [`schema`]: which flow; [`level`]: seats and queues of one level, on [`shuffle`]; [`defaults`]: the objects every cluster has
//! - [`in_flight`]: what limits requests where all this is switched off

pub mod defaults;
mod in_flight;
mod level;
mod schema;
mod shuffle;

use crate::answer;
use crate::context::{RequestInfo, Response, User};
use crate::metrics::Metrics;
use crate::objects::{Observer, text};
use crate::request::{is_long_running, is_read_only};
use arc_swap::ArcSwap;
use http::header::{HeaderName, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use in_flight::InFlight;
use level::{Level, Limits, Seat};
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use schema::Schema;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// Group of both resources.
pub const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const SCHEMAS: &str = "flowschemas";
const LEVELS: &str = "prioritylevelconfigurations";
/// The precedence of a schema that names none.
const LAST_PRECEDENCE: i64 = 1000;
const FLOW_SCHEMA: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const PRIORITY_LEVEL: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// A level as configured, and at work.
struct Configured {
    uid: String,
    level: Arc<Level>,
}

#[derive(Default)]
struct Table {
    /// By precedence, then name; only those whose level exists.
    schemas: Vec<Schema>,
    levels: BTreeMap<String, Configured>,
}

#[derive(Default)]
struct Stored {
    schemas: BTreeMap<String, Schema>,
    levels: BTreeMap<String, (String, Limits)>,
}

/// Priority and fairness: admits a request, queues it, or refuses it.
pub struct Flow {
    /// Seats of the whole server.
    seats: usize,
    /// Longest wait in a queue.
    longest: Duration,
    stored: Mutex<Stored>,
    table: ArcSwap<Table>,
    metrics: Arc<Metrics>,
    /// Limits in place of all others.
    plain: Option<InFlight>,
}

/// A classified request that may be worked on; its place is given back when this is dropped.
#[derive(Debug)]
pub struct Admitted {
    marks: Marks,
    _seat: Option<Seat>,
    _place: Option<OwnedSemaphorePermit>,
    gauge: Option<Gauge>,
}

/// What a classified request's answer says of its classification.
#[derive(Clone, Debug, Default)]
struct Marks {
    schema: String,
    level: String,
}

impl Marks {
    fn set(&self, headers: &mut HeaderMap) {
        for (name, uid) in [(FLOW_SCHEMA, &self.schema), (PRIORITY_LEVEL, &self.level)] {
            if let Ok(value) = HeaderValue::from_str(uid) {
                headers.insert(name, value);
            }
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some(gauge) = &self.gauge {
            gauge.dec();
        }
    }
}

impl Admitted {
    /// Writes the classification on the answer, as upstream does on every one.
    pub fn mark(&self, response: &mut Response) {
        self.marks.set(response.headers_mut());
    }
}

impl Flow {
    /// Seats `seats` requests at once; others wait at most `longest`.
    #[must_use]
    pub fn new(seats: usize, longest: Duration, metrics: Arc<Metrics>) -> Self {
        let (stored, table) = (Mutex::default(), ArcSwap::default());
        let flow = Flow { seats, longest, stored, table, metrics, plain: None };
        flow.rebuild(&flow.stored.lock());
        flow
    }

    /// Neither priority nor fairness: so many requests at once that read, and that write; zero: any number.
    #[must_use]
    pub fn plain(reading: usize, writing: usize, metrics: Arc<Metrics>) -> Self {
        let plain = Some(InFlight::new(reading, writing));
        Flow { plain, ..Flow::new(reading.saturating_add(writing), Duration::ZERO, metrics) }
    }

    /// A place for the request, or the answer to one too many.
    pub async fn admit(&self, info: &RequestInfo, user: &User) -> Result<Admitted, Box<Response>> {
        let long_running = is_long_running(info);
        if long_running && info.verb != "watch" {
            return Ok(Admitted { marks: Marks::default(), _seat: None, _place: None, gauge: None });
        }
        if let Some(plain) = &self.plain {
            let place = match long_running {
                true => None,
                false => plain.admit(info, user).map_err(|_| Box::new(too_many()))?,
            };
            let gauge = (!long_running).then(|| self.busy(info));
            return Ok(Admitted { marks: Marks::default(), _seat: None, _place: place, gauge });
        }
        let (level, marks, hash) = self.classify(info, user);
        let seat = if long_running {
            None
        } else {
            match level.admit(hash, self.longest).await {
                Ok(seat) => Some(seat),
                Err(refusal) => {
                    tracing::debug!(?refusal, path = info.path, user = user.name, "too many requests");
                    let mut response = too_many();
                    marks.set(response.headers_mut());
                    return Err(Box::new(response));
                }
            }
        };
        let gauge = seat.is_some().then(|| self.busy(info));
        Ok(Admitted { marks, _seat: seat, _place: None, gauge })
    }

    /// Counts a request that is worked on.
    fn busy(&self, info: &RequestInfo) -> Gauge {
        let gauge = self.metrics.inflight(if is_read_only(info) { "readOnly" } else { "mutating" });
        gauge.inc();
        gauge
    }

    fn classify(&self, info: &RequestInfo, user: &User) -> (Arc<Level>, Marks, u64) {
        let table = self.table.load();
        let found = table
            .schemas
            .iter()
            .find(|schema| schema.matches(info, user))
            .and_then(|schema| table.levels.get(&schema.level).map(|level| (schema, level)));
        match found {
            Some((schema, level)) => {
                let marks = Marks { schema: schema.uid.clone(), level: level.uid.clone() };
                (level.level.clone(), marks, hash(&schema.name, schema.distinguish(info, user)))
            }
            // The mandatory schemas match everything; without them nothing is limited.
            None => {
                let limits = Limits { exempt: true, shares: 0, response: level::Response::Reject };
                (Arc::new(Level::new(limits, 0)), Marks::default(), 0)
            }
        }
    }

    /// Rebuilds the table, keeping levels at work that still limit alike.
    fn rebuild(&self, stored: &Stored) {
        let before = self.table.load();
        let mut limits = stored.levels.clone();
        for object in defaults::mandatory_levels() {
            let name = text(&object, "/metadata/name").to_owned();
            limits.entry(name).or_insert_with(|| (String::new(), Limits::parse(&object)));
        }
        let mut schemas: Vec<Schema> = stored.schemas.values().cloned().collect();
        for object in defaults::mandatory_schemas() {
            let schema = Schema::parse(&object);
            if !stored.schemas.contains_key(&schema.name) {
                schemas.push(schema);
            }
        }
        // One whose level does not exist stands aside.
        schemas.retain(|schema| limits.contains_key(&schema.level));
        schemas.sort_by(|a, b| a.order().cmp(&b.order()));
        let total: u64 = limits.values().map(|(_, limits)| limits.shares).sum();
        let seats: Vec<(String, usize)> = limits
            .iter()
            .map(|(name, (_, limits))| (name.clone(), seats_of(self.seats, limits.shares, total)))
            .collect();
        self.metrics.seats(seats.iter().map(|(name, seats)| (name.as_str(), *seats)));
        let levels = limits
            .into_iter()
            .map(|(name, (uid, limits))| {
                let seats = seats_of(self.seats, limits.shares, total);
                let level = match before.levels.get(&name).filter(|known| known.level.limits.is_like(&limits))
                {
                    Some(known) => {
                        known.level.resize(seats);
                        known.level.clone()
                    }
                    None => Arc::new(Level::new(limits, seats)),
                };
                (name, Configured { uid, level })
            })
            .collect();
        self.table.store(Arc::new(Table { schemas, levels }));
    }
}

/// A level's part of the server's seats: rounded up, so that any share seats somebody.
fn seats_of(server: usize, shares: u64, total: u64) -> usize {
    if total == 0 {
        return 0;
    }
    let server = u64::try_from(server).unwrap_or(u64::MAX);
    usize::try_from(server.saturating_mul(shares).div_ceil(total)).unwrap_or(usize::MAX)
}

fn hash(schema: &str, flow: &str) -> u64 {
    let digest = Sha256::new().chain_update(schema).chain_update([0]).chain_update(flow).finalize();
    digest.iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}

fn too_many() -> Response {
    let mut response =
        answer::text(StatusCode::TOO_MANY_REQUESTS, "Too many requests, please try again later.\n");
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

impl Observer for Flow {
    fn put(&self, group: &str, resource: &str, object: &Value) {
        if group != GROUP {
            return;
        }
        let name = text(object, "/metadata/name").to_owned();
        let mut stored = self.stored.lock();
        match resource {
            SCHEMAS => {
                stored.schemas.insert(name, Schema::parse(object));
            }
            LEVELS => {
                let uid = text(object, "/metadata/uid").to_owned();
                stored.levels.insert(name, (uid, Limits::parse(object)));
            }
            _ => return,
        }
        self.rebuild(&stored);
    }

    fn delete(&self, group: &str, resource: &str, _: &str, name: &str) {
        if group != GROUP {
            return;
        }
        let mut stored = self.stored.lock();
        match resource {
            SCHEMAS => drop(stored.schemas.remove(name)),
            LEVELS => drop(stored.levels.remove(name)),
            _ => return,
        }
        self.rebuild(&stored);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn flow(seats: usize) -> Flow {
        let flow = Flow::new(seats, Duration::from_millis(20), Arc::new(Metrics::default()));
        let all = defaults::mandatory_levels().into_iter().chain(defaults::suggested_levels());
        for (n, mut level) in all.enumerate() {
            level["metadata"]["uid"] = json!(format!("level-{n}"));
            flow.put(GROUP, LEVELS, &level);
        }
        for mut schema in defaults::mandatory_schemas().into_iter().chain(defaults::suggested_schemas()) {
            schema["metadata"]["uid"] = json!(format!("uid-of-{}", text(&schema, "/metadata/name")));
            flow.put(GROUP, SCHEMAS, &schema);
        }
        flow
    }

    fn user(name: &str, groups: &[&str]) -> User {
        User {
            name: name.into(),
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
            ..User::default()
        }
    }

    fn list_pods() -> RequestInfo {
        RequestInfo {
            is_resource: true,
            verb: "list".into(),
            resource: "pods".into(),
            version: "v1".into(),
            namespace: "a".into(),
            ..RequestInfo::default()
        }
    }

    #[tokio::test]
    async fn requests_are_classified_as_upstreams_are() {
        let flow = flow(600);
        let any = "system:authenticated";
        for (caller, schema) in [
            (user("root", &["system:masters", any]), "exempt"),
            (user("system:node:n", &["system:nodes", any]), "system-nodes"),
            (user("system:kube-scheduler", &[any]), "kube-scheduler"),
            (
                user("system:serviceaccount:kube-system:x", &["system:serviceaccounts", any]),
                "kube-system-service-accounts",
            ),
            (user("system:serviceaccount:a:x", &["system:serviceaccounts", any]), "service-accounts"),
            (user("alice", &[any]), "global-default"),
            (user("", &[]), ""),
        ] {
            let admitted = flow.admit(&list_pods(), &caller).await.unwrap();
            let expected = if schema.is_empty() { String::new() } else { format!("uid-of-{schema}") };
            assert_eq!(admitted.marks.schema, expected, "{}", caller.name);
        }
    }

    #[tokio::test]
    async fn a_level_out_of_seats_refuses_and_marks_the_answer() {
        let flow = flow(1);
        let alice = user("alice", &["system:authenticated"]);
        let held = flow.admit(&list_pods(), &alice).await.unwrap();
        let refused = flow.admit(&list_pods(), &alice).await.unwrap_err();
        assert_eq!(refused.status().as_u16(), 429);
        assert_eq!(refused.headers()["retry-after"], "1");
        assert_eq!(refused.headers()["x-kubernetes-pf-flowschema-uid"], "uid-of-global-default");
        let watch = RequestInfo { verb: "watch".into(), ..list_pods() };
        assert!(flow.admit(&watch, &alice).await.is_ok(), "watches hold no seat");
        let root = user("root", &["system:masters"]);
        assert!(flow.admit(&list_pods(), &root).await.is_ok());
        drop(held);
        assert!(flow.admit(&list_pods(), &alice).await.is_ok());
    }

    #[tokio::test]
    async fn without_fairness_nothing_is_classified_and_watches_need_no_place() {
        let flow = Flow::plain(1, 1, Arc::new(Metrics::default()));
        let alice = user("alice", &["system:authenticated"]);
        let held = flow.admit(&list_pods(), &alice).await.unwrap();
        assert_eq!((held.marks.schema.as_str(), held.gauge.is_some()), ("", true));
        assert_eq!(flow.admit(&list_pods(), &alice).await.unwrap_err().status().as_u16(), 429);
        let watch = RequestInfo { verb: "watch".into(), ..list_pods() };
        assert!(flow.admit(&watch, &alice).await.is_ok());
    }

    #[test]
    fn seats_are_divided_by_shares() {
        assert_eq!(seats_of(600, 40, 245), 98);
        assert_eq!(seats_of(1, 5, 245), 1);
        assert_eq!(seats_of(600, 0, 245), 0);
    }

    #[test]
    fn a_schema_without_its_level_stands_aside() {
        let flow = flow(10);
        flow.delete(GROUP, LEVELS, "", "global-default");
        let table = flow.table.load();
        assert!(!table.schemas.iter().any(|s| s.name == "global-default"));
        assert_eq!(table.schemas.last().unwrap().name, "catch-all");
    }
}
