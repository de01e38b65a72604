//! The address and the watches.
//!
//! Woken by: a change of a Service, EndpointSlice or Namespace, or of the ConfigMaps that hold a Corefile, the audit period, shutdown. Reads: these watches. Writes: the cluster DNS address
//! on `lo`, the tables `windlass-dns`, the zone. Promises: until the lists of services and slices are complete a name that is not known yet is a server failure, never "no such name" (clients keep that);
//! other names are forwarded from the first moment; the address stays on `lo` at shutdown, a restart only pauses answers.

use crate::listen::listen;
use crate::monitor;
use crate::plan::Plan;
use crate::record::{read_service, read_slice};
use crate::redirect::{Redirect, Server};
use crate::serve::Answerer;
use crate::upstream::read_resolv_conf;
use client::{Event, Identity, Source, mirror};
use futures::StreamExt;
use futures::stream::select;
use hickory_proto::rr::Name;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client};
use netlink::{Kernel, Protocol, Socket, address, nft};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use supervise::{Scope, Supervisor, Task, Work};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// The port everybody asks at.
const PORT: u16 = 53;
/// How often the redirection is looked for; somebody's `nft flush ruleset` is mended within this time.
const AUDIT_PERIOD: Duration = Duration::from_secs(15);

/// Where the maps are.
const SYSTEM: &str = "kube-system";
/// The ConfigMaps whose Corefile is followed: kubeadm's, and the additions to it that Azure and k3s know.
pub const CONFIG_MAPS: [&str; 2] = ["coredns", "coredns-custom"];

/// Where and for what to answer.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster DNS addresses; put on `lo`; what is asked at their port 53 is answered.
    pub addresses: Vec<IpAddr>,
    /// The cluster domain, `cluster.local`.
    pub domain: String,
    /// Names the resolvers for everything else.
    pub resolv_conf: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster domain is not a name.
    #[error("cluster domain {0:?}")]
    Domain(String, #[source] hickory_proto::ProtoError),
    /// The address cannot be put on `lo`.
    #[error("put {0} on lo")]
    Address(IpAddr, #[source] netlink::Error),
    /// No port of the address can be used.
    #[error("answer on {0}")]
    Listen(IpAddr, #[source] std::io::Error),
    /// Questions cannot be led to the sockets.
    #[error("lead questions to the sockets that answer them")]
    Redirect(#[source] nft::Error),
}

/// Answers until cancelled.
///
/// # Errors
/// The address cannot be had; the caller starts again.
pub async fn run(
    config: Config,
    client: Client,
    supervisor: &Supervisor,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let mut domain = Name::from_ascii(&config.domain).map_err(|e| Error::Domain(config.domain.clone(), e))?;
    domain.set_fqdn(true);
    let upstream = read_resolv_conf(&config.resolv_conf, &config.addresses);
    let scope = Scope::new(supervisor, "dns/", &shutdown);
    let answerer = Arc::new(Answerer::new(domain, upstream, supervisor));
    answerer.change(|zone| zone.set_servers(&config.addresses));
    let mut servers = Vec::new();
    for address in &config.addresses {
        put_on_loopback(*address).await.map_err(|e| Error::Address(*address, e))?;
        let at = SocketAddr::new(*address, PORT);
        let (datagrams, streams) = listen(*address).await.map_err(|e| Error::Listen(*address, e))?;
        let answers = streams.local_addr().map_err(|e| Error::Listen(*address, e))?;
        servers.push(Server { asked: at, answers, datagrams: true });
        let (datagrams, streams) = (Arc::new(datagrams), Arc::new(streams));
        let answering = answerer.clone();
        scope
            .keep(Task::endless(format!("udp {at}"), move || answering.clone().datagrams(datagrams.clone())));
        let answering = answerer.clone();
        scope.keep(Task::new(format!("tcp {at}"), move |stop| {
            let listening = answering.clone().listen(streams.clone(), stop);
            async move {
                listening.await;
                Ok(())
            }
        }));
    }
    for address in &config.addresses {
        servers.extend(monitored(*address, &answerer, supervisor, &scope).await?);
    }
    let mut redirect = Redirect::new(servers);
    redirect.put().await.map_err(Error::Redirect)?;
    let mut audit = Instant::now() + AUDIT_PERIOD;
    let mut services = mirror::<Service>(Source::all::<Service>(&client));
    let mut slices = mirror::<EndpointSlice>(Source::all::<EndpointSlice>(&client));
    let mut namespaces = mirror::<Namespace>(Source::all::<Namespace>(&client));
    let map = |name: &str| {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SYSTEM);
        mirror::<ConfigMap>(Source::of(maps).named(name))
    };
    let [main, custom] = CONFIG_MAPS;
    let mut maps = select(map(main), map(custom));
    let mut texts: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut complete = (false, false);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = sleep_until(audit) => {
                audit = Instant::now() + AUDIT_PERIOD;
                redirect.look_after().await.map_err(Error::Redirect)?;
                // the host may have moved to another network
                answerer.set_upstream(read_resolv_conf(&config.resolv_conf, &config.addresses));
            }
            Some(event) = services.next() => match event {
                Event::Set(key, service) => {
                    let service = read_service(&service);
                    answerer.change(|zone| zone.set_service(&key.namespace, &key.name, service));
                }
                Event::Gone(gone) => {
                    answerer.change(|zone| zone.set_service(&gone.key.namespace, &gone.key.name, None));
                }
                Event::Synced => complete.0 = true,
                Event::Unreadable(_) | Event::Failed(_) => {}
            },
            Some(event) = slices.next() => match event {
                Event::Set(key, slice) => {
                    let slice = read_slice(&slice);
                    answerer.change(|zone| zone.set_slice(&key.namespace, &key.name, slice));
                }
                Event::Gone(gone) => {
                    answerer.change(|zone| zone.set_slice(&gone.key.namespace, &gone.key.name, None));
                }
                Event::Synced => complete.1 = true,
                Event::Unreadable(_) | Event::Failed(_) => {}
            },
            Some(event) = namespaces.next() => match event {
                Event::Set(key, _) | Event::Unreadable(Identity { key, .. }) => {
                    answerer.change(|zone| zone.set_namespace(&key.name, true));
                }
                Event::Gone(gone) => answerer.change(|zone| zone.set_namespace(&gone.key.name, false)),
                Event::Synced => answerer.change(|zone| zone.know_namespaces()),
                Event::Failed(_) => {}
            },
            Some(event) = maps.next() => match event {
                Event::Set(key, map) if CONFIG_MAPS.contains(&&*key.name) => {
                    let before = texts.insert(key.name.to_string(), map.data.unwrap_or_default());
                    // one that cannot be read must not keep the other one from being followed
                    if !follow(&texts, &answerer, &config.addresses) {
                        match before {
                            Some(text) => texts.insert(key.name.to_string(), text),
                            None => texts.remove(&*key.name),
                        };
                    }
                }
                Event::Gone(gone) => {
                    if texts.remove(&*gone.key.name).is_some() {
                        follow(&texts, &answerer, &config.addresses);
                    }
                }
                Event::Set(..) | Event::Synced | Event::Unreadable(_) | Event::Failed(_) => {}
            },
        }
        if complete == (true, true) {
            answerer.know_everything();
        }
    }
}

