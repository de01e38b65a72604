//! A CRI runtime in memory, served over a unix socket: names are reserved as containerd reserves them.

use std::collections::HashMap;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use cri_proto::v1::image_service_server::{ImageService, ImageServiceServer};
use cri_proto::v1::runtime_service_server::{RuntimeService, RuntimeServiceServer};
use cri_proto::v1::*;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tonic::{Request, Response, Status};

#[derive(Default)]
struct State {
    next: u32,
    sandboxes: HashMap<String, PodSandbox>,
    containers: HashMap<String, ContainerStatus>,
    sandbox_of: HashMap<String, String>,
}

/// The runtime; clones share its state, which outlives any kubelet.
#[derive(Clone, Default)]
pub struct Runtime(Arc<Mutex<State>>);

fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap()
}

fn selected(filter: Option<&HashMap<String, String>>, labels: &HashMap<String, String>) -> bool {
    filter.is_none_or(|wanted| wanted.iter().all(|(k, v)| labels.get(k) == Some(v)))
}

impl Runtime {
    /// Serves on a socket for as long as the test runs.
    pub fn serve(&self, socket: &Path) {
        let listener = tokio::net::UnixListener::bind(socket).unwrap();
        let (runtime, images) =
            (RuntimeServiceServer::new(self.clone()), ImageServiceServer::new(self.clone()));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (runtime, images) = (runtime.clone(), images.clone());
                let service =
                    hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                        let (mut runtime, mut images) = (runtime.clone(), images.clone());
                        async move {
                            let request = request.map(tonic::body::Body::new);
                            if request.uri().path().starts_with("/runtime.v1.ImageService/") {
                                tower::Service::call(&mut images, request).await
                            } else if request.uri().path().starts_with("/runtime.v1.RuntimeService/") {
                                tower::Service::call(&mut runtime, request).await
                            } else {
                                Ok(Status::unimplemented("no such service").into_http())
                            }
                        }
                    });
                let serve = async move {
                    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await
                        .ok();
                };
                tokio::spawn(serve);
            }
        });
    }

    /// Ends every running container of that name.
    pub fn exit(&self, name: &str, code: i32) {
        for container in self.0.lock().containers.values_mut() {
            let named = container.metadata.as_ref().unwrap().name == name;
            if named && container.state() == ContainerState::ContainerRunning {
                container.set_state(ContainerState::ContainerExited);
                container.exit_code = code;
                container.finished_at = now();
            }
        }
    }

    /// Running containers as `name/attempt`, sorted.
    pub fn running(&self) -> Vec<String> {
        let state = self.0.lock();
        let running = state.containers.values().filter(|c| c.state() == ContainerState::ContainerRunning);
        let mut names: Vec<_> = running
            .map(|c| {
                let metadata = c.metadata.as_ref().unwrap();
                format!("{}/{}", metadata.name, metadata.attempt)
            })
            .collect();
        names.sort();
        names
    }

    /// How many sandboxes and containers exist.
    pub fn count(&self) -> (usize, usize) {
        let state = self.0.lock();
        (state.sandboxes.len(), state.containers.len())
    }
}

/// Methods this runtime lacks, spelled as `async_trait` spells them: it runs before this macro does.
macro_rules! refuse {
    ($($name:ident($request:ty) -> $response:ty;)*) => {
        $(fn $name<'a, 'b>(
            &'a self,
            _: Request<$request>,
        ) -> Pin<Box<dyn Future<Output = Result<Response<$response>, Status>> + Send + 'b>>
        where
            'a: 'b,
            Self: 'b,
        {
            Box::pin(async { Err(Status::unimplemented(stringify!($name))) })
        })*
    };
}

type Empty<T> = tokio_stream::Empty<Result<T, Status>>;

#[tonic::async_trait]
impl RuntimeService for Runtime {
    type StreamPodSandboxesStream = Empty<StreamPodSandboxesResponse>;
    type StreamContainersStream = Empty<StreamContainersResponse>;
    type StreamContainerStatsStream = Empty<StreamContainerStatsResponse>;
    type StreamPodSandboxStatsStream = Empty<StreamPodSandboxStatsResponse>;
    type GetContainerEventsStream = Empty<ContainerEventResponse>;
    type StreamPodSandboxMetricsStream = Empty<StreamPodSandboxMetricsResponse>;

