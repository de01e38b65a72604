//! The container runtime's health.
//!
//! CRI has no event for it, so it is asked: every five seconds while all is well, as upstream does, and five times a
//! second for the first two minutes after it stopped being well (or since the start), so that a node is ready as soon as
//! its runtime and its network are. Writes a watch channel, which wakes the node's status and the pods that wait for the
//! network. A runtime that is away for less than half a minute (a restart) does not make the node unready.

use cri_proto::client::Runtime;
use cri_proto::v1::{RuntimeCondition, StatusResponse};
use k8s_openapi::api::core::v1::{NodeFeatures, NodeRuntimeHandler, NodeRuntimeHandlerFeatures};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Period while all is well.
const CALM: Duration = Duration::from_secs(5);
/// Period shortly after something changed for the worse.
const EAGER: Duration = Duration::from_millis(200);
/// For so long after it did.
const EAGER_FOR: Duration = Duration::from_secs(120);
/// Silence of the runtime before the node is not ready.
const DOWN_AFTER: Duration = Duration::from_secs(30);

/// What is known about the runtime.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// Why pods cannot run; empty when they can.
    pub errors: Vec<String>,
    /// Why pods outside the host's network cannot run: `NetworkReady=false reason:... message:...`.
    pub network_error: Option<String>,
    /// `containerd://1.7.24`.
    pub version: String,
    /// `status.runtimeHandlers`.
    pub handlers: Vec<NodeRuntimeHandler>,
    /// `status.features`.
    pub features: Option<NodeFeatures>,
}

impl Default for Health {
    /// Before the first answer.
    fn default() -> Self {
        Self {
            errors: vec!["container runtime status check may not have completed yet".to_owned()],
            network_error: None,
            version: String::new(),
            handlers: Vec::new(),
            features: None,
        }
    }
}

/// Asks the runtime until `shutdown`, sending what changed.
pub async fn observe(runtime: &Runtime, health: &watch::Sender<Health>, shutdown: &CancellationToken) {
    let mut last_answer: Option<Instant> = None;
    let mut unwell_since = Instant::now();
    let mut known_version: Option<String> = None;
    loop {
        let answer = tokio::select! {
            () = shutdown.cancelled() => return,
            answer = runtime.status(false) => answer,
        };
        let next = match answer {
            Ok(status) => {
                if known_version.is_none() {
                    known_version = version(runtime).await;
                }
                last_answer = Some(Instant::now());
                from_status(&status, known_version.as_deref().unwrap_or_default())
            }
            Err(error) => {
                // A runtime that comes back may be another version.
                known_version = None;
                tracing::warn!(error = %error, "the container runtime does not answer");
                let silent = last_answer.is_some_and(|at| at.elapsed() > DOWN_AFTER);
                silenced(&health.borrow(), silent)
            }
        };
        let well = next.errors.is_empty() && known_version.is_some();
        if well {
            unwell_since = Instant::now() + CALM;
        }
        health.send_if_modified(|current| {
            let changed = *current != next;
            *current = next;
            changed
        });
        let eager = !well && unwell_since.elapsed() < EAGER_FOR;
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(if eager { EAGER } else { CALM }) => {}
        }
    }
}

async fn version(runtime: &Runtime) -> Option<String> {
    match runtime.version().await {
        Ok(v) => Some(format!("{}://{}", v.runtime_name, shown(&v.runtime_version))),
        Err(error) => {
            tracing::warn!(error = %error, "the container runtime does not tell its version");
            None
        }
    }
}

