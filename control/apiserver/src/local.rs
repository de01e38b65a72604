//! The server without a socket: a tower service for clients in the same program, such as `kube::Client::new(service, ns)`.

use crate::chain::{Caller, Chain};
use crate::context::{BoxError, Response, User};
use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::BodyExt as _;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Sends requests through the whole chain as one fixed user.
#[derive(Clone)]
pub struct LocalService {
    chain: Arc<Chain>,
    user: Arc<User>,
}

impl LocalService {
    pub(crate) fn new(chain: Arc<Chain>, user: User) -> Self {
        LocalService { chain, user: Arc::new(user) }
    }
}

impl<B> tower::Service<http::Request<B>> for LocalService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let (chain, caller) = (self.chain.clone(), Caller::Local(self.user.clone()));
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        Box::pin(async move { Ok(chain.handle(caller, request).await) })
    }
}
