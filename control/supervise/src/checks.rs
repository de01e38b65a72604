//! Named health checks, and what `/healthz` and its kind say of them, in upstream's words (`apiserver/pkg/server/healthz`).

use crate::supervisor::{Kind, Report};
use std::fmt::Write;
use std::sync::Arc;

/// A check and how it went.
#[derive(Clone, Debug)]
pub struct Check {
    /// Its name; may hold slashes.
    pub name: Arc<str>,
    /// Why it fails: shown only to those who may ask for a single check.
    pub state: Result<(), String>,
}

/// What a health endpoint responds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthResponse {
    /// 200 or 500.
    pub code: u16,
    /// Plain text.
    pub text: String,
}

impl HealthResponse {
    fn ok() -> Self {
        Self { code: 200, text: "ok".to_owned() }
    }
}

/// The checks that tasks are. Work that is done in pieces is one only while it is bad.
#[must_use]
pub fn of_tasks(reports: Vec<Report>) -> Vec<Check> {
    let shown = reports.into_iter().filter(|report| report.kind == Kind::Task || report.down.is_some());
    let check = |report: Report| Check {
        name: report.name,
        state: report.down.map_or(Ok(()), |down| Err(down.reason.to_string())),
    };
    shown.map(check).collect()
}

/// What an endpoint (`healthz`) says of all checks but those excluded.
#[must_use]
pub fn all(endpoint: &str, checks: &[Check], excluded: &[&str], verbose: bool) -> HealthResponse {
    let (mut text, mut failed) = (String::new(), false);
    for Check { name, state } in checks {
        // Writing to a string cannot fail.
        let _ = match state {
            _ if excluded.contains(&&**name) => writeln!(text, "[+]{name} excluded: ok"),
            Ok(()) => writeln!(text, "[+]{name} ok"),
            Err(reason) => {
                tracing::warn!(check = &**name, reason, "health check failed");
                failed = true;
                writeln!(text, "[-]{name} failed: reason withheld")
            }
        };
    }
    let strange = excluded.iter().filter(|excluded| !checks.iter().any(|check| &*check.name == **excluded));
    let strange: Vec<String> = strange.map(|name| format!("{name:?}")).collect();
    if !strange.is_empty() {
        let names = strange.join(", ");
        let _ = writeln!(text, "warn: some health checks cannot be excluded: no matches for {names}");
    }
    match (failed, verbose) {
        (true, _) => HealthResponse { code: 500, text: format!("{text}{endpoint} check failed\n") },
        (false, true) => HealthResponse { code: 200, text: format!("{text}{endpoint} check passed\n") },
        (false, false) => HealthResponse::ok(),
    }
}

/// What is said of the check of this name; `None` where there is none.
#[must_use]
pub fn one(checks: &[Check], name: &str) -> Option<HealthResponse> {
    let check = checks.iter().find(|check| &*check.name == name)?;
    Some(match &check.state {
        Ok(()) => HealthResponse::ok(),
        Err(reason) => HealthResponse { code: 500, text: format!("internal server error: {reason}\n") },
    })
}
