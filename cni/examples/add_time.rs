//! How long an ADD takes beyond the kernel's own work, and beyond starting a process that does nothing.
//!
//! `cargo build -p windlass-cni && cargo run -p windlass-cni --example add_time [ROUNDS]`, as root. Both runs alternate,
//! in throw-away namespaces; the ratio is what counts.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement fails loudly")]

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use netlink::link::{self, Mac, Veth};
use netlink::{Protocol, Socket, address, route};
use nix::sched::{CloneFlags, unshare};
use windlass_cni::Netns;

fn namespace() -> (File, String) {
    let file = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        File::open("/proc/thread-self/ns/net").unwrap()
    });
    let file = file.join().unwrap();
    let path = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&file));
    (file, path)
}

/// A veth pair, an address and a route: what no ADD can do without.
fn bare(host: &mut Socket, bridge: u32, path: &str) -> (Duration, Duration) {
    let veth = Veth {
        host: "bare".into(),
        container: "eth0".into(),
        mtu: None,
        mac: None,
        alias: "bare".into(),
        hairpin: true,
        isolated: false,
    };
    let started = Instant::now();
    let netns = Netns::open(path).unwrap();
    host.batch(&link::add_veth(&veth, bridge, netns.descriptor())).unwrap();
    netns
        .enter(|| {
            let mut socket = Socket::open(Protocol::Route).unwrap();
            let index = link::by_name(&mut socket, "eth0").unwrap().unwrap().index;
            let default = route::Route::new("0.0.0.0/0".parse().unwrap(), "10.99.0.1".parse().ok(), index);
            let requests = [
                link::raise(index, false),
                address::add(index, "10.99.0.2/24".parse().unwrap()),
                route::add(&default),
            ];
            socket.batch(&requests).unwrap();
            Ok(())
        })
        .unwrap();
    let took = started.elapsed();
    let started = Instant::now();
    host.request(link::delete("bare")).unwrap();
    (took, started.elapsed())
}

fn call(program: &Path, command: &str, conf: &str, path: &str) -> Duration {
    let started = Instant::now();
    let mut child = Command::new(program)
        .envs([("CNI_COMMAND", command), ("CNI_CONTAINERID", "bench"), ("CNI_IFNAME", "eth0")])
        .envs([("CNI_NETNS", path), ("CNI_PATH", "/nowhere")])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(conf.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    started.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn main() {
    let rounds: usize = std::env::args().nth(1).map_or(100, |text| text.parse().unwrap());
    let examples: PathBuf = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let program = examples.parent().unwrap().join("windlass-cni");
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let leases = std::env::temp_dir().join(format!("windlass-cni-bench-{}", std::process::id()));
    let conf = serde_json::json!({
        "cniVersion": "1.0.0",
        "name": "bench",
        "type": "bridge",
        "isDefaultGateway": true,
        "hairpinMode": true,
        "ipam": { "type": "host-local", "dataDir": leases, "ranges": [[{ "subnet": "10.98.0.0/24" }]] },
    })
    .to_string();
    let mut host = Socket::open(Protocol::Route).unwrap();
    host.request(link::add_bridge("bare0", Mac([2, 0, 0, 0, 0, 1]), None, false)).unwrap();
    let bridge = link::by_name(&mut host, "bare0").unwrap().unwrap().index;
    let (mut floor, mut undo, mut nothing) = (Vec::new(), Vec::new(), Vec::new());
    let (mut add, mut del) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (_bare, path) = namespace();
        let (made, removed) = bare(&mut host, bridge, &path);
        floor.push(made);
        undo.push(removed);
        let (_full, path) = namespace();
        nothing.push(call(&program, "VERSION", &conf, &path));
        add.push(call(&program, "ADD", &conf, &path));
        del.push(call(&program, "DEL", &conf, &path));
    }
    std::fs::remove_dir_all(&leases).unwrap();
    let (floor, undo, nothing) = (median(floor), median(undo), median(nothing));
    let (add, del) = (median(add), median(del));
    println!("netlink floor (veth, address, route)  {floor:?}");
    println!("netlink floor of removing the link    {undo:?}");
    println!("a process that prints its versions    {nothing:?}");
    println!("ADD                                   {add:?}");
    println!("DEL                                   {del:?}");
    println!(
        "ADD / (floor + process)               {:.2}",
        add.as_secs_f64() / (floor + nothing).as_secs_f64()
    );
}
