//! The CNI protocol: versions, error codes, and complaints that name the field.

use serde_json::{Value, json};

use crate::lab::{Lab, Netns};

#[test]
fn bad_configurations_name_the_field_and_touch_nothing() {
    let lab = Lab::new();
    let netns = Netns::new();
    let cases: [(&str, Value, u64, &str); 13] = [
        ("/cniVersion", json!("0.2.1"), 1, "0.2.1"),
        ("/cniVersion", json!(1), 6, "cniVersion"),
        ("/name", json!(""), 7, "missing network name"),
        ("/name", json!("../../etc"), 7, "name"),
        ("/isGateway", json!("yes"), 6, "isGateway"),
        ("/mtu", json!(-5), 6, "mtu"),
        ("/mtu", json!(20), 7, "mtu"),
        ("/vlan", json!(100), 2, "vlan: 100"),
        ("/dns", json!({ "nameservers": "10.96.0.10" }), 6, "dns"),
        ("/ipMasqBackend", json!("ebtables"), 2, "ipMasqBackend: \"ebtables\""),
        ("/bridge", json!("a/b"), 7, "bridge"),
        ("/mac", json!("nonsense"), 7, "mac"),
        ("/ipam/ranges", json!([[{ "subnet": "10.0.0.0/33" }]]), 7, "ipam.ranges[0][0].subnet"),
    ];
    for (pointer, value, code, words) in cases {
        let mut conf = lab.bridge_conf();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        conf.pointer_mut(parent).unwrap()[name] = value.clone();
        let (found, message) = lab.call("ADD", &conf, "a", &netns.path()).error();
        assert_eq!(found, code, "{pointer}={value}: {message}");
        assert!(message.contains(words), "{pointer}={value}: {message}");
    }
    assert!(!lab.host.sh("ip link").contains("cni0"));
    assert!(!lab.leases().exists());
}

#[test]
fn bad_calls_have_the_specifications_codes() {
    let lab = Lab::new();
    let conf = lab.bridge_conf();
    assert_eq!(
        lab.call("ADD", &conf, "a", "").error(),
        (4, "required env variables [CNI_NETNS] missing".into())
    );
    assert_eq!(lab.call("ADDD", &conf, "a", "").error(), (4, "unknown CNI_COMMAND: ADDD".into()));
    assert_eq!(lab.call("ADD", &conf, "a", "/run/netns/none").error().0, 3);
    assert_eq!(lab.call("ADD", &conf, "a", "/proc/self/status").error().0, 8);
    assert_eq!(lab.call("ADD", &conf, "a", &lab.host.path()).error().0, 8, "the host's own namespace");
    let args = [("CNI_ARGS", "UNHEARD=1")];
    assert_eq!(lab.call_with("ADD", &conf, "a", &Netns::new().path(), &args).error().0, 4);
    let mut old = conf.clone();
    old["cniVersion"] = "0.3.1".into();
    assert_eq!(
        lab.call("CHECK", &old, "a", "/x").error(),
        (1, "config version 0.3.1 does not allow CHECK".into())
    );
    assert_eq!(
        lab.call("GC", &conf, "a", "/x").error(),
        (1, "config version 1.0.0 does not allow GC".into())
    );
    assert!(!lab.leases().join("pods/lock").exists());
}

#[test]
fn every_version_gets_its_own_shape() {
    let lab = Lab::new();
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let (mut conf, netns) = (lab.bridge_conf(), Netns::new());
        conf["cniVersion"] = version.into();
        let result = lab.call("ADD", &conf, version, &netns.path()).ok();
        assert_eq!(result["cniVersion"], version);
        if version < "0.3.0" {
            assert_eq!(result["ip4"]["gateway"], "10.88.0.1");
            assert_eq!(result["ip6"]["routes"], json!([{ "dst": "::/0", "gw": "fd00:88::1" }]));
        } else {
            assert_eq!(result["ips"][0].get("version").is_some(), version.starts_with("0."));
            assert_eq!(result["interfaces"][0].get("mtu").is_some(), version == "1.1.0");
        }
        conf["prevResult"] = result;
        if version >= "0.4.0" {
            lab.call("CHECK", &conf, version, &netns.path()).ok();
        }
        lab.call("DEL", &conf, version, &netns.path()).ok();
    }
    let printed = lab.call("VERSION", &json!({ "cniVersion": "0.4.0", "type": "bridge" }), "", "").ok();
    assert_eq!(
        printed,
        json!({ "cniVersion": "0.4.0", "supportedVersions": ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] })
    );
}

