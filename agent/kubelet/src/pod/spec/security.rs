//! Security contexts: the pod's, overridden by the container's, as the runtime takes them.

use std::path::Path;

use cri_proto::v1;
use cri_proto::v1::security_profile::ProfileType;
use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, SELinuxOptions, SecurityContext};

/// What an image says about the user it runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageUser {
    /// Numeric.
    pub uid: Option<i64>,
    pub name: String,
}

/// A security context that cannot be granted; the texts are upstream's.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `runAsNonRoot` and the user is 0.
    #[error("container's runAsUser breaks non-root policy (pod: \"{pod}\", container: {container})")]
    RunsAsRoot { pod: String, container: String },
    /// `runAsNonRoot` and the image's user is 0.
    #[error("container has runAsNonRoot and image will run as root (pod: \"{pod}\", container: {container})")]
    ImageRunsAsRoot { pod: String, container: String },
    /// `runAsNonRoot` and the image's user is a name.
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root \
         (pod: \"{pod}\", container: {container})"
    )]
    ImageUserUnknown { user: String, pod: String, container: String },
    /// A localhost profile without its name.
    #[error("localhostProfile must be set if {0} profile type is Localhost.")]
    NoLocalhostProfile(&'static str),
}

/// Paths of /proc and /sys that containers must not read, unless `procMount` is `Unmasked`.
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// Paths they must not write.
const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn of_pod(pod: &Pod) -> Option<&PodSecurityContext> {
    pod.spec.as_ref()?.security_context.as_ref()
}

/// The namespaces a pod's containers share with it or the host.
pub fn namespaces(pod: &Pod) -> v1::NamespaceOption {
    let spec = pod.spec.as_ref();
    let on = |flag: Option<Option<bool>>| flag.flatten().unwrap_or(false);
    let host_or_pod = |host| if host { v1::NamespaceMode::Node } else { v1::NamespaceMode::Pod };
    let pid = if on(spec.map(|s| s.host_pid)) {
        v1::NamespaceMode::Node
    } else if on(spec.map(|s| s.share_process_namespace)) {
        v1::NamespaceMode::Pod
    } else {
        v1::NamespaceMode::Container
    };
    v1::NamespaceOption {
        network: host_or_pod(crate::pod::host_network(pod)).into(),
        ipc: host_or_pod(on(spec.map(|s| s.host_ipc))).into(),
        pid: pid.into(),
        ..Default::default()
    }
}

/// The sandbox's security context. Its own process always has the runtime's seccomp profile, whatever the pod's have.
pub fn sandbox(pod: &Pod) -> v1::LinuxSandboxSecurityContext {
    let own = of_pod(pod);
    let privileged = crate::pod::containers(pod)
        .any(|(_, c)| c.security_context.as_ref().and_then(|s| s.privileged) == Some(true));
    v1::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod)),
        selinux_options: own.and_then(|o| o.se_linux_options.as_ref()).map(selinux),
        run_as_user: own.and_then(|o| o.run_as_user).map(|value| v1::Int64Value { value }),
        run_as_group: own.and_then(|o| o.run_as_group).map(|value| v1::Int64Value { value }),
        supplemental_groups: groups(own),
        supplemental_groups_policy: groups_policy(own).into(),
        privileged,
        seccomp: Some(profile(ProfileType::RuntimeDefault, String::new())),
        ..Default::default()
    }
}

