//! As many replicas as metrics ask for: HorizontalPodAutoscalers.
//!
//! Woken by: an autoscaler whose spec changed, and every period. Reads: the target's scale, its pods, the metrics APIs. Writes: the target's
//! scale, the autoscaler's status, events. Promises: while a metric cannot be had no replica is taken away; what was wished and done lately
//! steadies the next decision, and is forgotten by a restart, which begins with the present number.

mod limits;
mod metrics;
mod replicas;
mod status;
mod wish;

use crate::cluster::Cluster;
use crate::informer::{Informer, key_of};
use crate::inventory::Inventory;
use crate::options::{Autoscaling, paced};
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, found};
use crate::recorder::{Recorder, Severity};
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler as Autoscaler;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use limits::{Bounds, History};
use machinery::labels::Selector;
use parking_lot::Mutex;
use serde_json::json;
use status::Status;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wish::Wishes;

pub(crate) struct Autoscalers {
    autoscalers: Arc<Informer<Autoscaler>>,
    pods: Arc<Informer<Pod>>,
    inventory: Arc<Inventory>,
    histories: Mutex<HashMap<Key, History>>,
    /// Which pods each autoscaler was found to be about.
    selectors: Mutex<HashMap<Key, Selector>>,
    options: Autoscaling,
    client: Client,
    recorder: Recorder,
}

/// Why this round ended early. Events and conditions have told already; the next round comes anyway.
struct Ended;

impl Autoscalers {
    /// Registers for what wakes it.
    #[must_use]
    pub(crate) fn new(
        cluster: &Cluster,
        client: Client,
        recorder: Recorder,
        inventory: Arc<Inventory>,
        options: Autoscaling,
        queue: &Arc<Queue>,
    ) -> Self {
        let wake = queue.clone();
        cluster.autoscalers.on_change(move |old, new| {
            let spec = |autoscaler: &Arc<Autoscaler>| autoscaler.spec.clone();
            if let Some(autoscaler) = new.or(old)
                && old.map(spec) != new.map(spec)
            {
                wake.add(key_of(&**autoscaler));
            }
        });
        Self {
            autoscalers: cluster.autoscalers.clone(),
            pods: cluster.pods.clone(),
            inventory,
            histories: Mutex::default(),
            selectors: Mutex::default(),
            options,
            client,
            recorder,
        }
    }

    fn warn(&self, autoscaler: &Autoscaler, reason: &'static str, message: String) {
        self.recorder.record(Self::NAME, autoscaler, Severity::Warning, reason, message);
    }

    /// One round; what it has to tell is in `status`.
    async fn round(&self, autoscaler: &Autoscaler, key: &Key, status: &mut Status) -> Result<(), Ended> {
        let (api, scale) = self.scale(autoscaler, key, status).await?;
        status.able(
            true,
            "SucceededGetScale",
            "the HPA controller was able to get the target's current scale",
        );
        let current = scale.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
        self.history(key, |history| history.begin(current, Instant::now()));
        let spec = &autoscaler.spec;
        let (min, max) = (spec.min_replicas.unwrap_or(1), spec.max_replicas);
        status.current = current;
        let (desired, why) = match current {
            0 => {
                let message = "scaling is disabled since the replica count of the target is zero";
                status.active(false, "ScalingDisabled", message);
                status.desired = 0;
                status.metrics = Vec::new();
                return Ok(());
            }
            current if current > max => (max, "Current number of replicas above Spec.MaxReplicas".to_owned()),
            current if current < min => (min, "Current number of replicas below Spec.MinReplicas".to_owned()),
            current => {
                let (wish, metric) = self.wish(autoscaler, key, &scale, status).await?;
                let bounds = Bounds { min, max, current };
                let behavior = spec.behavior.as_ref();
                let decision =
                    self.history(key, |history| history.decide(behavior, bounds, wish, Instant::now()));
                status.able(decision.able.0, decision.able.1, decision.able.2);
                status.limited(decision.limited.0, decision.limited.1, decision.limited.2);
                let why = match wish.cmp(&current) {
                    std::cmp::Ordering::Greater => format!("{metric} above target"),
                    std::cmp::Ordering::Less => "All metrics below target".to_owned(),
                    std::cmp::Ordering::Equal => String::new(),
                };
                (decision.replicas, why)
            }
        };
        if !(min..=max).contains(&current) {
            status.metrics = Vec::new();
        }
        if desired != current {
            self.rescale(autoscaler, key, &api, desired, &why, status).await?;
            self.history(key, |history| {
                if spec.behavior.is_some() {
                    history.changed(current, desired, Instant::now());
                }
            });
            status.scaled_at(Timestamp::now());
        }
        status.desired = desired;
        Ok(())
    }

