//! What the machine runs beside pods: the kubelet, the runtime, and everything else that has a cgroup of its own.

use std::path::Path;

use jiff::Timestamp;

use crate::cgroup::Cgroups;
use crate::cgroup::usage::Usage;
use crate::config::Config;

#[derive(Clone, Debug)]
pub struct System {
    /// `kubelet`, `runtime` or `misc`.
    pub name: &'static str,
    /// What its cgroup counts.
    pub usage: Usage,
    /// Nanoseconds of processor time a second.
    pub rate: Option<u64>,
    /// When it began, where that is known.
    pub started: Option<Timestamp>,
}

/// The process behind the runtime's socket. Upstream has to be told the runtime's cgroup (`--runtime-cgroups`).
pub async fn runtime(endpoint: &str) -> Option<u32> {
    let path = Path::new(endpoint.strip_prefix("unix://").unwrap_or(endpoint));
    let pid = tokio::net::UnixStream::connect(path).await.ok()?.peer_cred().ok()?.pid()?;
    // Zero: it is in no process namespace of ours.
    u32::try_from(pid).ok().filter(|pid| *pid > 0)
}

/// The cgroups by the names of what is in them; the runtime is that process. Blocking.
pub fn cgroups(config: &Config, runtime: Option<u32>) -> Vec<(&'static str, String)> {
    let own = config.kubelet_cgroup.clone().or_else(|| Cgroups::of_process(std::process::id()));
    let runtime = runtime.and_then(Cgroups::of_process);
    let all = [("kubelet", own), ("runtime", runtime), ("misc", config.system_cgroup.clone())];
    all.into_iter().filter_map(|(name, path)| Some((name, path?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_runtime_is_whoever_listens_and_the_kubelet_is_here() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("cri.sock");
        let _listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let found = runtime(&format!("unix://{}", socket.display())).await;
        assert_eq!(found, Some(std::process::id()));
        assert_eq!(runtime("unix:///no/such/socket").await, None);
        let mut config = Config::new("n", Vec::new());
        config.kubelet_cgroup = Some("/own".to_owned());
        config.system_cgroup = Some("/rest".to_owned());
        let all = cgroups(&config, None);
        assert_eq!(all, [("kubelet", "/own".to_owned()), ("misc", "/rest".to_owned())]);
    }
}
