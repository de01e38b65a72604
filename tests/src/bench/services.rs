//! The proxy's applier at 10,000 services, in a network namespace that ends with its thread. The reference is `nft` fed with the same
//! text and nothing around it: what the kernel and nft take is not ours to shorten, except by saying less.

use super::figure::{Promise, Report};
use anyhow::{Context, Result, anyhow, bail};
use ipnet::IpNet;
use nix::sched::{CloneFlags, unshare};
use proxy::apply::{Applier, ServiceName, State};
use proxy::model::{Place, Rules, model};
use proxy::service::{Port, Protocol, Service, Slice, SliceEndpoint};
use proxy::{Difference, elements, text};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};
use std::time::Instant;

const SERVICES: u32 = 10_000;
const ENDPOINTS: u32 = 2;
const CHANGES: u32 = 40;
const LOADS: usize = 3;
const NODE: &str = "n1";
/// One service changed, in milliseconds.
const CHANGE: Promise = Promise::AtMost(5.0);
/// A full load, in milliseconds.
const LOAD: Promise = Promise::AtMost(2000.0);

/// Full loads, then single changes.
///
/// # Errors
/// No network namespace can be made, or nft fails.
pub fn measure(report: &mut Report) -> Result<()> {
    std::thread::scope(|scope| {
        let measuring = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace")?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(Box::pin(inside(report)))
        });
        measuring.join().map_err(|_| anyhow!("the measurement panicked"))?
    })
}

async fn inside(report: &mut Report) -> Result<()> {
    let mut state = State::default();
    for index in 0..SERVICES {
        state.services.insert(name(index), service(index)?);
        state.slices.insert(name(index), slices(index, 0)?);
    }
    let cidrs: Vec<IpNet> = vec!["10.244.0.0/16".parse()?];
    let whole = full_text(&state, &cidrs);
    let (mut loads, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..LOADS {
        flush()?;
        bare.push(nft(&whole)?);
        flush()?;
        let began = Instant::now();
        applier(&cidrs).apply(&state, &BTreeSet::new()).await?;
        loads.push(began.elapsed().as_secs_f64() * 1e3);
    }
    report.against(
        format!("full load of {SERVICES} services"),
        "ms",
        &loads,
        ("bare nft", &bare),
        Some(LOAD),
    )?;
    flush()?;
    let mut applier = applier(&cidrs);
    applier.apply(&state, &BTreeSet::new()).await?;
    let (mut changes, mut bare) = (Vec::new(), Vec::new());
    for change in 1..=CHANGES {
        // by turns: the applier moves an endpoint of one service; nft alone is fed what moves it on and back
        let index = change * 97 % SERVICES;
        state.slices.insert(name(index), slices(index, change)?);
        let began = Instant::now();
        let applied = applier.apply(&state, &BTreeSet::from([name(index)])).await?;
        changes.push(began.elapsed().as_secs_f64() * 1e3);
        if applied.difference.is_empty() {
            bail!("change {change} changed nothing");
        }
        let back =
            Difference { delete: applied.difference.add.clone(), add: applied.difference.delete.clone() };
        bare.push(nft(&text::elements(&back))?);
        nft(&text::elements(&applied.difference))?;
    }
    let name = format!("one of {SERVICES} services changed");
    report.against(name, "ms", &changes, ("bare nft", &bare), Some(CHANGE))
}

fn applier(cidrs: &[IpNet]) -> Applier {
    Applier::new(NODE.into(), cidrs.to_vec())
}

/// Everything as the applier writes it.
fn full_text(state: &State, cidrs: &[IpNet]) -> String {
    let mut wanted = BTreeSet::new();
    for (name, service) in &state.services {
        let slices = state.slices.get(name).into_iter().flat_map(BTreeMap::values);
        wanted.extend(elements(&model(
            service,
            &slices,
            &Place { node: NODE.into(), zone: String::new() },
            &Rules::default(),
        )));
    }
    let whole = Difference { delete: Vec::new(), add: wanted.into_iter().collect() };
    let mut out = text::tables(&cidrs.to_vec().into());
    out.push_str(&text::balancers(&whole, &mut BTreeSet::new()));
    out.push_str(&text::elements(&whole));
    out
}

/// Milliseconds of one `nft`.
fn nft(input: &str) -> Result<f64> {
    let began = Instant::now();
    let mut child = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().context("run nft")?;
    child.stdin.take().context("feed nft")?.write_all(input.as_bytes()).context("feed nft")?;
    let status = child.wait().context("wait for nft")?;
    if !status.success() {
        bail!("nft ended with {status}");
    }
    Ok(began.elapsed().as_secs_f64() * 1e3)
}

fn flush() -> Result<()> {
    nft("flush ruleset\n").map(drop)
}

fn name(index: u32) -> ServiceName {
    ("default".into(), format!("s{index}"))
}

fn address(base: Ipv4Addr, offset: u32) -> IpAddr {
    Ipv4Addr::from_bits(base.to_bits() + offset).into()
}

fn service(index: u32) -> Result<Service> {
    let node_port = if index.is_multiple_of(10) { u16::try_from(30_000 + index / 10)? } else { 0 };
    Ok(Service {
        cluster_ips: vec![address(Ipv4Addr::new(10, 96, 0, 1), index)],
        ports: vec![Port { name: String::new(), protocol: Protocol::Tcp, port: 80, node_port }],
        ..Service::default()
    })
}

/// Two endpoints; the second moves with `turn`.
fn slices(index: u32, turn: u32) -> Result<BTreeMap<String, Slice>> {
    let endpoints = (0..ENDPOINTS).map(|i| SliceEndpoint {
        address: address(
            Ipv4Addr::new(10, 244, 0, 2),
            index * ENDPOINTS + i + i * turn * SERVICES * ENDPOINTS,
        ),
        ready: true,
        serving: true,
        terminating: false,
        for_zones: Vec::new(),
        for_nodes: Vec::new(),
        node: NODE.into(),
    });
    let name = format!("s{index}");
    let slice = Slice {
        service: name.clone(),
        ports: vec![(String::new(), Protocol::Tcp, 8080)],
        endpoints: endpoints.collect(),
    };
    Ok(BTreeMap::from([(format!("{name}-1"), slice)]))
}