#[test]
fn a_configuration_without_a_version_must_not_fail() {
    let lab = Lab::new();
    let (mut conf, netns) = (lab.bridge_conf(), Netns::new());
    conf.as_object_mut().unwrap().remove("cniVersion");
    let result = lab.call("ADD", &conf, "a", &netns.path()).ok();
    assert_eq!((&result["cniVersion"], &result["ip4"]["ip"]), (&json!("0.1.0"), &json!("10.88.0.2/24")));
    // A runtime hands the result to the next plugin of the list as it was printed.
    conf["prevResult"] = result.clone();
    conf["runtimeConfig"] = json!({ "portMappings": [{ "hostPort": 8080, "containerPort": 80 }] });
    conf["type"] = "portmap".into();
    assert_eq!(lab.call("ADD", &conf, "a", &netns.path()).ok_with_remarks(), result);
    assert!(lab.host.sh("nft list map inet windlass-cni hostports4").contains("10.88.0.2 . 80"));
}

#[test]
fn keys_nobody_knows_are_told_and_must_not_fail_a_file() {
    let lab = Lab::new();
    let (mut conf, netns) = (lab.bridge_conf(), Netns::new());
    conf["isGatewy"] = true.into();
    conf["ipMasq"] = true.into();
    conf["ipMasqBackend"] = "iptables".into();
    conf["enabledad"] = true.into();
    conf["ipam"]["rangs"] = json!([]);
    conf["ipam"]["ranges"][0][0]["gatway"] = "10.88.0.9".into();
    conf["cni.dev/anything"] = 1.into();
    let added = lab.call("ADD", &conf, "a", &netns.path());
    let told: Vec<&str> = added.remarks.lines().collect();
    assert_eq!(told.len(), 5, "{told:?}");
    for words in
        ["isGatewy: true", "ipMasqBackend", "enabledad", "ipam.rangs: []", "ipam.ranges[0][0].gatway"]
    {
        assert!(told.iter().any(|line| line.contains(words)), "{words}: {told:?}");
    }
    assert_eq!(added.ok_with_remarks()["ips"][0]["gateway"], "10.88.0.1");
    lab.call("DEL", &conf, "a", &netns.path()).ok();
}

#[test]
fn status_says_whether_leases_can_be_written() {
    let lab = Lab::new();
    let mut conf = lab.bridge_conf();
    conf["cniVersion"] = "1.1.0".into();
    lab.call("STATUS", &conf, "", "").ok();
    conf["ipam"]["dataDir"] = "/proc/nowhere".into();
    assert_eq!(lab.call("STATUS", &conf, "", "").error().0, 50);
}

#[test]
fn loopback_comes_up_and_passes_the_previous_result_on() {
    let lab = Lab::new();
    let (mut conf, netns) =
        (json!({ "cniVersion": "1.0.0", "name": "lo", "type": "loopback" }), Netns::new());
    let result = lab.call("ADD", &conf, "a", &netns.path()).ok();
    assert_eq!(
        result["ips"],
        json!([{ "interface": 0, "address": "127.0.0.1/8" }, { "interface": 0, "address": "::1/128" }])
    );
    lab.call("CHECK", &conf, "a", &netns.path()).ok();
    conf["prevResult"] = json!({ "cniVersion": "1.0.0", "ips": [], "dns": {}, "extra": 1 });
    assert_eq!(lab.call("ADD", &conf, "a", &netns.path()).ok(), conf["prevResult"]);
    lab.call("DEL", &conf, "a", "").ok();
    netns.sh("ip link set lo down");
    assert!(lab.call("CHECK", &conf, "a", &netns.path()).error().1.contains("loopback interface is down"));
}
