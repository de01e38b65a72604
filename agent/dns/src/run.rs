//! The address and the watches.
//!
//! Woken by: a change of a Service, EndpointSlice or Namespace, shutdown. Reads: these watches. Writes: the cluster DNS address on `lo`, the zone.
//! Promises: until the lists of services and slices are complete a name that is not known yet is a server failure, never "no such name" (clients keep that);
//! other names are forwarded from the first moment; the address stays on `lo` at shutdown, a restart only pauses answers.

use crate::record::{read_service, read_slice};
use crate::serve::Answerer;
use crate::upstream::read_resolv_conf;
use futures::{StreamExt, TryStreamExt};
use hickory_proto::rr::Name;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, Resource};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

/// Where and for what to answer.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster DNS addresses; put on `lo` and answered on port 53.
    pub addresses: Vec<IpAddr>,
    /// The cluster domain, `cluster.local`.
    pub domain: String,
    /// Names the resolvers for everything else.
    pub resolv_conf: PathBuf,
}

/// Why DNS ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster domain is not a name.
    #[error("cluster domain {0:?}")]
    Domain(String, #[source] hickory_proto::ProtoError),
    /// The address cannot be put on `lo`.
    #[error("put {0} on lo")]
    Address(IpAddr, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// Port 53 cannot be used.
    #[error("answer on {0}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// A socket failed.
    #[error("answer questions")]
    Serve(#[source] std::io::Error),
    /// A watch ended for good.
    #[error("watch {0}")]
    Watch(&'static str, #[source] Box<watcher::Error>),
    /// A watch's stream closed.
    #[error("the watch of {0} closed")]
    Closed(&'static str),
}

/// Answers until cancelled.
///
/// # Errors
/// The address, a socket or a watch failed; the caller starts anew.
pub async fn run(config: Config, client: Client, shutdown: CancellationToken) -> Result<(), Error> {
    let mut domain = Name::from_ascii(&config.domain).map_err(|e| Error::Domain(config.domain.clone(), e))?;
    domain.set_fqdn(true);
    let upstream = read_resolv_conf(&config.resolv_conf, &config.addresses);
    let answerer = Arc::new(Answerer::new(domain, upstream));
    answerer.change(|zone| zone.set_servers(&config.addresses));
    let mut tasks = tokio::task::JoinSet::new();
    for address in &config.addresses {
        put_on_loopback(*address).await.map_err(|e| Error::Address(*address, e))?;
        let at = SocketAddr::new(*address, 53);
        let datagrams = UdpSocket::bind(at).await.map_err(|e| Error::Listen(at, e))?;
        let streams = TcpListener::bind(at).await.map_err(|e| Error::Listen(at, e))?;
        tasks.spawn(answerer.clone().datagrams(Arc::new(datagrams)));
        tasks.spawn(answerer.clone().listen(streams));
    }
    let mut services = std::pin::pin!(events::<Service>(&client));
    let mut slices = std::pin::pin!(events::<EndpointSlice>(&client));
    let mut namespaces = std::pin::pin!(events::<Namespace>(&client));
    let mut known = (Names::default(), Names::default(), Names::default());
    let mut complete = (false, false);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            Some(ended) = tasks.join_next() => {
                let error = ended.map_or_else(std::io::Error::other, |done| done.err().unwrap_or_else(|| std::io::Error::other("a socket closed")));
                return Err(Error::Serve(error));
            }
            event = services.try_next() => {
                let event = event.map_err(|e| Error::Watch("services", Box::new(e)))?.ok_or(Error::Closed("services"))?;
                complete.0 |= matches!(event, Event::InitDone);
                for ((namespace, name), service) in known.0.step(event) {
                    let service = service.as_ref().and_then(read_service);
                    answerer.change(|zone| zone.set_service(&namespace, &name, service));
                }
            }
            event = slices.try_next() => {
                let event = event.map_err(|e| Error::Watch("endpoint slices", Box::new(e)))?.ok_or(Error::Closed("endpoint slices"))?;
                complete.1 |= matches!(event, Event::InitDone);
                for ((namespace, name), slice) in known.1.step(event) {
                    let slice = slice.as_ref().and_then(read_slice);
                    answerer.change(|zone| zone.set_slice(&namespace, &name, slice));
                }
            }
            event = namespaces.try_next() => {
                let event = event.map_err(|e| Error::Watch("namespaces", Box::new(e)))?.ok_or(Error::Closed("namespaces"))?;
                let all = matches!(event, Event::InitDone);
                answerer.change(|zone| {
                    for ((_, name), namespace) in known.2.step(event) {
                        zone.set_namespace(&name, namespace.is_some());
                    }
                    if all {
                        zone.know_namespaces();
                    }
                });
            }
        }
        if complete == (true, true) {
            answerer.know_everything();
        }
    }
}

/// The names a watch has shown, so that a new list removes what vanished meanwhile.
#[derive(Default)]
struct Names {
    known: BTreeSet<(String, String)>,
    listing: BTreeSet<(String, String)>,
}

impl Names {
    /// The changes an event means: an object, or `None` for one that is gone.
    fn step<K: Resource>(&mut self, event: Event<K>) -> Vec<((String, String), Option<K>)> {
        let name = |k: &K| {
            (k.meta().namespace.clone().unwrap_or_default(), k.meta().name.clone().unwrap_or_default())
        };
        match event {
            Event::Init => {
                self.listing.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                self.listing.insert(name(&object));
                vec![(name(&object), Some(object))]
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listing);
                let gone = self.known.difference(&listed).map(|n| (n.clone(), None)).collect();
                self.known = listed;
                gone
            }
            Event::Apply(object) => {
                self.known.insert(name(&object));
                vec![(name(&object), Some(object))]
            }
            Event::Delete(object) => {
                self.known.remove(&name(&object));
                vec![(name(&object), None)]
            }
        }
    }
}

fn events<K>(client: &Client) -> impl futures::Stream<Item = Result<Event<K>, watcher::Error>> + use<K>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    watch(Api::<K>::all(client.clone()), watcher::Config::default()).default_backoff().filter(|event| {
        if let Err(error) = event {
            tracing::debug!(%error, "watch interrupted; it is resumed");
        }
        futures::future::ready(event.is_ok())
    })
}

/// Gives `lo` the address; it may have it already.
async fn put_on_loopback(address: IpAddr) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let connection = tokio::spawn(connection);
    let mut links = handle.link().get().match_name("lo".to_owned()).execute();
    let lo = links.try_next().await?.ok_or("there is no lo")?;
    let prefix = if address.is_ipv4() { 32 } else { 128 };
    let added = handle.address().add(lo.header.index, address, prefix).execute().await;
    connection.abort();
    match added {
        Err(rtnetlink::Error::NetlinkError(message))
            if message.to_io().kind() == std::io::ErrorKind::AlreadyExists =>
        {
            Ok(())
        }
        other => Ok(other?),
    }
}
