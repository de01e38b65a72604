//! A CRI service over a [`World`], with one trap: at one call, the kubelet dies, the connection is lost, or the pod is
//! deleted while the runtime works.

use futures::stream::BoxStream;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use cri_proto::v1::image_service_server::{ImageService, ImageServiceServer};
use cri_proto::v1::runtime_service_server::{RuntimeService, RuntimeServiceServer};
use cri_proto::v1::*;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::net::UnixListener;
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::JoinSet;
use tonic::{Request, Response, Status};
use tower::Service;

use crate::world::World;

/// What goes wrong, and at which call, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    None,
    /// The kubelet dies at this call that changes something; it was or was not done.
    Crash {
        act: usize,
        done: bool,
    },
    /// The kubelet dies at this call that asks something.
    CrashAsking {
        look: usize,
    },
    /// The connection is lost at this call that changes something.
    Fail {
        act: usize,
        done: bool,
    },
    /// The connection is lost at this call that asks something.
    Blind {
        look: usize,
    },
    /// The pod is deleted while the runtime works on this call.
    Delete {
        act: usize,
    },
}

#[derive(Default)]
struct Counts {
    acts: usize,
    looks: usize,
    sprung: bool,
    log: Vec<String>,
    unanswered: usize,
    dropped: Vec<String>,
}

#[derive(Clone)]
pub struct Fake {
    pub world: Arc<Mutex<World>>,
    counts: Arc<Mutex<Counts>>,
    pub trap: Trap,
    /// The trap has snapped: the kubelet is dead, or the pod is to be deleted.
    pub sprung: Arc<Notify>,
    /// A container's state changed.
    pub changed: Arc<Notify>,
    /// The image whose pull is not answered.
    pub hanging: watch::Sender<&'static str>,
    /// What a pod's worker asks is not answered.
    pub looks_hang: watch::Sender<bool>,
    events: broadcast::Sender<ContainerEventResponse>,
    states: watch::Sender<BTreeMap<String, ContainerEventType>>,
    /// Where the streams of commands are served.
    pub streaming: String,
}

/// Notes a call whose caller went away before it was done.
struct Flight<'a> {
    counts: &'a Mutex<Counts>,
    call: Option<&'a str>,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            self.counts.lock().dropped.push(call.to_owned());
        }
    }
}

impl Fake {
    pub fn new(world: World, trap: Trap) -> Self {
        Self {
            world: Arc::new(Mutex::new(world)),
            counts: Arc::default(),
            trap,
            sprung: Arc::default(),
            changed: Arc::default(),
            hanging: watch::Sender::default(),
            looks_hang: watch::Sender::default(),
            events: broadcast::Sender::new(256),
            states: watch::Sender::default(),
            streaming: String::new(),
        }
    }

