//! Carrying out a plan's actions against the runtime. What fails is described for the pod's status and events, and held
//! back for a while; a new plan is made from what is then seen.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cri_proto::client::Error as CriError;
use cri_proto::v1;
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod, Secret};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::hooks;
use crate::directory;
use crate::image::{Present, Wanted};
use crate::logs::links;
use crate::meters::{PODS_FAILED, PODS_STARTED};
use crate::pod::observed::Observed;
use crate::pod::plan::Stop;
use crate::pod::spec::env::{self, References};
use crate::pod::spec::{self, dns, labels};
use crate::pod::status::Waiting;
use crate::recorder::{Kind, Subject};
use crate::volume::{self, Mounted};
use crate::worker::context::Context;

/// Failed creations are tried again after this long.
const RETRY: Duration = Duration::from_secs(10);
/// The mode of directories of logs, as upstream's.
const LOGS: u32 = 0o755;
/// A reserved name is resolved this often before the failure is shown.
const NAME_TRIES: u32 = 3;

/// A start that failed.
#[derive(Debug)]
pub struct Failure {
    /// What the status shows.
    pub waiting: Waiting,
    /// When to try again.
    pub retry: Duration,
}

fn failure(reason: &str, message: impl Into<String>) -> Failure {
    Failure { waiting: Waiting { reason: reason.to_owned(), message: message.into() }, retry: RETRY }
}

/// Makes a pod's sandbox; the error is the runtime's text.
///
/// `None`: `ending` came while nothing was made yet.
pub async fn create_sandbox(
    context: &Context,
    pod: &Arc<Pod>,
    attempt: u32,
    ending: impl Future<Output = ()>,
) -> Option<Result<(), String>> {
    let class = pod.spec.as_ref().and_then(|s| s.runtime_class_name.as_deref());
    let known = async {
        context.features_known(pod).await;
        context.runtime_classes.handler(class).await
    };
    let handler = tokio::select! {
        handler = known => handler,
        () = ending => return None,
    };
    context.meters.add(&PODS_STARTED, "", 1.0);
    let made = match handler {
        Ok(handler) => make_sandbox(context, pod, attempt, &handler).await,
        Err(error) => Err(error.to_string()),
    };
    if made.is_err() {
        context.meters.add(&PODS_FAILED, "", 1.0);
    }
    Some(made)
}

async fn make_sandbox(
    context: &Context,
    pod: &Arc<Pod>,
    mut attempt: u32,
    handler: &str,
) -> Result<(), String> {
    let log_dir =
        context.config.pod_log_dir(crate::pod::namespace(pod), crate::pod::name(pod), crate::pod::uid(pod));
    directory::make(&log_dir, LOGS).map_err(|error| format!("create pod log directory: {error}"))?;
    warn_of_dns(context, pod);
    for _ in 0..NAME_TRIES {
        let config = sandbox_config(context, pod, attempt).map_err(|error| error.to_string())?;
        let error = match Box::pin(context.runtime.run_pod_sandbox(config, handler)).await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        let Some(holder) = error.reserved_for().map(str::to_owned) else {
            return Err(error.runtime_message());
        };
        // A call that timed out or died with us holds the name: adopt what it made, or clear it away.
        match context.runtime.pod_sandbox_status(&holder).await {
            Ok(status) if status.state() == v1::PodSandboxState::SandboxReady => return Ok(()),
            Ok(_) => {
                remove_sandbox(context, &holder).await.map_err(|e| e.runtime_message())?;
            }
            Err(gone) if gone.is_not_found() => attempt += 1,
            Err(other) => return Err(other.runtime_message()),
        }
    }
    Err("its name stays reserved".to_owned())
}

/// Tells what a pod will not have of its resolver configuration.
fn warn_of_dns(context: &Context, pod: &Pod) {
    let (config, resolver) = (&context.config, context.resolver());
    let (_, warnings) = dns::config(pod, &resolver, &config.cluster_dns, &config.cluster_domain);
    for warning in warnings {
        let text = warning.to_string();
        if warning != dns::Warning::NoCluster {
            context.recorder.warning(pod, None, "DNSConfigForming", text);
            continue;
        }
        let (node, reason) = (Subject::node(&config.node_name), "MissingClusterDNS");
        context.recorder.record(node, Kind::Warning, reason, text.clone());
        let own = format!("pod: \"{}\". {text}", crate::pod::described(pod));
        context.recorder.warning(pod, None, reason, own);
    }
}

