//! `/healthz`, `/livez`, `/readyz`: named checks, one by one or all together.
//! Upstream: `apiserver/pkg/server/healthz`.

use crate::answer;
use crate::context::Response;
use futures::future::BoxFuture;
use http::StatusCode;
use parking_lot::RwLock;
use std::sync::Arc;
use std::time::Duration;
use supervise::Supervisor;
use supervise::checks::{self, Check, HealthResponse};
use tokio::time::Instant;

/// Why a check fails; told to those who may ask for a single check.
pub type Failure = String;
type Ask = Arc<dyn Fn() -> Result<(), Failure> + Send + Sync>;
/// Asks a part of the control plane that is a program of its own how it is: what it says, whether that is good or not.
type Probe = Arc<dyn Fn() -> BoxFuture<'static, Result<String, Failure>> + Send + Sync>;

/// The checks of a server. A check must not wait: it reads a state that others keep.
#[derive(Default)]
pub struct Health {
    checks: RwLock<Vec<Named>>,
    neighbours: RwLock<Vec<(&'static str, Probe)>>,
    tasks: Supervisor,
    /// Until then it is alive, whatever has not started.
    grace: RwLock<Option<Instant>>,
}

#[derive(Clone)]
struct Named {
    name: String,
    check: Ask,
    live: bool,
    /// Whether it says that something has started.
    starts: bool,
}

/// Which of the three is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/healthz`
    Health,
    /// `/livez`
    Live,
    /// `/readyz`
    Ready,
}

impl Endpoint {
    /// The endpoint of a path, and the single check it names (or an empty string).
    #[must_use]
    pub fn of(path: &str) -> Option<(Self, &str)> {
        [("/healthz", Self::Health), ("/livez", Self::Live), ("/readyz", Self::Ready)].into_iter().find_map(
            |(prefix, endpoint)| {
                let rest = path.strip_prefix(prefix)?;
                let name = if rest.is_empty() { rest } else { rest.strip_prefix('/')? };
                Some((endpoint, name.trim_end_matches('/')))
            },
        )
    }

    /// Whether a check is one of this endpoint's: some say only whether requests may be sent here.
    fn has(self, check: &str) -> bool {
        const READINESS: [&str; 4] = ["etcd-readiness", "etcd-member", "informer-sync", "shutdown"];
        self == Endpoint::Ready || !READINESS.contains(&check)
    }

    /// `healthz`, `livez` or `readyz`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Endpoint::Health => "healthz",
            Endpoint::Live => "livez",
            Endpoint::Ready => "readyz",
        }
    }
}

impl Health {
    /// Checks of a server whose tasks are checks, too.
    #[must_use]
    pub fn new(tasks: Supervisor) -> Self {
        Self { tasks, ..Self::default() }
    }

    /// From now on it may take so long to start: until then `/livez` takes it that what has not started will.
    pub fn give_time(&self, to_start: Duration) {
        *self.grace.write() = Instant::now().checked_add(to_start);
    }

    /// Adds a check that fails until something has started.
    pub fn add_start(&self, name: &str, check: impl Fn() -> Result<(), Failure> + Send + Sync + 'static) {
        let (name, check) = (name.to_owned(), Arc::new(check));
        self.checks.write().push(Named { name, check, live: true, starts: true });
    }

    /// Adds a check. One that is not `live` says whether requests can be served, not whether a restart would help.
    pub fn add(
        &self,
        name: &str,
        live: bool,
        check: impl Fn() -> Result<(), Failure> + Send + Sync + 'static,
    ) {
        let (name, check) = (name.to_owned(), Arc::new(check));
        self.checks.write().push(Named { name, check, live, starts: false });
    }

    /// Has `componentstatuses` ask a part of the control plane that is a program of its own.
    pub fn add_neighbour(
        &self,
        name: &'static str,
        probe: impl Fn() -> BoxFuture<'static, Result<String, Failure>> + Send + Sync + 'static,
    ) {
        self.neighbours.write().push((name, Arc::new(probe)));
    }

    /// What a part says that is a program of its own; `None` for one that is not.
    pub(crate) async fn ask(&self, name: &str) -> Option<Result<String, Failure>> {
        let probe =
            self.neighbours.read().iter().find(|(known, _)| *known == name).map(|(_, p)| p.clone())?;
        Some(probe().await)
    }