    fn history<T>(&self, key: &Key, with: impl FnOnce(&mut History) -> T) -> T {
        with(self.histories.lock().entry(key.clone()).or_insert_with(|| History::new(self.options.steady)))
    }

    async fn scale(
        &self,
        autoscaler: &Autoscaler,
        key: &Key,
        status: &mut Status,
    ) -> Result<(Api<DynamicObject>, Scale), Ended> {
        let target = &autoscaler.spec.scale_target_ref;
        let version = target.api_version.as_deref().unwrap_or_default();
        let group = match version.matches('/').count() {
            0 => Ok(""),
            1 => Ok(version.split_once('/').map_or("", |(group, _)| group)),
            _ => Err(format!("unexpected GroupVersion string: {version}")),
        };
        let served = group.and_then(|group| {
            let served = self.inventory.by_kind(group, &target.kind);
            served.ok_or_else(|| metrics::no_match(group, &target.kind))
        });
        let scale = match served {
            Err(why) => Err(why),
            Ok(served) => {
                let api: Api<DynamicObject> =
                    Api::namespaced_with(self.client.clone(), &key.namespace, &served.resource);
                let scale = api.get_scale(&target.name).await;
                scale.map(|scale| (api, scale)).map_err(|error| crate::pods::message_of(&error))
            }
        };
        scale.map_err(|why| {
            let message = format!("the HPA controller was unable to get the target's current scale: {why}");
            status.able(false, "FailedGetScale", &message);
            self.warn(autoscaler, "FailedGetScale", why);
            Ended
        })
    }