/// The sandbox configuration, spelled alike at each use.
pub fn sandbox_config(
    context: &Context,
    pod: &Pod,
    attempt: u32,
) -> Result<v1::PodSandboxConfig, spec::sandbox::Error> {
    let (resolver, parent) = (context.resolver(), context.cgroups.parent(pod));
    let users = context.users(pod)?;
    spec::sandbox::config(pod, attempt, &context.config, &resolver, parent, &context.node(), users)
}

/// Stops and removes a sandbox.
pub async fn remove_sandbox(context: &Context, id: &str) -> Result<(), CriError> {
    context.runtime.stop_pod_sandbox(id).await?;
    context.runtime.remove_pod_sandbox(id).await
}

/// What a container is started with.
pub struct Start<'a> {
    pub pod: &'a Arc<Pod>,
    pub container: &'a Container,
    pub attempt: u32,
    pub observed: &'a Observed,
    pub volumes: &'a Mounted,
}

/// Pulls, creates and starts a container; returns its id. `None`: `ending` came while nothing was made yet. Once something
/// is being made, nothing is cut short: a call dropped half-way leaves behind what nobody tracks.
pub async fn start(
    context: &Context,
    start: &Start<'_>,
    ending: impl Future<Output = ()>,
) -> Option<Result<String, Failure>> {
    let (pod, container) = (start.pod, start.container);
    let needs = tokio::select! {
        needs = Box::pin(needs(context, start)) => needs,
        () = ending => return None,
    };
    let created = match needs {
        Ok(needs) => Box::pin(create(context, start, needs)).await,
        Err(failure) => Err(failure),
    };
    let at = Some(container.name.as_str());
    let (id, log) = match created {
        Ok(created) => created,
        Err(failure) => {
            let waiting = &failure.waiting;
            let text = match waiting.reason.as_str() {
                reason @ ("ErrImagePull"
                | "ImagePullBackOff"
                | "ErrImageNeverPull"
                | "InvalidImageName"
                | "ImageInspectError"
                | "RegistryUnavailable"
                | "SignatureValidationFailed") => {
                    format!("Error: {reason}")
                }
                _ => format!("Error: {}", waiting.message),
            };
            context.recorder.warning(pod, at, "Failed", text);
            return Some(Err(failure));
        }
    };
    context.recorder.normal(pod, at, "Created", "Container created");
    Some(start_created(context, pod, container, &id, &log).await.map(|()| id))
}

/// Starts a container that was created with that log.
pub async fn start_created(
    context: &Context,
    pod: &Pod,
    container: &Container,
    id: &str,
    log: &str,
) -> Result<(), Failure> {
    let at = Some(container.name.as_str());
    if let Err(error) = context.runtime.start_container(id).await {
        let message = error.plain_message();
        context.recorder.warning(pod, at, "Failed", format!("Error: {message}"));
        return Err(failure("RunContainerError", message));
    }
    context.recorder.normal(pod, at, "Started", "Container started");
    let link = log_link(context, pod, &container.name, id);
    if let Err(error) = links::make(&link, Path::new(log)) {
        tracing::warn!(%error, link = %link.display(), "link a container's log");
    }
    Ok(())
}

fn log_link(context: &Context, pod: &Pod, container: &str, id: &str) -> PathBuf {
    let (namespace, pod) = (crate::pod::namespace(pod), crate::pod::name(pod));
    links::Named { namespace, pod, container, id }.link(&context.config.container_logs_dir)
}

/// Removes the link to the log of a container that is gone.
pub fn unlink_log(context: &Context, pod: &Pod, container: &str, id: &str) {
    let link = log_link(context, pod, container, id);
    if let Err(error) = links::remove(&link) {
        tracing::warn!(%error, link = %link.display(), "remove the link to a container's log");
    }
}

fn config_error(error: impl std::fmt::Display) -> Failure {
    failure("CreateContainerConfigError", error.to_string())
}

/// What must be there before a container is made, and may take long to come.
struct Needs {
    pod_sandbox: v1::PodSandboxConfig,
    image: Present,
    /// Of the volumes it mounts, by name.
    images: BTreeMap<String, v1::ImageSpec>,
    references: References,
}

async fn needs(context: &Context, start: &Start<'_>) -> Result<Needs, Failure> {
    let (pod, container) = (start.pod, start.container);
    context.features_known(pod).await;
    let sandbox = start.observed.sandbox().ok_or_else(|| failure("CreateContainerError", "no sandbox"))?;
    let pod_sandbox = sandbox_config(context, pod, sandbox.attempt).map_err(config_error)?;
    let secrets = pull_secrets(context, pod).await;
    let images = image_volumes(context, start, &secrets, &pod_sandbox).await?;
    let image = ensure(context, pod, Wanted::of(container), &secrets, &pod_sandbox).await?;
    let references = references(context, pod, container, start.volumes).await.map_err(config_error)?;
    Ok(Needs { pod_sandbox, image, images, references })
}