    refuse! {
        stream_pod_sandboxes(StreamPodSandboxesRequest) -> Self::StreamPodSandboxesStream;
        stream_containers(StreamContainersRequest) -> Self::StreamContainersStream;
        stream_container_stats(StreamContainerStatsRequest) -> Self::StreamContainerStatsStream;
        stream_pod_sandbox_stats(StreamPodSandboxStatsRequest) -> Self::StreamPodSandboxStatsStream;
        get_container_events(GetEventsRequest) -> Self::GetContainerEventsStream;
        stream_pod_sandbox_metrics(StreamPodSandboxMetricsRequest) -> Self::StreamPodSandboxMetricsStream;
        update_container_resources(UpdateContainerResourcesRequest) -> UpdateContainerResourcesResponse;
        reopen_container_log(ReopenContainerLogRequest) -> ReopenContainerLogResponse;
        exec_sync(ExecSyncRequest) -> ExecSyncResponse;
        exec(ExecRequest) -> ExecResponse;
        attach(AttachRequest) -> AttachResponse;
        port_forward(PortForwardRequest) -> PortForwardResponse;
        container_stats(ContainerStatsRequest) -> ContainerStatsResponse;
        list_container_stats(ListContainerStatsRequest) -> ListContainerStatsResponse;
        pod_sandbox_stats(PodSandboxStatsRequest) -> PodSandboxStatsResponse;
        list_pod_sandbox_stats(ListPodSandboxStatsRequest) -> ListPodSandboxStatsResponse;
        update_runtime_config(UpdateRuntimeConfigRequest) -> UpdateRuntimeConfigResponse;
        checkpoint_container(CheckpointContainerRequest) -> CheckpointContainerResponse;
        list_metric_descriptors(ListMetricDescriptorsRequest) -> ListMetricDescriptorsResponse;
        list_pod_sandbox_metrics(ListPodSandboxMetricsRequest) -> ListPodSandboxMetricsResponse;
        runtime_config(RuntimeConfigRequest) -> RuntimeConfigResponse;
        update_pod_sandbox_resources(UpdatePodSandboxResourcesRequest) -> UpdatePodSandboxResourcesResponse;
    }