    /// Serves connections until dropped.
    pub async fn serve(self, listener: UnixListener) {
        let runtime = RuntimeServiceServer::new(self.clone());
        let images = ImageServiceServer::new(self);
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let (runtime, images) = (runtime.clone(), images.clone());
            let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
                let (mut runtime, mut images) = (runtime.clone(), images.clone());
                async move {
                    match request.uri().path().starts_with("/runtime.v1.ImageService/") {
                        true => images.call(request).await,
                        false => runtime.call(request).await,
                    }
                }
            });
            let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            connections.spawn(http.serve_connection(TokioIo::new(stream), service));
        }
    }

    /// Changes the world, and says so as a runtime does.
    pub fn change<T>(&self, effect: impl FnOnce(&mut World) -> T) -> T {
        let mut world = self.world.lock();
        let before = world.states();
        let done = effect(&mut world);
        let after = world.states();
        drop(world);
        self.states.send_replace(after.clone());
        let gone = before.keys().filter(|id| !after.contains_key(*id));
        let gone = gone.map(|id| (id.clone(), ContainerEventType::ContainerDeletedEvent));
        let changed = after.iter().filter(|(id, state)| before.get(*id) != Some(state));
        for (container_id, kind) in changed.map(|(id, state)| (id.clone(), *state)).chain(gone) {
            // Without a kubelet nobody is told.
            let event = ContainerEventResponse {
                container_id,
                container_event_type: kind.into(),
                ..Default::default()
            };
            drop(self.events.send(event));
        }
        self.changed.notify_one();
        done
    }

    /// How many calls changed something, and how many asked something.
    pub fn calls(&self) -> (usize, usize) {
        let counts = self.counts.lock();
        (counts.acts, counts.looks)
    }

    pub fn was_sprung(&self) -> bool {
        self.counts.lock().sprung
    }

    /// How often a pod's worker asked and got no answer.
    pub fn unanswered(&self) -> usize {
        self.counts.lock().unanswered
    }

    pub fn log(&self) -> Vec<String> {
        self.counts.lock().log.clone()
    }

    /// Calls that were dropped before they were done, pulls and commands aside: those may be given up.
    pub fn dropped(&self) -> Vec<String> {
        self.counts
            .lock()
            .dropped
            .iter()
            .filter(|call| !call.starts_with("pull") && !call.starts_with("exec"))
            .cloned()
            .collect()
    }

    async fn act<T>(
        &self,
        call: String,
        effect: impl FnOnce(&mut World) -> Result<T, Status> + Send,
    ) -> Result<T, Status> {
        let caught = {
            let mut counts = self.counts.lock();
            let number = counts.acts;
            counts.acts += 1;
            counts.log.push(call.clone());
            let caught = match self.trap {
                Trap::Crash { act, .. } | Trap::Fail { act, .. } | Trap::Delete { act } => act == number,
                Trap::None | Trap::Blind { .. } | Trap::CrashAsking { .. } => false,
            };
            counts.sprung |= caught;
            caught
        };
        match self.trap {
            Trap::Crash { done, .. } if caught => {
                if done {
                    let _ = effect(&mut self.world.lock());
                }
                self.sprung.notify_one();
                std::future::pending().await
            }
            Trap::Fail { done, .. } if caught => {
                if done {
                    let _ = self.change(effect);
                }
                Err(Status::unavailable("connection lost"))
            }
            Trap::Delete { .. } if caught => {
                let mut flight = Flight { counts: &self.counts, call: Some(&call) };
                self.sprung.notify_one();
                // As long as a kubelet may need to give up the call, if it is one that does.
                tokio::time::sleep(Duration::from_millis(100)).await;
                flight.call = None;
                self.change(effect)
            }
            _ => self.change(effect),
        }
    }

    /// Waits until a container's processes have ended, or their time is over.
    async fn ended(&self, id: &str, grace: Duration) {
        let mut states = self.states.subscribe();
        let ended =
            states.wait_for(|states| states.get(id) != Some(&ContainerEventType::ContainerStartedEvent));
        tokio::time::timeout(grace, ended).await.ok();
    }

    fn look<T>(&self, answer: impl FnOnce(&World) -> Result<T, Status>) -> Result<T, Status> {
        let number = {
            let mut counts = self.counts.lock();
            counts.looks += 1;
            counts.looks - 1
        };
        let dies = self.trap == (Trap::CrashAsking { look: number });
        if dies || self.trap == (Trap::Blind { look: number }) {
            self.counts.lock().sprung = true;
            if dies {
                self.sprung.notify_one();
            }
            return Err(Status::unavailable("connection lost"));
        }
        let world = self.world.lock();
        if world.silent {
            return Err(Status::unavailable("connection lost"));
        }
        answer(&world)
    }
}

