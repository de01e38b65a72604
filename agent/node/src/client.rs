//! A client that changes its certificate without its users noticing.
//!
//! `kube` fixes a client's identity when it is made. Tasks are given one client for life, whose requests pass through
//! the newest one made from the renewed certificate; while there is none yet they wait, and fail with the reason once it is known that
//! there will be none.

use ::client::credentials::Missing;
use futures::future::BoxFuture;
use http::{Request, Response};
use kube::client::Body;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::watch;

/// What requests pass through.
#[derive(Clone)]
enum Held {
    Client(kube::Client),
    /// Credentials are on their way.
    Awaited,
    Missing(String),
}

/// Changes the client behind [`renewable`], or one that was awaited.
#[derive(Clone)]
pub struct Slot(watch::Sender<Held>);

impl Slot {
    /// Lets all requests from now on pass through `client`.
    pub fn replace(&self, client: kube::Client) {
        self.0.send_replace(Held::Client(client));
    }

    /// Lets all requests from now on fail for `reason`.
    pub(crate) fn miss(&self, reason: &str) {
        self.0.send_replace(Held::Missing(reason.to_owned()));
    }

    /// Whether requests pass through a client now.
    pub(crate) fn is_held(&self) -> bool {
        matches!(*self.0.borrow(), Held::Client(_))
    }

    async fn current(&self) -> Result<kube::Client, Missing> {
        let mut held = self.0.subscribe();
        let known = held.wait_for(|held| !matches!(held, Held::Awaited)).await;
        match known.as_deref() {
            Ok(Held::Client(client)) => Ok(client.clone()),
            Ok(Held::Missing(reason)) => Err(Missing(reason.clone())),
            // The slot itself keeps the channel open.
            Ok(Held::Awaited) | Err(_) => Err(Missing("no credentials".to_owned())),
        }
    }
}

/// A client whose requests pass through whatever the slot holds at the time.
#[must_use]
pub fn renewable(first: kube::Client) -> (kube::Client, Slot) {
    let namespace = first.default_namespace().to_owned();
    let slot = Slot(watch::Sender::new(Held::Client(first)));
    (kube::Client::new(Through(slot.clone()), namespace), slot)
}

/// The same without a first client: requests wait until the slot is told.
#[must_use]
pub(crate) fn awaited() -> (kube::Client, Slot) {
    let slot = Slot(watch::Sender::new(Held::Awaited));
    (kube::Client::new(Through(slot.clone()), "default"), slot)
}

struct Through(Slot);

impl tower::Service<Request<Body>> for Through {
    type Response = Response<Body>;
    type Error = tower::BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, tower::BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), tower::BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let slot = self.0.clone();
        Box::pin(async move { Ok(slot.current().await?.send(request).await?) })
    }
}

/// The same client, with no more than so many requests a second and at once; a request beyond waits (`kubeAPIQPS`, `kubeAPIBurst`).
#[must_use]
pub fn limited(client: kube::Client, per_second: f64, burst: u32) -> kube::Client {
    let namespace = client.default_namespace().to_owned();
    let rate = Arc::new(parking_lot::Mutex::new(supervise::Rate::new(per_second, burst)));
    kube::Client::new(Limited { client, rate }, namespace)
}

struct Limited {
    client: kube::Client,
    rate: Arc<parking_lot::Mutex<supervise::Rate>>,
}

impl tower::Service<Request<Body>> for Limited {
    type Response = Response<Body>;
    type Error = tower::BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, tower::BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), tower::BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (client, pause) = (self.client.clone(), self.rate.lock().reserve());
        Box::pin(async move {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            Ok(client.send(request).await?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::error::Error as _;

    fn answering(text: &'static str) -> kube::Client {
        let service = tower::service_fn(move |_: Request<Body>| async move {
            Ok::<_, Infallible>(Response::new(Body::from(text.as_bytes().to_vec())))
        });
        kube::Client::new(service, "default")
    }

    async fn ask(client: &kube::Client) -> Result<String, kube::Error> {
        client.request_text(Request::get("/version").body(Vec::new()).unwrap()).await
    }

    #[tokio::test]
    async fn requests_pass_through_the_newest_client() {
        let (client, slot) = renewable(answering("old"));
        assert_eq!(ask(&client).await.unwrap(), "old");
        slot.replace(answering("new"));
        assert_eq!(ask(&client).await.unwrap(), "new");
    }

    #[tokio::test(start_paused = true)]
    async fn requests_beyond_the_rate_wait_and_come_through() {
        let client = limited(answering("here"), 2.0, 2);
        let began = tokio::time::Instant::now();
        for _ in 0..4 {
            assert_eq!(ask(&client).await.unwrap(), "here");
        }
        let took = began.elapsed().as_millis();
        assert!((1000..1010).contains(&took), "two at once, then two a second: {took}");
    }

    #[tokio::test]
    async fn requests_wait_for_credentials_and_are_told_what_is_missing() {
        let (client, slot) = awaited();
        let (told, ()) = tokio::join!(ask(&client), async {
            tokio::task::yield_now().await;
            slot.miss("no credentials of the proxy");
        });
        let error = told.unwrap_err();
        let missing = error.source().and_then(|source| source.downcast_ref::<Missing>());
        assert_eq!(missing, Some(&Missing("no credentials of the proxy".to_owned())));
        slot.replace(answering("here"));
        assert_eq!(ask(&client).await.unwrap(), "here");
    }
}