async fn ensure(
    context: &Context,
    pod: &Pod,
    wanted: Wanted<'_>,
    secrets: &[Arc<Secret>],
    pod_sandbox: &v1::PodSandboxConfig,
) -> Result<Present, Failure> {
    let ensuring = context.images.ensure(pod, wanted, secrets, pod_sandbox.clone(), &context.recorder);
    Box::pin(ensuring).await.map_err(|f| Failure {
        waiting: Waiting { reason: f.reason.to_owned(), message: f.message },
        retry: f.retry,
    })
}

/// Makes the images present that a container mounts as volumes.
async fn image_volumes(
    context: &Context,
    start: &Start<'_>,
    secrets: &[Arc<Secret>],
    pod_sandbox: &v1::PodSandboxConfig,
) -> Result<BTreeMap<String, v1::ImageSpec>, Failure> {
    let (pod, mounts) = (start.pod, start.container.volume_mounts.as_deref().unwrap_or_default());
    let mounted = |name: &str| mounts.iter().any(|mount| mount.name == name);
    let spec = pod.spec.as_ref();
    let volumes = spec.and_then(|s| s.volumes.as_deref()).unwrap_or_default();
    let volumes = volumes.iter().filter(|volume| mounted(&volume.name));
    let mut images = BTreeMap::new();
    for (volume, source) in volumes.filter_map(|volume| Some((volume, volume.image.as_ref()?))) {
        let present = ensure(context, pod, Wanted::of_volume(source), secrets, pod_sandbox).await?;
        let class = spec.and_then(|s| s.runtime_class_name.as_deref());
        let annotations = pod.metadata.annotations.clone().unwrap_or_default();
        images.insert(
            volume.name.clone(),
            v1::ImageSpec {
                image: present.reference,
                user_specified_image: source.reference.clone().unwrap_or_default(),
                runtime_handler: context.runtime_classes.known(class).unwrap_or_default(),
                annotations: annotations.into_iter().collect(),
                ..Default::default()
            },
        );
    }
    Ok(images)
}

/// Creates a container; answers its id and its log.
async fn create(context: &Context, start: &Start<'_>, needs: Needs) -> Result<(String, String), Failure> {
    let (pod, container) = (start.pod, start.container);
    let Needs { pod_sandbox, image, images, references } = needs;
    let sandbox = start.observed.sandbox().ok_or_else(|| failure("CreateContainerError", "no sandbox"))?;
    let pod_ips = match crate::pod::host_network(pod) {
        true => context.host_ips(),
        false => sandbox.ips.clone(),
    };
    let env =
        env::build(pod, container, &references, &context.facts(pod_ips.clone())).map_err(config_error)?;
    let given = volume::mounts::Given {
        volumes: start.volumes,
        images: &images,
        env: &env,
        pod_ips: &pod_ips,
        recursive: context.features(pod).recursive_read_only_mounts == Some(true),
    };
    let mounting = volume::mounts::of_container(&context.config, pod, container, start.attempt, &given);
    let mounts = Box::pin(mounting).await.map_err(config_error)?;
    let made = spec::container::Made {
        attempt: start.attempt,
        image_ref: image.reference,
        image_user: image.user,
        env,
        mounts,
        users: context.users(pod).map_err(config_error)?,
        devices: volume::mounts::devices(container, start.volumes).map_err(config_error)?,
        target: target(pod, container, start.observed).map_err(config_error)?,
    };
    let config = spec::container::config(pod, container, made, &context.config, &context.node())
        .map_err(config_error)?;
    let log_dir = pod_sandbox.log_directory.clone();
    directory::make(&Path::new(&log_dir).join(&container.name), LOGS)
        .map_err(|e| failure("CreateContainerError", format!("create container log directory: {e}")))?;
    create_resolving_names(context, &sandbox.id, config, pod_sandbox).await
}

/// The container whose processes an ephemeral container is to see.
fn target(pod: &Pod, container: &Container, observed: &Observed) -> Result<Option<String>, String> {
    let aimed = crate::pod::ephemeral_containers(pod).iter().find(|c| c.name == container.name);
    let Some(name) = aimed.and_then(|c| c.target_container_name.as_deref()).filter(|n| !n.is_empty()) else {
        return Ok(None);
    };
    match observed.latest(name) {
        Some(found) => Ok(Some(found.id.clone())),
        None => Err(format!("unable to find target container {name}")),
    }
}

