//! What a runtime has in memory: sandboxes, containers and the names they hold, as containerd keeps them. Every wrong a
//! kubelet can do to it is written down.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use cri_proto::v1::*;
use tonic::Status;

/// What the sandboxes and containers of one runtime are.
#[derive(Default)]
pub struct World {
    sandboxes: BTreeMap<String, Ran>,
    pub containers: BTreeMap<String, Made>,
    names: HashMap<String, String>,
    pub images: Vec<String>,
    next: u32,
    /// The codes with which a container's processes exit at once; what is not named here runs until it is stopped.
    pub exits: HashMap<String, VecDeque<i32>>,
    /// The names of all containers that were started, in order.
    pub started: Vec<String>,
    /// What no kubelet may do.
    pub wrongs: Vec<String>,
    /// Why the network is not ready; none when it is.
    pub network_error: Option<String>,
    /// No question is answered.
    pub silent: bool,
    /// The exit codes of commands run in containers, in order; the last stays. What is not named here exits with 0.
    pub commands: HashMap<String, VecDeque<i32>>,
    /// Commands run in containers, by the container's id.
    pub executed: Vec<(String, String)>,
    /// Names of containers that go on until they are killed.
    pub stubborn: BTreeSet<String>,
    /// What containers were asked to stop, by name, and the seconds each was given.
    pub stops: Vec<(String, i64)>,
    /// Bytes of writable layers by container name.
    pub layers: HashMap<String, u64>,
}

struct Ran {
    config: PodSandboxConfig,
    ready: bool,
    created: i64,
}

pub struct Made {
    sandbox: String,
    config: ContainerConfig,
    pub state: ContainerState,
    exit_code: i32,
    created: i64,
    started: i64,
    finished: i64,
}

impl Made {
    pub fn name(&self) -> &str {
        self.config.metadata.as_ref().map_or("", |m| &m.name)
    }
}

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

fn fits(own: &HashMap<String, String>, asked: &HashMap<String, String>) -> bool {
    asked.iter().all(|(name, value)| own.get(name) == Some(value))
}

impl World {
    fn id(&mut self, kind: &str) -> String {
        self.next += 1;
        format!("{kind}{}", self.next)
    }

    fn reserve(&mut self, kind: &str, name: String, id: &str) -> Result<(), Status> {
        match self.names.get(&name) {
            Some(holder) => Err(Status::unknown(format!(
                "failed to reserve {kind} name \"{name}\": name \"{name}\" is reserved for \"{holder}\""
            ))),
            None => {
                self.names.insert(name, id.to_owned());
                Ok(())
            }
        }
    }

    /// Nothing is left, not even a reserved name.
    pub fn is_empty(&self) -> bool {
        self.sandboxes.is_empty() && self.containers.is_empty() && self.names.is_empty()
    }

    pub fn ready_sandboxes(&self) -> usize {
        self.sandboxes.values().filter(|s| s.ready).count()
    }

    /// The names of the containers that run, sorted.
    pub fn running(&self) -> Vec<&str> {
        let running = self.containers.values().filter(|c| c.runs());
        let mut names: Vec<&str> = running.map(Made::name).collect();
        names.sort_unstable();
        names
    }

    pub fn run_sandbox(&mut self, config: PodSandboxConfig) -> Result<String, Status> {
        let m = config.metadata.clone().unwrap();
        let id = self.id("sandbox");
        self.reserve("sandbox", format!("{}_{}_{}_{}", m.name, m.namespace, m.uid, m.attempt), &id)?;
        let same = |s: &Ran| s.ready && s.config.metadata.as_ref().is_some_and(|other| other.uid == m.uid);
        if self.sandboxes.values().any(same) {
            self.wrongs.push("a sandbox beside a ready one".to_owned());
        }
        self.sandboxes.insert(id.clone(), Ran { config, ready: true, created: now() });
        Ok(id)
    }

    pub fn stop_sandbox(&mut self, id: &str) -> Result<(), Status> {
        let Some(sandbox) = self.sandboxes.get_mut(id) else {
            return Err(Status::not_found("no such sandbox"));
        };
        sandbox.ready = false;
        for container in self.containers.values_mut().filter(|c| c.sandbox == id) {
            if container.state == ContainerState::ContainerRunning {
                self.wrongs.push(format!("the sandbox is stopped below {}", container.name()));
            }
            container.end(137);
        }
        Ok(())
    }

