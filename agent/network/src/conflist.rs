//! The CNI configuration that the container runtime reads.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::{Config, config::Plugins, plan::Mtu};

const FILE: &str = "10-windlass.conflist";
/// The network's name; host-local keeps its leases in a directory of that name.
pub(crate) const NETWORK: &str = "windlass";

/// The configuration could not be put in place.
#[derive(Debug, thiserror::Error)]
pub enum ConflistError {
    /// Without a range there is nothing to configure.
    #[error("the node has no pod CIDR")]
    NoRange,
    /// A file or directory could not be changed.
    #[error("{operation} {}", path.display())]
    Files {
        /// What failed: `create`, `write`, `replace`, `link`.
        operation: &'static str,
        /// File or directory.
        path: PathBuf,
        /// Error of the system call.
        source: io::Error,
    },
}

/// Where the configuration is.
pub(crate) fn path(config: &Config) -> PathBuf {
    config.conf_dir.join(FILE)
}

/// Writes the configuration for a node that has no API server to ask, and links the plugins.
/// Returns whether anything changed.
///
/// # Errors
/// There is no range, or a file could not be written.
pub fn write_static(config: &Config, pod_cidrs: &[IpNet]) -> Result<bool, ConflistError> {
    put(config, pod_cidrs, Mtu { link: config.settings.mtu, route: None }, Masquerade::ByPlugin)
}

/// Writes the configuration for a node whose reconciler masquerades: it knows every node's ranges.
pub(crate) fn write(config: &Config, pod_cidrs: &[IpNet], mtu: Mtu) -> Result<bool, ConflistError> {
    put(config, pod_cidrs, mtu, Masquerade::ByNode)
}

/// What an earlier one says, which holds until more is known.
pub(crate) fn written_mtu(config: &Config) -> Mtu {
    let Ok(bytes) = fs::read(path(config)) else { return Mtu::default() };
    let written: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let bytes_of = |value: &Value| value["mtu"].as_u64().and_then(|mtu| mtu.try_into().ok());
    let bridge = &written["plugins"][0];
    Mtu { link: bytes_of(bridge), route: bytes_of(&bridge["ipam"]["routes"][0]) }
}

/// Who hides pods behind the node's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Masquerade {
    ByPlugin,
    ByNode,
}

/// One range set for each family.
fn render(config: &Config, pod_cidrs: &[IpNet], mtu: Mtu, masquerade: Masquerade) -> Value {
    let ranges: Vec<Value> = pod_cidrs.iter().map(|cidr| json!([{ "subnet": cidr.trunc() }])).collect();
    let mut bridge = json!({
        "type": "bridge",
        "bridge": config.bridge,
        "isDefaultGateway": true,
        "hairpinMode": true,
        // A pod range may change with the node's name or its registration.
        "forceAddress": true,
        "ipMasq": masquerade == Masquerade::ByPlugin,
        "ipam": { "type": "host-local", "dataDir": config.data_dir, "ranges": ranges },
    });
    if let Some(socket) = &config.policy_socket {
        bridge["policySocket"] = json!(socket);
    }
    if let Some(mtu) = mtu.link {
        bridge["mtu"] = mtu.into();
    }
    if let Some(mtu) = mtu.route {
        // Pods of one node take each other's packets whatever the way between nodes is; see `overlay`.
        let everywhere = |cidr: &IpNet| if cidr.addr().is_ipv4() { "0.0.0.0/0" } else { "::/0" };
        let families: BTreeSet<&str> = pod_cidrs.iter().map(everywhere).collect();
        let routes = families.into_iter().map(|dst| json!({ "dst": dst, "mtu": mtu }));
        bridge["ipam"]["routes"] = routes.collect();
    }
    json!({
        // The newest that containerd 1.6 speaks.
        "cniVersion": "1.0.0",
        "name": NETWORK,
        "plugins": [
            bridge,
            { "type": "portmap", "capabilities": { "portMappings": true } },
            // of the annotations kubernetes.io/ingress-bandwidth and egress-bandwidth
            { "type": "bandwidth", "capabilities": { "bandwidth": true } },
        ],
    })
}

