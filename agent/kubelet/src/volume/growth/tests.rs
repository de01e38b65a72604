use super::*;
use http::{Request, Response};
use http_body_util::BodyExt;
use kube::client::Body;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use supervise::{Scope, Supervisor};
use tokio_util::sync::CancellationToken;

/// A claim, its volume, what was asked to be written, how often writing is refused, and whether it is never answered.
struct Server {
    claim: Value,
    volume: Value,
    patches: Vec<Value>,
    events: Vec<(String, String, String)>,
    refusals: usize,
    mute: bool,
}

impl Server {
    fn answer(&mut self, method: &str, path: &str, body: Value) -> (u16, Value) {
        match (method, path) {
            ("GET", "/api/v1/persistentvolumes/v") => (200, self.volume.clone()),
            ("GET", "/api/v1/namespaces/n/persistentvolumeclaims/c") => (200, self.claim.clone()),
            ("PATCH", "/api/v1/namespaces/n/persistentvolumeclaims/c/status") => {
                self.patches.push(body.clone());
                if self.refusals > 0 {
                    self.refusals -= 1;
                    let message = "the object has been modified";
                    return (
                        409,
                        json!({"kind": "Status", "status": "Failure", "message": message,
                        "reason": "Conflict", "code": 409}),
                    );
                }
                machinery::patch::merge::apply(&mut self.claim, body.to_string().as_bytes()).unwrap();
                (200, self.claim.clone())
            }
            ("POST", "/api/v1/namespaces/n/events") => {
                let text =
                    |pointer| body.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
                self.events.push((text("/involvedObject/kind"), text("/reason"), text("/message")));
                (201, body)
            }
            // An event that comes once more is counted.
            ("PATCH", path) if path.starts_with("/api/v1/namespaces/n/events/") => {
                (200, json!({"metadata": {}, "involvedObject": {}}))
            }
            other => panic!("unexpected request {other:?}"),
        }
    }
}

struct World {
    server: Arc<Mutex<Server>>,
    client: kube::Client,
    recorder: Recorder,
    _scope: Arc<Scope>,
    pod: Pod,
    claimed: Claimed,
}

/// A claim of 1Gi whose volume has `capacity`, on a directory that is there.
fn world(source: Value, capacity: &str, status: Value) -> World {
    let mut claim = json!({
        "metadata": {"name": "c", "namespace": "n", "uid": "u", "resourceVersion": "7"},
        "spec": {"volumeName": "v", "resources": {"requests": {"storage": "2Gi"}}},
        "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}},
    });
    machinery::patch::merge::apply(&mut claim, json!({"status": status}).to_string().as_bytes()).unwrap();
    let mut volume = json!({
        "metadata": {"name": "v"},
        "spec": {"capacity": {"storage": capacity}, "claimRef": {"namespace": "n", "name": "c", "uid": "u"}},
    });
    machinery::patch::merge::apply(&mut volume, json!({"spec": source}).to_string().as_bytes()).unwrap();
    let claimed = Claimed {
        volume: serde_json::from_value(volume.clone()).unwrap(),
        claim: "c".into(),
        read_only: false,
        block: false,
        exclusive: false,
        asked: Default::default(),
    };
    let server = Server { claim, volume, patches: Vec::new(), events: Vec::new(), refusals: 0, mute: false };
    let server = Arc::new(Mutex::new(server));
    let seen = server.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let server = seen.clone();
        async move {
            let (parts, body) = request.into_parts();
            let bytes = body.collect().await.unwrap().to_bytes();
            let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            let mute = server.lock().unwrap().mute;
            if mute && parts.uri.path().ends_with("/status") {
                return std::future::pending().await;
            }
            let (status, answer) =
                server.lock().unwrap().answer(parts.method.as_str(), parts.uri.path(), body);
            let bytes = answer.to_string().into_bytes();
            Ok::<_, Infallible>(Response::builder().status(status).body(Body::from(bytes)).unwrap())
        }
    });
    let client = kube::Client::new(service, "n");
    let (recorder, writer) = Recorder::new(Some(client.clone()), "node1");
    let scope = Arc::new(Scope::new(&Supervisor::default(), "", &CancellationToken::new()));
    scope.keep(writer.task("events"));
    let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "w"}, "spec": {"nodeName": "node1",
        "containers": []}});
    World { server, client, recorder, _scope: scope, pod: serde_json::from_value(pod).unwrap(), claimed }
}

fn directory() -> Value {
    json!({"local": {"path": "/proc"}})
}

impl World {
    async fn sync(&self) {
        follow(&self.client, &self.recorder, &self.pod, &self.claimed).await;
    }

    fn status(&self) -> Value {
        self.server.lock().unwrap().claim["status"].clone()
    }

    /// The events, once there are so many.
    async fn events(&self, count: usize) -> Vec<(String, String, String)> {
        let written = async {
            while self.server.lock().unwrap().events.len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(5), written).await;
        let events = self.server.lock().unwrap().events.clone();
        assert!(in_time.is_ok(), "{events:?}");
        events
    }
}

fn event(kind: &str, reason: &str, message: &str) -> (String, String, String) {
    (kind.to_owned(), reason.to_owned(), message.to_owned())
}

const SUCCESS: &str = "MountVolume.NodeExpandVolume succeeded for volume \"v\" node1";

