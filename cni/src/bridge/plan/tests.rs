use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{bridge::conf::Ipam, result::Address};

fn conf() -> Conf {
    Conf {
        bridge: "cni0".into(),
        gateway: true,
        default_gateway: true,
        force_address: false,
        masquerade: false,
        mtu: None,
        hairpin: true,
        promiscuous: false,
        isolated: false,
        mac: None,
        policy_socket: None,
        ipam: Ipam::HostLocal,
    }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn granted(addresses: &[&str]) -> Attachment {
    let ips =
        addresses.iter().map(|text| Address { interface: None, address: net(text), gateway: None }).collect();
    Attachment { ips, ..Attachment::default() }
}

fn bridge() -> Link {
    Link {
        index: 7,
        name: "cni0".into(),
        kind: "bridge".into(),
        mac: None,
        mtu: 1500,
        up: true,
        operational: true,
        running: true,
        promiscuous: false,
        controller: None,
        peer: None,
        alias: String::new(),
    }
}

fn veth() -> Veth {
    Veth {
        host: "veth1".into(),
        container: "eth0".into(),
        mtu: None,
        mac: None,
        alias: String::new(),
        hairpin: true,
        isolated: false,
    }
}

#[test]
fn the_subnets_first_address_is_the_gateway_and_the_way_out() {
    let attachment = complete(&conf(), granted(&["10.0.0.5/24", "fd00::5/64"])).unwrap();
    let gateways: Vec<_> = attachment.ips.iter().map(|ip| ip.gateway.unwrap().to_string()).collect();
    assert_eq!(gateways, ["10.0.0.1", "fd00::1"]);
    let routes = attachment.to_json(crate::Version::V1_1_0)["routes"].clone();
    assert_eq!(routes, json!([{ "dst": "0.0.0.0/0", "gw": "10.0.0.1" }, { "dst": "::/0", "gw": "fd00::1" }]));
}

#[test]
fn a_default_route_that_was_granted_stays_the_only_one() {
    let mut with_route = granted(&["10.0.0.5/24"]);
    with_route.routes = vec![Route::via(net("0.0.0.0/0"), Some("10.0.0.9".parse().unwrap()))];
    let attachment = complete(&conf(), with_route.clone()).unwrap();
    assert_eq!(attachment.routes, with_route.routes);
}

#[test]
fn nothing_granted_is_an_error() {
    assert!(complete(&conf(), granted(&[])).unwrap_err().to_string().contains("missing IP config"));
}

#[test]
fn a_bridge_in_order_is_left_alone() {
    let attachment = complete(&conf(), granted(&["10.0.0.5/24"])).unwrap();
    let observed = Observed { bridge: Some((bridge(), vec![net("10.0.0.1/24")])) };
    let steps = plan(&conf(), &observed, Some(&attachment), veth()).unwrap();
    assert!(
        matches!(
            &steps[..],
            [Step::Forward { v4: true, v6: false }, Step::AttachVeth(_), Step::ConfigureContainer { .. }]
        ),
        "{steps:?}"
    );
}

#[test]
fn masquerading_comes_last() {
    let conf = Conf { masquerade: true, ..conf() };
    let attachment = complete(&conf, granted(&["10.0.0.5/24"])).unwrap();
    let steps = plan(&conf, &Observed::default(), Some(&attachment), veth()).unwrap();
    assert_eq!(steps.first(), Some(&Step::CreateBridge));
    assert_eq!(steps.last(), Some(&Step::Masquerade(vec![net("10.0.0.5/24")])));
}

/// What the bridge would be after these steps.
fn apply(observed: &mut Observed, steps: &[Step]) {
    for step in steps {
        match step {
            Step::CreateBridge => {
                assert!(observed.bridge.is_none());
                observed.bridge = Some((bridge(), Vec::new()));
            }
            Step::RaiseBridge => observed.bridge.as_mut().unwrap().0.up = true,
            Step::SetBridgeMtu(mtu) => observed.bridge.as_mut().unwrap().0.mtu = *mtu,
            Step::RemoveGateway(address) => {
                let addresses = &mut observed.bridge.as_mut().unwrap().1;
                let place = addresses.iter().position(|other| other == address).unwrap();
                addresses.remove(place);
            }
            Step::AddGateway(address) => {
                let addresses = &mut observed.bridge.as_mut().unwrap().1;
                assert!(!addresses.contains(address));
                addresses.push(*address);
            }
            Step::Forward { .. }
            | Step::AttachVeth(_)
            | Step::ConfigureContainer { .. }
            | Step::Masquerade(_) => {}
        }
    }
}

proptest! {
    /// Whatever the bridge is like before, a plan either refuses to touch a foreign address or makes the bridge such
    /// that the next container's plan does nothing to it.
    #[test]
    fn the_bridge_converges(
        up in any::<bool>(),
        exists in any::<bool>(),
        force_address in any::<bool>(),
        present in prop::collection::btree_set(
            prop_oneof![Just("10.0.0.1/24"), Just("10.0.0.7/24"), Just("192.0.2.1/24"), Just("fd00::1/64"), Just("fd00::9/64"), Just("fd01::1/64")],
            0..4,
        ),
        mtu in prop::option::of(Just(1400u32)),
    ) {
        let conf = Conf { force_address, mtu, ..conf() };
        let attachment = complete(&conf, granted(&["10.0.0.5/24", "fd00::5/64"])).unwrap();
        let mut observed = Observed::default();
        if exists {
            observed.bridge = Some((Link { up, ..bridge() }, present.iter().map(|text| net(text)).collect()));
        }
        let Ok(steps) = plan(&conf, &observed, Some(&attachment), veth()) else {
            prop_assert!(!force_address && exists);
            return Ok(());
        };
        prop_assert!(force_address || !steps.iter().any(|step| matches!(step, Step::RemoveGateway(_))));
        apply(&mut observed, &steps);
        let (link, addresses) = observed.bridge.clone().unwrap();
        prop_assert!(link.up);
        prop_assert!(addresses.contains(&net("10.0.0.1/24")) && addresses.contains(&net("fd00::1/64")));
        if mtu.is_none() || exists {
            let again = plan(&conf, &observed, Some(&attachment), veth()).unwrap();
            let on_bridge = again.iter().filter(|step| !matches!(
                step, Step::Forward { .. } | Step::AttachVeth(_) | Step::ConfigureContainer { .. }));
            prop_assert_eq!(on_bridge.count(), 0);
        }
    }
}