async fn create_resolving_names(
    context: &Context,
    sandbox: &str,
    mut config: v1::ContainerConfig,
    pod_sandbox: v1::PodSandboxConfig,
) -> Result<(String, String), Failure> {
    for _ in 0..NAME_TRIES {
        let call = context.runtime.create_container(sandbox, config.clone(), pod_sandbox.clone());
        let error = match Box::pin(call).await {
            Ok(id) => {
                let log = Path::new(&pod_sandbox.log_directory).join(&config.log_path);
                return Ok((id, log.to_string_lossy().into_owned()));
            }
            Err(error) => error,
        };
        let Some(holder) = error.reserved_for().map(str::to_owned) else {
            return Err(failure("CreateContainerError", error.plain_message()));
        };
        let shown = |e: CriError| failure("CreateContainerError", e.plain_message());
        match context.runtime.container_status(&holder).await {
            // Made by a call whose answer we never got, and not started: it is ours.
            Ok(status) if status.state() == v1::ContainerState::ContainerCreated => {
                return Ok((holder, status.log_path));
            }
            Ok(_) => {
                context.runtime.stop_container(&holder, Duration::ZERO).await.map_err(shown)?;
                context.runtime.remove_container(&holder).await.map_err(shown)?;
            }
            Err(gone) if gone.is_not_found() => {
                // The reservation has no container behind it: take the next name.
                if let Some(metadata) = config.metadata.as_mut() {
                    metadata.attempt += 1;
                    config.log_path = format!("{}/{}.log", metadata.name, metadata.attempt);
                    config.annotations.insert(labels::RESTART_COUNT.to_owned(), metadata.attempt.to_string());
                }
            }
            Err(other) => return Err(shown(other)),
        }
    }
    Err(failure("CreateContainerError", "the container's name stays reserved"))
}

async fn pull_secrets(context: &Context, pod: &Pod) -> Vec<Arc<Secret>> {
    let names = pod.spec.as_ref().and_then(|s| s.image_pull_secrets.as_deref()).unwrap_or_default();
    let (mut secrets, mut missing) = (Vec::new(), Vec::new());
    for reference in names.iter().filter(|reference| !reference.name.is_empty()) {
        match context.objects.secret(crate::pod::namespace(pod), &reference.name, crate::pod::uid(pod)).await
        {
            Ok(Some(secret)) => secrets.push(secret),
            Ok(None) | Err(_) => missing.push(reference.name.as_str()),
        }
    }
    if !missing.is_empty() {
        let text = format!(
            "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
            missing.join(", ")
        );
        context.recorder.warning(pod, None, "FailedToRetrieveImagePullSecret", text);
    }
    secrets
}

async fn references(
    context: &Context,
    pod: &Pod,
    container: &Container,
    volumes: &Mounted,
) -> Result<References, crate::objects::Error> {
    let (namespace, uid) = (crate::pod::namespace(pod), crate::pod::uid(pod));
    let (maps, secrets) = env::named(container);
    let mut all = References { services: context.objects.services(namespace).await?, ..Default::default() };
    for name in maps {
        let object = context.objects.config_map(namespace, name, uid).await?;
        all.config_maps.insert(name.to_owned(), object);
    }
    for name in secrets {
        let object = context.objects.secret(namespace, name, uid).await?;
        all.secrets.insert(name.to_owned(), object);
    }
    for (volume, path) in env::files(container) {
        let Some(volume::Source::Host { path: dir, .. }) = volumes.get(volume) else { continue };
        let (dir, path, key) = (dir.clone(), path.to_owned(), (volume.to_owned(), path.to_owned()));
        let read = tokio::task::spawn_blocking(move || spec::env_file::File::read(&dir, &path)).await;
        all.files.insert(key, read.unwrap_or_default());
    }
    Ok(all)
}

/// Runs a container's postStart hook; `Err` is why the container must be killed.
pub async fn post_start(
    context: &Context,
    pod: &Pod,
    container: &Container,
    id: &str,
    ips: &[String],
) -> Result<(), Failure> {
    let Some(handler) = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) else {
        return Ok(());
    };
    Box::pin(hooks::run(context, pod, container, id, ips, handler)).await.map_err(|text| {
        context.recorder.warning(pod, Some(&container.name), "FailedPostStartHook", "PostStartHook failed");
        failure("PostStartHookError", text)
    })
}

/// What a container gets to end at least, however little is left of its grace. Upstream: `minimumGracePeriodInSeconds`.
const LEAST_GRACE: Duration = Duration::from_secs(2);

