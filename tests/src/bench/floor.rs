//! The CRI floor: what containerd needs for one pod when nothing but containerd is asked.

use super::cluster::{Cluster, WORKER};
use crate::layout::IMAGE_HOST;
use anyhow::{Context, Result, bail};
use cri_proto::client::{Deadlines, Runtime};
use cri_proto::v1;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The longest that one call of [`Floor::of_machine`] may take: a machine may be emulated.
const EMULATED: Duration = Duration::from_secs(900);

/// The image of every measured pod.
pub fn image() -> String {
    format!("{IMAGE_HOST}/echo:1")
}

pub struct Floor {
    runtime: Runtime,
    /// The cgroup of its pods, in the form of the runtime's driver.
    cgroup_parent: &'static str,
}

impl Floor {
    /// The floor of the machine that this runs on, whose runtime has the image and makes cgroups by systemd.
    ///
    /// # Errors
    /// The socket's path is not one.
    pub fn of_machine(socket: &str) -> Result<Self> {
        let deadlines = Deadlines { request: EMULATED, ..Deadlines::default() };
        Ok(Self { runtime: Runtime::connect(socket, deadlines)?, cgroup_parent: "floor.slice" })
    }

    /// Connects, and pulls the image, so that no start has to.
    ///
    /// # Errors
    /// The image cannot be pulled.
    pub async fn new(cluster: &Cluster) -> Result<Self> {
        let runtime = cluster.runtime(WORKER)?;
        runtime.pull_image(&image(), None, None).await.context("pull the image")?;
        Ok(Self { runtime, cgroup_parent: "" })
    }

    /// Milliseconds from the first call until each of `count` pods, asked for at once, has its container started. All are taken
    /// away again.
    ///
    /// # Errors
    /// A call failed.
    pub async fn start(&self, count: usize, round: usize) -> Result<Vec<f64>> {
        let started =
            futures::future::join_all((0..count).map(|i| self.one(format!("floor-{round}-{i}")))).await;
        let ended = self.clear().await;
        let started = started.into_iter().collect::<Result<Vec<f64>>>()?;
        ended?;
        Ok(started)
    }

    async fn one(&self, name: String) -> Result<f64> {
        let began = Instant::now();
        let log_directory = format!("/var/log/pods/bench_{name}");
        let sandbox = v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: name.clone(),
                uid: name.clone(),
                namespace: "floor".into(),
                attempt: 0,
            }),
            hostname: name.clone(),
            log_directory,
            linux: Some(v1::LinuxPodSandboxConfig {
                cgroup_parent: self.cgroup_parent.to_owned(),
                // what every kubelet asks for (`pkg/kubelet/kuberuntime/kuberuntime_sandbox.go`)
                security_context: Some(v1::LinuxSandboxSecurityContext {
                    seccomp: Some(v1::SecurityProfile::default()),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let id = Box::pin(self.runtime.run_pod_sandbox(sandbox.clone(), "")).await?;
        let container = v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata { name: "echo".into(), attempt: 0 }),
            image: Some(v1::ImageSpec { image: image(), ..Default::default() }),
            log_path: "echo.log".into(),
            linux: Some(v1::LinuxContainerConfig::default()),
            ..Default::default()
        };
        let container = Box::pin(self.runtime.create_container(&id, container, sandbox)).await?;
        self.runtime.start_container(&container).await?;
        Ok(began.elapsed().as_secs_f64() * 1e3)
    }

    /// Takes the floor's own sandboxes away.
    async fn clear(&self) -> Result<()> {
        let own = self.runtime.list_pod_sandboxes(HashMap::new()).await?;
        let own = own.into_iter().filter(|s| s.metadata.as_ref().is_some_and(|m| m.namespace == "floor"));
        let removed = own.map(|sandbox| async move {
            self.runtime.stop_pod_sandbox(&sandbox.id).await?;
            self.runtime.remove_pod_sandbox(&sandbox.id).await
        });
        for done in futures::future::join_all(removed).await {
            done?;
        }
        Ok(())
    }

    /// Waits until the node runs nothing, so that no measurement pays for the clearing up of another.
    ///
    /// # Errors
    /// Something stays.
    pub async fn quiet(&self, patience: Duration) -> Result<()> {
        let began = Instant::now();
        loop {
            let left = self.runtime.list_pod_sandboxes(HashMap::new()).await?.len();
            if left == 0 {
                return Ok(());
            }
            if began.elapsed() > patience {
                bail!("{left} sandboxes stay");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
