//! containerd, what it runs containers by, and the programs beside it.

use super::{Finding, error, install, kubelet_setting, restart, version, warning};
use crate::check::facts::{Cgroups, Facts, Wanted};

const OLDEST_CONTAINERD: (u32, u32) = (1, 6);
const OLDEST_NFT: (u32, u32) = (1, 0);
/// The sandbox image that units import before each start, from their release.
const OWN_IMAGE: &str = "localhost/windlass-pause:1";

/// What edits those of containerd's files that have a text, by a line of sed, and has containerd read them.
fn edit(facts: &Facts, text: &str, sed: &str) -> Vec<String> {
    let files = facts.containerd_files.iter().filter(|(_, content)| content.contains(text));
    let files: Vec<String> = files.map(|(path, _)| path.display().to_string()).collect();
    if files.is_empty() {
        return Vec::new();
    }
    [format!("sed -i {sed} {}", files.join(" "))].into_iter().chain(restart(facts, "containerd")).collect()
}

pub(super) fn containerd(facts: &Facts, wanted: &Wanted) -> Vec<Finding> {
    if wanted.is_other_runtime {
        return Vec::new();
    }
    let Some(text) = &facts.containerd else {
        return vec![
            error("containerd-absent", "containerd is not installed", "install it (install.sh does)")
                .by(install(facts, "containerd")),
        ];
    };
    let mut found = Vec::new();
    // "containerd github.com/containerd/containerd 1.6.20~ds1 ..."
    let words: Vec<&str> = text.split_whitespace().skip(2).collect();
    if version(&words.join(" ")).is_none_or(|version| version < OLDEST_CONTAINERD) {
        let remedy = "install containerd 1.6 or newer, of a newer distribution or of its own project";
        found.push(error("containerd-old", format!("{text:?} is older than 1.6"), remedy));
    }
    if !facts.has_low_level_runtime {
        found.push(
            error("runc-absent", "neither runc nor crun is installed", "install one of them")
                .by(install(facts, "runc")),
        );
    }
    if !facts.containerd_runs {
        let what = "containerd does not answer on /run/containerd/containerd.sock";
        let remedy = "start it; `journalctl -u containerd` says why where it does not";
        let start = facts.systemd.then_some("systemctl enable --now containerd");
        found.push(error("containerd-stopped", what, remedy).by(start));
    }
    match &facts.containerd_config {
        None => found.push(error(
            "containerd-unreadable",
            "containerd cannot read its configuration",
            "see what `containerd config dump` says, and mend /etc/containerd/config.toml",
        )),
        Some(config) if disables_cri(config) => {
            let names = r#"'/^ *disabled_plugins/s/"\(io\.containerd\.grpc\.v1\.\)\?cri",\? *//'"#;
            found.push(
                error(
                    "cri-disabled",
                    "containerd's CRI plugin is disabled",
                    "take \"cri\" out of disabled_plugins in /etc/containerd/config.toml, and restart containerd",
                )
                .by(edit(facts, "disabled_plugins", names)),
            );
        }
        Some(_) => {}
    }
    found
}

fn disables_cri(config: &str) -> bool {
    let disables = |line: &str| {
        line.trim_start().starts_with("disabled_plugins")
            && ["\"cri\"", "io.containerd.grpc.v1.cri\""].iter().any(|name| line.contains(name))
    };
    config.lines().any(disables)
}

/// containerd's cgroup driver for runc, as its configuration says it.
fn runtime_driver(config: &str) -> &'static str {
    let mut inside = false;
    for line in config.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = ["runtimes.runc.options", "runtimes.\"runc\".options", "runtimes.'runc'.options"]
                .iter()
                .any(|section| line.contains(section));
        } else if inside && line.starts_with("SystemdCgroup") && line.ends_with("true") {
            return "systemd";
        }
    }
    "cgroupfs"
}

pub(super) fn cgroup_driver(facts: &Facts, wanted: &Wanted) -> Vec<Finding> {
    if wanted.is_other_runtime {
        return Vec::new();
    }
    // A plugin that is disabled says nothing of its settings.
    let config = facts.containerd_config.as_ref().filter(|config| !disables_cri(config));
    let Some(config) = config else { return Vec::new() };
    let (runtime, kubelet) = (runtime_driver(config), facts.kubelet_driver.as_deref().unwrap_or("cgroupfs"));
    let by_systemd = facts.systemd && matches!(facts.cgroups, Some(Cgroups::Unified(_)));
    if runtime == kubelet && (runtime == "systemd" || !by_systemd) {
        return Vec::new();
    }
    // Of two that differ the one changes that is not as the machine has it.
    let driver = if by_systemd { "systemd" } else { "cgroupfs" };
    let mut commands = Vec::new();
    let mut known = true;
    if runtime != driver {
        let sed = format!("'s/SystemdCgroup *=.*/SystemdCgroup = {by_systemd}/'");
        let edits = edit(facts, "SystemdCgroup", &sed);
        known = !edits.is_empty();
        commands.extend(edits);
    }
    if kubelet != driver {
        commands.extend(kubelet_setting(wanted, "cgroupDriver", driver));
    }
    if !known {
        commands.clear();
    }
    let remedy = format!(
        "run install.sh again, which sets the driver {driver} for both; by hand: SystemdCgroup = {by_systemd} for runc in containerd's configuration, cgroupDriver: {driver} in the kubelet's"
    );
    let finding = if runtime == kubelet {
        warning("cgroup-driver-cgroupfs", "systemd and cgroupfs both manage cgroups", remedy)
    } else {
        let found = format!("containerd's cgroup driver is {runtime}, the kubelet's {kubelet}");
        error("cgroup-drivers-differ", found, remedy)
    };
    vec![finding.by(commands)]
}

