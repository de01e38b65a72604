//! Bodies that end when the server stops, so that watchers reconnect elsewhere instead of holding up the shutdown.

use crate::context::{Body, BoxError};
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

struct Until {
    inner: Body,
    stopping: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// `body`, cut short where `stopping` is cancelled.
pub(crate) fn until(body: Body, stopping: &CancellationToken) -> Body {
    if body.is_end_stream() || body.size_hint().exact().is_some() {
        return body;
    }
    Until { inner: body, stopping: Box::pin(stopping.clone().cancelled_owned()) }.boxed_unsync()
}

impl http_body::Body for Until {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Pending => self.stopping.as_mut().poll(cx).map(|()| None),
            ready => ready,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
