//! Tokens of service accounts that somebody's controller once put into secrets, and nobody uses any more: they become invalid, then they go.
//!
//! Woken by: once a day. Reads: such secrets, service accounts, pods; the ConfigMap in which API servers say since when they note a token's
//! use. Writes: the label by which a token is invalid, from a later day on the secret's deletion. Promises: only a secret that its account
//! lists goes, none that a pod names, and none before its use was noted for as long as it may be unused; who uses a token until it goes
//! can still take the label away. Upstream: `legacy_serviceaccount_token_cleaner.go`.

use crate::cluster::Cluster;
use crate::informer::Informer;
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, code};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// How often all of them are looked at.
const PERIOD: Duration = Duration::from_secs(24 * 3600);
/// Where API servers say since when they note the use of tokens.
const TRACKING: (&str, &str) = ("kube-system", "kube-apiserver-legacy-service-account-token-tracking");
/// On a secret: the day its token was used last.
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
/// On a secret: the day since which its token is not accepted.
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
/// On a secret: its account.
const ACCOUNT: (&str, &str) = ("kubernetes.io/service-account.name", "kubernetes.io/service-account.uid");

pub(crate) struct LegacyTokens {
    secrets: Arc<Informer<Secret>>,
    accounts: Arc<Informer<ServiceAccount>>,
    pods: Arc<Informer<Pod>>,
    /// How long a token may be unused.
    unused: SignedDuration,
    client: Client,
}

impl LegacyTokens {
    /// Begins with a first look.
    #[must_use]
    pub(crate) fn new(cluster: &Cluster, client: Client, unused: SignedDuration, queue: &Arc<Queue>) -> Self {
        queue.add(Key::default());
        Self {
            secrets: cluster.service_account_tokens.clone(),
            accounts: cluster.service_accounts.clone(),
            pods: cluster.pods.clone(),
            unused,
            client,
        }
    }

    /// Since when the use of tokens is surely noted.
    async fn tracked_since(&self) -> Result<Timestamp, Error> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), TRACKING.0);
        let map = api.get(TRACKING.1).await.doing(|| format!("read config map {}", TRACKING.1))?;
        let since = map.data.as_ref().and_then(|data| day(data.get("since")?));
        let next = since.and_then(|day| day.tomorrow().ok()?.to_zoned(TimeZone::UTC).ok());
        let next =
            next.ok_or_else(|| Error::Unusable(format!("config map {}: no day in since", TRACKING.1)))?;
        Ok(next.timestamp())
    }

    /// The account that lists the secret.
    fn lists(&self, secret: &Secret) -> bool {
        let annotation = |name: &str| secret.annotations().get(name).map_or("", String::as_str);
        let (name, uid) = (annotation(ACCOUNT.0), annotation(ACCOUNT.1));
        let key = Key::new(&secret.namespace().unwrap_or_default(), name);
        self.accounts.get(&key).is_some_and(|account| {
            (uid.is_empty() || account.metadata.uid.as_deref() == Some(uid))
                && account.secrets.iter().flatten().any(|s| s.name.as_deref() == Some(&secret.name_any()))
        })
    }

    /// The secrets that pods of a namespace name.
    fn named(&self, namespace: &str) -> HashSet<String> {
        let mut names = HashSet::new();
        for pod in self.pods.list(namespace) {
            let pod = serde_json::to_value(&*pod).unwrap_or_default();
            names.extend(machinery::pod_secrets::named(&pod).into_iter().map(str::to_owned));
        }
        names
    }

    async fn take(&self, secret: &Secret, step: Step) -> Result<(), Error> {
        let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &namespace);
        let done = match step {
            Step::Keep => return Ok(()),
            Step::Invalidate(today) => {
                tracing::info!(namespace, name, "an unused service account token is invalid from now on");
                let labels = json!({ INVALID_SINCE: today.to_string() });
                let patch = json!({ "metadata": { "uid": secret.uid(), "labels": labels } });
                let patched = api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
                patched.map(drop)
            }
            Step::Delete => {
                tracing::info!(namespace, name, "an unused service account token goes");
                let seen = Preconditions { uid: None, resource_version: secret.resource_version() };
                api.delete(&name, &DeleteParams::default().preconditions(seen)).await.map(drop)
            }
        };
        match done {
            // newer than what we know: it is looked at again tomorrow
            Err(error) if matches!(code(&error), Some(404 | 409)) => Ok(()),
            done => done.doing(|| format!("retire the token in secret {namespace}/{name}")),
        }
    }
}

/// What becomes of a secret that its account lists and no pod names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Keep,
    /// Its token is invalid since this day.
    Invalidate(Date),
    Delete,
}

/// Decides by the days that stand on the secret.
fn decide(secret: &Secret, now: Timestamp, unused: SignedDuration) -> Step {
    let Ok(oldest) = now.checked_sub(unused) else { return Step::Keep };
    let date = |at: Timestamp| at.to_zoned(TimeZone::UTC).date();
    let label = |name: &str| secret.labels().get(name);
    let young = secret.creation_timestamp().is_none_or(|created| created.0 >= oldest);
    // Used in the time that counts, or on a day that cannot be read.
    let used = label(LAST_USED).is_some_and(|text| day(text).is_none_or(|last| last >= date(oldest)));
    if young || used || secret.metadata.deletion_timestamp.is_some() {
        return Step::Keep;
    }
    match label(INVALID_SINCE).and_then(|text| day(text)) {
        None => Step::Invalidate(date(now)),
        Some(since) if since >= date(oldest) => Step::Keep,
        Some(_) => Step::Delete,
    }
}

/// A day, such as 2026-01-31.
fn day(text: &str) -> Option<Date> {
    text.parse().ok().filter(|_| text.len() == 10)
}