/// Stops containers together: preStop first, then its turn after others, both within the grace, then the runtime's stop
/// with what is left of it. What is not asked of the runtime yet when the stop is given up is left to the one that comes
/// after.
pub async fn stop(
    context: &Context,
    pod: &Pod,
    stops: &[Stop],
    observed: &Observed,
    grace: Duration,
    given_up: &CancellationToken,
) -> Result<(), CriError> {
    let ended = &watch::Sender::new(BTreeSet::new());
    let each = stops.iter().map(|one| async move {
        let turn = its_turn(one, stops, ended.subscribe());
        let stopped = stop_one(context, pod, one, observed, grace, (turn, given_up)).await?;
        if stopped {
            ended.send_modify(|ids| {
                ids.insert(one.id.clone());
            });
        }
        Ok(())
    });
    join_all(each).await.into_iter().collect()
}

/// Resolves once the containers that are to end before this one have ended; those that are not stopped with it do not run.
async fn its_turn(stop: &Stop, stops: &[Stop], mut ended: watch::Receiver<BTreeSet<String>>) {
    let before = |other: &&Stop| stop.after.contains(&other.name);
    let all = |ids: &BTreeSet<String>| stops.iter().filter(before).all(|other| ids.contains(&other.id));
    // Its sender lives as long as the stops.
    ended.wait_for(all).await.ok();
}

/// Stops a container; `false`: it was given up before the runtime was asked.
async fn stop_one(
    context: &Context,
    pod: &Pod,
    stop: &Stop,
    observed: &Observed,
    grace: Duration,
    (turn, given_up): (impl Future<Output = ()>, &CancellationToken),
) -> Result<bool, CriError> {
    let grace = stop.grace.map_or(grace, |seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
    context.recorder.normal(pod, Some(&stop.name), "Killing", stop.message.clone());
    let began = Instant::now();
    let known = crate::pod::container(pod, &stop.name).map(|(_, c)| c);
    let known = known.as_deref();
    let seen = observed.containers.iter().find(|c| c.id == stop.id);
    // The pod's spec may be gone: the container's annotations remember the handler.
    let remembered: Option<LifecycleHandler> = seen
        .and_then(|c| c.annotations.get(labels::PRE_STOP))
        .and_then(|text| serde_json::from_str(text).ok());
    let handler = known.and_then(|c| c.lifecycle.as_ref()).and_then(|l| l.pre_stop.clone()).or(remembered);
    if let Some(handler) = handler
        && !grace.is_zero()
    {
        let fallback = Container { name: stop.name.clone(), ..Default::default() };
        let ips = observed.sandbox().map(|s| s.ips.clone()).unwrap_or_default();
        let hook = hooks::run(context, pod, known.unwrap_or(&fallback), &stop.id, &ips, &handler);
        let hook = tokio::time::timeout(grace, Box::pin(hook));
        let Some(ended) = given_up.run_until_cancelled(hook).await else { return Ok(false) };
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::info!(container = stop.name, error, "preStop hook failed");
                context.recorder.warning(pod, Some(&stop.name), "FailedPreStopHook", "PreStopHook failed");
            }
            Err(_) => tracing::info!(container = stop.name, "preStop hook outlived the grace period"),
        }
    }
    // Whole seconds, as the runtime takes them: a part of one that has passed takes nothing away.
    let left = || grace.saturating_sub(Duration::from_secs(began.elapsed().as_secs()));
    let turn = tokio::time::timeout(left(), turn);
    if given_up.run_until_cancelled(turn).await.is_none() {
        return Ok(false);
    }
    context.runtime.stop_container(&stop.id, left().max(LEAST_GRACE)).await?;
    Ok(true)
}

/// When something that failed now is tried again.
pub fn retry_at(now: Timestamp, retry: Duration) -> Timestamp {
    SignedDuration::try_from(retry).ok().and_then(|retry| now.checked_add(retry).ok()).unwrap_or(now)
}

/// Why containers wait, from what is held back and what backs off.
pub fn waiting(
    pod: &Pod,
    failures: &BTreeMap<String, (Waiting, Timestamp)>,
    backing_off: &BTreeMap<String, Duration>,
) -> BTreeMap<String, Waiting> {
    let mut all: BTreeMap<String, Waiting> =
        failures.iter().map(|(name, (waiting, _))| (name.clone(), waiting.clone())).collect();
    for (name, delay) in backing_off {
        let delay = match delay.as_secs() {
            seconds @ 0..60 => format!("{seconds}s"),
            seconds => format!("{}m{}s", seconds / 60, seconds % 60),
        };
        let message =
            format!("back-off {delay} restarting failed container={name} pod={}", crate::pod::described(pod));
        all.insert(name.clone(), Waiting { reason: "CrashLoopBackOff".to_owned(), message });
    }
    all
}