/// Follows what the maps say; false where that cannot be read, which changes nothing.
fn follow(texts: &BTreeMap<String, BTreeMap<String, String>>, answerer: &Answerer, own: &[IpAddr]) -> bool {
    let [main, custom] = CONFIG_MAPS.map(|name| texts.get(name));
    let ending = |end: &'static str| {
        let all = custom.into_iter().flatten().filter(move |(key, _)| key.ends_with(end));
        all.map(|(_, text)| text.as_str())
    };
    let corefile = main.and_then(|map| map.get("Corefile")).map(String::as_str);
    match Plan::read(corefile, ending(".override"), ending(".server")) {
        Ok(mut plan) => {
            plan.leave_out(own);
            for remark in &plan.remarks {
                tracing::warn!("Corefile: {remark}");
            }
            answerer.set_plan(plan);
            true
        }
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the Corefile cannot be read; nothing changes"
            );
            false
        }
    }
}

/// Answers over HTTP what monitors ask CoreDNS at these ports of the address.
async fn monitored(
    address: IpAddr,
    answerer: &Arc<Answerer>,
    supervisor: &Supervisor,
    scope: &Scope,
) -> Result<Vec<Server>, Error> {
    let bound =
        TcpListener::bind((address, 0)).await.and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (answers, listener) = bound.map_err(|e| Error::Listen(address, e))?;
    let (listener, answerer) = (Arc::new(listener), answerer.clone());
    let work = Work::new(supervisor, "dns/monitor");
    scope.keep(Task::new(format!("monitor {address}"), move |stop| {
        let served = monitor::serve(answerer.clone(), listener.clone(), work.clone(), stop);
        async move {
            served.await;
            Ok(())
        }
    }));
    let asked = |port| SocketAddr::new(address, port);
    Ok(monitor::PORTS.map(|port| Server { asked: asked(port), answers, datagrams: false }).into())
}

/// Gives `lo` the address; it may have it already.
async fn put_on_loopback(address: IpAddr) -> Result<(), netlink::Error> {
    // Every network namespace has `lo`, under this number.
    const LOOPBACK: u32 = 1;
    let add = move |socket: &mut Socket| socket.request(address::add(LOOPBACK, address.into()));
    match Kernel::of(Protocol::Route).call(add).await {
        Err(error) if error.kind() == Some(std::io::ErrorKind::AlreadyExists) => Ok(()),
        added => added,
    }
}