impl Reconcile for LegacyTokens {
    const NAME: &'static str = "legacy-serviceaccount-token-cleaner-controller";

    async fn reconcile(&self, _: &Key) -> Result<Option<Duration>, Error> {
        let now = Timestamp::now();
        if now.duration_since(self.tracked_since().await?) < self.unused {
            return Ok(Some(PERIOD));
        }
        let mut in_use: HashMap<String, HashSet<String>> = HashMap::new();
        for secret in self.secrets.list("") {
            let step = decide(&secret, now, self.unused);
            if step == Step::Keep || !self.lists(&secret) {
                continue;
            }
            let namespace = secret.namespace().unwrap_or_default();
            let named = in_use.entry(namespace.clone()).or_insert_with(|| self.named(&namespace));
            if !named.contains(&secret.name_any()) {
                self.take(&secret, step).await?;
            }
        }
        Ok(Some(PERIOD))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;
    use serde_json::Value;
    use supervise::{Scope, Supervisor};
    use tokio_util::sync::CancellationToken;

    const DAY: SignedDuration = SignedDuration::from_hours(24);

    fn secret(labels: Value) -> Value {
        json!({ "metadata": { "name": "t", "namespace": "n", "uid": "s", "resourceVersion": "1", "labels": labels,
            "annotations": { ACCOUNT.0: "a", ACCOUNT.1: "u" }, "creationTimestamp": "2026-01-01T12:00:00Z" },
            "type": "kubernetes.io/service-account-token" })
    }

    #[test]
    fn a_token_that_may_still_be_in_use_must_not_go() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let today = Step::Invalidate(Date::constant(2026, 2, 10));
        let days = |last: Option<&str>, since: Option<&str>| json!({ LAST_USED: last, INVALID_SINCE: since });
        for (days, step) in [
            (days(None, None), today),
            (days(Some("2026-02-01"), None), Step::Keep),
            (days(Some("2026-01-31"), None), Step::Keep),
            (days(Some("2026-01-30"), None), today),
            (days(Some("yesterday"), None), Step::Keep),
            (days(None, Some("2026-01-31")), Step::Keep),
            (days(None, Some("2026-01-30")), Step::Delete),
            (days(Some("2026-02-05"), Some("2026-01-30")), Step::Keep),
            (days(None, Some("2026-1-3")), today),
        ] {
            let labels: serde_json::Map<String, Value> =
                days.as_object().unwrap().clone().into_iter().filter(|(_, day)| !day.is_null()).collect();
            let secret: Secret = serde_json::from_value(secret(Value::Object(labels))).unwrap();
            assert_eq!(decide(&secret, at("2026-02-10T15:00:00Z"), DAY * 10), step, "{days}");
            assert_eq!(
                decide(&secret, at("2026-01-11T11:00:00Z"), DAY * 10),
                Step::Keep,
                "too young: {days}"
            );
        }
    }

    /// What is written after one look at a token that was never used, with these other objects.
    async fn written(since: &str, unused: SignedDuration, account: Value, pods: &[Value]) -> Vec<String> {
        let fake = Fake::default();
        let map = json!({ "metadata": { "name": TRACKING.1 }, "data": { "since": since } });
        fake.put(&format!("/api/v1/namespaces/{}/configmaps/{}", TRACKING.0, TRACKING.1), map);
        fake.put("/api/v1/namespaces/n/secrets/t", secret(json!({})));
        let (cluster, queue) = (Cluster::default(), Arc::new(Queue::default()));
        let (supervisor, stop) = (Supervisor::default(), CancellationToken::new());
        let scope = Scope::new(&supervisor, "", &stop);
        let tokens = LegacyTokens::new(&cluster, fake.client(), unused, &queue);
        fake.shown(&scope, &cluster.service_account_tokens, vec![secret(json!({}))]).await;
        fake.shown(&scope, &cluster.service_accounts, vec![account]).await;
        fake.shown(&scope, &cluster.pods, pods.to_vec()).await;
        let key = queue.next().await;
        assert_eq!(tokens.reconcile(&key).await.unwrap(), Some(PERIOD));
        stop.cancel();
        scope.ended().await;
        fake.writes()
    }

    #[tokio::test]
    async fn only_a_token_that_its_account_lists_and_no_pod_names_becomes_invalid() {
        let account = |uid: &str, secrets: Value| json!({ "metadata": { "name": "a", "namespace": "n", "uid": uid, "resourceVersion": "1" }, "secrets": secrets });
        let lists = || account("u", json!([{ "name": "t" }]));
        let pod = |namespace: &str, secret: &str| {
            json!({ "metadata": { "name": "p", "namespace": namespace, "uid": "p", "resourceVersion": "1" },
                "spec": { "containers": [], "imagePullSecrets": [{ "name": secret }] } })
        };
        let patched = ["PATCH /api/v1/namespaces/n/secrets/t"];
        let old = "2020-01-01";
        assert_eq!(written(old, DAY * 10, lists(), &[]).await, patched);
        assert_eq!(written(old, DAY * 10, lists(), &[pod("other", "t"), pod("n", "x")]).await, patched);
        let none: [&str; 0] = [];
        assert_eq!(written(old, DAY * 10, lists(), &[pod("n", "t")]).await, none, "a pod names it");
        assert_eq!(
            written(old, DAY * 10, account("u", json!([])), &[]).await,
            none,
            "somebody made it by hand"
        );
        assert_eq!(
            written(old, DAY * 10, account("v", json!([{ "name": "t" }])), &[]).await,
            none,
            "another account"
        );
        assert_eq!(written(old, DAY * 36500, lists(), &[]).await, none, "not noted for as long");
    }
}
