//! How a server stops: it says so and serves on for a while, takes nothing new until the rest is answered, and ends.
//! Upstream: `apiserver/pkg/server/genericapiserver.go`, `filters/with_retry_after.go`.

use crate::answer;
use crate::context::{Request, Response};
use http::StatusCode;
use http::header::{CONNECTION, HeaderValue, RETRY_AFTER, USER_AGENT};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Who watches the server is answered to the end.
const EXEMPT: [&str; 4] = ["/readyz", "/livez", "/healthz", "/metrics"];
const GOING: &str = "The apiserver is shutting down, please try again later.\n";

/// How a server stops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shutdown {
    /// How long it serves on as if nothing was, but for saying that it is not ready.
    pub delay: Duration,
    /// How long watches may go on after that, ending one by one.
    pub watches: Duration,
    /// Whether it listens until the last request is answered, and sends new ones elsewhere.
    pub refuses: bool,
}

/// A server on its way to the end.
pub(crate) struct Ending {
    settings: Shutdown,
    /// It says that it is going.
    leaving: CancellationToken,
    /// It takes nothing new.
    refusing: CancellationToken,
    /// It takes no connections.
    stopping: CancellationToken,
    /// Requests that have an end.
    running: TaskTracker,
}

impl Ending {
    /// `stopping` is cancelled when connections are to end.
    pub(crate) fn new(settings: Shutdown, stopping: CancellationToken) -> Self {
        let (leaving, refusing) = (stopping.child_token(), CancellationToken::new());
        Self { settings, leaving, refusing, stopping, running: TaskTracker::new() }
    }

    /// The time in which watches end.
    pub(crate) fn spread(&self) -> Duration {
        self.settings.watches
    }

    /// Whether the end has begun.
    pub(crate) fn has_begun(&self) -> bool {
        self.leaving.is_cancelled()
    }

    /// Cancelled when the end begins.
    pub(crate) fn begun(&self) -> CancellationToken {
        self.leaving.clone()
    }

    /// Says so, and waits until connections are to end; for requests, at most for `patience`.
    pub(crate) async fn end(&self, patience: Duration) {
        self.leaving.cancel();
        tokio::time::sleep(self.settings.delay).await;
        if self.settings.refuses {
            self.refusing.cancel();
            self.running.close();
            if tokio::time::timeout(patience, self.running.wait()).await.is_err() {
                tracing::warn!(left = self.running.len(), "requests are not waited for any longer");
            }
        }
        self.stopping.cancel();
    }

    /// A request that has an end is under way for as long as this is held.
    pub(crate) fn enter(&self) -> TaskTrackerToken {
        self.running.token()
    }

    /// The answer to a request that is to be sent elsewhere.
    pub(crate) fn refusal(&self, request: &Request) -> Option<Response> {
        if !self.refusing.is_cancelled() {
            return None;
        }
        let agent = request.headers().get(USER_AGENT).and_then(|agent| agent.to_str().ok());
        let own = agent.is_some_and(|agent| agent.starts_with("kube-apiserver/"));
        if own || EXEMPT.iter().any(|path| request.uri().path().starts_with(path)) {
            return None;
        }
        let mut response = answer::text(StatusCode::TOO_MANY_REQUESTS, GOING);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        Some(response)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test sees how what it spawns ends")]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::time::Instant;

    fn asked(path: &str, agent: &str) -> Request {
        http::Request::get(path).header(USER_AGENT, agent).body(answer::body("")).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn connections_must_not_end_before_the_delay() {
        let stopping = CancellationToken::new();
        let ending =
            Ending::new(Shutdown { delay: Duration::from_secs(30), ..Shutdown::default() }, stopping.clone());
        assert!(!ending.has_begun());
        let begun = Instant::now();
        tokio::join!(ending.end(Duration::from_secs(60)), async {
            tokio::time::sleep(Duration::from_secs(29)).await;
            assert!(ending.has_begun() && !stopping.is_cancelled());
            assert!(ending.refusal(&asked("/api", "kubectl")).is_none());
        });
        assert!(stopping.is_cancelled() && begun.elapsed() >= Duration::from_secs(30));
    }

    #[tokio::test(start_paused = true)]
    async fn new_requests_are_sent_elsewhere_until_the_rest_is_answered() {
        let stopping = CancellationToken::new();
        let settings = Shutdown { refuses: true, ..Shutdown::default() };
        let ending = Arc::new(Ending::new(settings, stopping.clone()));
        let running = ending.enter();
        let end = tokio::spawn({
            let ending = ending.clone();
            async move { ending.end(Duration::from_secs(60)).await }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        let refused = ending.refusal(&asked("/api/v1/pods", "kubectl")).unwrap();
        assert_eq!(
            (refused.status().as_u16(), &refused.headers()["retry-after"]),
            (429, &"5".parse().unwrap())
        );
        assert_eq!(refused.headers()["connection"], "close");
        for (path, agent) in [("/readyz", "x"), ("/livez/ping", "x"), ("/api", "kube-apiserver/v1.36.0")] {
            assert!(ending.refusal(&asked(path, agent)).is_none(), "{path}");
        }
        assert!(!stopping.is_cancelled());
        drop(running);
        end.await.unwrap();
        assert!(stopping.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_hangs_must_not_hold_up_the_end_forever() {
        let settings = Shutdown { refuses: true, ..Shutdown::default() };
        let ending = Ending::new(settings, CancellationToken::new());
        let _running = ending.enter();
        let begun = Instant::now();
        ending.end(Duration::from_secs(60)).await;
        assert!(begun.elapsed() >= Duration::from_secs(60));
    }
}