    /// The pods the target's scale selects.
    fn pods(
        &self,
        autoscaler: &Autoscaler,
        key: &Key,
        scale: &Scale,
        status: &mut Status,
    ) -> Result<(String, Vec<Arc<Pod>>), Ended> {
        let text = scale.status.as_ref().and_then(|s| s.selector.clone()).unwrap_or_default();
        let mut refuse = |reason: &'static str, (told, event): (&'static str, String), why: String| {
            status.active(false, reason, &why);
            self.warn(autoscaler, told, event.clone());
            self.warn(autoscaler, "FailedComputeMetricsReplicas", event);
            Ended
        };
        if text.is_empty() {
            let why = "the HPA target's scale is missing a selector".to_owned();
            let event = "selector is required".to_owned();
            return Err(refuse("InvalidSelector", ("SelectorRequired", event), why));
        }
        let selector = Selector::parse(&text).map_err(|error| {
            let why =
                format!("couldn't convert selector into a corresponding internal selector object: {error}");
            refuse("InvalidSelector", ("InvalidSelector", why.clone()), why)
        })?;
        let all = self.pods.list(&key.namespace);
        let pods: Vec<Arc<Pod>> = all.into_iter().filter(|pod| selector.matches(pod.labels())).collect();
        let mut selectors = self.selectors.lock();
        selectors.insert(key.clone(), selector);
        let alike = selectors.iter().filter(|(other, _)| other.namespace == key.namespace);
        let mut about: Vec<&Key> = alike
            .filter(|(_, selector)| pods.iter().any(|pod| selector.matches(pod.labels())))
            .map(|(key, _)| key)
            .collect();
        if about.len() > 1 {
            about.sort();
            let named: Vec<String> =
                about.iter().map(|k| format!("{{{} {}}}", k.name, k.namespace)).collect();
            let named = named.join(" ");
            let why = format!("pods by selector {text} are controlled by multiple HPAs: [{named}]");
            return Err(refuse("AmbiguousSelector", ("AmbiguousSelector", why.clone()), why));
        }
        Ok((text, pods))
    }

    /// How many replicas the metrics ask for, and which asks for most.
    async fn wish(
        &self,
        autoscaler: &Autoscaler,
        key: &Key,
        scale: &Scale,
        status: &mut Status,
    ) -> Result<(i32, String), Ended> {
        status.metrics = Vec::new();
        let (selector, pods) = self.pods(autoscaler, key, scale, status)?;
        let wishes = Wishes {
            metrics: metrics::Metrics { client: &self.client, namespace: &key.namespace },
            inventory: &self.inventory,
            selector: &selector,
            pods: &pods,
            current: scale.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0),
            observed: scale.status.as_ref().map_or(0, |s| s.replicas),
            tolerance: wish::tolerance(autoscaler, self.options.tolerance),
            options: self.options,
        };
        let specs = autoscaler.spec.metrics.as_deref().unwrap_or_default();
        let (mut best, mut failures) = ((0, String::new()), Vec::new());
        for spec in specs {
            match wishes.of(spec).await {
                Ok(wish) => {
                    status.metrics.push(wish.status);
                    if best.0 == 0 || wish.replicas > best.0 {
                        best = (wish.replicas, wish.name);
                    }
                }
                Err(failure) => {
                    // the place of a metric that cannot be had stays empty
                    status.metrics.push(json!({ "type": "" }));
                    self.warn(autoscaler, failure.reason, failure.why.clone());
                    failures.push(failure);
                }
            }
        }
        if let Some(first) = failures.first()
            && (failures.len() >= specs.len() || best.0 < wishes.current)
        {
            let message = format!("the HPA was unable to compute the replica count: {}", first.why);
            status.active(false, first.reason, &message);
            let (invalid, all) = (failures.len(), specs.len());
            let event = format!(
                "invalid metrics ({invalid} invalid out of {all}), first error is: {}: {}",
                first.what, first.why
            );
            self.warn(autoscaler, "FailedComputeMetricsReplicas", event);
            return Err(Ended);
        }
        let message = format!("the HPA was able to successfully calculate a replica count from {}", best.1);
        status.active(true, "ValidMetricFound", &message);
        Ok(best)
    }

    async fn rescale(
        &self,
        autoscaler: &Autoscaler,
        key: &Key,
        api: &Api<DynamicObject>,
        desired: i32,
        why: &str,
        status: &mut Status,
    ) -> Result<(), Ended> {
        let target = autoscaler.spec.scale_target_ref.name.as_str();
        let patch = Patch::Merge(json!({ "spec": { "replicas": desired } }));
        match api.patch_scale(target, &PatchParams::default(), &patch).await {
            Ok(_) => {
                let message = format!("the HPA controller was able to update the target scale to {desired}");
                status.able(true, "SucceededRescale", &message);
                let message = format!("New size: {desired}; reason: {why}");
                self.recorder.record(Self::NAME, autoscaler, Severity::Normal, "SuccessfulRescale", message);
                Ok(())
            }
            Err(error) => {
                let error = crate::pods::message_of(&error);
                let message = format!("New size: {desired}; reason: {why}; error: {error}");
                self.warn(autoscaler, "FailedRescale", message);
                let message = format!("the HPA controller was unable to update the target scale: {error}");
                status.able(false, "FailedUpdateScale", &message);
                tracing::debug!(autoscaler = %key, error, "not rescaled");
                Err(Ended)
            }
        }
    }
}

impl Reconcile for Autoscalers {
    const NAME: &'static str = "horizontal-pod-autoscaler";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(autoscaler) = self.autoscalers.get(key) else {
            self.histories.lock().remove(key);
            self.selectors.lock().remove(key);
            return Ok(None);
        };
        let mut status = Status::of(&autoscaler);
        let ended = self.round(&autoscaler, key, &mut status).await;
        tracing::trace!(autoscaler = %key, finished = ended.is_ok(), "autoscaling round");
        if let Some(patch) = status.patch(&autoscaler) {
            let api: Api<Autoscaler> = Api::namespaced(self.client.clone(), &key.namespace);
            let patched = api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
            found(patched).doing(|| format!("write the status of horizontal pod autoscaler {key}"))?;
        }
        Ok(Some(paced(self.options.period)))
    }
}