type Empty<T> = tokio_stream::Empty<Result<T, Status>>;
type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl RuntimeService for Fake {
    type StreamPodSandboxesStream = Empty<StreamPodSandboxesResponse>;
    type StreamContainersStream = Empty<StreamContainersResponse>;
    type StreamContainerStatsStream = Empty<StreamContainerStatsResponse>;
    type StreamPodSandboxStatsStream = Empty<StreamPodSandboxStatsResponse>;
    type GetContainerEventsStream = BoxStream<'static, Result<ContainerEventResponse, Status>>;
    type StreamPodSandboxMetricsStream = Empty<StreamPodSandboxMetricsResponse>;

    refuse! {
        stream_pod_sandboxes(StreamPodSandboxesRequest) -> Self::StreamPodSandboxesStream;
        stream_containers(StreamContainersRequest) -> Self::StreamContainersStream;
        stream_container_stats(StreamContainerStatsRequest) -> Self::StreamContainerStatsStream;
        stream_pod_sandbox_stats(StreamPodSandboxStatsRequest) -> Self::StreamPodSandboxStatsStream;
        stream_pod_sandbox_metrics(StreamPodSandboxMetricsRequest) -> Self::StreamPodSandboxMetricsStream;
        update_container_resources(UpdateContainerResourcesRequest) -> UpdateContainerResourcesResponse;
        reopen_container_log(ReopenContainerLogRequest) -> ReopenContainerLogResponse;
        attach(AttachRequest) -> AttachResponse;
        port_forward(PortForwardRequest) -> PortForwardResponse;
        container_stats(ContainerStatsRequest) -> ContainerStatsResponse;
        pod_sandbox_stats(PodSandboxStatsRequest) -> PodSandboxStatsResponse;
        list_pod_sandbox_stats(ListPodSandboxStatsRequest) -> ListPodSandboxStatsResponse;
        list_metric_descriptors(ListMetricDescriptorsRequest) -> ListMetricDescriptorsResponse;
        list_pod_sandbox_metrics(ListPodSandboxMetricsRequest) -> ListPodSandboxMetricsResponse;
        runtime_config(RuntimeConfigRequest) -> RuntimeConfigResponse;
        update_pod_sandbox_resources(UpdatePodSandboxResourcesRequest) -> UpdatePodSandboxResourcesResponse;
    }

    async fn update_runtime_config(
        &self,
        asked: Request<UpdateRuntimeConfigRequest>,
    ) -> Answer<UpdateRuntimeConfigResponse> {
        let network = asked.into_inner().runtime_config.and_then(|config| config.network_config);
        let ranges = network.unwrap_or_default().pod_cidr;
        self.act(format!("use ranges {ranges}"), |_| Ok(())).await?;
        Ok(Response::new(UpdateRuntimeConfigResponse {}))
    }

    async fn run_pod_sandbox(&self, asked: Request<RunPodSandboxRequest>) -> Answer<RunPodSandboxResponse> {
        let config = asked.into_inner().config.unwrap();
        let id = self.act("run sandbox".to_owned(), |world| world.run_sandbox(config)).await?;
        Ok(Response::new(RunPodSandboxResponse { pod_sandbox_id: id }))
    }

    async fn version(&self, _: Request<VersionRequest>) -> Answer<VersionResponse> {
        let answer = VersionResponse {
            version: "0.1.0".to_owned(),
            runtime_name: "fake".to_owned(),
            runtime_version: "1".to_owned(),
            runtime_api_version: "v1".to_owned(),
        };
        Ok(Response::new(answer))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Answer<StatusResponse> {
        let error = self.world.lock().network_error.clone();
        let condition = |kind: &str, error: Option<String>| RuntimeCondition {
            r#type: kind.to_owned(),
            status: error.is_none(),
            reason: error.as_ref().map(|_| "NetworkPluginNotReady".to_owned()).unwrap_or_default(),
            message: error.unwrap_or_default(),
        };
        let conditions = vec![condition("RuntimeReady", None), condition("NetworkReady", error)];
        let status = Some(RuntimeStatus { conditions });
        Ok(Response::new(StatusResponse { status, ..Default::default() }))
    }

    async fn get_container_events(
        &self,
        _: Request<GetEventsRequest>,
    ) -> Answer<Self::GetContainerEventsStream> {
        let next = |mut events: broadcast::Receiver<_>| async move {
            let event = events.recv().await.map_err(|_| Status::unavailable("too many events"));
            Some((event, events))
        };
        Ok(Response::new(Box::pin(futures::stream::unfold(self.events.subscribe(), next))))
    }

    async fn checkpoint_container(
        &self,
        asked: Request<CheckpointContainerRequest>,
    ) -> Answer<CheckpointContainerResponse> {
        let asked = asked.into_inner();
        let content = format!("{} {}", asked.container_id, asked.timeout);
        std::fs::write(&asked.location, content).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(CheckpointContainerResponse {}))
    }

    async fn exec_sync(&self, asked: Request<ExecSyncRequest>) -> Answer<ExecSyncResponse> {
        let asked = asked.into_inner();
        let command = asked.cmd.join(" ");
        let run = |world: &mut World| Ok(world.execute(&asked.container_id, command.clone()));
        let exit_code = self.act(format!("exec {command}"), run).await?;
        Ok(Response::new(ExecSyncResponse { exit_code, ..Default::default() }))
    }

    async fn exec(&self, asked: Request<ExecRequest>) -> Answer<ExecResponse> {
        let asked = asked.into_inner();
        let command: Vec<&str> = asked.cmd.iter().map(String::as_str).collect();
        let url = match command[..] {
            [kind @ ("whole" | "broken"), count] => format!("{}?{kind}={count}", self.streaming),
            ["sh", "-c", "cat; exit 3"] => self.streaming.clone(),
            _ => return Err(Status::invalid_argument(format!("command {command:?}"))),
        };
        Ok(Response::new(ExecResponse { url }))
    }

    async fn list_container_stats(
        &self,
        _: Request<ListContainerStatsRequest>,
    ) -> Answer<ListContainerStatsResponse> {
        Ok(Response::new(ListContainerStatsResponse { stats: self.world.lock().stats() }))
    }

    async fn stop_pod_sandbox(
        &self,
        asked: Request<StopPodSandboxRequest>,
    ) -> Answer<StopPodSandboxResponse> {
        let id = asked.into_inner().pod_sandbox_id;
        self.act(format!("stop {id}"), |world| world.stop_sandbox(&id)).await?;
        Ok(Response::new(StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(
        &self,
        asked: Request<RemovePodSandboxRequest>,
    ) -> Answer<RemovePodSandboxResponse> {
        let id = asked.into_inner().pod_sandbox_id;
        self.act(format!("remove {id}"), |world| world.remove_sandbox(&id)).await?;
        Ok(Response::new(RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(
        &self,
        asked: Request<PodSandboxStatusRequest>,
    ) -> Answer<PodSandboxStatusResponse> {
        let id = asked.into_inner().pod_sandbox_id;
        let status = self.look(|world| world.sandbox_status(&id))?;
        Ok(Response::new(PodSandboxStatusResponse { status: Some(status), ..Default::default() }))
    }

    async fn list_pod_sandbox(
        &self,
        asked: Request<ListPodSandboxRequest>,
    ) -> Answer<ListPodSandboxResponse> {
        let labels = asked.into_inner().filter.unwrap_or_default().label_selector;
        if !labels.is_empty() {
            self.looks_hang.subscribe().wait_for(|hang| !hang).await.unwrap();
        }
        let items = self.look(|world| Ok(world.list_sandboxes(&labels)));
        // The manager asks for all pods at once.
        self.counts.lock().unanswered += usize::from(items.is_err() && !labels.is_empty());
        let items = items?;
        Ok(Response::new(ListPodSandboxResponse { items }))
    }

    async fn create_container(
        &self,
        asked: Request<CreateContainerRequest>,
    ) -> Answer<CreateContainerResponse> {
        let asked = asked.into_inner();
        let config = asked.config.unwrap();
        let call = format!("create {}", config.metadata.as_ref().unwrap().name);
        let container_id = self.act(call, |world| world.create(&asked.pod_sandbox_id, config)).await?;
        Ok(Response::new(CreateContainerResponse { container_id }))
    }

    async fn start_container(&self, asked: Request<StartContainerRequest>) -> Answer<StartContainerResponse> {
        let id = asked.into_inner().container_id;
        self.act(format!("start {id}"), |world| world.start(&id)).await?;
        Ok(Response::new(StartContainerResponse {}))
    }

    async fn stop_container(&self, asked: Request<StopContainerRequest>) -> Answer<StopContainerResponse> {
        let StopContainerRequest { container_id: id, timeout } = asked.into_inner();
        if self.world.lock().ignores_stop(&id, timeout) {
            let call = format!("stop {id} within {timeout} s");
            let mut flight = Flight { counts: &self.counts, call: Some(&call) };
            self.ended(&id, Duration::from_secs(timeout.try_into().unwrap())).await;
            flight.call = None;
        }
        self.act(format!("stop {id}"), |world| world.stop(&id)).await?;
        Ok(Response::new(StopContainerResponse {}))
    }

    async fn remove_container(
        &self,
        asked: Request<RemoveContainerRequest>,
    ) -> Answer<RemoveContainerResponse> {
        let id = asked.into_inner().container_id;
        self.act(format!("remove {id}"), |world| world.remove(&id)).await?;
        Ok(Response::new(RemoveContainerResponse {}))
    }

    async fn list_containers(&self, asked: Request<ListContainersRequest>) -> Answer<ListContainersResponse> {
        let labels = asked.into_inner().filter.unwrap_or_default().label_selector;
        let containers = self.look(|world| Ok(world.list(&labels)))?;
        Ok(Response::new(ListContainersResponse { containers }))
    }

    async fn container_status(
        &self,
        asked: Request<ContainerStatusRequest>,
    ) -> Answer<ContainerStatusResponse> {
        let id = asked.into_inner().container_id;
        let status = self.look(|world| world.status(&id))?;
        Ok(Response::new(ContainerStatusResponse { status: Some(status), ..Default::default() }))
    }
}

#[tonic::async_trait]
impl ImageService for Fake {
    type StreamImagesStream = Empty<StreamImagesResponse>;

    refuse! {
        list_images(ListImagesRequest) -> ListImagesResponse;
        stream_images(StreamImagesRequest) -> Self::StreamImagesStream;
        remove_image(RemoveImageRequest) -> RemoveImageResponse;
        image_fs_info(ImageFsInfoRequest) -> ImageFsInfoResponse;
    }

    async fn image_status(&self, asked: Request<ImageStatusRequest>) -> Answer<ImageStatusResponse> {
        let name = asked.into_inner().image.unwrap_or_default().image;
        let found = self.look(|world| Ok(world.images.contains(&name)))?;
        let image = found.then(|| Image { id: name, ..Default::default() });
        Ok(Response::new(ImageStatusResponse { image, ..Default::default() }))
    }

    async fn pull_image(&self, asked: Request<PullImageRequest>) -> Answer<PullImageResponse> {
        let image_ref = asked.into_inner().image.unwrap_or_default().image;
        self.counts.lock().log.push(format!("asked for {image_ref}"));
        self.hanging.subscribe().wait_for(|hanging| *hanging != image_ref).await.unwrap();
        let pulled = image_ref.clone();
        self.act(format!("pull {pulled}"), |world| {
            world.images.push(pulled);
            Ok(())
        })
        .await?;
        Ok(Response::new(PullImageResponse { image_ref }))
    }
}
