//! Two machines on a link, in namespaces: the kernel of one asks, what runs on the other answers.

use super::*;
use crate::link::observe;
use k8s_openapi::api::core::v1::{Node, Service};
use netlink::{Protocol, Socket};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;
use std::future::poll_fn;
use std::process::{Child, Command, Stdio};

fn sh(command: &str) -> String {
    let out = Command::new("sh").arg("-c").arg(command).output().unwrap();
    assert!(out.status.success(), "{command}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

/// Another machine on the link: a network namespace for as long as it lives.
struct Machine(Child);

impl Machine {
    /// With the other end of the link `near`.
    fn behind(near: &str) -> Self {
        let asleep =
            Command::new("unshare").args(["-n", "sleep", "120"]).stdin(Stdio::null()).spawn().unwrap();
        let machine = Self(asleep);
        let (own, pid) = (sh("readlink /proc/self/ns/net"), machine.0.id());
        sh(&format!("while [ \"$(readlink /proc/{pid}/ns/net)\" = '{own}' ]; do :; done"));
        sh(&format!("ip link add {near} type veth peer name far netns {pid}; ip link set {near} up"));
        machine.run("ip link set lo up; ip link set far up; echo 0 > /proc/sys/net/ipv6/conf/far/accept_dad");
        machine.run("ip addr add 192.0.2.9/24 dev far; ip addr add 2001:db8::9/64 dev far nodad");
        machine
    }

    fn run(&self, command: &str) -> String {
        let pid = self.0.id().to_string();
        let inside = ["-t", &pid, "-n", "sh", "-c", command];
        let out = Command::new("nsenter").args(inside).output().unwrap();
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    /// What it knows of an address, after it has sent something there.
    fn neighbour(&self, address: &str) -> String {
        let datagram = format!("bash -c 'echo > /dev/udp/{address}/9'");
        self.run(&format!("{datagram}; sleep 0.3; ip neigh show to {address}"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn model(addresses: &[&str]) -> Model {
    let mut model = Model::default();
    let node = json!({
        "metadata": { "name": "n1" },
        "status": {
            "addresses": [{ "type": "InternalIP", "address": "192.0.2.1" }],
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    });
    model.set_node("n1", Some(&serde_json::from_value::<Node>(node).unwrap()));
    let points: Vec<_> = addresses.iter().map(|address| json!({ "ip": address, "ipMode": "VIP" })).collect();
    let service = json!({
        "metadata": { "name": "s", "namespace": "n", "annotations": { machinery::load_balancer::MODE: "announced" } },
        "spec": { "type": "LoadBalancer" },
        "status": { "loadBalancer": { "ingress": points } },
    });
    let service: Service = serde_json::from_value(service).unwrap();
    model.set_service(client::Key::new("n", "s"), Some(&service));
    model
}

/// Answers for as long as `asking` takes.
async fn meanwhile<T: Send + 'static>(
    addresses: &mut Addresses,
    asking: impl FnOnce() -> T + Send + 'static,
) -> T {
    let mut asking = tokio::task::spawn_blocking(asking);
    loop {
        let heard = {
            let shared = &*addresses;
            tokio::select! {
                asked = &mut asking => return asked.unwrap(),
                heard = poll_fn(|cx| shared.poll_said(cx)) => Some(heard),
                () = tokio::time::sleep(Duration::from_millis(50)) => None,
            }
        };
        if let Some((link, said)) = heard {
            addresses.hear(link, said, Instant::now());
        }
        addresses.tick(Instant::now());
    }
}

#[test]
fn a_kernel_on_the_link_finds_the_addresses_of_both_families_and_loses_them() {
    assert!(nix::unistd::geteuid().is_root(), "network namespaces need root");
    let work = || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        sh("ip link set lo up");
        let machine = std::sync::Arc::new(Machine::behind("near"));
        sh("ip addr add 192.0.2.1/24 dev near; ip addr add 2001:db8::1/64 dev near nodad");
        let mac = sh("ip -o link show near | sed 's/.*ether \\([^ ]*\\) .*/\\1/'");
        // Until the carrier is there, and with it the link's own address.
        sh("for i in $(seq 100); do ip -o link show near | grep -q 'state UP' && break; sleep 0.05; done");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (recorder, _writer) = Recorder::new(None, None);
            let mut addresses = Addresses::new("n1".to_owned(), recorder);
            let mut socket = Socket::open(Protocol::Route).unwrap();
            addresses.set_links(observe(&mut socket).unwrap());
            addresses.set_firm(true);
            let vips = ["192.0.2.50", "2001:db8::50"];
            assert!(addresses.settle(&model(&vips), Instant::now()));
            for vip in vips {
                let asking = machine.clone();
                let found = meanwhile(&mut addresses, move || asking.neighbour(vip)).await;
                assert!(found.contains(&mac), "{vip}: {found:?}, and the link is {mac}");
            }
            let asking = machine.clone();
            let other = meanwhile(&mut addresses, move || asking.neighbour("192.0.2.51")).await;
            assert!(!other.contains(&mac), "{other}");
            // The Service lets go: nobody answers.
            assert!(addresses.settle(&model(&[]), Instant::now()));
            for vip in vips {
                let asking = machine.clone();
                let ask = move || {
                    asking.run("ip neigh flush all");
                    asking.neighbour(vip)
                };
                let found = meanwhile(&mut addresses, ask).await;
                assert!(!found.contains(&mac), "{vip}: {found:?}");
            }
        });
    };
    std::thread::spawn(work).join().unwrap();
}

/// An address on a link that nothing is sent by.
fn held() -> Addresses {
    let (recorder, _writer) = Recorder::new(None, None);
    let mut addresses = Addresses::new("n1".to_owned(), recorder);
    addresses.set_firm(true);
    let about = Place { rank: Some(0), about: Default::default() };
    let (claim, link) = (Claim::new(), Some((1, Mac([2, 0, 0, 0, 0, 1]))));
    let held = Held { claim, place: about, link, next: Some(Instant::now()), rival: None, told: None };
    addresses.all.insert([192, 0, 2, 1].into(), held);
    addresses.tick(Instant::now());
    addresses
}

#[test]
fn an_address_that_moves_must_not_be_told_as_a_conflict_but_a_stranger_is() {
    let said = Said::Has { address: [192, 0, 2, 1].into(), who: Mac([2, 0, 0, 0, 0, 9]) };
    let told = |addresses: &Addresses| addresses.all.values().any(|held| held.told.is_some());
    let (mut addresses, start) = (held(), Instant::now());
    for milliseconds in [0, 200, 1200] {
        assert!(addresses.hear(1, said, start + Duration::from_millis(milliseconds)), "it is ours");
    }
    assert!(!told(&addresses));
    assert!(!addresses.hear(2, said, start), "another link is another world");
    addresses.hear(1, said, start + Duration::from_secs(30));
    assert!(!told(&addresses), "another time");
    for seconds in 31..35 {
        addresses.hear(1, said, start + Duration::from_secs(seconds));
    }
    assert!(told(&addresses));
}