    pub fn remove_sandbox(&mut self, id: &str) -> Result<(), Status> {
        self.stop_sandbox(id)?;
        self.sandboxes.remove(id);
        self.containers.retain(|_, c| c.sandbox != id);
        let (sandboxes, containers) = (&self.sandboxes, &self.containers);
        self.names.retain(|_, id| sandboxes.contains_key(id) || containers.contains_key(id));
        Ok(())
    }

    pub fn sandbox_status(&self, id: &str) -> Result<PodSandboxStatus, Status> {
        let sandbox = self.sandboxes.get(id).ok_or_else(|| Status::not_found("no such sandbox"))?;
        Ok(PodSandboxStatus {
            id: id.to_owned(),
            metadata: sandbox.config.metadata.clone(),
            state: sandbox.state().into(),
            created_at: sandbox.created,
            network: Some(PodSandboxNetworkStatus { ip: "10.0.0.2".to_owned(), ..Default::default() }),
            ..Default::default()
        })
    }

    pub fn list_sandboxes(&self, labels: &HashMap<String, String>) -> Vec<PodSandbox> {
        let found = self.sandboxes.iter().filter(|(_, s)| fits(&s.config.labels, labels));
        found
            .map(|(id, s)| PodSandbox {
                id: id.clone(),
                metadata: s.config.metadata.clone(),
                state: s.state().into(),
                created_at: s.created,
                labels: s.config.labels.clone(),
                ..Default::default()
            })
            .collect()
    }

    pub fn create(&mut self, sandbox: &str, config: ContainerConfig) -> Result<String, Status> {
        let Some(inside) = self.sandboxes.get(sandbox).filter(|s| s.ready) else {
            return Err(Status::not_found("no such running sandbox"));
        };
        let (m, pod) = (config.metadata.clone().unwrap(), inside.config.metadata.clone().unwrap());
        if !self.images.contains(&config.image.clone().unwrap_or_default().image) {
            return Err(Status::not_found("no such image"));
        }
        let id = self.id("container");
        let name = format!("{}_{}_{}_{}_{}", m.name, pod.name, pod.namespace, pod.uid, m.attempt);
        self.reserve("container", name, &id)?;
        let made = Made {
            sandbox: sandbox.to_owned(),
            config,
            state: ContainerState::ContainerCreated,
            exit_code: 0,
            created: now(),
            started: 0,
            finished: 0,
        };
        self.containers.insert(id.clone(), made);
        Ok(id)
    }

    pub fn start(&mut self, id: &str) -> Result<(), Status> {
        let running: Vec<(String, String)> =
            self.containers.values().filter(|c| c.runs()).map(|c| self.whose(c)).collect();
        let Some(container) = self.containers.get_mut(id) else {
            return Err(Status::not_found("no such container"));
        };
        if container.state != ContainerState::ContainerCreated {
            return Err(Status::failed_precondition("the container is not in created state"));
        }
        let name = container.name().to_owned();
        container.state = ContainerState::ContainerRunning;
        container.started = now();
        let whose = self.containers.get(id).map(|c| self.whose(c)).unwrap_or_default();
        if running.contains(&whose) {
            self.wrongs.push(format!("{name} runs twice"));
        }
        if let Some(code) = self.exits.get_mut(&name).and_then(VecDeque::pop_front)
            && let Some(container) = self.containers.get_mut(id)
        {
            container.end(code);
        }
        self.started.push(name);
        Ok(())
    }

    /// The UID of a container's pod, and its name.
    fn whose(&self, container: &Made) -> (String, String) {
        let sandbox = self.sandboxes.get(&container.sandbox).and_then(|s| s.config.metadata.as_ref());
        (sandbox.map(|m| m.uid.clone()).unwrap_or_default(), container.name().to_owned())
    }

    /// A container's processes end by themselves.
    pub fn exit(&mut self, name: &str, code: i32) {
        self.containers.values_mut().filter(|c| c.name() == name).for_each(|c| c.end(code));
    }

