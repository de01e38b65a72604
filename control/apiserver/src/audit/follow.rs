//! Bodies that outlive their request: it is answered when they end, or are let go.

use crate::facts::{Body, BoxError};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use std::pin::Pin;
use std::task::{Context, Poll};

struct Followed<K> {
    inner: Body,
    /// Ends with this.
    _kept: K,
}

/// `body`, which keeps something until it is let go.
pub(super) fn follow(body: Body, kept: impl Send + Unpin + 'static) -> Body {
    Followed { inner: body, _kept: kept }.boxed_unsync()
}

impl<K: Unpin> http_body::Body for Followed<K> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