    /// Answers a request: `path` below the endpoint names a single check, `verbose` lists them, `exclude` leaves some out.
    pub fn answer(&self, endpoint: Endpoint, single: &str, query: &[(String, String)]) -> Response {
        let shown = |c: &&Named| endpoint != Endpoint::Live || c.live;
        let patient = endpoint == Endpoint::Live && self.grace.read().is_some_and(|end| Instant::now() < end);
        let state = |c: &Named| {
            let state = if c.starts && patient { Ok(()) } else { (c.check)() };
            Check { name: c.name.as_str().into(), state }
        };
        let mut checks: Vec<Check> = self.checks.read().iter().filter(shown).map(state).collect();
        checks.extend(checks::of_tasks(self.tasks.reports()));
        if !single.is_empty() {
            return checks::one(&checks, single).map_or_else(answer::not_found, plain_text);
        }
        checks.retain(|check| endpoint.has(&check.name));
        let excluded: Vec<&str> =
            query.iter().filter(|(n, _)| n == "exclude").map(|(_, v)| v.as_str()).collect();
        let verbose = query.iter().any(|(n, _)| n == "verbose");
        let mut response = plain_text(checks::all(endpoint.name(), &checks, &excluded, verbose));
        let asked = checks.iter().filter(|check| !excluded.contains(&&*check.name));
        let outcomes = asked.map(|check| (check.name.to_string(), check.state.is_ok())).collect();
        response.extensions_mut().insert(Outcomes { endpoint, checks: outcomes });
        response
    }
}

fn plain_text(HealthResponse { code, text }: HealthResponse) -> Response {
    answer::text(StatusCode::from_u16(code).unwrap_or_default(), text)
}

/// How each check of an answer went; for the counters.
#[derive(Clone, Debug)]
pub(crate) struct Outcomes {
    pub endpoint: Endpoint,
    /// Name, and whether it passed.
    pub checks: Vec<(String, bool)>,
}

impl Health {
    /// Whether the check of this name passes; `None` where there is none.
    pub(crate) fn passes(&self, name: &str) -> Option<bool> {
        match self.answer(Endpoint::Health, name, &[]).status() {
            StatusCode::NOT_FOUND => None,
            code => Some(code == StatusCode::OK),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    async fn ask(health: &Health, url: &str) -> (u16, String) {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let (endpoint, single) = Endpoint::of(path).unwrap();
        let response = health.answer(endpoint, single, &crate::query::parse(query));
        let code = response.status().as_u16();
        (code, String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
    }

    #[tokio::test]
    async fn checks_are_told_as_upstream_tells_them() {
        let health = Health::default();
        health.add("ping", true, || Ok(()));
        health.add("store", false, || Err("closed".into()));
        assert_eq!(ask(&health, "/livez").await, (200, "ok".into()));
        assert_eq!(ask(&health, "/livez?verbose").await, (200, "[+]ping ok\nlivez check passed\n".into()));
        assert_eq!(
            ask(&health, "/readyz").await,
            (500, "[+]ping ok\n[-]store failed: reason withheld\nreadyz check failed\n".into())
        );
        assert_eq!(ask(&health, "/readyz?exclude=store").await, (200, "ok".into()));
        assert_eq!(ask(&health, "/healthz/ping").await, (200, "ok".into()));
        assert_eq!(ask(&health, "/readyz/store").await, (500, "internal server error: closed\n".into()));
        assert_eq!(ask(&health, "/readyz/none").await.0, 404);
        assert_eq!(Endpoint::of("/healthzz"), None);
        assert_eq!(
            (health.passes("ping"), health.passes("store"), health.passes("none")),
            (Some(true), Some(false), None)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_may_still_start_must_not_be_called_dead() {
        let health = Health::default();
        health.add_start("poststarthook/start-registry", || Err("not finished".into()));
        assert_eq!(ask(&health, "/livez").await.0, 500, "without time of its own it has none");
        health.give_time(Duration::from_secs(60));
        assert_eq!((ask(&health, "/livez").await.0, ask(&health, "/readyz").await.0), (200, 500));
        assert_eq!(ask(&health, "/healthz").await.0, 500);
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(ask(&health, "/livez").await.0, 500);
    }

    #[tokio::test]
    async fn a_check_of_readiness_must_not_make_a_server_dead() {
        let health = Health::default();
        health.add("ping", true, || Ok(()));
        health.add("shutdown", false, || Err("stopping".into()));
        assert_eq!(ask(&health, "/livez").await.0, 200);
        assert_eq!(
            ask(&health, "/healthz?verbose").await,
            (200, "[+]ping ok\nhealthz check passed\n".into())
        );
        assert_eq!(ask(&health, "/readyz").await.0, 500);
    }
}
