//! Host ports of pods, once somebody took all of nftables' tables away (`nft flush ruleset`, a reload of the host's own firewall): no plugin would be
//! asked again before a pod begins anew.
//!
//! What each attachment asked for is in libcni's results. The plugin is asked for the same once more; where its rules are still there it refuses, and nothing
//! changes.

use std::{fs, io, path::Path};

use serde_json::{Value, json};

use crate::{
    Config, conflist,
    garbage::{Attached, GarbageError, ask, plugins},
};

const PLUGIN: &str = "portmap";

/// An attachment that asked for host ports.
#[derive(Clone, Debug, PartialEq)]
struct Asked {
    attached: Attached,
    /// As the runtime said them.
    mappings: Value,
    /// What the plugins before had made.
    result: Value,
}

impl Asked {
    /// Of a result as libcni keeps it (`libcni/api.go`, `cniCacheV1`); none of another network, or without ports.
    fn read(kept: &Value) -> Option<Self> {
        let text = |field: &str| kept[field].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let mappings = kept.pointer("/capabilityArgs/portMappings")?;
        let some = mappings.as_array().is_some_and(|mappings| !mappings.is_empty());
        (some && text("networkName")? == conflist::NETWORK && kept["result"].is_object()).then_some(())?;
        let attached = Attached { container: text("containerId")?, interface: text("ifName")? };
        Some(Self { attached, mappings: mappings.clone(), result: kept["result"].clone() })
    }

    /// The plugin's configuration, as libcni gives it.
    fn configuration(&self, plugin: &Value) -> Value {
        let mut configuration = plugin.clone();
        configuration["runtimeConfig"] = json!({ "portMappings": self.mappings });
        configuration["prevResult"] = self.result.clone();
        configuration
    }
}

/// The attachments of our network with host ports; what cannot be read has none.
fn asked(results: &Path) -> io::Result<Vec<Asked>> {
    let entries = match fs::read_dir(results) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let read = |entry: io::Result<fs::DirEntry>| {
        Asked::read(&serde_json::from_slice(&fs::read(entry.ok()?.path()).ok()?).ok()?)
    };
    Ok(entries.filter_map(read).collect())
}

/// Asks for them again, and says for how many attachments that changed something.
///
/// # Errors
/// Our configuration or the results cannot be read, or the plugin cannot be run.
pub(crate) async fn restore(config: &Config, results: &Path) -> Result<usize, GarbageError> {
    let Some(plugin) = plugins(config).await?.into_iter().find(|plugin| plugin["type"] == PLUGIN) else {
        return Ok(0);
    };
    let asked = asked(results).map_err(|error| GarbageError::Read(results.to_owned(), error))?;
    let mut restored = 0;
    for asked in asked {
        match ask(config, &asked.configuration(&plugin), "ADD", Some(&asked.attached)).await {
            Ok(()) => restored += 1,
            // They are there, or another's by now.
            Err(GarbageError::Refused { said, .. }) => {
                tracing::debug!(container = asked.attached.container, said, "host ports stay as they are");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(restored)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(network: &str, mappings: &Value) -> Value {
        json!({
            "kind": "cniCacheV1", "containerId": "c1", "ifName": "eth0", "networkName": network, "config": "e30=",
            "capabilityArgs": {"portMappings": mappings}, "result": {"cniVersion": "1.0.0", "ips": []},
        })
    }

    #[test]
    fn host_ports_that_others_took_away_must_not_stay_away() {
        let ports = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]);
        let asked = Asked::read(&kept(conflist::NETWORK, &ports)).unwrap();
        assert_eq!((asked.attached.container.as_str(), asked.attached.interface.as_str()), ("c1", "eth0"));
        let plugin = json!({"type": PLUGIN, "name": conflist::NETWORK, "cniVersion": "1.0.0"});
        let configuration = asked.configuration(&plugin);
        assert_eq!(configuration["runtimeConfig"]["portMappings"], ports);
        assert_eq!(configuration["prevResult"]["cniVersion"], "1.0.0");
        assert_eq!(configuration["name"], conflist::NETWORK);
    }

    #[test]
    fn only_attachments_of_our_network_with_ports_are_asked_for_again() {
        let ports = json!([{"hostPort": 8080, "containerPort": 80}]);
        assert_eq!(Asked::read(&kept("others", &ports)), None);
        assert_eq!(Asked::read(&kept(conflist::NETWORK, &json!([]))), None);
        let mut torn = kept(conflist::NETWORK, &ports);
        torn["result"] = Value::Null;
        assert_eq!(Asked::read(&torn), None);
        assert_eq!(Asked::read(&json!({"result": {}})), None);
        let directory = tempfile::tempdir().unwrap();
        let put = |name: &str, text: String| fs::write(directory.path().join(name), text).unwrap();
        put("windlass-1-eth0", kept(conflist::NETWORK, &ports).to_string());
        put("windlass-2-eth0", "{\"kind".to_owned());
        put("others-1-eth0", kept("others", &ports).to_string());
        assert_eq!(asked(directory.path()).unwrap().len(), 1);
        assert!(asked(&directory.path().join("nowhere")).unwrap().is_empty());
    }
}