/// A runtime's version as nodes show it: whole where it is a semantic version, else its numbers alone, so without what a distribution adds
/// (upstream: `newRuntimeVersion`).
fn shown(version: &str) -> &str {
    let version = version.trim().trim_start_matches('v');
    let end = version.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(version.len());
    let (numbers, extra) = version.split_at(end);
    if numbers.is_empty() {
        return version;
    }
    let identifiers = |text: &str| {
        text.split('.').all(|id| !id.is_empty() && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'))
    };
    let prerelease = |text: &str| text.is_empty() || text.strip_prefix('-').is_some_and(identifiers);
    let semantic = numbers.split('.').count() == 3
        && match extra.split_once('+') {
            Some((before, build)) => prerelease(before) && identifiers(build),
            None => prerelease(extra),
        };
    if semantic { version } else { numbers }
}

/// Health by the runtime's own status. Pure.
fn from_status(answer: &StatusResponse, version: &str) -> Health {
    let conditions = answer.status.as_ref().map_or(&[][..], |s| s.conditions.as_slice());
    let find = |kind: &str| conditions.iter().find(|c| c.r#type == kind);
    let mut errors = Vec::new();
    if let Some(text) = complaint(find("RuntimeReady"), "RuntimeReady") {
        errors.push(format!("container runtime not ready: {text}"));
    }
    let network_error = complaint(find("NetworkReady"), "NetworkReady");
    if let Some(text) = &network_error {
        errors.push(format!("container runtime network not ready: {text}"));
    }
    let handlers = answer.runtime_handlers.iter().map(|handler| NodeRuntimeHandler {
        name: Some(handler.name.clone()),
        features: handler.features.as_ref().map(|f| NodeRuntimeHandlerFeatures {
            recursive_read_only_mounts: Some(f.recursive_read_only_mounts),
            user_namespaces: Some(f.user_namespaces),
        }),
    });
    Health {
        errors,
        network_error,
        version: version.to_owned(),
        handlers: handlers.collect(),
        features: answer
            .features
            .as_ref()
            .map(|f| NodeFeatures { supplemental_groups_policy: Some(f.supplemental_groups_policy) }),
    }
}

/// Go's `%v` of a runtime condition that is missing or false.
fn complaint(condition: Option<&RuntimeCondition>, kind: &str) -> Option<String> {
    match condition {
        Some(c) if c.status => None,
        Some(c) => Some(format!("{kind}=false reason:{} message:{}", c.reason, c.message)),
        None => Some("<nil>".to_owned()),
    }
}

/// Health when the runtime did not answer: what was known, until the silence is too long.
fn silenced(last: &Health, too_long: bool) -> Health {
    if !too_long {
        return last.clone();
    }
    Health { errors: vec!["container runtime is down".to_owned()], ..last.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cri_proto::v1::RuntimeStatus;

    fn answer(network: bool) -> StatusResponse {
        let condition = |kind: &str, status, reason: &str, message: &str| RuntimeCondition {
            r#type: kind.into(),
            status,
            reason: reason.into(),
            message: message.into(),
        };
        let network_message = "Network plugin returns error: cni plugin not initialized";
        StatusResponse {
            status: Some(RuntimeStatus {
                conditions: vec![
                    condition("RuntimeReady", true, "", ""),
                    condition("NetworkReady", network, "NetworkPluginNotReady", network_message),
                ],
            }),
            ..StatusResponse::default()
        }
    }

    #[test]
    fn a_missing_network_is_told_in_upstreams_words() {
        let health = from_status(&answer(false), "containerd://1.6.20");
        assert_eq!(
            health.errors,
            ["container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady \
              message:Network plugin returns error: cni plugin not initialized"]
        );
        assert!(from_status(&answer(true), "").errors.is_empty());
    }

    #[test]
    fn a_distributions_suffix_must_not_be_shown_as_the_runtimes_version() {
        for (told, expected) in [
            ("1.6.20~ds1", "1.6.20"),
            ("v2.1.0", "2.1.0"),
            ("2.1.0-rc.1", "2.1.0-rc.1"),
            ("1.7.24+build.5", "1.7.24+build.5"),
            ("1.7.24-beta+5", "1.7.24-beta+5"),
            ("1.7.24-", "1.7.24"),
            ("1.30", "1.30"),
            ("1.30-dev", "1.30"),
            ("unknown", "unknown"),
        ] {
            assert_eq!(shown(told), expected, "{told}");
        }
    }

    #[test]
    fn a_restarting_runtime_must_not_make_the_node_unready() {
        let well = from_status(&answer(true), "containerd://1.6.20");
        assert_eq!(silenced(&well, false), well);
        assert_eq!(silenced(&well, true).errors, ["container runtime is down"]);
        assert_eq!(silenced(&well, true).version, "containerd://1.6.20");
    }
}