    async fn version(&self, _: Request<VersionRequest>) -> Result<Response<VersionResponse>, Status> {
        Ok(Response::new(VersionResponse {
            runtime_name: "fake".into(),
            runtime_version: "1".into(),
            ..Default::default()
        }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let condition =
            |kind: &str| RuntimeCondition { r#type: kind.into(), status: true, ..Default::default() };
        let status = RuntimeStatus { conditions: vec![condition("RuntimeReady"), condition("NetworkReady")] };
        Ok(Response::new(StatusResponse { status: Some(status), ..Default::default() }))
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<RunPodSandboxRequest>,
    ) -> Result<Response<RunPodSandboxResponse>, Status> {
        let config = request.into_inner().config.unwrap();
        let mut state = self.0.lock();
        if let Some(taken) = state.sandboxes.values().find(|s| s.metadata == config.metadata) {
            return Err(Status::unknown(format!("name \"x\" is reserved for \"{}\"", taken.id)));
        }
        state.next += 1;
        let id = format!("s{}", state.next);
        let sandbox = PodSandbox {
            id: id.clone(),
            metadata: config.metadata,
            created_at: now(),
            labels: config.labels,
            annotations: config.annotations,
            ..Default::default()
        };
        state.sandboxes.insert(id.clone(), sandbox);
        Ok(Response::new(RunPodSandboxResponse { pod_sandbox_id: id }))
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<StopPodSandboxRequest>,
    ) -> Result<Response<StopPodSandboxResponse>, Status> {
        if let Some(sandbox) = self.0.lock().sandboxes.get_mut(&request.into_inner().pod_sandbox_id) {
            sandbox.set_state(PodSandboxState::SandboxNotready);
        }
        Ok(Response::new(StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<RemovePodSandboxRequest>,
    ) -> Result<Response<RemovePodSandboxResponse>, Status> {
        self.0.lock().sandboxes.remove(&request.into_inner().pod_sandbox_id);
        Ok(Response::new(RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<PodSandboxStatusRequest>,
    ) -> Result<Response<PodSandboxStatusResponse>, Status> {
        let state = self.0.lock();
        let sandbox = state.sandboxes.get(&request.into_inner().pod_sandbox_id);
        let sandbox = sandbox.ok_or_else(|| Status::not_found("no such sandbox"))?;
        let network = PodSandboxNetworkStatus { ip: "10.7.0.2".into(), ..Default::default() };
        let status = PodSandboxStatus {
            id: sandbox.id.clone(),
            state: sandbox.state,
            network: Some(network),
            ..Default::default()
        };
        Ok(Response::new(PodSandboxStatusResponse { status: Some(status), ..Default::default() }))
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<ListPodSandboxRequest>,
    ) -> Result<Response<ListPodSandboxResponse>, Status> {
        let filter = request.into_inner().filter.map(|f| f.label_selector);
        let state = self.0.lock();
        let items = state.sandboxes.values().filter(|s| selected(filter.as_ref(), &s.labels)).cloned();
        Ok(Response::new(ListPodSandboxResponse { items: items.collect() }))
    }

    async fn create_container(
        &self,
        request: Request<CreateContainerRequest>,
    ) -> Result<Response<CreateContainerResponse>, Status> {
        let request = request.into_inner();
        let config = request.config.unwrap();
        let mut state = self.0.lock();
        if let Some(taken) = state.containers.values().find(|c| c.metadata == config.metadata) {
            return Err(Status::unknown(format!("name \"x\" is reserved for \"{}\"", taken.id)));
        }
        state.next += 1;
        let id = format!("c{}", state.next);
        let container = ContainerStatus {
            id: id.clone(),
            metadata: config.metadata,
            created_at: now(),
            image: config.image,
            labels: config.labels,
            annotations: config.annotations,
            mounts: config.mounts,
            ..Default::default()
        };
        state.containers.insert(id.clone(), container);
        state.sandbox_of.insert(id.clone(), request.pod_sandbox_id);
        Ok(Response::new(CreateContainerResponse { container_id: id }))
    }

    async fn start_container(
        &self,
        request: Request<StartContainerRequest>,
    ) -> Result<Response<StartContainerResponse>, Status> {
        let mut state = self.0.lock();
        let container = state.containers.get_mut(&request.into_inner().container_id);
        let container = container.ok_or_else(|| Status::not_found("no such container"))?;
        container.set_state(ContainerState::ContainerRunning);
        container.started_at = now();
        Ok(Response::new(StartContainerResponse {}))
    }

    async fn stop_container(
        &self,
        request: Request<StopContainerRequest>,
    ) -> Result<Response<StopContainerResponse>, Status> {
        if let Some(container) = self.0.lock().containers.get_mut(&request.into_inner().container_id) {
            container.set_state(ContainerState::ContainerExited);
            container.exit_code = 143;
            container.finished_at = now();
        }
        Ok(Response::new(StopContainerResponse {}))
    }

    async fn remove_container(
        &self,
        request: Request<RemoveContainerRequest>,
    ) -> Result<Response<RemoveContainerResponse>, Status> {
        self.0.lock().containers.remove(&request.into_inner().container_id);
        Ok(Response::new(RemoveContainerResponse {}))
    }

    async fn list_containers(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Result<Response<ListContainersResponse>, Status> {
        let filter = request.into_inner().filter.map(|f| f.label_selector);
        let state = self.0.lock();
        let containers = state.containers.values().filter(|c| selected(filter.as_ref(), &c.labels));
        let containers = containers.map(|c| Container {
            id: c.id.clone(),
            pod_sandbox_id: state.sandbox_of[&c.id].clone(),
            metadata: c.metadata.clone(),
            state: c.state,
            labels: c.labels.clone(),
            annotations: c.annotations.clone(),
            ..Default::default()
        });
        Ok(Response::new(ListContainersResponse { containers: containers.collect() }))
    }

    async fn container_status(
        &self,
        request: Request<ContainerStatusRequest>,
    ) -> Result<Response<ContainerStatusResponse>, Status> {
        let state = self.0.lock();
        let container = state.containers.get(&request.into_inner().container_id).cloned();
        let status = container.ok_or_else(|| Status::not_found("no such container"))?;
        Ok(Response::new(ContainerStatusResponse { status: Some(status), ..Default::default() }))
    }
}

#[tonic::async_trait]
impl ImageService for Runtime {
    type StreamImagesStream = Empty<StreamImagesResponse>;

    refuse! {
        stream_images(StreamImagesRequest) -> Self::StreamImagesStream;
        list_images(ListImagesRequest) -> ListImagesResponse;
        remove_image(RemoveImageRequest) -> RemoveImageResponse;
        image_fs_info(ImageFsInfoRequest) -> ImageFsInfoResponse;
    }

    async fn image_status(
        &self,
        request: Request<ImageStatusRequest>,
    ) -> Result<Response<ImageStatusResponse>, Status> {
        let name = request.into_inner().image.unwrap().image;
        let image = (!name.contains("absent")).then(|| Image { id: "sha256:1".into(), ..Default::default() });
        Ok(Response::new(ImageStatusResponse { image, ..Default::default() }))
    }

    async fn pull_image(&self, _: Request<PullImageRequest>) -> Result<Response<PullImageResponse>, Status> {
        Err(Status::not_found("no such image"))
    }
}
