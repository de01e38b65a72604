//! How many replicas a metric asks for. Pure. Amounts are in thousandths; errors are upstream's words, for conditions and events.

use crate::options::Autoscaling;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt;
use machinery::quantity::Quantity;
use machinery::totals::{Asks, Resize, Side, pod_level};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// What was measured of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    pub value: i64,
    pub at: Timestamp,
    /// Over how long.
    pub window: Duration,
}

pub(super) type Samples = BTreeMap<String, Sample>;

/// How far use may be from its target before anything is done about it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tolerance {
    /// Below the target, as a fraction of it.
    pub down: f64,
    /// Above the target, as a fraction of it.
    pub up: f64,
}

impl Tolerance {
    fn holds(self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

/// The target's pods at one moment.
#[derive(Clone, Copy)]
pub(super) struct Pods<'a> {
    /// Those its selector selects.
    pub all: &'a [Arc<Pod>],
    /// How many the target has been told to have.
    pub replicas: i32,
    pub now: Timestamp,
    /// How long a pod's start may take.
    pub options: Autoscaling,
}

struct Groups {
    ready: usize,
    unready: BTreeSet<String>,
    missing: BTreeSet<String>,
}

/// The condition `Ready`: whether it is false, and since when it is as it is.
fn readiness(pod: &Pod) -> Option<(bool, Timestamp)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|c| c.type_ == "Ready")?;
    let since = ready.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0);
    Some((ready.status == "False", since))
}

/// A CPU sample of a pod that only starts says nothing about its work.
fn starting(pod: &Pod, sample: &Sample, now: Timestamp, options: &Autoscaling) -> bool {
    let started = pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0);
    let (Some((unready, since)), Some(started)) = (readiness(pod), started) else { return true };
    let after = |at: Timestamp, time: Duration| {
        at.saturating_add(SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX))
            .unwrap_or(Timestamp::MAX)
    };
    if after(started, options.cpu_start) > now {
        unready || sample.at < after(since, sample.window)
    } else {
        unready && after(started, options.first_readiness) > since
    }
}

/// Sorts pods by what is known of them, and drops the samples of those that do not count.
fn group(pods: Pods<'_>, samples: &mut Samples, resource: &str) -> Groups {
    let mut groups = Groups { ready: 0, unready: BTreeSet::new(), missing: BTreeSet::new() };
    for pod in pods.all {
        let name = pod.name_any();
        let phase = crate::pods::phase(pod);
        if pod.metadata.deletion_timestamp.is_some() || phase == "Failed" {
            samples.remove(&name);
        } else if phase == "Pending" {
            samples.remove(&name);
            groups.unready.insert(name);
        } else {
            match samples.get(&name) {
                None => drop(groups.missing.insert(name)),
                Some(sample) if resource == "cpu" && starting(pod, sample, pods.now, &pods.options) => {
                    samples.remove(&name);
                    groups.unready.insert(name);
                }
                Some(_) => groups.ready += 1,
            }
        }
    }
    groups
}

