//! How long a server may take to answer: one that is frozen, or cut off without a word, keeps its connections.
//!
//! client-go finds out by HTTP/2's pings within 45 s. Here a connection has one request at a time, and one that is given up ends with it: the next
//! request goes over another connection, and behind a balancer to another server.

use http::Request;
use kube::client::Body;
use std::io;
use std::time::Duration;

/// A server answers every request within a minute (upstream: `--request-timeout`), and begins to answer a watch at once.
pub(crate) const ANSWER: Duration = Duration::from_secs(65);

/// # Errors
/// Those of `answer`; it does not come.
pub(crate) async fn within<T>(
    answer: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, kube::Error> {
    let answer = tokio::time::timeout(ANSWER, answer).await;
    answer.unwrap_or_else(|_| Err(kube::Error::Service(Box::new(late()))))
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the API server does not answer")
}

/// A client that gives up requests whose answer does not begin; what a stream brings afterwards may take its time.
#[must_use]
pub fn bounded(client: kube::Client) -> kube::Client {
    let namespace = client.default_namespace().to_owned();
    let send = move |request: Request<Body>| {
        let client = client.clone();
        async move { within(client.send(request)).await }
    };
    kube::Client::new(tower::service_fn(send), namespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::{Event, mirror};
    use crate::source::Source;
    use futures::StreamExt as _;
    use http::Response;
    use k8s_openapi::api::core::v1::Pod;
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A server that says nothing to the first requests that `frozen` names, and has nothing otherwise; and how often it was asked.
    fn freezing(frozen: fn(&str, usize) -> bool) -> (kube::Client, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let answer = move |request: Request<Body>| {
            let number = counted.fetch_add(1, Ordering::SeqCst);
            let query = request.uri().query().unwrap_or_default().to_owned();
            async move {
                if frozen(&query, number) {
                    std::future::pending::<()>().await;
                }
                let list =
                    r#"{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[]}"#;
                Ok::<_, Infallible>(Response::new(Body::from(list.as_bytes().to_vec())))
            }
        };
        (kube::Client::new(tower::service_fn(answer), "default"), asked)
    }

    #[tokio::test(start_paused = true)]
    async fn a_frozen_server_must_not_hold_a_list_for_ever() {
        let (client, asked) = freezing(|_, number| number == 0);
        let mut events = mirror::<Pod>(Source::all::<Pod>(&client));
        assert!(matches!(events.next().await, Some(Event::Failed(error)) if error.code().is_none()));
        assert!(matches!(events.next().await, Some(Event::Synced)), "another connection");
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_frozen_server_must_not_hold_a_watch_that_opens() {
        let (client, asked) = freezing(|query, _| query.contains("watch=true"));
        let mut events = mirror::<Pod>(Source::all::<Pod>(&client));
        assert!(matches!(events.next().await, Some(Event::Synced)));
        assert!(matches!(events.next().await, Some(Event::Failed(_))));
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_must_not_wait_for_a_frozen_server_either() {
        let (client, _) = freezing(|_, number| number == 0);
        let client = bounded(client);
        let get = || client.request_text(Request::get("/version").body(Vec::new()).unwrap());
        let error = get().await.unwrap_err();
        assert!(matches!(&error, kube::Error::Service(_)), "{error:?}");
        assert!(get().await.unwrap().contains("PodList"));
    }
}
