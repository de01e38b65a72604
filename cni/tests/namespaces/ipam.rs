//! host-local: many processes at once, and the other plugin that may grant addresses.

use std::{collections::BTreeSet, os::unix::fs::PermissionsExt};

use serde_json::{Value, json};

use crate::lab::{Lab, Netns};

fn conf(lab: &Lab, subnet: &str) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "type": "host-local",
        "ipam": { "type": "host-local", "dataDir": lab.leases(), "ranges": [[{ "subnet": subnet }]] },
    })
}

#[test]
fn processes_that_race_get_different_addresses() {
    let lab = Lab::new();
    let conf = conf(&lab, "10.88.0.0/25");
    // 125 addresses for 8 at a time, each asking 20 times and giving every other one back.
    let held: Vec<String> = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..8)
            .map(|racer| {
                let (lab, conf) = (&lab, &conf);
                scope.spawn(move || {
                    let mut held = Vec::new();
                    for turn in 0..20 {
                        let id = format!("r{racer}t{turn}");
                        let result = lab.call("ADD", conf, &id, "/unused").ok();
                        if turn % 2 == 0 {
                            held.push(result["ips"][0]["address"].as_str().unwrap().to_owned());
                        } else {
                            lab.call("DEL", conf, &id, "").ok();
                        }
                    }
                    held
                })
            })
            .collect();
        racers.into_iter().flat_map(|racer| racer.join().unwrap()).collect()
    });
    assert_eq!(held.len(), 80);
    assert_eq!(held.iter().collect::<BTreeSet<_>>().len(), 80);
    let leased: BTreeSet<String> = lab.leased("pods").into_iter().collect();
    let held: BTreeSet<String> = held.iter().map(|address| address.replace("/25", "")).collect();
    assert_eq!(leased, held);
}

#[test]
fn leases_look_as_upstream_writes_them() {
    let lab = Lab::new();
    lab.call("ADD", &conf(&lab, "10.88.0.0/24"), "abc", "/unused").ok();
    let lease = std::fs::read_to_string(lab.leases().join("pods/10.88.0.2")).unwrap();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_eq!(lease, format!("abc\r\neth0\r\n{}", boot.trim()));
    let last = std::fs::read_to_string(lab.leases().join("pods/last_reserved_ip.0")).unwrap();
    assert_eq!(last, "10.88.0.2");
}

#[test]
fn another_plugin_may_grant_addresses() {
    let lab = Lab::new();
    let log = lab.state.path().join("log");
    let plugin = lab.state.path().join("bin/fixed");
    let script = format!(
        r#"#!/bin/sh
        /bin/cat >/dev/null
        echo "$CNI_COMMAND $CNI_CONTAINERID" >> {}
        [ "$CNI_CONTAINERID" = bad ] && echo '{{"code": 11, "msg": "later", "details": "busy"}}' && exit 1
        [ "$CNI_COMMAND" = ADD ] && echo '{{"cniVersion": "1.0.0", "ips": [{{"address": "192.0.2.9/24"}}]}}'
        exit 0"#,
        log.display()
    );
    std::fs::write(&plugin, script).unwrap();
    std::fs::set_permissions(&plugin, std::fs::Permissions::from_mode(0o755)).unwrap();
    let (mut conf, netns) = (lab.bridge_conf(), Netns::new());
    conf["ipam"] = json!({ "type": "fixed", "anything": { "goes": true } });
    let result = lab.call("ADD", &conf, "a", &netns.path()).ok();
    assert_eq!(result["ips"][0]["gateway"], "192.0.2.1");
    lab.call("DEL", &conf, "a", &netns.path()).ok();
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "ADD a\nDEL a\n");
    let (code, message) = lab.call("ADD", &conf, "bad", &netns.path()).error();
    assert_eq!((code, message.as_str()), (11, "plugin type=\"fixed\" failed (ADD): later"));
    conf["ipam"]["type"] = "nonesuch".into();
    let (code, message) = lab.call("ADD", &conf, "c", &netns.path()).error();
    assert_eq!(code, 7);
    assert!(message.contains("failed to find plugin \"nonesuch\""), "{message}");
}
