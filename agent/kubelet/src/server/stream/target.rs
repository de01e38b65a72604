//! Which container or sandbox a stream is for, as the runtime has it now.

use cri_proto::client::{Error, Runtime};
use cri_proto::v1::{ContainerState, PodSandboxState};
use std::collections::HashMap;

const POD_UID: &str = "io.kubernetes.pod.uid";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";

/// The running container of that name; the newest.
pub async fn container(runtime: &Runtime, uid: &str, name: &str) -> Result<Option<String>, Error> {
    let labels =
        HashMap::from([(POD_UID.to_owned(), uid.to_owned()), (CONTAINER_NAME.to_owned(), name.to_owned())]);
    let found = runtime.list_containers(labels).await?;
    let running = found.into_iter().filter(|c| c.state == ContainerState::ContainerRunning as i32);
    Ok(running.max_by_key(|c| c.created_at).map(|c| c.id))
}

/// The pod's ready sandbox.
pub async fn sandbox(runtime: &Runtime, uid: &str) -> Result<Option<String>, Error> {
    let found = runtime.list_pod_sandboxes(HashMap::from([(POD_UID.to_owned(), uid.to_owned())])).await?;
    let ready = found.into_iter().filter(|s| s.state == PodSandboxState::SandboxReady as i32);
    Ok(ready.max_by_key(|s| s.created_at).map(|s| s.id))
}
