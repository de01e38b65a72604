//! Stops under way. Upstream gives up what it is doing when a pod is to end, or to end sooner, calls to the runtime
//! included. Here no call is dropped: one that gives too much time goes on, and the next is made beside it, with less.
//! The runtime kills by the first of them to run out, and answers both.

use std::sync::Arc;
use std::time::Duration;

use cri_proto::client::Error;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::execute;
use crate::pod::observed::Observed;
use crate::pod::plan::Stop;

/// Containers to be stopped together.
pub(super) struct Stopping {
    pub context: Arc<Context>,
    pub pod: Arc<Pod>,
    pub observed: Observed,
    pub stops: Vec<Stop>,
    /// The time they have, but for those with a grace of their own.
    pub grace: Duration,
}

/// The stops that were overtaken.
#[derive(Default)]
pub(super) struct Stops {
    overtaken: FuturesUnordered<BoxFuture<'static, Result<(), Error>>>,
}

impl Stops {
    /// Stops containers. `false`: `sooner` came first; hooks were given up, and what the runtime was asked for goes on.
    pub(super) async fn carry_out(
        &mut self,
        stopping: Stopping,
        sooner: impl Future<Output = ()>,
    ) -> Result<bool, Error> {
        let given_up = CancellationToken::new();
        let token = given_up.clone();
        let mut work: BoxFuture<'static, _> = Box::pin(async move {
            let Stopping { context, pod, observed, stops, grace } = stopping;
            execute::stop(&context, &pod, &stops, &observed, grace, &token).await
        });
        let overtaken = async {
            while self.overtaken.next().await.is_some() {}
            std::future::pending::<()>().await;
        };
        tokio::select! {
            stopped = &mut work => return stopped.map(|()| true),
            () = sooner => {}
            () = overtaken => {}
        }
        given_up.cancel();
        self.overtaken.push(work);
        Ok(false)
    }
}
