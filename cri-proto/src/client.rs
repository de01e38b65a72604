//! The runtime and image services as typed calls.
//!
//! Every call has a deadline of its class, and every error names the operation and its subject. The channel is lazy: a
//! runtime that is away fails the calls made meanwhile, and the first call after it is back reconnects.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use crate::v1;
use crate::v1::image_service_client::ImageServiceClient;
use crate::v1::runtime_service_client::RuntimeServiceClient;

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

/// A CRI call that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The endpoint cannot be a runtime's.
    #[error("runtime endpoint {endpoint:?}: want unix:///path/to/socket")]
    Endpoint {
        /// Endpoint as configured.
        endpoint: String,
    },
    /// The runtime answered with an error, or could not be reached.
    #[error("{operation} {subject}: {}", .status.message())]
    Call {
        /// CRI method, `RunPodSandbox`.
        operation: &'static str,
        /// What it was about: an id or a name.
        subject: String,
        /// What gRPC said; boxed for its size.
        status: Box<Status>,
    },
    /// No answer in time.
    #[error("{operation} {subject}: no answer within {}s", .limit.as_secs())]
    Deadline {
        /// CRI method, `RunPodSandbox`.
        operation: &'static str,
        /// What it was about.
        subject: String,
        /// The deadline that passed.
        limit: Duration,
    },
    /// The answer lacks what CRI says it holds.
    #[error("{operation} {subject}: the answer has no {field}")]
    Incomplete {
        /// CRI method, `RunPodSandbox`.
        operation: &'static str,
        /// What it was about.
        subject: String,
        /// Name of the missing field.
        field: &'static str,
    },
}

impl Error {
    /// The runtime's own words, as upstream quotes them in events and statuses.
    pub fn runtime_message(&self) -> String {
        match self {
            Self::Call { status, .. } => {
                format!("rpc error: code = {} desc = {}", go_code(status.code()), status.message())
            }
            Self::Deadline { .. } => {
                "rpc error: code = DeadlineExceeded desc = context deadline exceeded".to_owned()
            }
            other => other.to_string(),
        }
    }

    /// The runtime's own words without the code: what statuses of containers quote.
    pub fn plain_message(&self) -> String {
        match self {
            Self::Call { status, .. } => status.message().to_owned(),
            Self::Deadline { .. } => "context deadline exceeded".to_owned(),
            other => other.to_string(),
        }
    }

    /// The gRPC code, `DeadlineExceeded` for our own deadline.
    pub fn code(&self) -> Code {
        match self {
            Self::Call { status, .. } => status.code(),
            Self::Deadline { .. } => Code::DeadlineExceeded,
            Self::Endpoint { .. } | Self::Incomplete { .. } => Code::Internal,
        }
    }

    /// The subject does not exist (any more).
    pub fn is_not_found(&self) -> bool {
        self.code() == Code::NotFound
    }

    /// The id holding the name, when the call failed because the name is reserved.
    ///
    /// containerd says `name "a_b_c_d_0" is reserved for "ID"`; the reservation outlives a call that timed out.
    pub fn reserved_for(&self) -> Option<&str> {
        let Self::Call { status, .. } = self else { return None };
        let (_, rest) = status.message().split_once("is reserved for \"")?;
        rest.split('"').next().filter(|id| !id.is_empty())
    }
}

/// The name Go's gRPC prints for a code; clients match on these texts.
pub fn go_code(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

/// A container runtime: cheap to clone, shared by every task.
#[derive(Clone, Debug)]
pub struct Runtime {
    channel: Channel,
    deadlines: Deadlines,
}

impl Runtime {
    /// A client of the runtime at `endpoint` (`unix:///path`, or a bare absolute path as upstream also takes).
    /// Nothing is connected yet: the first call does that. Needs a tokio runtime around it.
    pub fn connect(endpoint: &str, deadlines: Deadlines) -> Result<Self, Error> {
        let wrong = || Error::Endpoint { endpoint: endpoint.to_owned() };
        let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
        if !path.starts_with('/') {
            return Err(wrong());
        }
        let channel = Endpoint::from_shared(format!("unix://{path}"))
            .map_err(|_| wrong())?
            .connect_timeout(Duration::from_secs(5))
            .connect_lazy();
        Ok(Self { channel, deadlines })
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
        ImageServiceClient::new(self.channel.clone())
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
        let answer =
            within("RunPodSandbox", &subject, limit, self.runtime().run_pod_sandbox(request)).await?;
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
        gone_is_done(within("StopContainer", id, limit, self.runtime().stop_container(request)).await)
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
        within("ExecSync", id, timeout.saturating_add(self.deadlines.request), call).await
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
        let mut client = self.images();
        tokio::select! {
            answer = client.pull_image(request) => {
                Ok(answer.map_err(|status| failed("PullImage", image, status))?.into_inner().image_ref)
            }
            limit = self.silence() => {
                Err(Error::Deadline { operation: "PullImage", subject: image.to_owned(), limit })
            }
        }
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
        within(operation, subject, self.deadlines.request, call).await
    }
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
