//! Says since when the use of service account tokens in secrets is noted, in a ConfigMap. The notes themselves: `authn::secret_token`.
//!
//! Woken by changes of that ConfigMap, and twice a day. Reads and writes it, in `kube-system`. Promises that it is there and holds a day,
//! and that a day once written stays.
//! Upstream: `pkg/controlplane/controller/legacytokentracking`.

use super::reconcile::{Read, Round};
use crate::registry::kind::Kind;
use crate::write::Writer;
use machinery::access::{Get as _, set_at};
use machinery::object;
use machinery::status::Status;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use store::cache::Scope;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "kube-apiserver-legacy-service-account-token-tracking";
/// A day, such as 2026-01-31, in UTC.
const SINCE: &str = "data.since";
/// How often it is looked at when nothing changed (upstream's resync).
pub(super) const EVERY: Duration = Duration::from_secs(12 * 3600);

fn kind() -> Option<Kind> {
    Kind::of("", "configmaps")
}

pub(super) fn reads() -> Option<Vec<Read>> {
    Some(vec![(kind()?, Scope::Object { namespace: Some(NAMESPACE.to_owned()), name: NAME.to_owned() })])
}

/// Makes the ConfigMap, and corrects its date.
pub(super) fn reconcile(writer: Arc<Writer>) -> Round {
    Box::pin(async move {
        let Some(kind) = kind() else { return Ok(()) };
        round(&writer, &kind).await
    })
}

async fn round(writer: &Writer, kind: &Kind) -> Result<(), Status> {
    let today = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    let Some(found) = writer.registry.lookup(kind, NAMESPACE, NAME).await? else {
        let map = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": NAME, "namespace": NAMESPACE},
            "data": {"since": today},
        });
        return writer.ensure(kind, map).await;
    };
    if is_day(found.text(SINCE)) {
        return Ok(());
    }
    let change = |old: &Value| {
        let mut new = old.clone();
        object::set_resource_version(&mut new, "");
        set_at(&mut new, SINCE, today.clone());
        Ok(new)
    };
    match writer.amend(kind, NAMESPACE, NAME, "", &change).await {
        Err(error) if error.code != 404 => Err(error),
        _ => Ok(()),
    }
}

fn is_day(text: &str) -> bool {
    text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_config_maps_must_not_wake_it() {
        let one = Scope::Object { namespace: Some(NAMESPACE.to_owned()), name: NAME.to_owned() };
        let scopes: Vec<Scope> = reads().unwrap().into_iter().map(|(_, scope)| scope).collect();
        assert_eq!(scopes, [one]);
    }

    #[test]
    fn what_is_no_day_must_not_stay() {
        assert!(is_day("2026-02-28"));
        for wrong in ["", "soon", "2026-02-30", "2026-2-8", "2026-02-28T00:00:00"] {
            assert!(!is_day(wrong), "{wrong}");
        }
    }
}
