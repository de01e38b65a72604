use super::*;
use serde_json::json;

/// The total of a resource, which must be the same from both forms.
fn amount(pod: &Value, side: Side, resize: Resize, name: &str) -> Option<String> {
    let typed = serde_json::from_value(pod.clone()).unwrap();
    let read = Asks::read(pod, side, resize);
    assert_eq!(Asks::of(&typed, side, resize).total(), read.total());
    read.total().get(name).map(Quantity::canonical)
}

fn text(pod: &Value, side: Side, name: &str) -> Option<String> {
    amount(pod, side, Resize::Ignored, name)
}

fn container(name: &str, cpu: &str) -> Value {
    json!({"name": name, "resources": {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}})
}

fn cpu(pod: &Value, side: Side, resize: Resize) -> Option<String> {
    amount(pod, side, resize, "cpu")
}

#[test]
fn sums() {
    let pod = json!({"spec": {"overhead": {"cpu": "50m", "memory": "1Mi"},
        "initContainers": [
            {"name": "a", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
            {"name": "b", "resources": {"requests": {"cpu": "1", "memory": "20Mi"}}}],
        "containers": [
            {"name": "c", "resources": {"requests": {"cpu": "200m"}, "limits": {"cpu": "300m"}}},
            {"name": "d", "resources": {"requests": {"cpu": "300m", "memory": "10Mi"}}}]}});
    assert_eq!(text(&pod, Side::Requests, "cpu").as_deref(), Some("1150m"));
    assert_eq!(text(&pod, Side::Requests, "memory").as_deref(), Some("21Mi"));
    assert_eq!(text(&pod, Side::Limits, "cpu").as_deref(), Some("350m"));
    assert_eq!(text(&pod, Side::Limits, "memory"), None);
}

#[test]
fn what_the_pod_states_for_itself_counts() {
    let pod = json!({"spec": {"resources": {"requests": {"cpu": "2", "example.com/x": "1"}},
        "containers": [{"name": "c", "resources": {"requests": {"cpu": "200m", "memory": "1Gi"}}}]}});
    assert_eq!(text(&pod, Side::Requests, "cpu").as_deref(), Some("2"));
    assert_eq!(text(&pod, Side::Requests, "memory").as_deref(), Some("1Gi"));
    assert_eq!(text(&pod, Side::Requests, "example.com/x"), None);
    assert!(states_pod_level(&pod));
}

#[test]
fn sidecars_run_on_and_init_containers_take_turns() {
    let mut sidecar = container("s", "300m");
    sidecar["restartPolicy"] = "Always".into();
    let init = json!([container("a", "1"), sidecar, container("b", "900m")]);
    let pod = json!({"spec": {"containers": [container("c", "500m")], "initContainers": init}});
    assert_eq!(text(&pod, Side::Requests, "cpu").as_deref(), Some("1200m"));
    let pod = json!({"spec": {"containers": [container("c", "2")], "initContainers": init}});
    assert_eq!(text(&pod, Side::Limits, "cpu").as_deref(), Some("2300m"));
}

#[test]
fn overhead_adds_to_limits_that_are_there() {
    let spec = json!({"containers": [container("c", "1")], "overhead": {"cpu": "100m", "memory": "1Mi"}});
    let pod = json!({ "spec": spec });
    assert_eq!(text(&pod, Side::Limits, "cpu").as_deref(), Some("1100m"));
    assert_eq!(text(&pod, Side::Limits, "memory"), None);
    assert_eq!(text(&pod, Side::Requests, "memory").as_deref(), Some("1Mi"));
}

#[test]
fn a_resize_that_cannot_be_granted_must_not_count() {
    let status = json!({"name": "c", "image": "i", "imageID": "i", "ready": true, "restartCount": 0,
        "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "2"}}, "allocatedResources": {"cpu": "3"}});
    let mut pod =
        json!({"spec": {"containers": [container("c", "4")]}, "status": {"containerStatuses": [status]}});
    assert_eq!(cpu(&pod, Side::Requests, Resize::Counted).as_deref(), Some("4"));
    assert_eq!(cpu(&pod, Side::Requests, Resize::Ignored).as_deref(), Some("4"));
    let pending = |reason: &str| json!([{"type": "PodResizePending", "status": "True", "reason": reason}]);
    pod["status"]["conditions"] = pending("Infeasible");
    assert_eq!(cpu(&pod, Side::Requests, Resize::Counted).as_deref(), Some("3"), "what is allocated");
    assert_eq!(cpu(&pod, Side::Limits, Resize::Counted).as_deref(), Some("2"), "what is in force");
    assert_eq!(cpu(&pod, Side::Requests, Resize::Ignored).as_deref(), Some("4"));
    pod["status"]["conditions"] = pending("Deferred");
    assert_eq!(cpu(&pod, Side::Requests, Resize::Counted).as_deref(), Some("4"), "it waits for its turn");
    // one that shrinks holds what it has until it has let go
    pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("1");
    assert_eq!(cpu(&pod, Side::Requests, Resize::Counted).as_deref(), Some("3"));
    pod["status"]["containerStatuses"][0].as_object_mut().unwrap().remove("resources");
    assert_eq!(
        cpu(&pod, Side::Requests, Resize::Counted).as_deref(),
        Some("1"),
        "nothing is said of what is in force"
    );
}

#[test]
fn a_resize_of_the_whole_pod_counts_by_the_same_rule() {
    let mut pod = json!({"spec": {"containers": [container("c", "1")], "resources": {"requests": {"cpu": "8"}}},
        "status": {"resources": {"requests": {"cpu": "2"}}, "allocatedResources": {"cpu": "3"}}});
    assert_eq!(cpu(&pod, Side::Requests, Resize::Counted).as_deref(), Some("8"));
    pod["status"]["conditions"] =
        json!([{"type": "PodResizePending", "status": "True", "reason": "Infeasible"}]);
    assert_eq!(cpu(&pod, Side::Requests, Resize::Counted).as_deref(), Some("3"));
    assert_eq!(cpu(&pod, Side::Requests, Resize::Ignored).as_deref(), Some("8"));
}

#[test]
fn scores_assume_the_least_of_a_container_that_says_nothing() {
    let pod = json!({"spec": {"containers": [container("a", "1"), {"name": "b"}]}});
    let least = amounts(&json!({"cpu": "100m", "memory": "200Mi"}));
    let total = Asks::read(&pod, Side::Requests, Resize::Ignored).with_least(&least).total();
    assert_eq!(total["cpu"].canonical(), "1100m");
    assert_eq!(total["memory"].canonical(), "400Mi");
}
