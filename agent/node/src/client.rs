//! A client that changes its certificate without its users noticing.
//!
//! `kube` fixes a client's identity when it is made. Tasks are given one client for life, whose requests pass through
//! the newest one made from the renewed certificate.

use futures::future::BoxFuture;
use http::{Request, Response};
use kube::client::Body;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

/// Changes the client behind [`renewable`].
#[derive(Clone)]
pub(crate) struct Slot(Arc<RwLock<kube::Client>>);

impl Slot {
    /// Lets all requests from now on pass through `client`.
    pub(crate) fn replace(&self, client: kube::Client) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = client;
    }

    fn current(&self) -> kube::Client {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A client whose requests pass through whatever the slot holds at the time.
#[must_use]
pub(crate) fn renewable(first: kube::Client) -> (kube::Client, Slot) {
    let namespace = first.default_namespace().to_owned();
    let slot = Slot(Arc::new(RwLock::new(first)));
    (kube::Client::new(Through(slot.clone()), namespace), slot)
}

struct Through(Slot);

impl tower::Service<Request<Body>> for Through {
    type Response = Response<Body>;
    type Error = kube::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, kube::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), kube::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let client = self.0.current();
        Box::pin(async move { client.send(request).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    fn answering(text: &'static str) -> kube::Client {
        let service = tower::service_fn(move |_: Request<Body>| async move {
            Ok::<_, Infallible>(Response::new(Body::from(text.as_bytes().to_vec())))
        });
        kube::Client::new(service, "default")
    }

    #[tokio::test]
    async fn requests_pass_through_the_newest_client() {
        let (client, slot) = renewable(answering("old"));
        let ask = || client.request_text(Request::get("/version").body(Vec::new()).unwrap());
        assert_eq!(ask().await.unwrap(), "old");
        slot.replace(answering("new"));
        assert_eq!(ask().await.unwrap(), "new");
    }
}
