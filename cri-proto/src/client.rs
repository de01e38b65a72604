//! The runtime and image services as typed calls.
//!
//! Every call has a deadline of its class, and every error names the operation and its subject. The channel is lazy: a
//! runtime that is away fails the calls made meanwhile, and the first call after it is back reconnects.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use crate::v1;
use crate::v1::image_service_client::ImageServiceClient;
use crate::v1::runtime_service_client::RuntimeServiceClient;

mod error;

pub use error::{Error, go_code};

/// The largest message either side may send, as upstream's kubelet: a list of 11,000 containers fits.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// How long calls of each class may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// Every call not named below (`runtimeRequestTimeout`), and what is added to a stop's or an exec's own time.
    pub request: Duration,
    /// A pull has no deadline; it is given up when the runtime has not answered anything for this long.
    pub pull_silence: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { request: Duration::from_secs(120), pull_silence: Duration::from_secs(60) }
    }
}

/// Told of every call that is over: its method, how long it took, whether it failed.
pub type CallObserver = Arc<dyn Fn(&'static str, Duration, bool) + Send + Sync>;

#[derive(Clone)]
struct Observed(CallObserver);

impl std::fmt::Debug for Observed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Observed").finish_non_exhaustive()
    }
}

/// A container runtime: cheap to clone, shared by every task.
#[derive(Clone, Debug)]
pub struct Runtime {
    observer: Option<Observed>,
    channel: Channel,
    /// Of the image service, which may be another program.
    images: Channel,
    deadlines: Deadlines,
}

impl Runtime {
    /// A client of the runtime at `endpoint` (`unix:///path`, or a bare absolute path as upstream also takes).
    /// Nothing is connected yet: the first call does that. Needs a tokio runtime around it.
    pub fn connect(endpoint: &str, deadlines: Deadlines) -> Result<Self, Error> {
        let channel = channel(endpoint)?;
        Ok(Self { observer: None, images: channel.clone(), channel, deadlines })
    }

    /// The same with an image service at another endpoint.
    pub fn with_images_at(self, endpoint: &str) -> Result<Self, Error> {
        Ok(Self { images: channel(endpoint)?, ..self })
    }

