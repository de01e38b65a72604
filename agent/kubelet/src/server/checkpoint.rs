//! `/checkpoint`: a running container written to a file, by the runtime. Upstream: `checkpoint` of `pkg/kubelet/server/server.go`.

use super::answer::{self, HttpResponse};
use super::pods::View;
use super::query::Query;
use super::stream::target;
use cri_proto::client::Runtime;
use http::StatusCode;
use jiff::Timestamp;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;

/// Where the files are, below the kubelet's root; for root alone, as memory is in them.
const DIRECTORY: &str = "checkpoints";

/// Has the runtime write one, and answers with its name.
pub(super) async fn serve(
    runtime: &Runtime,
    root: &Path,
    view: Option<View>,
    container: &str,
    query: &Query,
) -> HttpResponse {
    let Some(view) = view else { return answer::text(StatusCode::NOT_FOUND, "pod does not exist") };
    let pod = &view.pod;
    if !crate::pod::containers(pod).any(|(_, known)| known.name == container) {
        return answer::text(StatusCode::NOT_FOUND, format!("container {container} does not exist"));
    }
    // The last one counts where there are several.
    let timeout = match query.all("timeout").last().map(|text| text.parse::<i64>()) {
        None => 0,
        Some(Ok(seconds)) => seconds,
        Some(Err(_)) => {
            return answer::text(StatusCode::NOT_FOUND, "cannot parse value of timeout parameter");
        }
    };
    let (namespace, name) = (crate::pod::namespace(pod), crate::pod::name(pod));
    let directory = root.join(DIRECTORY);
    let file = file_name(&format!("{name}_{namespace}"), container, Timestamp::now());
    let location = directory.join(file).to_string_lossy().into_owned();
    let written = async {
        let Ok(timeout) = u64::try_from(timeout) else {
            return Err("CheckpointContainer requires the timeout value to be > 0".to_owned());
        };
        let id = target::container(runtime, view.uid(), container).await;
        let id = id.map_err(|error| error.runtime_message())?;
        let id = id.ok_or_else(|| format!("container {container} not found"))?;
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
        made.map_err(|error| format!("create {}: {error}", directory.display()))?;
        let done = runtime.checkpoint_container(&id, &location, Duration::from_secs(timeout)).await;
        done.map_err(|error| error.runtime_message())
    };
    match written.await {
        Ok(()) => answer::json(&serde_json::json!({"items": [location]})),
        Err(why) => answer::text(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("checkpointing of {namespace}/{name}/{container} failed ({why})"),
        ),
    }
}

fn file_name(pod: &str, container: &str, now: Timestamp) -> String {
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    format!("checkpoint-{pod}-{container}-{now}.tar")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_for_its_container_and_its_second() {
        let now = Timestamp::from_millisecond(1_500).unwrap();
        assert_eq!(file_name("p_n", "c", now), "checkpoint-p_n-c-1970-01-01T00:00:01Z.tar");
    }
}
