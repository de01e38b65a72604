//! Jobs.

use super::{created, updated};
use crate::resources::{by_group_resource, defaults, strategy};
use crate::validation::{subresource_update, update};
use serde_json::{Value, json};

#[test]
fn a_suspended_job_must_not_change_more_than_resources_and_placement() {
    let jobs = by_group_resource("batch", "jobs").unwrap();
    let job = |status: Value| {
        let mut job = json!({"metadata": {"name": "j", "namespace": "d", "uid": "u"}, "spec": {"suspend": true,
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i:1"}]}}}});
        defaults::apply(jobs, &mut job);
        strategy::prepare_for_create(jobs, &mut job);
        job["metadata"]["resourceVersion"] = json!("1");
        job["status"] = status;
        job
    };
    let fields = |old: &Value, change: &dyn Fn(&mut Value)| -> Vec<String> {
        let mut new = old.clone();
        change(&mut new["spec"]["template"]);
        update(jobs, &new, old).into_iter().map(|error| error.field).collect()
    };
    let container = |template: &mut Value| template["spec"]["containers"][0].take();
    let resources: &dyn Fn(&mut Value) = &|template| {
        template["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1"}});
        template["spec"]["nodeSelector"] = json!({"a": "b"});
        template["metadata"]["labels"]["x"] = json!("y");
    };
    let image: &dyn Fn(&mut Value) = &|template| template["spec"]["containers"][0]["image"] = json!("i:2");
    let pods: &dyn Fn(&mut Value) = &|template| {
        let term = json!({"topologyKey": "z", "labelSelector": {}});
        template["spec"]["affinity"] =
            json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
    };
    let renamed: &dyn Fn(&mut Value) = &|template| {
        let mut other = container(template);
        other["name"] = json!("d");
        other["resources"] = json!({"requests": {"cpu": "1"}});
        template["spec"]["containers"][0] = other;
    };
    let stopped =
        json!({"startTime": "2026-01-01T00:00:00Z", "conditions": [{"type": "Suspended", "status": "True"}]});
    for fresh in [job(json!({})), job(stopped)] {
        assert_eq!(fields(&fresh, resources), [""; 0]);
        for change in [image, pods, renamed] {
            assert_eq!(fields(&fresh, change), ["spec.template.spec"]);
        }
    }
    let active = json!({"startTime": "2026-01-01T00:00:00Z", "active": 1,
        "conditions": [{"type": "Suspended", "status": "True"}]});
    for busy in [job(active), job(json!({"startTime": "2026-01-01T00:00:00Z"}))] {
        assert_eq!(fields(&busy, resources), ["spec.template"]);
    }
}

#[test]
fn an_indexed_jobs_completions_must_not_change_without_its_parallelism() {
    let job = json!({"metadata": {"name": "j", "namespace": "d", "uid": "u"}, "spec": {"completionMode": "Indexed",
        "completions": 2, "parallelism": 2, "template": {"spec": {"restartPolicy": "Never",
        "containers": [{"name": "c", "image": "i:1"}]}}}});
    assert_eq!(
        updated("batch", "jobs", &job, |new| new["spec"]["completions"] = json!(3)),
        ["spec.completions: Invalid value: 3: can only be modified in tandem with spec.parallelism"]
    );
    let both = |new: &mut Value| {
        new["spec"]["completions"] = json!(3);
        new["spec"]["parallelism"] = json!(3);
    };
    assert_eq!(updated("batch", "jobs", &job, both), Vec::<String>::new());
}

fn indexed_job(extra: Value) -> Value {
    let mut job = json!({"metadata": {"name": "j", "namespace": "d", "uid": "u"}, "spec": {"completionMode": "Indexed",
        "completions": 5, "parallelism": 2, "template": {"spec": {"restartPolicy": "Never",
        "containers": [{"name": "c", "image": "i:1"}]}}}});
    for (key, value) in extra.as_object().unwrap() {
        job["spec"][key] = value.clone();
    }
    job
}

#[test]
fn a_jobs_policies_must_not_name_what_it_does_not_have() {
    let errors = |extra: Value| created("batch", "jobs", indexed_job(extra));
    assert_eq!(errors(json!({})), Vec::<String>::new());
    assert_eq!(
        errors(json!({"podFailurePolicy": {"rules": [
            {"action": "FailIndex", "onExitCodes": {"containerName": "x", "operator": "In", "values": [3, 0, 3]}},
            {"onPodConditions": [{"type": "a b", "status": "Maybe"}]}]}})),
        [
            "spec.podFailurePolicy.rules[0].action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set",
            "spec.podFailurePolicy.rules[0].onExitCodes.containerName: Invalid value: \"x\": must be one of the container \
             or initContainer names in the pod template",
            "spec.podFailurePolicy.rules[0].onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator",
            "spec.podFailurePolicy.rules[0].onExitCodes.values[2]: Duplicate value: 3",
            "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [3,0,3]: must be ordered",
            "spec.podFailurePolicy.rules[1].action: Required value: valid values: [\"Count\" \"FailIndex\" \"FailJob\" \
             \"Ignore\"]",
            "spec.podFailurePolicy.rules[1].onPodConditions[0].type: Invalid value: \"a b\": name part must consist of \
             alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. \
             'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
             '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            "spec.podFailurePolicy.rules[1].onPodConditions[0].status: Unsupported value: \"Maybe\": supported values: \
             \"False\", \"True\", \"Unknown\"",
        ]
    );
    assert_eq!(
        errors(json!({"maxFailedIndexes": 1, "managedBy": "me"})),
        [
            "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
            "spec.managedBy: Invalid value: \"me\": must be a domain-prefixed path (such as \"acme.io/foo\")",
        ]
    );
    assert_eq!(
        errors(json!({"successPolicy": {"rules": [{"succeededIndexes": "0-1", "succeededCount": 3},
            {"succeededIndexes": "7"}, {}]}})),
        [
            "spec.successPolicy.rules[0].succeededCount: Invalid value: 3: must be less than or equal to 2 (the number of \
             indexes in the specified succeededIndexes field)",
            "spec.successPolicy.rules[1].succeededIndexes: Invalid value: \"7\": error parsing succeededIndexes: too large \
             index: \"7\"",
            "spec.successPolicy.rules[2]: Required value: at least one of succeededCount or succeededIndexes must be \
             specified",
        ]
    );
}

#[test]
fn an_indexed_jobs_name_must_not_be_too_long_for_its_pods() {
    let mut job = indexed_job(json!({}));
    job["metadata"]["name"] = json!("j".repeat(62));
    assert_eq!(
        created("batch", "jobs", job),
        [format!(
            "metadata.name: Invalid value: \"{0}\": will not able to create pod with invalid DNS label: {0}-4",
            "j".repeat(62)
        )]
    );
}

#[test]
fn a_jobs_status_must_not_take_back_its_end() {
    let jobs = by_group_resource("batch", "jobs").unwrap();
    let job = |status: Value| {
        let mut job = indexed_job(json!({}));
        defaults::apply(jobs, &mut job);
        strategy::prepare_for_create(jobs, &mut job);
        job["metadata"]["resourceVersion"] = json!("1");
        job["status"] = status;
        job
    };
    let errors = |old: Value, new: Value| -> Vec<String> {
        subresource_update(jobs, "status", &job(new), &job(old)).iter().map(ToString::to_string).collect()
    };
    let conditions = |kinds: &[&str]| -> Value {
        kinds.iter().map(|kind| json!({"type": kind, "status": "True"})).collect()
    };
    let (start, end) = ("2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z");
    let running = json!({"startTime": start, "active": 1, "failed": 2});
    let complete = json!({"startTime": start, "completionTime": end, "succeeded": 5, "failed": 2,
        "conditions": conditions(&["SuccessCriteriaMet", "Complete"])});
    assert_eq!(errors(running.clone(), complete.clone()), Vec::<String>::new());
    assert_eq!(
        errors(complete, running.clone()),
        [
            "status.conditions: Invalid value: cannot disable the terminal Complete=True condition",
            "status.succeeded: Invalid value: 0: cannot decrease the succeeded counter",
            "status.conditions: Invalid value: cannot disable the SuccessCriteriaMet=True condition",
        ]
    );
    let abrupt = json!({"active": 1, "failed": 1, "completedIndexes": "0-1", "failedIndexes": "1",
        "conditions": conditions(&["Complete"])});
    assert_eq!(
        errors(running, abrupt),
        [
            "status.completionTime: Required value: completionTime is required for Complete jobs",
            "status.conditions: Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true \
             condition",
            "status.active: Invalid value: 1: active>0 is invalid for finished job",
            "status.startTime: Required value: startTime is required for finished job",
            "status.failedIndexes: Invalid value: \"1\": cannot set non-null failedIndexes when backoffLimitPerIndex is null",
            "status.failedIndexes: Invalid value: \"1\": failedIndexes and completedIndexes overlap at index: 1",
            "status.failed: Invalid value: 1: cannot decrease the failed counter",
            "status.startTime: Invalid value: null: field is immutable for unsuspended job once set",
        ]
    );
}

#[test]
fn a_schedule_that_is_there_must_not_be_refused_for_what_only_new_ones_are_held_to() {
    let resource = by_group_resource("batch", "cronjobs").unwrap();
    let job = |name: &str, schedule: &str, zone: Option<&str>| {
        let mut job = json!({"metadata": {"name": name, "namespace": "d", "resourceVersion": "1"}, "spec": {"schedule": schedule,
            "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i:1"}]}}}}}});
        if let Some(zone) = zone {
            job["spec"]["timeZone"] = json!(zone);
        }
        defaults::apply(resource, &mut job);
        job
    };
    let refused = |new: &Value, old: &Value| -> Vec<String> {
        update(resource, new, old).iter().map(ToString::to_string).collect()
    };
    let long = "n".repeat(53);
    let old = job(&long, "TZ=UTC * * * * *", Some("Nowhere/Else"));
    let mut changed = old.clone();
    changed["spec"]["suspend"] = json!(true);
    assert_eq!(
        refused(&changed, &old),
        [
            "spec.schedule: Invalid value: \"TZ=UTC * * * * *\": cannot use both timeZone field and TZ or CRON_TZ in schedule"
        ]
    );
    let old = job(&long, "TZ=UTC * * * * *", None);
    assert_eq!(refused(&job(&long, "TZ=UTC 1 * * * *", None), &old), [""; 0]);
    let plain = job("j", "* * * * *", None);
    assert_eq!(refused(&job("j", "TZ=UTC * * * * *", None), &plain).len(), 1);
    assert_eq!(created("batch", "cronjobs", job(&long, "* * * * *", None)).len(), 1);
}
