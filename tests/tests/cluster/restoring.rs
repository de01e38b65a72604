//! A snapshot made under load is a cluster again on a machine that has nothing, and pods do not notice. On a lab of its own, whose server's machine
//! is lost.

use std::path::Path;
use std::process::{Command, Stdio};

const LAB: &str = "suite-restore";
/// Writes a second: what any machine does; `lab restore` by itself asks for 500.
const RATE: &str = "50";

/// Runs the lab's `restore`, and takes away what a failure leaves.
fn restored(engine: &[&str]) {
    let lab = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
        command.args(["--lab", LAB]).args(arguments).stdin(Stdio::null()).output().unwrap()
    };
    let done = lab(&[&["restore", "--rate", RATE], engine].concat());
    let said = [done.stdout, done.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    println!("{}", said.concat());
    if !done.status.success() {
        lab(&["down"]);
        panic!("{engine:?}: the cluster is not what it was");
    }
}

#[test]
fn a_snapshot_under_load_must_not_lose_a_write_nor_a_pod() {
    restored(&[]);
}

#[test]
fn a_snapshot_of_etcd_under_load_must_not_lose_a_write_nor_a_pod() {
    if Path::new("/usr/bin/etcd").exists() {
        restored(&["--etcd"]);
    } else {
        println!("skipped: there is no /usr/bin/etcd");
    }
}