/// Whether pods get their network by our configuration in this directory: the runtime takes the first by name that it can read, and that is
/// ours, or one that has ours done (Multus).
#[must_use]
pub fn is_used(conf_dir: &Path) -> bool {
    let names = fs::read_dir(conf_dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_one = |path: &PathBuf| {
        let kind = path.extension().and_then(|kind| kind.to_str());
        matches!(kind, Some("conf" | "conflist" | "json"))
    };
    let mut paths: Vec<PathBuf> = names.filter(is_one).collect();
    paths.sort();
    let read = |path: &PathBuf| serde_json::from_slice::<Value>(&fs::read(path).ok()?).ok();
    let first = paths.iter().find_map(|path| Some((path, read(path)?)));
    first.is_none_or(|(path, configuration)| path.ends_with(FILE) || hands_on(&configuration))
}

/// A configuration of a plugin that has others do the work, us among them.
fn hands_on(configuration: &Value) -> bool {
    let is_ours = |text: &str| text == NETWORK || Path::new(text).ends_with(FILE);
    let plugins =
        configuration["plugins"].as_array().map_or(std::slice::from_ref(configuration), Vec::as_slice);
    plugins.iter().any(|plugin| {
        let delegates = plugin["delegates"].as_array().into_iter().flatten();
        let names = delegates.map(|delegate| &delegate["name"]).chain([&plugin["clusterNetwork"]]);
        names.into_iter().filter_map(Value::as_str).any(is_ours)
    })
}

fn put(
    config: &Config,
    pod_cidrs: &[IpNet],
    mtu: Mtu,
    masquerade: Masquerade,
) -> Result<bool, ConflistError> {
    if pod_cidrs.is_empty() {
        return Err(ConflistError::NoRange);
    }
    if let Some(plugins) = &config.plugins {
        link(plugins)?;
    }
    let path = path(config);
    let content = format!("{:#}\n", render(config, pod_cidrs, mtu, masquerade));
    if fs::read_to_string(&path).is_ok_and(|current| current == content) {
        return Ok(false);
    }
    fs::create_dir_all(&config.conf_dir).map_err(failed("create", &config.conf_dir))?;
    // Runtimes load every *.conf, *.conflist and *.json they see in the directory; this is none of them.
    let new = config.conf_dir.join(".10-windlass.new");
    fs::write(&new, content).map_err(failed("write", &new))?;
    fs::rename(&new, &path).map_err(failed("replace", &path))?;
    Ok(true)
}

fn link(plugins: &Plugins) -> Result<(), ConflistError> {
    fs::create_dir_all(&plugins.bin_dir).map_err(failed("create", &plugins.bin_dir))?;
    for name in ["bandwidth", "bridge", "host-local", "loopback", "portmap"] {
        let path = plugins.bin_dir.join(name);
        match std::os::unix::fs::symlink(&plugins.program, &path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => relink(plugins, &path)?,
            other => other.map_err(failed("link", &path))?,
        }
    }
    Ok(())
}

/// A link that leads nowhere was ours before the program moved, and of use to nobody.
fn relink(plugins: &Plugins, path: &Path) -> Result<(), ConflistError> {
    if path.exists() || !path.is_symlink() {
        return Ok(());
    }
    fs::remove_file(path).map_err(failed("remove dangling link", path))?;
    std::os::unix::fs::symlink(&plugins.program, path).map_err(failed("link", path))
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ConflistError {
    let path = path.to_owned();
    move |source| ConflistError::Files { operation, path, source }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn config(directory: &TempDir) -> Config {
        Config {
            conf_dir: directory.path().join("net.d"),
            data_dir: "/leases".into(),
            plugins: Some(Plugins {
                program: directory.path().join("windlass-cni"),
                bin_dir: directory.path().join("bin"),
            }),
            ..Config::new("n1")
        }
    }

    fn cidrs(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn written_once_and_again_only_if_changed() {
        let directory = TempDir::new().unwrap();
        let config = config(&directory);
        fs::create_dir_all(&config.conf_dir).unwrap();
        let other = config.conf_dir.join("05-other.conflist");
        fs::write(&other, "theirs").unwrap();
        assert!(write_static(&config, &cidrs(&["10.244.1.0/24", "fd00:1::/64"])).unwrap());
        assert!(!write_static(&config, &cidrs(&["10.244.1.0/24", "fd00:1::/64"])).unwrap());
        let path = config.conf_dir.join(FILE);
        let written: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(
            written["plugins"][0]["ipam"],
            json!({
                "type": "host-local",
                "dataDir": "/leases",
                "ranges": [[{ "subnet": "10.244.1.0/24" }], [{ "subnet": "fd00:1::/64" }]],
            })
        );
        assert_eq!(written["plugins"][0]["ipMasq"], true, "nobody else would");
        assert!(write_static(&config, &cidrs(&["10.244.2.0/24"])).unwrap());
        let mtu = Mtu { link: Some(1500), route: Some(1450) };
        assert!(write(&config, &cidrs(&["10.244.2.0/24"]), mtu).unwrap(), "now the node masquerades");
        assert_eq!(written_mtu(&config), mtu);
        assert_eq!(fs::read_to_string(&other).unwrap(), "theirs");
        assert_eq!(fs::read_dir(&config.conf_dir).unwrap().count(), 2);
    }

    #[test]
    fn pods_of_one_node_must_not_lose_each_others_packets_for_the_overlays_sake() {
        let rendered = |mtu| {
            render(&Config::new("n1"), &cidrs(&["10.244.1.0/24", "fd00:1::/64"]), mtu, Masquerade::ByNode)
        };
        let overlay = rendered(Mtu { link: Some(1500), route: Some(1430) });
        assert_eq!(overlay["plugins"][0]["mtu"], 1500);
        assert_eq!(
            overlay["plugins"][0]["ipam"]["routes"],
            json!([{ "dst": "0.0.0.0/0", "mtu": 1430 }, { "dst": "::/0", "mtu": 1430 }])
        );
        let flat = rendered(Mtu::default());
        assert_eq!(
            (&flat["plugins"][0]["mtu"], &flat["plugins"][0]["ipam"]["routes"]),
            (&Value::Null, &Value::Null)
        );
    }

    #[test]
    fn anothers_network_must_not_be_taken_for_ours() {
        let directory = TempDir::new().unwrap();
        let path = directory.path();
        assert!(is_used(path) && is_used(&path.join("nowhere")), "nobody else's");
        let write = |name: &str, text: &str| fs::write(path.join(name), text).unwrap();
        write("20-other.conflist", r#"{"name": "other", "plugins": []}"#);
        assert!(!is_used(path));
        write(FILE, "{}");
        assert!(is_used(path));
        write("05-other.conflist.bak", "{}");
        write("05-broken.conf", "{");
        assert!(is_used(path), "no runtime takes these");
        for (text, ours) in [
            (r#"{"type": "multus", "delegates": [{"name": "windlass"}]}"#, true),
            (r#"{"type": "multus", "delegates": [{"name": "other"}]}"#, false),
            (
                r#"{"plugins": [{"type": "multus", "clusterNetwork": "/etc/cni/net.d/10-windlass.conflist"}]}"#,
                true,
            ),
            (r#"{"type": "multus-shim", "clusterNetwork": "other"}"#, false),
            (r#"{"name": "cilium", "plugins": [{"type": "cilium-cni"}]}"#, false),
        ] {
            write("00-first.conf", text);
            assert_eq!(is_used(path), ours, "{text}");
        }
    }

    #[test]
    fn no_range_is_an_error_and_no_file() {
        let directory = TempDir::new().unwrap();
        assert!(matches!(write_static(&config(&directory), &[]), Err(ConflistError::NoRange)));
        assert!(!directory.path().join("net.d").exists());
    }

    #[test]
    fn plugins_of_others_stay() {
        let directory = TempDir::new().unwrap();
        let config = config(&directory);
        let bin = directory.path().join("bin");
        fs::create_dir(&bin).unwrap();
        fs::write(bin.join("portmap"), "theirs").unwrap();
        std::os::unix::fs::symlink("/nowhere/windlass-cni", bin.join("bridge")).unwrap();
        fs::write(directory.path().join("windlass-cni"), "ours").unwrap();
        write_static(&config, &cidrs(&["10.244.1.0/24"])).unwrap();
        assert_eq!(fs::read_to_string(bin.join("portmap")).unwrap(), "theirs");
        for name in ["bandwidth", "bridge", "host-local", "loopback"] {
            assert_eq!(fs::read_to_string(bin.join(name)).unwrap(), "ours");
        }
    }
}
