//! What a job's pods look like. Pure.

use super::plan::{FINALIZER, INDEX, INDEX_FAILURES, INDEX_IGNORED};
use crate::pods::{from_template, generated_name};
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use kube::ResourceExt;

/// Where containers find their index.
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// Longest start of a generated name.
const LONGEST_PREFIX: usize = 58;

/// A pod of the job, for one index where it has indexes. `failures` are the index's failures before: counted, ignored.
#[must_use]
pub(super) fn pod(job: &Job, spec: &JobSpec, index: Option<i32>, failures: Option<(i32, i32)>) -> Pod {
    let mut pod = from_template(&spec.template, job);
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|f| f == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    let Some(index) = index else { return pod };
    let name = job.name_any();
    let suffix = format!("-{index}-");
    let kept = name.len().min(LONGEST_PREFIX.saturating_sub(suffix.len()));
    let prefix = format!("{}{suffix}", name.get(..kept).unwrap_or(&name));
    pod.metadata.name = Some(generated_name(&prefix));
    pod.metadata.generate_name = Some(prefix);
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.to_owned(), index.to_string());
    if let Some((counted, ignored)) = failures {
        annotations.insert(INDEX_FAILURES.to_owned(), counted.to_string());
        if ignored > 0 {
            annotations.insert(INDEX_IGNORED.to_owned(), ignored.to_string());
        }
    }
    pod.metadata.labels.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(format!("{name}-{index}"));
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        let env = container.env.get_or_insert_default();
        if env.iter().all(|e| e.name != INDEX_VARIABLE) {
            let field_ref = Some(ObjectFieldSelector {
                api_version: None,
                field_path: format!("metadata.labels['{INDEX}']"),
            });
            let value_from = Some(EnvVarSource { field_ref, ..EnvVarSource::default() });
            env.push(EnvVar { name: INDEX_VARIABLE.to_owned(), value_from, value: None });
        }
    }
    pod
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{json, to_value};

    #[test]
    fn an_indexed_pod_knows_its_index() {
        let job: Job =
            serde_json::from_value(json!({ "metadata": { "name": "j", "namespace": "ns", "uid": "u" },
            "spec": { "template": { "metadata": { "labels": { "a": "b" } },
                "spec": { "containers": [{ "name": "c" }] } } } }))
            .unwrap();
        let pod = pod(&job, job.spec.as_ref().unwrap(), Some(7), Some((2, 1)));
        let value = to_value(&pod).unwrap();
        assert_eq!(value["metadata"]["generateName"], "j-7-");
        assert!(pod.name_any().starts_with("j-7-") && pod.name_any().len() == 9);
        assert_eq!(
            value["metadata"]["annotations"],
            json!({ "batch.kubernetes.io/job-completion-index": "7",
                "batch.kubernetes.io/job-index-failure-count": "2",
                "batch.kubernetes.io/job-index-ignored-failure-count": "1" })
        );
        assert_eq!(
            value["metadata"]["labels"],
            json!({ "a": "b", "batch.kubernetes.io/job-completion-index": "7" })
        );
        assert_eq!(value["metadata"]["finalizers"], json!(["batch.kubernetes.io/job-tracking"]));
        assert_eq!(value["spec"]["hostname"], "j-7");
        assert_eq!(
            value["spec"]["containers"][0]["env"],
            json!([{ "name": "JOB_COMPLETION_INDEX", "valueFrom": { "fieldRef":
                { "fieldPath": "metadata.labels['batch.kubernetes.io/job-completion-index']" } } }])
        );
    }
}