    /// Runs a command in a container; its exit code.
    pub fn execute(&mut self, id: &str, command: String) -> i32 {
        let codes = self.commands.entry(command.clone()).or_default();
        let code = if codes.len() > 1 { codes.pop_front() } else { codes.front().copied() };
        self.executed.push((id.to_owned(), command));
        code.unwrap_or(0)
    }

    /// What state everything is in, by id.
    pub fn states(&self) -> BTreeMap<String, ContainerEventType> {
        use ContainerEventType::*;
        let sandboxes = self
            .sandboxes
            .iter()
            .map(|(id, s)| (id.clone(), if s.ready { ContainerStartedEvent } else { ContainerStoppedEvent }));
        let containers = self.containers.iter().map(|(id, c)| {
            let state = match c.state {
                ContainerState::ContainerRunning => ContainerStartedEvent,
                ContainerState::ContainerExited => ContainerStoppedEvent,
                _ => ContainerCreatedEvent,
            };
            (id.clone(), state)
        });
        sandboxes.chain(containers).collect()
    }

    pub fn stats(&self) -> Vec<ContainerStats> {
        let one = |(id, c): (&String, &Made)| ContainerStats {
            attributes: Some(ContainerAttributes { id: id.clone(), ..Default::default() }),
            writable_layer: Some(FilesystemUsage {
                used_bytes: Some(UInt64Value { value: self.layers.get(c.name()).copied().unwrap_or(0) }),
                ..Default::default()
            }),
            ..Default::default()
        };
        self.containers.iter().map(one).collect()
    }

    /// Notes that a container is asked to stop; true when it goes on meanwhile.
    pub fn ignores_stop(&mut self, id: &str, seconds: i64) -> bool {
        let Some(container) = self.containers.get(id) else { return false };
        let name = container.name().to_owned();
        let ignores = container.runs() && self.stubborn.contains(&name);
        self.stops.push((name, seconds));
        ignores
    }

    pub fn stop(&mut self, id: &str) -> Result<(), Status> {
        let container = self.containers.get_mut(id).ok_or_else(|| Status::not_found("no such container"))?;
        container.end(137);
        Ok(())
    }

    pub fn remove(&mut self, id: &str) -> Result<(), Status> {
        let Some(container) = self.containers.remove(id) else {
            return Err(Status::not_found("no such container"));
        };
        if container.state == ContainerState::ContainerRunning {
            self.wrongs.push(format!("{} is removed while it runs", container.name()));
        }
        self.names.retain(|_, holder| holder != id);
        Ok(())
    }

    pub fn list(&self, labels: &HashMap<String, String>) -> Vec<Container> {
        let found = self.containers.iter().filter(|(_, c)| fits(&c.config.labels, labels));
        found
            .map(|(id, c)| Container {
                id: id.clone(),
                pod_sandbox_id: c.sandbox.clone(),
                metadata: c.config.metadata.clone(),
                state: c.state.into(),
                created_at: c.created,
                labels: c.config.labels.clone(),
                annotations: c.config.annotations.clone(),
                ..Default::default()
            })
            .collect()
    }

    pub fn status(&self, id: &str) -> Result<ContainerStatus, Status> {
        let container = self.containers.get(id).ok_or_else(|| Status::not_found("no such container"))?;
        let (config, image) = (&container.config, container.config.image.clone());
        Ok(ContainerStatus {
            id: id.to_owned(),
            metadata: config.metadata.clone(),
            state: container.state.into(),
            created_at: container.created,
            started_at: container.started,
            finished_at: container.finished,
            exit_code: container.exit_code,
            image_ref: image.clone().unwrap_or_default().image,
            image,
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            log_path: self.log_path(container),
            ..Default::default()
        })
    }

    fn log_path(&self, container: &Made) -> String {
        let directory = self.sandboxes.get(&container.sandbox).map_or("", |s| &s.config.log_directory);
        Path::new(directory).join(&container.config.log_path).to_string_lossy().into_owned()
    }
}

impl Ran {
    fn state(&self) -> PodSandboxState {
        if self.ready { PodSandboxState::SandboxReady } else { PodSandboxState::SandboxNotready }
    }
}

impl Made {
    fn runs(&self) -> bool {
        self.state == ContainerState::ContainerRunning
    }

    fn end(&mut self, code: i32) {
        if self.runs() {
            self.state = ContainerState::ContainerExited;
            self.exit_code = code;
            self.finished = now();
        }
    }
}
