//! Bodies that end when the server stops, so that watchers reconnect elsewhere instead of holding up the shutdown; where that is set, not
//! all at once, so that others are not asked by all of them in the same moment. Upstream: `filters/watch_termination.go`.

use crate::context::{Body, BoxError};
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

struct Until {
    inner: Body,
    stopping: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// `body`, cut short where `stopping` is cancelled, at some moment of `spread` after that.
pub(crate) fn until(body: Body, stopping: &CancellationToken, spread: Duration) -> Body {
    if body.is_end_stream() || body.size_hint().exact().is_some() {
        return body;
    }
    let stopped = stopping.clone().cancelled_owned();
    let stopping = async move {
        stopped.await;
        if !spread.is_zero() {
            tokio::time::sleep(spread.mul_f64(fraction())).await;
        }
    };
    Until { inner: body, stopping: Box::pin(stopping) }.boxed_unsync()
}

/// Some number from 0 up to 1.
pub(crate) fn fraction() -> f64 {
    let mut bits = [0; 4];
    // Without a random source, the middle.
    match getrandom::fill(&mut bits) {
        Ok(()) => f64::from(u32::from_ne_bytes(bits)) / (f64::from(u32::MAX) + 1.0),
        Err(_) => 0.5,
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::StreamBody;
    use tokio::time::Instant;

    fn endless() -> Body {
        StreamBody::new(futures::stream::pending::<Result<Frame<Bytes>, BoxError>>()).boxed_unsync()
    }

    #[tokio::test(start_paused = true)]
    async fn watches_must_not_all_end_at_once_where_they_have_time() {
        let stopping = CancellationToken::new();
        stopping.cancel();
        let begun = Instant::now();
        until(endless(), &stopping, Duration::ZERO).collect().await.unwrap();
        assert_eq!(begun.elapsed(), Duration::ZERO, "at once by default");
        let mut ends = Vec::new();
        for _ in 0..50 {
            let begun = Instant::now();
            until(endless(), &stopping, Duration::from_secs(60)).collect().await.unwrap();
            ends.push(begun.elapsed());
        }
        assert!(ends.iter().all(|end| *end <= Duration::from_secs(61)));
        assert!(ends.iter().any(|end| *end < Duration::from_secs(30)));
        assert!(ends.iter().any(|end| *end > Duration::from_secs(30)));
    }
}