/// From use to replicas. `ratio` is use by target, and what the status says of it; `full` is what a pod without a sample is taken to use
/// when replicas would be taken away. Pods nothing is known of never make the answer bolder, and never turn it round.
fn settle<U>(
    pods: Pods<'_>,
    tolerance: Tolerance,
    resource: &str,
    mut samples: Samples,
    ratio: impl Fn(&Samples) -> Result<(f64, U), String>,
    full: impl Fn(&str) -> i64,
) -> Result<(i32, U), String> {
    if pods.all.is_empty() {
        return Err("no pods returned by selector while calculating replica count".to_owned());
    }
    let groups = group(pods, &mut samples, resource);
    if samples.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".to_owned());
    }
    let (first, told) = ratio(&samples)?;
    let rising_with_unready = !groups.unready.is_empty() && first > 1.0;
    if !rising_with_unready && groups.missing.is_empty() {
        let replicas = if tolerance.holds(first) { pods.replicas } else { ceil(first * groups.ready as f64) };
        return Ok((replicas, told));
    }
    let assumed = |value| Sample { value, at: Timestamp::UNIX_EPOCH, window: Duration::ZERO };
    for name in groups.missing {
        if first < 1.0 {
            let value = full(&name);
            samples.insert(name, assumed(value));
        } else if first > 1.0 {
            samples.insert(name, assumed(0));
        }
    }
    if rising_with_unready {
        samples.extend(groups.unready.into_iter().map(|name| (name, assumed(0))));
    }
    let (second, _) = ratio(&samples)?;
    let turned = (first < 1.0 && second > 1.0) || (first > 1.0 && second < 1.0);
    let proposed = ceil(second * samples.len() as f64);
    let against = (second < 1.0 && proposed > pods.replicas) || (second > 1.0 && proposed < pods.replicas);
    let replicas = if tolerance.holds(second) || turned || against { pods.replicas } else { proposed };
    Ok((replicas, told))
}

/// The next whole number, within 32 bits.
fn ceil(number: f64) -> i32 {
    number.ceil() as i32
}

/// What pods ask for of a resource: of one container, or all of them, or what the pod states as a whole.
fn requests(pods: &[Arc<Pod>], container: &str, resource: &str) -> Result<BTreeMap<String, i64>, String> {
    pods.iter().map(|pod| Ok((pod.name_any(), request(pod, container, resource)?))).collect()
}

fn request(pod: &Pod, container: &str, resource: &str) -> Result<i64, String> {
    let name = pod.name_any();
    let Some(spec) = &pod.spec else { return Ok(0) };
    let whole = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    if container.is_empty() && whole.is_some_and(|r| r.keys().any(|n| pod_level(n))) {
        let total = Asks::of(pod, Side::Requests, Resize::Ignored).total();
        let amount = total.get(resource).map(Quantity::milli_value);
        return amount.ok_or_else(|| format!("missing pod-level request for {resource} in Pod {name}"));
    }
    let sidecar = |c: &&Container| c.restart_policy.as_deref() == Some("Always");
    let mut sum = 0;
    for c in spec.containers.iter().chain(spec.init_containers.iter().flatten().filter(sidecar)) {
        if container.is_empty() || container == c.name {
            let list = c.resources.as_ref().and_then(|r| r.requests.as_ref());
            let amount = list.and_then(|l| l.get(resource)).and_then(|q| Quantity::parse(&q.0).ok());
            let amount = amount.ok_or_else(|| {
                format!("missing request for {resource} in container {} of Pod {name}", c.name)
            })?;
            sum += amount.milli_value();
        }
        if container == c.name {
            return Ok(sum);
        }
    }
    if container.is_empty() { Ok(sum) } else { Err(format!("container {container} not found in Pod {name}")) }
}

/// Replicas for a target of use in percent of what is asked for; with the present percentage and mean use.
///
/// # Errors
/// Nothing can be said: why.
pub(super) fn by_utilization(
    pods: Pods<'_>,
    tolerance: Tolerance,
    (resource, container): (&str, &str),
    target: i32,
    samples: Samples,
) -> Result<(i32, (i32, i64)), String> {
    // asked for only once it is clear that there are samples
    let asked = std::cell::OnceCell::new();
    let asked =
        || asked.get_or_init(|| requests(pods.all, container, resource)).as_ref().map_err(Clone::clone);
    let ratio = |samples: &Samples| {
        let asked = asked()?;
        let known = samples.iter().filter_map(|(name, s)| Some((s.value, *asked.get(name)?)));
        let (used, of, count) = known.fold((0_i64, 0_i64, 0_i64), |(u, r, n), (value, request)| {
            (u.saturating_add(value), r.saturating_add(request), n + 1)
        });
        if of == 0 {
            return Err("no metrics returned matched known pods".to_owned());
        }
        let percent = i32::try_from(used.saturating_mul(100) / of).unwrap_or(i32::MAX);
        Ok((f64::from(percent) / f64::from(target), (percent, used / count)))
    };
    let full = |name: &str| {
        let request = asked().ok().and_then(|asked| asked.get(name)).copied().unwrap_or(0);
        request.saturating_mul(i64::from(target.max(100))) / 100
    };
    settle(pods, tolerance, resource, samples, ratio, full)
}

