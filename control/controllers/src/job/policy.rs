//! What a failed pod means to its job, and when some successes are enough. Pure.

use super::indexes::Indexes;
use k8s_openapi::api::batch::v1::{Job, PodFailurePolicyOnExitCodesRequirement, SuccessPolicy};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;

/// What the failure policy says of a failed pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// No rule matches, or one with `Count`: it counts towards the backoff limit.
    Count,
    /// It does not count.
    Ignore,
    /// Its index has failed.
    FailIndex,
    /// The job has failed; why.
    FailJob(String),
}

/// The first rule that matches decides.
#[must_use]
pub(super) fn judge(job: &Job, pod: &Pod) -> Verdict {
    let policy = job.spec.as_ref().and_then(|s| s.pod_failure_policy.as_ref());
    let name = || format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
    for (at, rule) in policy.iter().flat_map(|p| &p.rules).enumerate() {
        let why = if let Some(codes) = &rule.on_exit_codes {
            ended(pod, codes).map(|(container, code)| {
                format!("Container {container} for pod {} failed with exit code {code}", name())
            })
        } else {
            let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
            let met = conditions.iter().find(|c| {
                rule.on_pod_conditions.iter().flatten().any(|wanted| {
                    wanted.type_ == c.type_ && wanted.status.as_deref().unwrap_or("True") == c.status
                })
            });
            met.map(|c| format!("Pod {} has condition {}", name(), c.type_))
        };
        let Some(why) = why else { continue };
        return match rule.action.as_str() {
            "Ignore" => Verdict::Ignore,
            "FailIndex" => Verdict::FailIndex,
            "FailJob" => Verdict::FailJob(format!("{why} matching FailJob rule at index {at}")),
            _ => Verdict::Count,
        };
    }
    Verdict::Count
}

/// The first container whose exit code the requirement is about. A success is never a failure.
fn ended<'p>(pod: &'p Pod, codes: &PodFailurePolicyOnExitCodesRequirement) -> Option<(&'p str, i32)> {
    let status = pod.status.as_ref()?;
    let all = [&status.container_statuses, &status.init_container_statuses];
    let matches = |status: &'p ContainerStatus| {
        let code = status.state.as_ref()?.terminated.as_ref()?.exit_code;
        let about = codes.container_name.as_ref().is_none_or(|n| *n == status.name);
        let listed = codes.values.contains(&code);
        let met = match codes.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        };
        (about && code != 0 && met).then_some((status.name.as_str(), code))
    };
    all.into_iter().flatten().flatten().find_map(matches)
}

/// The message of the first success rule that the done indexes meet.
#[must_use]
pub(super) fn enough(policy: Option<&SuccessPolicy>, completions: i32, done: &Indexes) -> Option<String> {
    if done.total() == 0 {
        return None;
    }
    let met = policy?.rules.iter().position(|rule| {
        let listed = rule.succeeded_indexes.as_ref().map(|text| Indexes::parse(text, completions));
        match (&listed, rule.succeeded_count) {
            (Some(listed), Some(count)) => listed.shared(done) >= count,
            (Some(listed), None) => listed.shared(done) == listed.total(),
            (None, Some(count)) => done.total() >= count,
            (None, None) => false,
        }
    })?;
    Some(format!("Matched rules at index {met}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn verdict(rules: Value) -> Verdict {
        let job: Job = serde_json::from_value(json!({ "metadata": {}, "spec": { "template": {},
            "podFailurePolicy": { "rules": rules } } }))
        .unwrap();
        let pod: Pod = serde_json::from_value(json!({ "metadata": { "name": "p", "namespace": "ns" },
            "status": { "phase": "Failed", "conditions": [{ "type": "DisruptionTarget", "status": "True" }],
                "containerStatuses": [
                    { "name": "ok", "ready": false, "restartCount": 0, "image": "", "imageID": "",
                      "state": { "terminated": { "exitCode": 0 } } },
                    { "name": "main", "ready": false, "restartCount": 0, "image": "", "imageID": "",
                      "state": { "terminated": { "exitCode": 42 } } }] } }))
        .unwrap();
        judge(&job, &pod)
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let codes = |action: &str, operator: &str, values: Value| json!({ "action": action, "onExitCodes": { "operator": operator, "values": values } });
        assert_eq!(verdict(json!([])), Verdict::Count);
        assert_eq!(
            verdict(json!([codes("Ignore", "In", json!([1])), codes("FailIndex", "In", json!([42]))])),
            Verdict::FailIndex
        );
        assert_eq!(
            verdict(json!([codes("Ignore", "In", json!([1])), codes("FailJob", "NotIn", json!([1]))])),
            Verdict::FailJob(
                "Container main for pod ns/p failed with exit code 42 matching FailJob rule at index 1"
                    .into()
            )
        );
        let mut other = codes("FailJob", "In", json!([42]));
        other["onExitCodes"]["containerName"] = json!("ok");
        let disrupted = json!({ "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget" }] });
        assert_eq!(verdict(json!([other, disrupted])), Verdict::Ignore);
        let fail = json!({ "action": "FailJob", "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] });
        assert_eq!(
            verdict(json!([fail])),
            Verdict::FailJob(
                "Pod ns/p has condition DisruptionTarget matching FailJob rule at index 0".into()
            )
        );
    }

    #[test]
    fn success_rules() {
        let policy: SuccessPolicy = serde_json::from_value(json!({ "rules": [
            { "succeededIndexes": "0,2-3" }, { "succeededCount": 3 }, { "succeededIndexes": "4-6", "succeededCount": 1 }] }))
        .unwrap();
        let met = |text: &str| enough(Some(&policy), 10, &Indexes::parse(text, 10));
        assert_eq!(met("0,2"), None);
        assert_eq!(met("0,2,3").as_deref(), Some("Matched rules at index 0"));
        assert_eq!(met("1,7,8").as_deref(), Some("Matched rules at index 1"));
        assert_eq!(met("5").as_deref(), Some("Matched rules at index 2"));
        assert_eq!(enough(None, 10, &Indexes::parse("0-9", 10)), None);
    }
}