#[tokio::test]
async fn a_local_volume_grown_must_not_leave_its_claim_at_the_old_size() {
    let condition = |kind: &str| json!({"type": kind, "status": "True"});
    let conditions = [condition("FileSystemResizePending"), condition("Unused"), condition("Resizing")];
    let world = world(directory(), "2Gi", json!({ "conditions": conditions }));
    world.sync().await;
    let kept = [condition("Unused")];
    assert_eq!(world.status(), json!({"phase": "Bound", "capacity": {"storage": "2Gi"}, "conditions": kept}));
    let patches = world.server.lock().unwrap().patches.clone();
    assert_eq!(patches[0]["metadata"], json!({"resourceVersion": "7"}), "nobody's change is written over");
    let told =
        ["Pod", "PersistentVolumeClaim"].map(|kind| event(kind, "FileSystemResizeSuccessful", SUCCESS));
    assert_eq!(world.events(2).await, told);
    world.sync().await;
    assert_eq!(world.server.lock().unwrap().patches.len(), 1, "once is enough");
}

#[tokio::test]
async fn a_resize_that_is_counted_must_not_skip_a_step_or_end_uncounted() {
    let status = json!({
        "allocatedResources": {"storage": "2Gi"},
        "allocatedResourceStatuses": {"storage": "NodeResizePending", "example.com/iops": "ControllerResizeInProgress"},
    });
    let world = world(directory(), "3Gi", status);
    world.sync().await;
    let patches = world.server.lock().unwrap().patches.clone();
    let steps = patches.iter().map(|p| p["status"]["allocatedResourceStatuses"]["storage"].clone());
    assert_eq!(steps.collect::<Vec<_>>(), [json!("NodeResizeInProgress"), Value::Null]);
    let status = world.status();
    assert_eq!(status["capacity"], json!({"storage": "2Gi"}), "what was allocated, whatever the volume has");
    assert_eq!(
        status["allocatedResourceStatuses"],
        json!({"example.com/iops": "ControllerResizeInProgress"}),
        "another resource's steps stay"
    );
}

#[tokio::test]
async fn a_claim_with_nothing_to_gain_must_not_be_written() {
    let pending = json!({"allocatedResources": {"storage": "2Gi"},
        "allocatedResourceStatuses": {"storage": "NodeResizeInfeasible"}});
    for (source, capacity, status) in [
        (directory(), "1Gi", json!({})),
        (directory(), "1024Mi", json!({})),
        (directory(), "2Gi", json!({"capacity": {"storage": "2Gi"}})),
        (directory(), "2Gi", pending),
        // No node grows these; upstream's neither.
        (json!({"hostPath": {"path": "/proc"}}), "2Gi", json!({})),
        (json!({"local": {"path": "/proc"}, "claimRef": {"uid": "another"}}), "2Gi", json!({})),
    ] {
        let said = format!("{source} {capacity} {status}");
        let world = world(source, capacity, status);
        world.sync().await;
        assert!(world.server.lock().unwrap().patches.is_empty(), "{said}");
    }
    let mut reader = world(directory(), "2Gi", json!({}));
    reader.claimed.read_only = true;
    reader.sync().await;
    assert!(reader.server.lock().unwrap().patches.is_empty());
}

#[tokio::test]
async fn a_resize_that_cannot_be_written_must_not_be_given_up_or_hidden() {
    let world = world(directory(), "2Gi", json!({}));
    world.server.lock().unwrap().refusals = 1;
    world.sync().await;
    assert_eq!(world.status()["capacity"]["storage"], "1Gi");
    let text = "NodeExpandVolume.NodeExpandVolume failed for volume \"v\" : mountVolume.NodeExpandVolume update \
                PVC status failed : patchPVCStatus failed to patch PVC \"c\": the object has been modified";
    assert_eq!(world.events(3).await[2], event("Pod", "VolumeResizeFailed", text));
    world.sync().await;
    assert_eq!(world.status()["capacity"]["storage"], "2Gi");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_is_never_answered_must_not_hold_up_the_pod() {
    let world = world(directory(), "2Gi", json!({}));
    world.server.lock().unwrap().mute = true;
    let synced = tokio::time::timeout(2 * PATIENCE + Duration::from_secs(1), world.sync()).await;
    assert!(synced.is_ok(), "a sync waits for ever");
    let text =
        "NodeExpandVolume.NodeExpandVolume failed for volume \"v\" : the API server did not answer in time";
    assert_eq!(world.events(3).await[2], event("Pod", "VolumeResizeFailed", text));
    world.server.lock().unwrap().mute = false;
    world.sync().await;
    assert_eq!(world.status()["capacity"]["storage"], "2Gi");
}

#[tokio::test]
async fn a_volume_that_is_no_directory_must_not_be_said_to_have_grown() {
    let file = json!({"local": {"path": "/proc/version"}});
    let wrong = "only directory and block device are supported";
    let text = format!("NodeExpandVolume.NodeExpandVolume failed for volume \"v\" : {wrong}");
    let plain = world(file.clone(), "2Gi", json!({}));
    plain.sync().await;
    assert_eq!(plain.events(1).await, [event("Pod", "VolumeResizeFailed", &text)]);
    assert_eq!(plain.status()["capacity"]["storage"], "1Gi");

    let counted = json!({"allocatedResources": {"storage": "3Gi"},
        "allocatedResourceStatuses": {"storage": "NodeResizePending"}});
    let counted = world(file, "3Gi", counted);
    counted.sync().await;
    let status = counted.status();
    let condition = &status["conditions"][0];
    assert_eq!(condition["type"], "NodeResizeError");
    assert_eq!(condition["message"], format!("failed to expand pvc with {wrong}"));
    assert_eq!(status["allocatedResourceStatuses"]["storage"], "NodeResizeInProgress");
    // The claim asks for 2Gi by now: the resizer is to see that 3Gi are not to be had.
    counted.sync().await;
    let status = counted.status();
    assert_eq!(status["allocatedResourceStatuses"]["storage"], "NodeResizeInfeasible");
    assert_eq!(status["conditions"].as_array().unwrap().len(), 1);
}
