//! `/containerLogs/{namespace}/{pod}/{container}`.

use super::answer::{self, Body, HttpResponse};
use super::pods::View;
use super::query::Query;
use crate::logs::line::Source;
use crate::logs::reader::{Reader, Writer};
use crate::logs::select::Options;
use bytes::Bytes;
use cri_proto::client::Runtime;
use cri_proto::v1::ContainerState;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use jiff::{SignedDuration, Timestamp};
use std::path::PathBuf;

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogRequest {
    pub options: Options,
    /// The container before the present one.
    pub previous: bool,
}

/// Parameters that cannot be meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nonsense {
    /// Not of the parameter's type: 400.
    Undecodable,
    /// Of the type, and out of range or contradictory: 422.
    Invalid,
}

impl Nonsense {
    fn answer(self) -> HttpResponse {
        match self {
            Self::Undecodable => {
                answer::text(StatusCode::BAD_REQUEST, r#"{"message": "Unable to decode query."}"#)
            }
            Self::Invalid => {
                answer::text(StatusCode::UNPROCESSABLE_ENTITY, r#"{"message": "Invalid request."}"#)
            }
        }
    }
}

/// Reads the parameters. Pure.
pub fn parse(query: &Query, now: Timestamp) -> Result<LogRequest, Nonsense> {
    use Nonsense::{Invalid, Undecodable};
    let number = |name: &str| match query.get(name) {
        Some(text) => text.parse::<i64>().map(Some).map_err(|_| Undecodable),
        None => Ok(None),
    };
    // As Go's conversion: everything but these is true.
    let flag = |name: &str| {
        query.get(name).is_some_and(|text| !matches!(text.to_ascii_lowercase().as_str(), "false" | "0"))
    };
    let tail = match query.get("tail") {
        Some("all") => None,
        Some(text) => Some(text.parse::<i64>().map_err(|_| Undecodable)?),
        None => number("tailLines")?,
    };
    let (limit, seconds) = (number("limitBytes")?, number("sinceSeconds")?);
    let time = match query.get("sinceTime") {
        Some(text) => Some(text.parse::<Timestamp>().map_err(|_| Undecodable)?),
        None => None,
    };
    let only = match query.get("stream") {
        None | Some("All") => None,
        Some("Stdout") => Some(Source::Stdout),
        Some("Stderr") => Some(Source::Stderr),
        Some(_) => return Err(Invalid),
    };
    let out_of_range = tail.is_some_and(|n| n < 0)
        || limit.is_some_and(|n| n < 1)
        || seconds.is_some_and(|n| n < 1)
        || (seconds.is_some() && time.is_some())
        || (tail.is_some() && only.is_some());
    if out_of_range {
        return Err(Invalid);
    }
    // A span longer than time itself is since ever.
    let since = |seconds| now.checked_sub(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN);
    let options = Options {
        follow: flag("follow"),
        tail: tail.and_then(|n| u64::try_from(n).ok()),
        since: time.or_else(|| seconds.map(since)),
        timestamps: flag("timestamps"),
        limit: limit.and_then(|n| u64::try_from(n).ok()),
        only,
    };
    Ok(LogRequest { options, previous: flag("previous") })
}

/// The id of the container whose log is meant, as statuses have it, or why there is none. Pure.
pub fn choose(view: &View, name: &str, previous: bool) -> Result<String, String> {
    let of = format!("container {name:?} in pod {:?}", view.name());
    let Some(status) = view.container_status(name) else { return Err(format!("{of} is not available")) };
    let id = |terminated: Option<&k8s_openapi::api::core::v1::ContainerStateTerminated>| {
        terminated.and_then(|t| t.container_id.clone()).filter(|id| !id.is_empty())
    };
    let last = status.last_state.as_ref().and_then(|s| s.terminated.as_ref());
    let state = status.state.clone().unwrap_or_default();
    if previous {
        return id(last).ok_or_else(|| format!("previous terminated {of} not found"));
    }
    if state.running.is_some() {
        return Ok(status.container_id.clone().unwrap_or_default());
    }
    if let Some(now) = &state.terminated {
        // Where the next container could not be made, the one before has the log.
        return id(Some(now)).or_else(|| id(last)).ok_or_else(|| format!("{of} is terminated"));
    }
    if last.is_some() {
        return id(last).ok_or_else(|| format!("{of} is terminated"));
    }
    Err(match state.waiting {
        Some(waiting) => match waiting.reason.as_deref().unwrap_or_default() {
            "ErrImagePull" => format!("{of} is waiting to start: image can't be pulled"),
            "ImagePullBackOff" => format!("{of} is waiting to start: trying and failing to pull image"),
            reason => format!("{of} is waiting to start: {reason}"),
        },
        None => format!("{of} is waiting to start - no logs yet"),
    })
}

struct Container {
    runtime: Runtime,
    id: String,
}

impl Writer for Container {
    async fn running(&self) -> Result<bool, String> {
        match self.runtime.container_status(&self.id).await {
            Ok(status) => Ok(status.state == ContainerState::ContainerRunning as i32),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error.runtime_message()),
        }
    }
}

/// Answers with a container's log.
pub async fn serve(
    runtime: &Runtime,
    view: Option<View>,
    pod: &str,
    container: &str,
    query: &Query,
) -> HttpResponse {
    let asked = match parse(query, Timestamp::now()) {
        Ok(asked) => asked,
        Err(nonsense) => return nonsense.answer(),
    };
    let Some(view) = view else {
        return answer::text(StatusCode::NOT_FOUND, format!("pod {pod:?} does not exist\n"));
    };
    if !view.has_container(container) {
        let text = format!("container {container:?} not found in pod {pod:?}\n");
        return answer::text(StatusCode::NOT_FOUND, text);
    }
    let named = match choose(&view, container, asked.previous) {
        Ok(id) => id,
        Err(text) => return answer::text(StatusCode::BAD_REQUEST, text),
    };
    let id = named.split_once("://").map_or(named.as_str(), |(_, id)| id).to_owned();
    let body = match runtime.container_status(&id).await {
        Ok(status) => {
            let (path, writer) = (PathBuf::from(status.log_path), Container { runtime: runtime.clone(), id });
            match Box::pin(Reader::open(&path, &asked.options, writer)).await {
                Ok(reader) => stream(reader),
                Err(error) => answer::body(error.to_string()),
            }
        }
        Err(error) => {
            tracing::debug!(%error, "status of a container whose log is asked for");
            answer::body(format!("unable to retrieve container logs for {named}"))
        }
    };
    // As upstream, the answer has begun by now: what goes wrong is told in the log's place.
    Response::new(body)
}

fn stream<W: Writer + 'static>(reader: Reader<W>) -> Body {
    let chunks = futures::stream::unfold(Some(reader), |reader| async move {
        let mut reader = reader?;
        match reader.chunk().await {
            Ok(Some(chunk)) => Some((Ok(Frame::data(chunk)), Some(reader))),
            Ok(None) => None,
            Err(error) => Some((Ok(Frame::data(Bytes::from(error.to_string()))), None)),
        }
    });
    StreamBody::new(Box::pin(chunks)).boxed_unsync()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{Pod, PodStatus};
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn view(status: Value) -> View {
        let pod: Pod = serde_json::from_value(
            json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}}),
        )
        .unwrap();
        let status: PodStatus = serde_json::from_value(json!({"containerStatuses": [status]})).unwrap();
        View { pod: Arc::new(pod), status: Arc::new(status) }
    }

    fn status(state: Value, last: Value) -> View {
        view(json!({"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "containerID": "containerd://now", "state": state, "lastState": last}))
    }

    #[test]
    fn the_container_and_the_refusals_are_upstreams() {
        let ended = json!({"terminated": {"exitCode": 0, "containerID": "containerd://old"}});
        let lost = json!({"terminated": {"exitCode": 0}});
        let waiting = |reason: &str| json!({"waiting": {"reason": reason}});
        let running = json!({"running": {}});
        for (state, last, previous, want) in [
            (running.clone(), json!({}), false, Ok("containerd://now")),
            (running.clone(), ended.clone(), true, Ok("containerd://old")),
            (running, json!({}), true, Err("previous terminated container \"c\" in pod \"p\" not found")),
            (ended.clone(), json!({}), false, Ok("containerd://old")),
            (lost.clone(), ended.clone(), false, Ok("containerd://old")),
            (lost.clone(), json!({}), false, Err("container \"c\" in pod \"p\" is terminated")),
            (waiting("CrashLoopBackOff"), ended, false, Ok("containerd://old")),
            (waiting("CrashLoopBackOff"), lost, false, Err("container \"c\" in pod \"p\" is terminated")),
            (
                waiting("ContainerCreating"),
                json!({}),
                false,
                Err("container \"c\" in pod \"p\" is waiting to start: ContainerCreating"),
            ),
            (
                waiting("ErrImagePull"),
                json!({}),
                false,
                Err("container \"c\" in pod \"p\" is waiting to start: image can't be pulled"),
            ),
            (
                waiting("ImagePullBackOff"),
                json!({}),
                false,
                Err("container \"c\" in pod \"p\" is waiting to start: trying and failing to pull image"),
            ),
            (
                json!({}),
                json!({}),
                false,
                Err("container \"c\" in pod \"p\" is waiting to start - no logs yet"),
            ),
        ] {
            let got = choose(&status(state.clone(), last.clone()), "c", previous);
            assert_eq!(got.as_deref().map_err(String::as_str), want, "{state} {last} {previous}");
        }
        let unknown = choose(
            &view(json!({"name": "x", "image": "", "imageID": "", "ready": false, "restartCount": 0})),
            "c",
            false,
        );
        assert_eq!(unknown.unwrap_err(), "container \"c\" in pod \"p\" is not available");
    }

    #[test]
    fn parameters_are_checked() {
        let now: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
        let of = |text: &str| parse(&Query::new(Some(text)), now);
        let read =
            of("follow=true&tailLines=5&sinceSeconds=60&timestamps=1&limitBytes=9&previous=false").unwrap();
        let since = Some("2026-01-01T00:59:00Z".parse().unwrap());
        let want =
            Options { follow: true, tail: Some(5), since, timestamps: true, limit: Some(9), only: None };
        assert_eq!(read, LogRequest { options: want, previous: false });
        assert_eq!(of("tail=all&tailLines=3").unwrap().options.tail, None);
        assert_eq!(of("stream=Stderr").unwrap().options.only, Some(Source::Stderr));
        assert!(of("sinceSeconds=9223372036854775807").unwrap().options.since.is_some());
        for text in ["tailLines=x", "limitBytes=1.5", "sinceTime=yesterday"] {
            assert_eq!(of(text), Err(Nonsense::Undecodable), "{text}");
        }
        for text in [
            "tailLines=-1",
            "limitBytes=0",
            "sinceSeconds=0",
            "stream=x",
            "stream=Stdout&tailLines=1",
            "sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z",
        ] {
            assert_eq!(of(text), Err(Nonsense::Invalid), "{text}");
        }
    }
}
