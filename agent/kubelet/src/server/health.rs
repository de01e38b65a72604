//! `/healthz`: upstream's checks, and each of the kubelet's tasks by name.

use super::answer::{self, HttpResponse};
use super::indicators::Indicators;
use super::query::Query;
use crate::run::Pulse;
use http::StatusCode;
use std::sync::Arc;
use supervise::Scope;
use supervise::checks::{self, Check, HealthResponse};

/// The task that is upstream's sync loop, whose check it is, too.
const LOOP: &str = "syncloop";

/// How the kubelet is.
#[derive(Clone)]
pub struct Health {
    /// Tasks of the kubelet; each is a check.
    pub scope: Arc<Scope>,
    /// When the sync loop last ran.
    pub pulse: Pulse,
}

impl Health {
    /// Answers for one check, or for all with an empty name, which count in `indicators`.
    pub(super) fn answer(&self, name: &str, query: &Query, indicators: &Indicators) -> HttpResponse {
        let checks = checks(checks::of_tasks(self.scope.reports()), self.pulse.check());
        let told = match name {
            "" => {
                let excluded = query.all("exclude");
                let excluded: Vec<&str> = excluded.iter().map(String::as_str).collect();
                indicators.observe(checks.iter().filter(|check| !excluded.contains(&&*check.name)));
                Some(checks::all("healthz", &checks, &excluded, query.has("verbose")))
            }
            name => checks::one(&checks, name),
        };
        let Some(HealthResponse { code, text }) = told else {
            return answer::text(StatusCode::NOT_FOUND, "404: Page Not Found");
        };
        answer::text(StatusCode::from_u16(code).unwrap_or_default(), text)
    }
}

/// Upstream's checks first (`pkg/kubelet/server/server.go`), then the others. Logging cannot hang here.
fn checks(mut tasks: Vec<Check>, pulse: Result<(), String>) -> Vec<Check> {
    let own = tasks.iter().position(|task| &*task.name == LOOP).map(|index| tasks.remove(index).state);
    let named = |name: &str, state| Check { name: name.into(), state };
    let mut all =
        vec![named("ping", Ok(())), named("log", Ok(())), named(LOOP, own.unwrap_or(Ok(())).and(pulse))];
    all.extend(tasks);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;
    use std::time::Duration;
    use supervise::{Supervisor, Task};
    use tokio_util::sync::CancellationToken;

    async fn ask(health: &Health, name: &str, query: &str) -> (u16, String) {
        let answer = health.answer(name, &Query::new(Some(query)), &Indicators::default());
        let code = answer.status().as_u16();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_service_that_panics_must_be_named_and_be_back_within_a_second() {
        let supervisor = Supervisor::default();
        let scope = Arc::new(Scope::new(&supervisor, "kubelet/", &CancellationToken::new()));
        for name in ["syncloop", "status", "watch/pods"] {
            scope.keep(Task::endless(name, std::future::pending));
        }
        let probes = scope.vital("probes");
        let elsewhere = Scope::new(&supervisor, "dns/", &CancellationToken::new());
        elsewhere.keep(Task::new("answers", |_| async { Err("no port".into()) }));
        let health = Health { scope, pulse: Pulse::default() };
        let running = async |name: &str| {
            while supervisor.report(name).is_none_or(|report| report.running == 0) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        for name in ["kubelet/syncloop", "kubelet/status", "kubelet/watch/pods"] {
            running(name).await;
        }
        let all_well =
            "[+]ping ok\n[+]log ok\n[+]syncloop ok\n[+]status ok\n[+]watch/pods ok\nhealthz check passed\n";
        assert_eq!(ask(&health, "", "").await, (200, "ok".into()));
        assert_eq!(ask(&health, "", "verbose").await, (200, all_well.into()));

        assert!(supervisor.inject_panic("kubelet/status"));
        while supervisor.report("kubelet/status").unwrap().down.is_none() {
            tokio::task::yield_now().await;
        }
        let began = std::time::Instant::now();
        let (code, text) = ask(&health, "", "").await;
        assert_eq!(code, 500);
        assert!(
            text.contains("[-]status failed: reason withheld\n[+]watch/pods ok\nhealthz check failed\n"),
            "{text}"
        );
        assert_eq!(
            ask(&health, "status", "").await,
            (500, "internal server error: panicked: injected\n".into())
        );
        assert_eq!(ask(&health, "watch/pods", "").await.0, 200);
        assert_eq!(ask(&health, "", "exclude=status").await, (200, "ok".into()));
        running("kubelet/status").await;
        assert!(began.elapsed() < Duration::from_secs(5));
        assert_eq!(ask(&health, "", "verbose").await, (200, all_well.into()));

        assert!(supervisor.inject_panic("kubelet/probes"));
        assert!(probes.attempt(std::future::pending::<()>()).await.is_err());
        assert_eq!(ask(&health, "probes", "").await.0, 500);
        assert_eq!(ask(&health, "log", "").await, (200, "ok".into()));
        assert_eq!(ask(&health, "none", "").await.0, 404);
    }

    #[test]
    fn a_loop_that_hangs_fails_its_check() {
        let all = checks(Vec::new(), Err("sync Loop took longer than expected".to_owned()));
        let (names, bad): (Vec<_>, Vec<_>) =
            all.iter().map(|check| (&*check.name, check.state.is_err())).unzip();
        assert_eq!((names, bad), (vec!["ping", "log", "syncloop"], vec![false, false, true]));
    }
}