/// A container's security context. `image` is needed to judge `runAsNonRoot` and for the default user.
pub fn container(
    pod: &Pod,
    container: &Container,
    image: &ImageUser,
    seccomp_default: bool,
    root: &Path,
) -> Result<v1::LinuxContainerSecurityContext, Error> {
    let pods = of_pod(pod);
    let empty = SecurityContext::default();
    let own = container.security_context.as_ref().unwrap_or(&empty);
    let user = own.run_as_user.or_else(|| pods.and_then(|p| p.run_as_user));
    let non_root = own.run_as_non_root.or_else(|| pods.and_then(|p| p.run_as_non_root));
    if non_root == Some(true) {
        verify_non_root(pod, container, user, image)?;
    }
    let privileged = own.privileged == Some(true);
    let unmasked = own.proc_mount.as_deref() == Some("Unmasked");
    let shown = |paths: Vec<String>| if unmasked { Vec::new() } else { paths };
    let options = own.se_linux_options.as_ref().or_else(|| pods.and_then(|p| p.se_linux_options.as_ref()));
    // A privileged container has no seccomp profile, whatever is asked: upstream and runtimes agree.
    let seccomp = if privileged {
        profile(ProfileType::Unconfined, String::new())
    } else {
        seccomp(pods, Some(own), seccomp_default, root)?
    };
    let (run_as_user, run_as_username) = match (user, image.uid, image.name.is_empty()) {
        (Some(value), _, _) | (None, Some(value), _) => (Some(v1::Int64Value { value }), String::new()),
        (None, None, false) => (None, image.name.clone()),
        (None, None, true) => (None, String::new()),
    };
    Ok(v1::LinuxContainerSecurityContext {
        capabilities: own.capabilities.as_ref().map(|c| v1::Capability {
            add_capabilities: c.add.clone().unwrap_or_default(),
            drop_capabilities: c.drop.clone().unwrap_or_default(),
            ..Default::default()
        }),
        privileged,
        namespace_options: Some(namespaces(pod)),
        selinux_options: options.map(selinux),
        run_as_user,
        run_as_group: own
            .run_as_group
            .or_else(|| pods.and_then(|p| p.run_as_group))
            .map(|value| v1::Int64Value { value }),
        run_as_username,
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups: groups(pods),
        supplemental_groups_policy: groups_policy(pods).into(),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: shown(masked(Path::new("/sys/devices/system/cpu"))),
        readonly_paths: shown(READONLY.map(str::to_owned).to_vec()),
        seccomp: Some(seccomp),
        apparmor: apparmor(pods, own)?,
        ..Default::default()
    })
}

/// What containers must not read on this machine: also how hot its processors, which are folders of `cpus`, were.
fn masked(cpus: &Path) -> Vec<String> {
    let folders = std::fs::read_dir(cpus).into_iter().flatten().flatten();
    let number = |name: &str| name.strip_prefix("cpu")?.parse::<u32>().ok();
    let mut hot: Vec<(u32, String)> = folders
        .filter_map(|folder| {
            let path = folder.path().join("thermal_throttle");
            let number = number(folder.file_name().to_str()?)?;
            path.exists().then(|| (number, path.to_string_lossy().into_owned()))
        })
        .collect();
    hot.sort();
    MASKED.map(str::to_owned).into_iter().chain(hot.into_iter().map(|(_, path)| path)).collect()
}

fn verify_non_root(
    pod: &Pod,
    container: &Container,
    user: Option<i64>,
    image: &ImageUser,
) -> Result<(), Error> {
    let who = || (crate::pod::described(pod), container.name.clone());
    match (user, image.uid) {
        (Some(0), _) => {
            let (pod, container) = who();
            Err(Error::RunsAsRoot { pod, container })
        }
        (Some(_), _) => Ok(()),
        (None, _) if !image.name.is_empty() => {
            let (pod, container) = who();
            Err(Error::ImageUserUnknown { user: image.name.clone(), pod, container })
        }
        (None, Some(0) | None) => {
            let (pod, container) = who();
            Err(Error::ImageRunsAsRoot { pod, container })
        }
        (None, Some(_)) => Ok(()),
    }
}

fn groups(pods: Option<&PodSecurityContext>) -> Vec<i64> {
    let mut all = pods.and_then(|p| p.supplemental_groups.clone()).unwrap_or_default();
    all.extend(pods.and_then(|p| p.fs_group));
    all
}

fn groups_policy(pods: Option<&PodSecurityContext>) -> v1::SupplementalGroupsPolicy {
    match pods.and_then(|p| p.supplemental_groups_policy.as_deref()) {
        Some("Strict") => v1::SupplementalGroupsPolicy::Strict,
        _ => v1::SupplementalGroupsPolicy::Merge,
    }
}

fn selinux(options: &SELinuxOptions) -> v1::SeLinuxOption {
    v1::SeLinuxOption {
        user: options.user.clone().unwrap_or_default(),
        role: options.role.clone().unwrap_or_default(),
        r#type: options.type_.clone().unwrap_or_default(),
        level: options.level.clone().unwrap_or_default(),
    }
}

fn profile(profile_type: ProfileType, localhost_ref: String) -> v1::SecurityProfile {
    v1::SecurityProfile { profile_type: profile_type.into(), localhost_ref }
}

