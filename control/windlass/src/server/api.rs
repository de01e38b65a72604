//! The API server and what runs on it, inside this process.

use super::Plan;
use anyhow::bail;
use node::supervise::Task;
use pki::Pki;
use tokio_util::sync::CancellationToken;

/// A started API server.
pub(super) struct Api {}

/// Opens the store and starts the API server on it: listening, and ready once its caches are filled.
pub(super) async fn start(_plan: &Plan, _pki: &Pki) -> anyhow::Result<Api> {
    bail!("this build holds no API server yet")
}

impl Api {
    /// Waits until requests are answered.
    pub(super) async fn ready(&self) -> anyhow::Result<()> {
        Ok(())
    }

    /// True once [`Api::ready`] would return at once.
    pub(super) fn is_ready(&self) -> bool {
        false
    }

    /// A client without a socket, as `user` in `groups`.
    pub(super) fn client(&self, _user: &str, _groups: &[&str]) -> kube::Client {
        let nobody = tower::service_fn(|_: http::Request<kube::client::Body>| async move {
            Err::<http::Response<kube::client::Body>, _>(std::io::Error::other(
                "this build holds no API server yet",
            ))
        });
        kube::Client::new(nobody, "default")
    }

    /// Serves until `stop`, then lets requests finish.
    pub(super) async fn serve(&self, stop: &CancellationToken) -> anyhow::Result<()> {
        stop.cancelled().await;
        Ok(())
    }
}

/// Scheduler and controllers.
pub(super) fn tasks(_plan: &Plan, _pki: &Pki, api: &Api) -> Vec<Task> {
    let client = api.client("system:kube-scheduler", &[]);
    vec![Task::new("scheduler", move |token| {
        let client = client.clone();
        async move { Ok(scheduler::run(client, token).await?) }
    })]
}
