//! What is broken: a server's process, a member of etcd, a machine, a link; killed, frozen or cut, one at a time, and whole again before the next.

use super::SERVERS;
use super::servers::Seen;
use crate::control::{self, Ask};
use crate::init;
use crate::layout::Layout;
use crate::machine;
use crate::up;
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// From one thing to the next.
const EVERY: Duration = Duration::from_secs(20);
/// How long what does not mend itself is left broken: longer than an election, and than clients wait.
const BROKEN: Duration = Duration::from_secs(8);
/// How long a machine is without power: longer than the lease of a leader.
const WITHOUT_POWER: Duration = Duration::from_secs(16);

#[derive(Clone, Copy, Debug)]
enum Break {
    KillServer,
    KillMember,
    FreezeServer,
    FreezeMember,
    CutLink,
    PowerOff,
}

/// Harder ones between easier ones; a minute sees one of each kind that a server can die of.
const ORDER: [Break; 6] = [
    Break::KillServer,
    Break::PowerOff,
    Break::FreezeServer,
    Break::CutLink,
    Break::KillMember,
    Break::FreezeMember,
];

/// Breaks one thing after another for `length`: of whoever leads, and of each in turn.
pub(super) fn reign(layout: &Layout, length: Duration, seen: &Seen) -> Result<()> {
    let began = Instant::now();
    let mut turn = 0;
    while began.elapsed() < length {
        let due = EVERY * (turn + 1);
        std::thread::sleep(due.saturating_sub(began.elapsed()).min(EVERY));
        let what = ORDER[turn as usize % ORDER.len()];
        // Kinds and servers have a common divisor: each round begins with another server.
        let each = (turn + turn / ORDER.len() as u32) % u32::from(SERVERS) + 1;
        let leader = seen.leader().filter(|_| matches!(what, Break::PowerOff | Break::FreezeMember));
        let index = leader.unwrap_or(each);
        let node = up::node_name(u8::try_from(index)?);
        eprintln!("{:6.1}s  {what:?} {node}", began.elapsed().as_secs_f32());
        apply(layout, what, &node).with_context(|| format!("{what:?} {node}"))?;
        turn += 1;
    }
    // What was broken last is whole again; those who come back need a moment.
    std::thread::sleep(EVERY);
    Ok(())
}

fn apply(layout: &Layout, what: Break, node: &str) -> Result<()> {
    match what {
        Break::KillServer => signal(layout, node, "windlass", "server", &[Signal::SIGKILL]),
        Break::KillMember => signal(layout, node, "etcd", &format!("--name={node}"), &[Signal::SIGKILL]),
        Break::FreezeServer => {
            signal(layout, node, "windlass", "server", &[Signal::SIGSTOP, Signal::SIGCONT])
        }
        Break::FreezeMember => {
            signal(layout, node, "etcd", &format!("--name={node}"), &[Signal::SIGSTOP, Signal::SIGCONT])
        }
        Break::CutLink => {
            control::ask(layout, &Ask::Link { node: node.to_owned(), up: false })?;
            std::thread::sleep(BROKEN);
            control::ask(layout, &Ask::Link { node: node.to_owned(), up: true }).map(drop)
        }
        Break::PowerOff => {
            let services = services(layout, node)?;
            control::ask(layout, &Ask::PowerOff { node: node.to_owned() })?;
            std::thread::sleep(WITHOUT_POWER);
            up::boot(layout, node)?;
            for service in services {
                control::ask_init(layout, node, &init::Ask::Start(service))?;
            }
            Ok(())
        }
    }
}

fn running(layout: &Layout, node: &str) -> Result<control::Machine> {
    let mut nodes = control::ask(layout, &Ask::Status)?.nodes;
    nodes.remove(node).with_context(|| format!("{node} does not run"))
}

/// Sends signals to a program of the node, with time between them.
fn signal(layout: &Layout, node: &str, program: &str, word: &str, signals: &[Signal]) -> Result<()> {
    let found = machine::processes(&running(layout, node)?, program, word)?;
    anyhow::ensure!(!found.is_empty(), "no {program} runs on {node}");
    for (n, signal) in signals.iter().enumerate() {
        if n > 0 {
            std::thread::sleep(BROKEN);
        }
        for pid in &found {
            // One that has ended meanwhile needs no signal.
            let _ = kill(Pid::from_raw(*pid), *signal);
        }
    }
    Ok(())
}

/// The node's services as they were started; containerd comes with the boot.
fn services(layout: &Layout, node: &str) -> Result<Vec<init::Service>> {
    let machine = running(layout, node)?;
    let started = control::ask_init(layout, node, &init::Ask::Status)?.services;
    let member = format!("--name={node}");
    let mut found = Vec::new();
    for (name, program, word) in
        [(up::etcd::SERVICE, "etcd", member.as_str()), ("windlass", "windlass", "server")]
    {
        if !started.contains_key(name) {
            continue;
        }
        let pids = machine::processes(&machine, program, word)?;
        let pid = pids.first().with_context(|| format!("{name} does not run on {node}"))?;
        let line =
            std::fs::read_to_string(format!("/proc/{pid}/cmdline")).context("read its command line")?;
        let argv = line.trim_end_matches('\0').split('\0').map(str::to_owned).collect();
        found.push(init::Service { name: name.into(), argv, env: BTreeMap::new() });
    }
    Ok(found)
}