fn seccomp(
    pods: Option<&PodSecurityContext>,
    own: Option<&SecurityContext>,
    runtime_default: bool,
    root: &Path,
) -> Result<v1::SecurityProfile, Error> {
    let chosen = own
        .and_then(|o| o.seccomp_profile.as_ref())
        .or_else(|| pods.and_then(|p| p.seccomp_profile.as_ref()));
    let Some(chosen) = chosen else {
        let kind = if runtime_default { ProfileType::RuntimeDefault } else { ProfileType::Unconfined };
        return Ok(profile(kind, String::new()));
    };
    Ok(match chosen.type_.as_str() {
        "RuntimeDefault" => profile(ProfileType::RuntimeDefault, String::new()),
        "Localhost" => {
            let name = chosen.localhost_profile.as_deref().filter(|name| !name.is_empty());
            let name = name.ok_or(Error::NoLocalhostProfile("seccomp"))?;
            let path = root.join("seccomp").join(name);
            profile(ProfileType::Localhost, path.to_string_lossy().into_owned())
        }
        _ => profile(ProfileType::Unconfined, String::new()),
    })
}

fn apparmor(
    pods: Option<&PodSecurityContext>,
    own: &SecurityContext,
) -> Result<Option<v1::SecurityProfile>, Error> {
    let chosen = own.app_armor_profile.as_ref().or_else(|| pods.and_then(|p| p.app_armor_profile.as_ref()));
    let Some(chosen) = chosen else { return Ok(None) };
    Ok(Some(match chosen.type_.as_str() {
        "Unconfined" => profile(ProfileType::Unconfined, String::new()),
        "Localhost" => {
            let name = chosen.localhost_profile.as_deref().filter(|name| !name.is_empty());
            profile(ProfileType::Localhost, name.ok_or(Error::NoLocalhostProfile("AppArmor"))?.to_owned())
        }
        _ => profile(ProfileType::RuntimeDefault, String::new()),
    }))
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "json!() arguments read better by value")]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn translated(
        pods: Value,
        own: Value,
        image: &ImageUser,
    ) -> Result<v1::LinuxContainerSecurityContext, Error> {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"securityContext": pods, "containers": [{"name": "c", "securityContext": own}]}}))
            .unwrap();
        container(&pod, &pod.spec.as_ref().unwrap().containers[0], image, false, Path::new("/k"))
    }

    fn image(uid: Option<i64>, name: &str) -> ImageUser {
        ImageUser { uid, name: name.to_owned() }
    }

    #[test]
    fn the_container_overrides_the_pod() {
        let got = translated(
            json!({"runAsUser": 1, "runAsGroup": 2, "fsGroup": 5, "supplementalGroups": [4]}),
            json!({"runAsUser": 7, "allowPrivilegeEscalation": false, "seccompProfile": {"type": "Localhost", "localhostProfile": "a.json"}}),
            &image(None, ""),
        )
        .unwrap();
        assert_eq!(got.run_as_user.unwrap().value, 7);
        assert_eq!(got.run_as_group.unwrap().value, 2);
        assert_eq!(got.supplemental_groups, [4, 5]);
        assert!(got.no_new_privs);
        assert_eq!(got.seccomp.unwrap().localhost_ref, "/k/seccomp/a.json");
        assert!(got.masked_paths.contains(&"/proc/kcore".to_owned()));
    }

    #[test]
    fn the_heat_of_processors_must_not_be_readable() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["cpu10/thermal_throttle", "cpu2/thermal_throttle", "cpu3", "cpufreq/thermal_throttle"] {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        let all = masked(dir.path());
        assert_eq!(all[MASKED.len()..], [path("cpu2/thermal_throttle"), path("cpu10/thermal_throttle")]);
        assert_eq!(masked(&dir.path().join("absent")), MASKED);
    }

    #[test]
    fn a_sandbox_must_not_run_unconfined_because_its_pod_does() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [{"name": "c"}],
            "securityContext": {"seccompProfile": {"type": "Unconfined"}}}}))
        .unwrap();
        assert_eq!(sandbox(&pod).seccomp.unwrap().profile_type(), ProfileType::RuntimeDefault);
    }

    #[test]
    fn non_root_is_verified() {
        let non_root = json!({"runAsNonRoot": true});
        let text =
            |own: Value, user| translated(non_root.clone(), own, &user).err().map(|error| error.to_string());
        assert_eq!(text(json!({}), image(Some(1000), "")), None);
        assert_eq!(text(json!({"runAsUser": 5}), image(Some(0), "")), None);
        assert_eq!(text(json!({"runAsNonRoot": false}), image(Some(0), "")), None);
        assert_eq!(
            text(json!({}), image(Some(0), "")).unwrap(),
            "container has runAsNonRoot and image will run as root (pod: \"p_n(u)\", container: c)"
        );
        assert!(text(json!({}), image(None, "nobody")).unwrap().contains("non-numeric user (nobody)"));
        assert!(
            text(json!({"runAsUser": 0}), image(Some(1), "")).unwrap().contains("breaks non-root policy")
        );
    }
}
