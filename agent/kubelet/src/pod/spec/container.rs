//! A container's configuration.

use std::collections::BTreeMap;

use cri_proto::v1;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::env::expand;
use super::resources::Node;
use super::security::ImageUser;
use super::{labels, resources, security};
use crate::config::Config;

/// What a container's own fields do not say.
pub struct Made {
    /// Its attempt, which is its restart count.
    pub attempt: u32,
    /// What the runtime calls the pulled image.
    pub image_ref: String,
    /// Who the image runs as.
    pub image_user: ImageUser,
    pub env: Vec<(String, String)>,
    pub mounts: Vec<v1::Mount>,
    /// Its pod's users.
    pub users: v1::UserNamespace,
    pub devices: Vec<v1::Device>,
    /// The container whose process namespace it joins.
    pub target: Option<String>,
}

/// The configuration of one attempt of a container.
pub fn config(
    pod: &Pod,
    container: &Container,
    made: Made,
    config: &Config,
    node: &Node,
) -> Result<v1::ContainerConfig, security::Error> {
    let known: BTreeMap<_, _> = made.env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let expanded = |words: Option<&Vec<String>>| -> Vec<String> {
        let lookup = |name: &str| known.get(name).map(|value| (*value).to_owned());
        words.into_iter().flatten().map(|word| expand(word, lookup)).collect()
    };
    let mut context =
        security::container(pod, container, &made.image_user, config.seccomp_default, &config.root_dir)?;
    let mut mounts = made.mounts;
    for mount in &mut mounts {
        mount.uid_mappings.clone_from(&made.users.uids);
        mount.gid_mappings.clone_from(&made.users.gids);
    }
    if let Some(namespaces) = context.namespace_options.as_mut() {
        namespaces.userns_options = Some(made.users);
        if let Some(target) = made.target {
            namespaces.pid = v1::NamespaceMode::Target.into();
            namespaces.target_id = target;
        }
    }
    let stop_signal = container
        .lifecycle
        .as_ref()
        .and_then(|l| l.stop_signal.as_deref())
        .and_then(v1::Signal::from_str_name)
        .unwrap_or(v1::Signal::RuntimeDefault);
    Ok(v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: container.name.clone(), attempt: made.attempt }),
        image: Some(v1::ImageSpec {
            image: made.image_ref,
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..Default::default()
        }),
        command: expanded(container.command.as_ref()),
        args: expanded(container.args.as_ref()),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: made
            .env
            .iter()
            .map(|(key, value)| v1::KeyValue { key: key.clone(), value: value.clone().into_bytes() })
            .collect(),
        mounts,
        devices: made.devices,
        labels: labels::container(pod, container),
        annotations: labels::container_annotations(pod, container, made.attempt),
        log_path: format!("{}/{}.log", container.name, made.attempt),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        linux: Some(v1::LinuxContainerConfig {
            resources: Some(resources::container(pod, container, node)),
            security_context: Some(context),
        }),
        stop_signal: stop_signal.into(),
        ..Default::default()
    })
}