    /// The same client, whose calls are told to `observer` when they are over.
    #[must_use]
    pub fn observed(self, observer: CallObserver) -> Self {
        Self { observer: Some(Observed(observer)), ..self }
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    fn images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.images.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Waits until the runtime reports `RuntimeReady`, at most `limit`; the last failure is returned after that.
    /// `NetworkReady` is not waited for: pods on the host's network need none.
    pub async fn wait_until_ready(&self, limit: Duration) -> Result<v1::VersionResponse, Error> {
        let end = tokio::time::Instant::now() + limit;
        let mut pause = Duration::from_millis(50);
        loop {
            let failure = match self.ready_version().await {
                Ok(version) => return Ok(version),
                Err(error) => error,
            };
            if tokio::time::Instant::now() + pause >= end {
                return Err(failure);
            }
            tracing::debug!(error = %failure, "runtime is not ready yet");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    async fn ready_version(&self) -> Result<v1::VersionResponse, Error> {
        let version = self.version().await?;
        let status = self.status(false).await?;
        let conditions = status.status.map(|s| s.conditions).unwrap_or_default();
        match conditions.into_iter().find(|c| c.r#type == "RuntimeReady" && !c.status) {
            None => Ok(version),
            Some(condition) => Err(Error::Call {
                operation: "Status",
                subject: "runtime".to_owned(),
                status: Box::new(Status::unavailable(format!("{}: {}", condition.reason, condition.message))),
            }),
        }
    }

    // --- runtime service ---

    /// Name and version of the runtime.
    pub async fn version(&self) -> Result<v1::VersionResponse, Error> {
        let request = v1::VersionRequest { version: "0.1.0".to_owned() };
        self.call("Version", "runtime", self.runtime().version(request)).await
    }

    /// The runtime's conditions; `verbose` adds its configuration.
    pub async fn status(&self, verbose: bool) -> Result<v1::StatusResponse, Error> {
        self.call("Status", "runtime", self.runtime().status(v1::StatusRequest { verbose })).await
    }

    /// What the runtime is configured to (its cgroup driver); `None` where it is too old to say.
    pub async fn runtime_config(&self) -> Result<Option<v1::RuntimeConfigResponse>, Error> {
        let mut client = self.runtime();
        let call = client.runtime_config(v1::RuntimeConfigRequest {});
        match self.call("RuntimeConfig", "runtime", call).await {
            Ok(config) => Ok(Some(config)),
            Err(error) if error.code() == Code::Unimplemented => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Tells the runtime the node's pod range.
    pub async fn update_runtime_config(&self, pod_cidr: &str) -> Result<(), Error> {
        let network_config = Some(v1::NetworkConfig { pod_cidr: pod_cidr.to_owned() });
        let request =
            v1::UpdateRuntimeConfigRequest { runtime_config: Some(v1::RuntimeConfig { network_config }) };
        self.call("UpdateRuntimeConfig", pod_cidr, self.runtime().update_runtime_config(request)).await?;
        Ok(())
    }

    /// Creates and starts a sandbox (network included) and returns its id.
    pub async fn run_pod_sandbox(
        &self,
        config: v1::PodSandboxConfig,
        runtime_handler: &str,
    ) -> Result<String, Error> {
        let subject = config.metadata.as_ref().map_or_else(String::new, |m| {
            format!("{}/{} (uid {}, attempt {})", m.namespace, m.name, m.uid, m.attempt)
        });
        let request =
            v1::RunPodSandboxRequest { config: Some(config), runtime_handler: runtime_handler.to_owned() };
        // Upstream gives sandboxes twice the time: the network plugin runs inside the call.
        let limit = self.deadlines.request * 2;
        let mut runtime = self.runtime();
        let call = self.within("RunPodSandbox", &subject, limit, runtime.run_pod_sandbox(request));
        let answer = Box::pin(call).await?;
        Ok(answer.pod_sandbox_id)
    }

    /// Stops a sandbox and what runs in it; fine when it is stopped or gone.
    pub async fn stop_pod_sandbox(&self, id: &str) -> Result<(), Error> {
        let request = v1::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_done(self.call("StopPodSandbox", id, self.runtime().stop_pod_sandbox(request)).await)
    }

    /// Removes a sandbox and its containers; fine when it is gone.
    pub async fn remove_pod_sandbox(&self, id: &str) -> Result<(), Error> {
        let request = v1::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_done(self.call("RemovePodSandbox", id, self.runtime().remove_pod_sandbox(request)).await)
    }

    /// State and addresses of a sandbox.
    pub async fn pod_sandbox_status(&self, id: &str) -> Result<v1::PodSandboxStatus, Error> {
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        let answer = self.call("PodSandboxStatus", id, self.runtime().pod_sandbox_status(request)).await?;
        answer.status.ok_or_else(|| Error::Incomplete {
            operation: "PodSandboxStatus",
            subject: id.to_owned(),
            field: "status",
        })
    }

    /// Sandboxes with all of `labels`; all of them when there are none.
    pub async fn list_pod_sandboxes(
        &self,
        labels: HashMap<String, String>,
    ) -> Result<Vec<v1::PodSandbox>, Error> {
        let filter = v1::PodSandboxFilter { label_selector: labels, ..Default::default() };
        let request = v1::ListPodSandboxRequest { filter: Some(filter) };
        Ok(self.call("ListPodSandbox", "all", self.runtime().list_pod_sandbox(request)).await?.items)
    }

    /// Creates a container in a sandbox and returns its id.
    pub async fn create_container(
        &self,
        sandbox_id: &str,
        config: v1::ContainerConfig,
        sandbox_config: v1::PodSandboxConfig,
    ) -> Result<String, Error> {
        let subject = config
            .metadata
            .as_ref()
            .map_or_else(String::new, |m| format!("{} (attempt {}) in {sandbox_id}", m.name, m.attempt));
        let mut client = self.runtime();
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: sandbox_id.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        let call = Box::pin(client.create_container(request));
        Ok(self.call("CreateContainer", &subject, call).await?.container_id)
    }

    /// Starts a created container.
    pub async fn start_container(&self, id: &str) -> Result<(), Error> {
        let request = v1::StartContainerRequest { container_id: id.to_owned() };
        self.call("StartContainer", id, self.runtime().start_container(request)).await?;
        Ok(())
    }

    /// Asks a container to stop, and kills it after `grace`; fine when it is stopped or gone.
    pub async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), Error> {
        let timeout = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        let request = v1::StopContainerRequest { container_id: id.to_owned(), timeout };
        let limit = self.deadlines.request.saturating_add(grace);
        gone_is_done(self.within("StopContainer", id, limit, self.runtime().stop_container(request)).await)
    }

    /// Removes a container, killing it if it runs; fine when it is gone.
    pub async fn remove_container(&self, id: &str) -> Result<(), Error> {
        let request = v1::RemoveContainerRequest { container_id: id.to_owned() };
        gone_is_done(self.call("RemoveContainer", id, self.runtime().remove_container(request)).await)
    }

    /// Containers with all of `labels`; all of them when there are none.
    pub async fn list_containers(
        &self,
        labels: HashMap<String, String>,
    ) -> Result<Vec<v1::Container>, Error> {
        let filter = v1::ContainerFilter { label_selector: labels, ..Default::default() };
        let request = v1::ListContainersRequest { filter: Some(filter) };
        Ok(self.call("ListContainers", "all", self.runtime().list_containers(request)).await?.containers)
    }

    /// Everything the runtime knows about a container.
    pub async fn container_status(&self, id: &str) -> Result<v1::ContainerStatus, Error> {
        let request = v1::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        let answer = self.call("ContainerStatus", id, self.runtime().container_status(request)).await?;
        answer.status.ok_or_else(|| Error::Incomplete {
            operation: "ContainerStatus",
            subject: id.to_owned(),
            field: "status",
        })
    }

    /// Changes a running container's limits.
    pub async fn update_container_resources(
        &self,
        id: &str,
        linux: v1::LinuxContainerResources,
    ) -> Result<(), Error> {
        let request = v1::UpdateContainerResourcesRequest {
            container_id: id.to_owned(),
            linux: Some(linux),
            ..Default::default()
        };
        self.call("UpdateContainerResources", id, self.runtime().update_container_resources(request)).await?;
        Ok(())
    }

    /// Makes the runtime open a container's log file again, after it was moved away.
    pub async fn reopen_container_log(&self, id: &str) -> Result<(), Error> {
        let request = v1::ReopenContainerLogRequest { container_id: id.to_owned() };
        self.call("ReopenContainerLog", id, self.runtime().reopen_container_log(request)).await?;
        Ok(())
    }

    /// Runs a command in a container and collects its output; `timeout` zero means as long as it takes.
    pub async fn exec_sync(
        &self,
        id: &str,
        cmd: Vec<String>,
        timeout: Duration,
    ) -> Result<v1::ExecSyncResponse, Error> {
        // CRI counts in whole seconds: round up, so that a sub-second timeout is not "none".
        let seconds = timeout.as_millis().div_ceil(1000);
        let request = v1::ExecSyncRequest {
            container_id: id.to_owned(),
            cmd,
            timeout: i64::try_from(seconds).unwrap_or(i64::MAX),
        };
        let mut client = self.runtime();
        let call = client.exec_sync(request);
        if timeout.is_zero() {
            let answer = call.await.map_err(|status| failed("ExecSync", id, status))?;
            return Ok(answer.into_inner());
        }
        self.within("ExecSync", id, timeout.saturating_add(self.deadlines.request), call).await
    }

    /// A streaming URL for a command in a container.
    pub async fn exec(&self, request: v1::ExecRequest) -> Result<String, Error> {
        let id = request.container_id.clone();
        Ok(self.call("Exec", &id, self.runtime().exec(request)).await?.url)
    }

    /// A streaming URL for a container's own standard streams.
    pub async fn attach(&self, request: v1::AttachRequest) -> Result<String, Error> {
        let id = request.container_id.clone();
        Ok(self.call("Attach", &id, self.runtime().attach(request)).await?.url)
    }

    /// A streaming URL for ports of a sandbox.
    pub async fn port_forward(&self, request: v1::PortForwardRequest) -> Result<String, Error> {
        let id = request.pod_sandbox_id.clone();
        Ok(self.call("PortForward", &id, self.runtime().port_forward(request)).await?.url)
    }

    /// Writes a container to the file `location`. `patience` counts where it is longer than that for other calls.
    pub async fn checkpoint_container(
        &self,
        id: &str,
        location: &str,
        patience: Duration,
    ) -> Result<(), Error> {
        let limit = self.deadlines.request.max(patience);
        let request = v1::CheckpointContainerRequest {
            container_id: id.to_owned(),
            location: location.to_owned(),
            timeout: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
        };
        let mut client = self.runtime();
        self.within("CheckpointContainer", id, limit, client.checkpoint_container(request)).await.map(drop)
    }

    /// Usage of the containers with all of `labels`.
    pub async fn list_container_stats(
        &self,
        labels: HashMap<String, String>,
    ) -> Result<Vec<v1::ContainerStats>, Error> {
        let filter = v1::ContainerStatsFilter { label_selector: labels, ..Default::default() };
        let request = v1::ListContainerStatsRequest { filter: Some(filter) };
        Ok(self.call("ListContainerStats", "all", self.runtime().list_container_stats(request)).await?.stats)
    }

    // --- image service ---

    /// Every image the runtime has.
    pub async fn list_images(&self) -> Result<Vec<v1::Image>, Error> {
        Ok(self
            .call("ListImages", "all", self.images().list_images(v1::ListImagesRequest::default()))
            .await?
            .images)
    }

    /// The image of that name, `None` when it is not on this machine.
    pub async fn image_status(&self, image: &str) -> Result<Option<v1::Image>, Error> {
        let request = v1::ImageStatusRequest { image: Some(image_spec(image)), verbose: false };
        Ok(self.call("ImageStatus", image, self.images().image_status(request)).await?.image)
    }

    /// Pulls an image and returns its reference. It may take as long as it takes while the runtime is alive: CRI has no
    /// word for progress, so silence of the runtime itself (no answer to `Version`) is what ends a pull.
    pub async fn pull_image(
        &self,
        image: &str,
        auth: Option<v1::AuthConfig>,
        sandbox_config: Option<v1::PodSandboxConfig>,
    ) -> Result<String, Error> {
        let request = v1::PullImageRequest { image: Some(image_spec(image)), auth, sandbox_config };
        let (mut client, began) = (self.images(), tokio::time::Instant::now());
        let pulled = tokio::select! {
            answer = client.pull_image(request) => match answer {
                Ok(answer) => Ok(answer.into_inner().image_ref),
                Err(status) => Err(failed("PullImage", image, status)),
            },
            limit = self.silence() => {
                Err(Error::Deadline { operation: "PullImage", subject: image.to_owned(), limit })
            }
        };
        self.tell("PullImage", began, pulled.is_err());
        pulled
    }

    /// Returns once the runtime has not answered for the silence limit.
    async fn silence(&self) -> Duration {
        let limit = self.deadlines.pull_silence;
        loop {
            tokio::time::sleep(limit / 2).await;
            let request = v1::VersionRequest { version: "0.1.0".to_owned() };
            if within("Version", "runtime", limit, self.runtime().version(request)).await.is_err() {
                return limit;
            }
        }
    }

    /// Removes an image; fine when it is gone.
    pub async fn remove_image(&self, image: &str) -> Result<(), Error> {
        let request = v1::RemoveImageRequest { image: Some(image_spec(image)) };
        gone_is_done(self.call("RemoveImage", image, self.images().remove_image(request)).await)
    }

    /// Where images live and how much they use.
    pub async fn image_fs_info(&self) -> Result<v1::ImageFsInfoResponse, Error> {
        self.call("ImageFsInfo", "runtime", self.images().image_fs_info(v1::ImageFsInfoRequest {})).await
    }

    async fn call<T>(
        &self,
        operation: &'static str,
        subject: &str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Error> {
        self.within(operation, subject, self.deadlines.request, call).await
    }

    async fn within<T>(
        &self,
        operation: &'static str,
        subject: &str,
        limit: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Error> {
        let began = tokio::time::Instant::now();
        // a future holds what is passed on once a layer
        let done = within(operation, subject, limit, Box::pin(call)).await;
        self.tell(operation, began, done.is_err());
        done
    }

    fn tell(&self, operation: &'static str, began: tokio::time::Instant, failed: bool) {
        if let Some(Observed(observer)) = &self.observer {
            observer(operation, began.elapsed(), failed);
        }
    }
}

fn channel(endpoint: &str) -> Result<Channel, Error> {
    let wrong = || Error::Endpoint { endpoint: endpoint.to_owned() };
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    if !path.starts_with('/') {
        return Err(wrong());
    }
    let endpoint = Endpoint::from_shared(format!("unix://{path}")).map_err(|_| wrong())?;
    Ok(endpoint.connect_timeout(Duration::from_secs(5)).connect_lazy())
}

fn image_spec(image: &str) -> v1::ImageSpec {
    v1::ImageSpec { image: image.to_owned(), user_specified_image: image.to_owned(), ..Default::default() }
}

fn failed(operation: &'static str, subject: &str, status: Status) -> Error {
    Error::Call { operation, subject: subject.to_owned(), status: Box::new(status) }
}

async fn within<T>(
    operation: &'static str,
    subject: &str,
    limit: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Error> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(failed(operation, subject, status)),
        Err(_) => Err(Error::Deadline { operation, subject: subject.to_owned(), limit }),
    }
}

fn gone_is_done<T>(answer: Result<T, Error>) -> Result<(), Error> {
    match answer {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_name_gives_its_holder() {
        let status = Status::unknown(
            "failed to reserve sandbox name \"a_b_c_0\": name \"a_b_c_0\" is reserved for \"0123ab\"",
        );
        assert_eq!(failed("RunPodSandbox", "x", status).reserved_for(), Some("0123ab"));
        assert_eq!(failed("RunPodSandbox", "x", Status::unknown("no")).reserved_for(), None);
    }

    #[test]
    fn runtime_messages_read_as_go_prints_them() {
        let error = failed("PullImage", "x", Status::not_found("no such image"));
        assert_eq!(error.runtime_message(), "rpc error: code = NotFound desc = no such image");
    }

    #[tokio::test]
    async fn an_endpoint_must_be_a_socket() {
        for wrong in ["tcp://127.0.0.1:1", "unix://relative", ""] {
            assert!(Runtime::connect(wrong, Deadlines::default()).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn waiting_for_an_absent_runtime_is_bounded() {
        let runtime = Runtime::connect("unix:///nonexistent/cri.sock", Deadlines::default()).unwrap();
        let error = runtime.wait_until_ready(Duration::from_millis(150)).await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable);
    }
}