/// The image of sandboxes, as containerd's configuration names it: `sandbox_image = "..."`, from 2.0 on `sandbox = '...'` among pinned images.
fn sandbox_image_of(config: &str) -> Option<&str> {
    fn value(line: &str) -> Option<&str> {
        let (key, value) = line.split_once('=')?;
        let value = value.trim().trim_matches(['"', '\'']);
        (["sandbox_image", "sandbox"].contains(&key.trim()) && value.contains('/')).then_some(value)
    }
    config.lines().find_map(value)
}

pub(super) fn sandbox_image(facts: &Facts, wanted: &Wanted) -> Vec<Finding> {
    if wanted.is_other_runtime {
        return Vec::new();
    }
    let named = facts.containerd_config.as_deref().and_then(sandbox_image_of);
    let Some((image, images)) = named.zip(facts.images.as_ref()) else { return Vec::new() };
    // Our own is imported before each start.
    let comes = image == OWN_IMAGE && facts.own_image.is_some() && !wanted.is_running;
    if images.contains(image) || comes {
        return Vec::new();
    }
    let found = format!("containerd does not have the sandbox image {image}: it is pulled for the first pod");
    let remedy = format!(
        "nothing where its registry is reached; else import it, or have containerd take {OWN_IMAGE} (install.sh does)"
    );
    let Some(archive) = &facts.own_image else { return vec![warning("sandbox-image-absent", found, remedy)] };
    let mut commands = vec![format!("ctr -n k8s.io images import {}", archive.display())];
    if image != OWN_IMAGE {
        let sed = format!(r#"'s|^\([[:space:]]*sandbox\(_image\)\? *= *\).*/.*|\1"{OWN_IMAGE}"|'"#);
        let edits = edit(facts, image, &sed);
        if edits.is_empty() {
            commands.clear();
        }
        commands.extend(edits);
    }
    vec![warning("sandbox-image-absent", found, remedy).by(commands)]
}

pub(super) fn nftables(facts: &Facts, _: &Wanted) -> Vec<Finding> {
    match &facts.nft {
        None => {
            vec![error("nft-absent", "nft is not installed", "install it").by(install(facts, "nftables"))]
        }
        Some(text) if version(text).is_none_or(|version| version < OLDEST_NFT) => {
            let found = format!("{text:?} is older than 1.0");
            vec![error("nft-old", found, "install nftables 1.0 or newer").by(install(facts, "nftables"))]
        }
        Some(_) => Vec::new(),
    }
}

pub(super) fn selinux(facts: &Facts, _: &Wanted) -> Vec<Finding> {
    if !facts.selinux {
        return Vec::new();
    }
    let labels = |config: &String| config.lines().any(|line| line.trim() == "enable_selinux = true");
    let enable = || edit(facts, "enable_selinux", "'s/enable_selinux *=.*/enable_selinux = true/'");
    if !facts.selinux_policy {
        return vec![
            error(
                "selinux-no-policy",
                "SELinux is enforcing and has no policy for containers",
                "install container-selinux, and have containerd label containers: enable_selinux = true in its CRI configuration",
            )
            .by(install(facts, "container-selinux"))
            .by(enable()),
        ];
    }
    if !facts.containerd_config.as_ref().is_some_and(labels) {
        return vec![
            warning(
                "selinux-unlabelled",
                "SELinux is enforcing, but containerd labels no containers",
                "enable_selinux = true in containerd's CRI configuration, and restart containerd",
            )
            .by(enable()),
        ];
    }
    Vec::new()
}

pub(super) fn apparmor(facts: &Facts, _: &Wanted) -> Vec<Finding> {
    if !facts.apparmor || facts.apparmor_parser {
        return Vec::new();
    }
    vec![
        warning(
            "apparmor-no-parser",
            "AppArmor is on, but apparmor_parser is not installed: containers run without a profile",
            "install it, and restart containerd",
        )
        .by(install(facts, "apparmor"))
        .by(restart(facts, "containerd")),
    ]
}