/// Replicas for a target of mean use; with the present mean.
///
/// # Errors
/// Nothing can be said: why.
pub(super) fn by_mean(
    pods: Pods<'_>,
    tolerance: Tolerance,
    resource: &str,
    target: i64,
    samples: Samples,
) -> Result<(i32, i64), String> {
    let ratio = |samples: &Samples| {
        let total = samples.values().fold(0_i64, |sum, s| sum.saturating_add(s.value));
        let mean = total / i64::try_from(samples.len()).unwrap_or(i64::MAX).max(1);
        Ok((mean as f64 / target as f64, mean))
    };
    settle(pods, tolerance, resource, samples, ratio, |_| target)
}

/// Replicas for a target of one amount that all pods together answer for.
///
/// # Errors
/// There are no pods.
pub(super) fn by_total(pods: Pods<'_>, tolerance: Tolerance, target: i64, usage: i64) -> Result<i32, String> {
    let ratio = usage as f64 / target as f64;
    if pods.replicas == 0 {
        return Ok(ceil(ratio));
    }
    if tolerance.holds(ratio) {
        return Ok(pods.replicas);
    }
    if pods.all.is_empty() {
        return Err(
            "unable to calculate ready pods: no pods returned by selector while calculating replica count"
                .to_owned(),
        );
    }
    let working =
        |pod: &&Arc<Pod>| crate::pods::phase(pod) == "Running" && crate::pods::ready_since(pod).is_some();
    Ok(ceil(ratio * pods.all.iter().filter(working).count() as f64))
}

