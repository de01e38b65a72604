use super::*;
use k8s_openapi::api::batch::v1::UncountedTerminatedPods;
use proptest::prelude::*;
use serde_json::{Value, json};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn job(spec: Value) -> Job {
    let mut job = json!({ "metadata": { "name": "j", "uid": "u" }, "spec": { "backoffLimit": 6, "parallelism": 1,
        "template": { "spec": { "containers": [], "restartPolicy": "Never" } } } });
    for (key, value) in spec.as_object().unwrap() {
        job["spec"][key] = value.clone();
    }
    serde_json::from_value(job).unwrap()
}

fn pod(name: &str, phase: &str, index: Option<i32>) -> Arc<Pod> {
    let mut pod = json!({ "metadata": { "name": name, "uid": name, "annotations": {}, "finalizers": [FINALIZER] },
        "status": { "phase": phase } });
    if let Some(index) = index {
        pod["metadata"]["annotations"][INDEX] = json!(index.to_string());
    }
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn sync<'a>(job: &'a Job, pods: &[Arc<Pod>], released: &'a HashSet<String>, now: i64) -> Sync<'a> {
    Sync::new(job, job.spec.as_ref().unwrap(), pods.to_vec(), released, at(now))
}

fn why(sync: &Sync<'_>) -> Option<(String, String, String)> {
    let f = sync.finished.clone()?;
    Some((f.type_, f.reason.unwrap_or_default(), f.message.unwrap_or_default()))
}

fn text(a: &str, b: &str, c: &str) -> Option<(String, String, String)> {
    Some((a.into(), b.into(), c.into()))
}

#[test]
fn why_jobs_fail() {
    let none = HashSet::new();
    let failed = [pod("a", "Failed", None), pod("b", "Failed", None)];
    let limited = job(json!({ "backoffLimit": 1 }));
    assert_eq!(
        why(&sync(&limited, &failed, &none, 0)),
        text("FailureTarget", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    );
    assert_eq!(why(&sync(&limited, &failed[..1], &none, 0)), None);
    let mut deadline = job(json!({ "activeDeadlineSeconds": 30 }));
    deadline.status = Some(JobStatus { start_time: Some(Time(at(100))), ..JobStatus::default() });
    assert_eq!(sync(&deadline, &[], &none, 120).deadline, Some(Duration::from_secs(10)));
    assert_eq!(
        why(&sync(&deadline, &[], &none, 130)),
        text("FailureTarget", "DeadlineExceeded", "Job was active longer than specified deadline")
    );
    let indexed = job(
        json!({ "completionMode": "Indexed", "completions": 2, "backoffLimitPerIndex": 0, "backoffLimit": 2_147_483_647 }),
    );
    let pods = [pod("a", "Failed", Some(1)), pod("b", "Succeeded", Some(0))];
    assert_eq!(
        why(&sync(&indexed, &pods, &none, 0)),
        text("FailureTarget", "FailedIndexes", "Job has failed indexes")
    );
    let most = job(
        json!({ "completionMode": "Indexed", "completions": 9, "backoffLimitPerIndex": 0, "maxFailedIndexes": 0, "backoffLimit": 2_147_483_647 }),
    );
    assert_eq!(
        why(&sync(&most, &pods, &none, 0)),
        text(
            "FailureTarget",
            "MaxFailedIndexesExceeded",
            "Job has exceeded the specified maximal number of failed indexes"
        )
    );
}

#[test]
fn how_many_pods_a_job_wants() {
    let none = HashSet::new();
    let count = |spec: Value, pods: &[Arc<Pod>]| {
        let job = job(spec);
        match sync(&job, pods, &none, 0).manage(Record::default()) {
            Step::Create(indexes) => i32::try_from(indexes.len()).unwrap(),
            Step::Delete(pods) => -length(&pods),
            _ => 0,
        }
    };
    let running = [pod("a", "Running", None), pod("b", "Pending", None)];
    assert_eq!(count(json!({ "parallelism": 3, "completions": 9 }), &running), 1);
    assert_eq!(count(json!({ "parallelism": 3, "completions": 1 }), &running), -1);
    assert_eq!(count(json!({ "parallelism": 3, "suspend": true }), &running), -2);
    assert_eq!(count(json!({ "parallelism": 5 }), &running), 3);
    let emptied = [pod("a", "Running", None), pod("b", "Succeeded", None)];
    assert_eq!(count(json!({ "parallelism": 5 }), &emptied), 0);
    let mut going = (*pod("a", "Running", None)).clone();
    going.metadata.deletion_timestamp = Some(Time(at(0)));
    let going = [Arc::new(going)];
    assert_eq!(count(json!({ "completions": 1 }), &going), 1, "a deletion is a failure already");
    assert_eq!(count(json!({ "completions": 1, "podReplacementPolicy": "Failed" }), &going), 0);
    let twice = [pod("a", "Running", Some(0)), pod("b", "Pending", Some(0)), pod("c", "Running", None)];
    assert_eq!(count(json!({ "completionMode": "Indexed", "completions": 4, "parallelism": 4 }), &twice), -2);
}

#[test]
fn an_index_inherits_its_failures() {
    let none = HashSet::new();
    let job = job(
        json!({ "completionMode": "Indexed", "completions": 2, "parallelism": 2, "backoffLimitPerIndex": 3 }),
    );
    let mut failed = (*pod("a", "Failed", Some(1))).clone();
    failed.metadata.annotations.as_mut().unwrap().insert(INDEX_FAILURES.into(), "1".into());
    failed.metadata.creation_timestamp = Some(Time(at(1000)));
    let pods = [Arc::new(failed)];
    let mut now = sync(&job, &pods, &none, 1005);
    // index 0 has not failed; index 1 waits 20 s
    assert!(matches!(now.manage(Record::default()), Step::Create(i) if i == [Some(0)]));
    assert_eq!((now.failures_before(0), now.failures_before(1)), (Some((0, 0)), Some((2, 0))));
    assert!(now.track().0.is_empty(), "the pod stays until its successor knows of it");
    let later = sync(&job, &pods, &none, 1020);
    assert!(matches!(later.manage(Record::default()), Step::Create(i) if i == [Some(0), Some(1)]));
}

#[test]
fn a_pod_is_noted_before_it_is_counted() {
    let none = HashSet::new();
    let job = job(json!({ "completions": 1 }));
    let pods = [pod("good", "Succeeded", None), pod("bad", "Failed", None)];
    let mut first = sync(&job, &pods, &none, 50);
    assert_eq!(first.succeeded, 1);
    assert!(first.complete_if_done(0));
    let (release, all) = first.track();
    assert_eq!((release.len(), all), (2, true));
    let noted = first.status.clone();
    let uncounted = noted.uncounted_terminated_pods.clone().unwrap();
    assert_eq!(
        (uncounted.succeeded.unwrap(), uncounted.failed.unwrap()),
        (vec!["good".to_owned()], vec!["bad".to_owned()])
    );
    assert_eq!((noted.succeeded, noted.failed), (None, None));
    assert_eq!(holds(&noted, "SuccessCriteriaMet").unwrap().reason.as_deref(), Some("CompletionsReached"));
    assert!(holds(&noted, "Complete").is_none());
    // killed here: the next look counts neither twice
    let killed = Job { status: Some(noted), ..job.clone() };
    let again = sync(&killed, &pods, &none, 51);
    assert_eq!((again.succeeded, again.ended.0.len(), again.ended.1.len()), (1, 0, 0));
    let gone = ["good".to_owned(), "bad".to_owned()].into();
    assert!(first.settle(&gone, true));
    assert_eq!((first.status.succeeded, first.status.failed), (Some(1), Some(1)));
    let complete = holds(&first.status, "Complete").unwrap();
    assert_eq!(complete.message.as_deref(), Some("Reached expected number of succeeded pods"));
    assert_eq!(first.status.completion_time, Some(Time(at(50))));
}

#[test]
fn suspension_is_a_condition_and_an_event() {
    let none = HashSet::new();
    let mut suspended = job(json!({ "suspend": true }));
    let mut now = sync(&suspended, &[], &none, 5);
    assert_eq!(now.status.start_time, None);
    assert_eq!(now.note_suspension(), Some(("Suspended", "Job suspended")));
    assert_eq!(now.note_suspension(), None);
    suspended.status = Some(now.status.clone());
    suspended.spec.as_mut().unwrap().suspend = Some(false);
    let mut resumed = sync(&suspended, &[], &none, 9);
    assert_eq!(resumed.note_suspension(), Some(("Resumed", "Job resumed")));
    assert_eq!(resumed.status.start_time, Some(Time(at(9))));
    let condition = &resumed.status.conditions.as_ref().unwrap()[0];
    assert_eq!((condition.status.as_str(), condition.reason.as_deref()), ("False", Some("JobResumed")));
    let fresh = job(json!({}));
    assert_eq!(sync(&fresh, &[], &none, 0).note_suspension(), None, "never suspended: nothing to say");
}

#[test]
fn a_resumed_job_must_not_be_past_the_deadline_of_before_its_pause() {
    let none = HashSet::new();
    let mut job = job(json!({ "activeDeadlineSeconds": 30, "suspend": true }));
    job.status = Some(JobStatus { start_time: Some(Time(at(100))), ..JobStatus::default() });
    let mut paused = sync(&job, &[], &none, 110);
    assert_eq!(paused.note_suspension(), Some(("Suspended", "Job suspended")));
    let paused = paused.status;
    assert_eq!(paused.start_time, None);
    for kept in [None, Some(Time(at(100)))] {
        job.status = Some(JobStatus { start_time: kept, ..paused.clone() });
        job.spec.as_mut().unwrap().suspend = Some(false);
        let mut resumed = sync(&job, &[], &none, 500);
        assert_eq!((why(&resumed), resumed.deadline), (None, Some(Duration::from_secs(30))));
        resumed.note_suspension();
        assert_eq!(resumed.status.start_time, Some(Time(at(500))));
    }
}

#[test]
fn a_pod_that_still_runs_must_not_let_its_job_be_complete() {
    let none = HashSet::new();
    let job = job(json!({ "completions": 1 }));
    // its sidecars run on: not ended for the kubelet, whatever its main container did
    let running = [pod("a", "Running", None)];
    assert!(!sync(&job, &running, &none, 0).complete_if_done(1));
    let mut leaving = (*pod("b", "Running", None)).clone();
    leaving.metadata.deletion_timestamp = Some(Time(at(0)));
    let pods = [pod("a", "Succeeded", None), Arc::new(leaving)];
    let mut now = sync(&job, &pods, &none, 1);
    assert_eq!((now.ready, now.terminating), (0, 1));
    assert!(now.complete_if_done(0), "its criteria are met");
    now.track();
    let all = HashSet::from(["a".to_owned(), "b".to_owned()]);
    assert!(!now.settle(&all, true), "and yet it is not over");
    assert!(holds(&now.status, "SuccessCriteriaMet").is_some() && holds(&now.status, "Complete").is_none());
}

proptest! {
    /// Whatever pods do, and wherever the controller is killed, a job ends; every pod that ended is counted once.
    #[test]
    fn every_pod_is_counted_once(
        indexed in any::<bool>(),
        completions in 1..6_i32,
        parallelism in 1..4_i32,
        limit in 0..4_i32,
        fates in proptest::collection::vec(any::<bool>(), 60),
        kills in proptest::collection::vec(0..6_u8, 200),
    ) {
        let mode = if indexed { "Indexed" } else { "NonIndexed" };
        let mut job = job(json!({ "completions": completions, "parallelism": parallelism, "backoffLimit": limit, "completionMode": mode }));
        let mut pods: Vec<Arc<Pod>> = Vec::new();
        let (mut made, mut good, mut bad) = (0, 0, 0);
        let none = HashSet::new();
        for (step, kill) in kills.iter().copied().enumerate() {
            if is_finished(&job) {
                break;
            }
            let mut next = job.clone();
            {
                let mut now = sync(&job, &pods, &none, i64::try_from(step).unwrap() * 1000);
                let mut active = length(&now.active);
                if now.finished.is_some() {
                    // what runs is deleted, and ends as failed
                    active = 0;
                    pods.iter_mut().filter(|p| phase(p) == "Running").for_each(|p| { bad += 1; *p = pod(&p.name_any(), "Failed", number(p, INDEX)); });
                    if !now.active.is_empty() {
                        now.finished = None;
                    }
                } else {
                    match now.manage(Record::default()) {
                        Step::Create(indexes) => for index in indexes {
                            made += 1;
                            active += 1;
                            pods.push(pod(&format!("p{made}"), "Running", index));
                        },
                        Step::Delete(gone) => {
                            let gone: Vec<String> = gone.iter().map(|p| p.name_any()).collect();
                            pods.retain(|p| !gone.contains(&p.name_any()));
                        }
                        _ => {}
                    }
                    prop_assert!(active <= parallelism);
                    now.complete_if_done(active);
                }
                let (release, all) = now.track();
                if kill == 0 { continue; }
                next.status = Some(now.status.clone());
                if kill != 1 {
                    let gone: HashSet<String> = release.iter().filter_map(|p| p.uid()).take(if kill == 2 { 1 } else { 99 }).collect();
                    pods.retain(|p| !gone.contains(&p.uid().unwrap()));
                    let complete = gone.len() == release.len();
                    now.settle(&gone, all && complete);
                    if kill > 3 {
                        next.status = Some(now.status.clone());
                    }
                }
            }
            job = next;
            for p in &mut pods {
                if phase(p) == "Running" {
                    let number: usize = p.name_any()[1..].parse().unwrap();
                    let fine = fates[number % fates.len()];
                    if fine { good += 1 } else { bad += 1 }
                    *p = pod(&p.name_any(), if fine { "Succeeded" } else { "Failed" }, number_of(p));
                }
            }
        }
        if is_finished(&job) {
            let status = job.status.unwrap();
            prop_assert_eq!((status.succeeded.unwrap_or(0), status.failed.unwrap_or(0)), (good, bad));
            let complete = holds(&status, "Complete").is_some();
            prop_assert_eq!(complete, good >= completions && holds(&status, "Failed").is_none());
            prop_assert!(complete || bad > limit);
            prop_assert_eq!(status.uncounted_terminated_pods.unwrap_or_default(), UncountedTerminatedPods::default());
        } else {
            // a run of kills at the worst place only delays
            prop_assert!(kills.iter().filter(|k| **k < 4).count() > 20);
        }
    }
}

fn number_of(pod: &Pod) -> Option<i32> {
    number(pod, INDEX)
}
