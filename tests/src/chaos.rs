//! Three servers and three members of etcd, of which every twenty seconds one thing is broken and mended again; meanwhile a writer and a
//! watcher a server, roll-outs and Jobs, and somebody who looks at who leads.
//!
//! - [`disorder`]: what is broken, and how; [`servers`]: the servers as a client has them; [`clients`]: writers and watchers, which begin at a server of their own and go on at another;
//!   [`workload`]: roll-outs and Jobs; [`verdict`]: what they must have seen, pure
//!
//! What is promised: every write that was acknowledged is there; each watcher saw every change once and in order; nobody was told anything that
//! a client would not try again after; leadership moved within 15 seconds of its holder's end (and a little: [`verdict::LEADERLESS`]);
//! roll-outs and Jobs ended with exact counts.

mod clients;
mod disorder;
mod servers;
mod verdict;
mod workload;

use crate::control::{self, Ask};
use crate::layout::{Family, Layout, node_address};
use crate::{network, reap, up};
use anyhow::{Context, Result, bail};
use kube::Client;
use servers::{SILENCE, Seen};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Servers, all nodes of the lab.
const SERVERS: u8 = 3;

/// What is to be done.
pub struct Plan {
    /// Folder of the programs.
    pub programs: PathBuf,
    /// For how long things are broken.
    pub length: Duration,
    /// Whose etcd it is.
    pub etcd: up::Etcd,
    /// Whether clients speak to HAProxy instead of the servers.
    pub balancer: bool,
}

/// Brings a lab up, breaks things, judges, and takes the lab down.
///
/// # Errors
/// A promise is not kept: which, and by what it shows.
pub fn run(layout: &Layout, plan: &Plan) -> Result<()> {
    let up = up::Plan {
        apart: 0,
        nodes: SERVERS,
        servers: SERVERS,
        etcd: plan.etcd,
        balancer: plan.balancer,
        family: Family::Ipv4,
        example: false,
        kubeconfig: std::env::temp_dir().join(format!("windlass-{}-kubeconfig", layout.name())),
        programs: plan.programs.clone(),
    };
    reap::after(layout, during(layout, plan, &up))
}

fn during(layout: &Layout, plan: &Plan, up: &up::Plan) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(up::cluster(layout, up))?;
    let seen = Arc::new(Seen::default());
    let stop = CancellationToken::new();
    let inside = control::ask(layout, &Ask::Status)?.pid;
    let clients = {
        let (seen, stop, kubeconfig) = (seen.clone(), stop.clone(), up.kubeconfig.clone());
        let balancer = up.balancer_address();
        std::thread::spawn(move || -> Result<()> {
            network::enter(inside)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut servers = Vec::new();
                for index in 1..=SERVERS {
                    let address = balancer.clone().unwrap_or_else(|| node_address(index));
                    servers.push(client(&kubeconfig, &format!("https://{address}:6443")).await?);
                }
                Box::pin(clients::run(servers, &seen, &stop)).await
            })
        })
    };
    let broken = disorder::reign(layout, plan.length, &seen);
    stop.cancel();
    let told = clients.join().map_err(|_| anyhow::anyhow!("the clients panicked"))?;
    broken.context("break things")?;
    told.context("clients")?;
    let verdict = verdict::judge(&seen.taken());
    println!("{}", verdict.text);
    if !verdict.faults.is_empty() {
        bail!("promises are not kept:\n{}", verdict.faults.join("\n"));
    }
    Ok(())
}

/// A client of one server, with the patience of a watcher that must notice a frozen one.
async fn client(kubeconfig: &std::path::Path, server: &str) -> Result<Client> {
    let mut config = up::config_for(kubeconfig, server).await?;
    config.connect_timeout = Some(Duration::from_secs(2));
    config.read_timeout = Some(SILENCE);
    // What may have happened already is judged by who asked.
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}