/// Replicas for a target of one amount shared among them; with the present share. `replicas` is how many there are.
#[must_use]
pub(super) fn by_share(replicas: i32, tolerance: Tolerance, target: i64, usage: i64) -> (i32, i64) {
    let ratio = usage as f64 / (target as f64 * f64::from(replicas));
    let wanted = if tolerance.holds(ratio) { replicas } else { ceil(usage as f64 / target as f64) };
    (wanted, (usage as f64 / f64::from(replicas)).ceil() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TOLERANCE: Tolerance = Tolerance { down: 0.1, up: 0.1 };

    fn now() -> Timestamp {
        Timestamp::from_second(10_000).unwrap()
    }

    fn pod(name: &str, phase: &str) -> Arc<Pod> {
        let condition =
            json!({"type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T00:00:10Z"});
        let pod = json!({"metadata": {"name": name},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
            "status": {"phase": phase, "startTime": "1970-01-01T00:00:00Z", "conditions": [condition]}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn samples(values: &[(&str, i64)]) -> Samples {
        let sample = |value| Sample { value, at: now(), window: Duration::from_secs(60) };
        values.iter().map(|(name, value)| ((*name).to_owned(), sample(*value))).collect()
    }

    fn utilization(
        all: &[Arc<Pod>],
        values: &[(&str, i64)],
        target: i32,
    ) -> Result<(i32, (i32, i64)), String> {
        let pods = Pods {
            all,
            replicas: i32::try_from(all.len()).unwrap(),
            now: now(),
            options: Autoscaling::default(),
        };
        by_utilization(pods, TOLERANCE, ("cpu", ""), target, samples(values))
    }

    #[test]
    fn use_above_its_target_adds_and_within_tolerance_changes_nothing() {
        let all = [pod("a", "Running"), pod("b", "Running"), pod("c", "Running")];
        let same = |v| [("a", v), ("b", v), ("c", v)];
        assert_eq!(utilization(&all, &same(900), 30), Ok((9, (90, 900))));
        assert_eq!(utilization(&all, &same(320), 30), Ok((3, (32, 320))));
        assert_eq!(utilization(&all, &same(100), 50), Ok((1, (10, 100))));
    }

    #[test]
    fn unknown_pods_dampen() {
        let all = [pod("a", "Running"), pod("b", "Running"), pod("c", "Running"), pod("d", "Pending")];
        // up: missing and pending pods count as idle
        assert_eq!(utilization(&all, &[("a", 1000), ("b", 1000)], 50).unwrap().0, 4);
        // down: the missing one counts as busy
        assert_eq!(utilization(&all, &[("a", 100), ("b", 100)], 50).unwrap().0, 3);
    }

    #[test]
    fn upstreams_words_for_what_is_lacking() {
        let of = |all: &[Arc<Pod>], values: &[(&str, i64)]| utilization(all, values, 50).unwrap_err();
        assert_eq!(of(&[], &[]), "no pods returned by selector while calculating replica count");
        let all = [pod("a", "Pending")];
        assert_eq!(
            of(&all, &[("a", 1)]),
            "did not receive metrics for targeted pods (pods might be unready)"
        );
        let mut bare = (*pod("a", "Running")).clone();
        bare.spec.as_mut().unwrap().containers[0].resources = None;
        assert_eq!(of(&[Arc::new(bare)], &[("a", 1)]), "missing request for cpu in container c of Pod a");
    }

    #[test]
    fn a_starting_pods_cpu_does_not_count() {
        let all = [pod("a", "Running"), pod("b", "Running")];
        let early = Timestamp::from_second(60).unwrap();
        let pods = Pods { all: &all, replicas: 2, now: early, options: Autoscaling::default() };
        let old = |value| Sample {
            value,
            at: Timestamp::from_second(30).unwrap(),
            window: Duration::from_secs(30),
        };
        let all_early = Samples::from([("a".to_owned(), old(1000)), ("b".to_owned(), old(1000))]);
        let said = by_utilization(pods, TOLERANCE, ("cpu", ""), 50, all_early).unwrap_err();
        assert_eq!(said, "did not receive metrics for targeted pods (pods might be unready)");
    }

    #[test]
    fn how_long_a_start_may_take_is_as_it_is_set() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let sample = Sample { value: 1, at: at(30), window: Duration::from_secs(30) };
        let usual = Autoscaling::default();
        // ready since its tenth second; the sample began before that
        let ready = pod("a", "Running");
        assert!(starting(&ready, &sample, at(60), &usual));
        let short = Autoscaling { cpu_start: Duration::from_secs(20), ..usual };
        assert!(!starting(&ready, &sample, at(60), &short), "its start is over");
        let mut unready = (*ready).clone();
        if let Some(conditions) = unready.status.as_mut().and_then(|s| s.conditions.as_mut()) {
            conditions[0].status = "False".to_owned();
        }
        assert!(starting(&unready, &sample, at(400), &usual), "it has never been ready");
        let none = Autoscaling { first_readiness: Duration::from_secs(5), ..usual };
        assert!(!starting(&unready, &sample, at(400), &none), "it was ready and is so no more");
    }

    #[test]
    fn shared_and_total_amounts() {
        let all = [pod("a", "Running"), pod("b", "Running")];
        let pods = Pods { all: &all, replicas: 2, now: now(), options: Autoscaling::default() };
        assert_eq!(by_total(pods, TOLERANCE, 1000, 2500), Ok(5));
        assert_eq!(by_total(pods, TOLERANCE, 1000, 1050), Ok(2));
        assert_eq!(by_total(Pods { replicas: 0, ..pods }, TOLERANCE, 1000, 2500), Ok(3));
        assert_eq!(by_share(2, TOLERANCE, 1000, 4500), (5, 2250));
        assert_eq!(by_share(2, TOLERANCE, 1000, 2000), (2, 1000));
    }
}
