//! Who would be left behind by a step of a rotation: before the new authority signs, everybody is to trust it; before the old one is
//! dropped, nobody is to show a certificate of it any more.
//!
//! Nodes and other servers are looked at where they serve. Before the switch they are shown a certificate of the new authority, and tell whether they
//! believe it ([`mod@shown`]); before the end, what they show themselves is looked at, which is renewed as everything else of theirs is. What has not
//! been given a place to look at (kubeconfigs that were given out, clients outside) is nobody's to know.

mod shown;

use crate::member::command;
use crate::parts::kubeconfig;
use crate::settings;
use apiserver::trusted;
use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use pki::etcd::AUTHORITY;
use pki::expiry::{self, Expiry};
use pki::rotation::{self, Step};
use pki::{Certificate, files};
use shown::{Said, Shown};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;
use supervise::chain;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long somebody may take to show a certificate, or the API server to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Nodes, or servers, that are looked at at once.
const AT_ONCE: usize = 32;
/// How long servers behind the API server take to learn of a front proxy's authority.
const SERVERS_LEARN: Duration = Duration::from_secs(60);

/// A rotation that has a step before it.
pub(super) struct Rotation<'r> {
    /// `ca`, `front-proxy-ca` or `etcd/ca`.
    pub(super) name: &'r str,
    pub(super) step: Step,
    /// The server's keys and certificates.
    pub(super) dir: &'r Path,
    pub(super) data_dir: &'r Path,
}

impl Rotation<'_> {
    /// What is in the way of the step, each by its name.
    pub(super) async fn found(&self, held: &[Expiry], now: Timestamp) -> anyhow::Result<Found> {
        let mut found = Found::default();
        match self.step {
            // Nothing is taken away, and nobody signs with it yet.
            Step::Prepare => return Ok(found),
            Step::Switch => {}
            Step::Finish => found.in_the_way.extend(of_the_old(self.name, held)),
        }
        let mut all_told = false;
        if self.name == AUTHORITY {
            let authorities = self.authorities(now)?;
            self.members(&command::places(self.data_dir)?, &authorities, &mut found).await;
            return Ok(found);
        }
        match self.cluster().await {
            Ok((nodes, servers)) => {
                let authorities = self.authorities(now)?;
                if self.name == "ca" {
                    self.nodes(&nodes, &authorities, &mut found).await;
                    all_told = authorities.shown.is_some();
                }
                self.servers(&servers, &authorities, &mut found).await?;
                all_told &= found.in_the_way.is_empty() && found.unseen.is_empty();
            }
            Err(error) => found
                .in_the_way
                .push(format!("nodes and servers: the cluster cannot be asked for them: {error:#}")),
        }
        // Who was asked, and believes, need not be waited for.
        if self.step == Step::Switch && !all_told {
            found.in_the_way.extend(self.too_early(now)?);
        }
        Ok(found)
    }

    /// Who follows authorities does so by a period.
    fn too_early(&self, now: Timestamp) -> anyhow::Result<Option<String>> {
        let (period, who) = match self.name {
            "ca" => (node::AUTHORITIES_LEARNT, "agents"),
            _ => (SERVERS_LEARN, "servers behind this one"),
        };
        let path = self.dir.join(format!("{}-next.crt", self.name));
        let Ok(made) = std::fs::metadata(&path).and_then(|found| found.modified()) else { return Ok(None) };
        let age = Duration::try_from(now.duration_since(Timestamp::try_from(made)?)).unwrap_or_default();
        Ok(period.checked_sub(age).filter(|left| !left.is_zero()).map(|left| {
            format!(
                "{who}: they learn of the new authority within {}s, of which {}s are left",
                period.as_secs(),
                left.as_secs()
            )
        }))
    }

    async fn cluster(&self) -> anyhow::Result<(Vec<Node>, Vec<String>)> {
        let client = kubeconfig::client(&settings::admin_kubeconfig(self.data_dir), None).await?;
        let list = ListParams::default();
        let asked = async {
            let nodes = Api::<Node>::all(client.clone()).list(&list).await?.items;
            let of_api = ListParams::default().labels("kubernetes.io/service-name=kubernetes");
            let slices = Api::<EndpointSlice>::namespaced(client.clone(), "default").list(&of_api).await?;
            anyhow::Ok((nodes, slices.items.iter().flat_map(endpoints).collect()))
        };
        tokio::time::timeout(PATIENCE, asked).await?
    }

    async fn nodes(&self, nodes: &[Node], authorities: &Authorities, found: &mut Found) {
        let looked = nodes.iter().map(|node| async move {
            let said = match (kubelet(node), &authorities.shown) {
                _ if self.step == Step::Switch && !is_ready(node) => {
                    Said::Not("it is not ready, and may not know the new authority".to_owned())
                }
                (_, None) if self.step == Step::Switch => Said::Believed,
                (None, _) => Said::Not("it has no address to look at".to_owned()),
                (Some(place), Some(shown)) if self.step == Step::Switch => shown.to_kubelet(&place).await,
                (Some(place), _) => authorities.judge(shown(&place).await).map_or(Said::Believed, Said::Not),
            };
            (format!("node {}", node.name_any()), said)
        });
        let looked: Vec<_> = futures::stream::iter(looked).buffered(AT_ONCE).collect().await;
        looked.into_iter().for_each(|(who, said)| found.add(&who, said));
    }

    /// Members of etcd, this server's own among them: etcd reads authorities at its start only.
    async fn members(&self, places: &[String], authorities: &Authorities, found: &mut Found) {
        let looked = places.iter().map(|place| async move {
            let said = match &authorities.shown {
                Some(certificate) if self.step == Step::Switch => certificate.to_member(place).await,
                _ => authorities.judge(shown(place).await).map_or(Said::Believed, Said::Not),
            };
            (format!("member of etcd {place}"), said)
        });
        let looked: Vec<_> = futures::stream::iter(looked).buffered(AT_ONCE).collect().await;
        looked.into_iter().for_each(|(who, said)| found.add(&who, said));
    }

    /// Other servers; this one is known by its certificate.
    async fn servers(
        &self,
        places: &[String],
        authorities: &Authorities,
        found: &mut Found,
    ) -> anyhow::Result<()> {
        let own = Certificate::from_pem(&files::read(&self.dir.join("apiserver.crt"))?)?;
        let looked = places.iter().map(|place| async move { (place, shown(place).await) });
        let looked: Vec<_> = futures::stream::iter(looked).buffered(AT_ONCE).collect().await;
        for (place, shown) in looked {
            if shown.as_ref().is_ok_and(|shown| shown.public_key == own.public_key) {
                continue;
            }
            let (name, who) = (self.name, format!("server {place}"));
            match (self.step, name, &authorities.shown) {
                (Step::Finish, "ca", _) => {
                    found.add(&who, authorities.judge(shown).map_or(Said::Believed, Said::Not));
                }
                (Step::Switch, "ca", Some(certificate)) => match certificate.to_server(place).await {
                    Said::Not(why) => found.in_the_way.push(format!(
                        "{who}: {why}: its pki directory must hold {name}-next.crt and {name}-next.key of this one"
                    )),
                    said => found.add(&who, said),
                },
                (Step::Finish, ..) => {
                    found.unseen.push(format!("{who}: its {name} files must be those of this one"));
                }
                _ => found.unseen.push(format!(
                    "{who}: its pki directory must hold {name}-next.crt and {name}-next.key of this one"
                )),
            }
        }
        Ok(())
    }

    fn authorities(&self, now: Timestamp) -> anyhow::Result<Authorities> {
        let read = |file: String| -> anyhow::Result<Vec<Certificate>> {
            let text = files::read_optional(&self.dir.join(file))?.unwrap_or_default();
            if text.is_empty() { Ok(Vec::new()) } else { Ok(Certificate::list_from_pem(&text)?) }
        };
        let prepared = rotation::prepared(self.dir, self.name)?;
        Ok(Authorities {
            new: read(format!("{}.crt", self.name))?,
            old: read(format!("{}-old.crt", self.name))?,
            shown: prepared.map(|prepared| Shown::new(&prepared, now)).transpose()?,
        })
    }
}

/// What was found before a step.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Who does not follow yet.
    pub(super) in_the_way: Vec<String>,
    /// What must be so, and shows nowhere: files of other servers.
    pub(super) unseen: Vec<String>,
}

impl Found {
    fn add(&mut self, who: &str, said: Said) {
        match said {
            Said::Believed => {}
            Said::Not(why) => self.in_the_way.push(format!("{who}: {why}")),
            Said::Unclear(why) => self.unseen.push(format!("{who}: {why}")),
        }
    }
}

/// The one that signs, the one it replaced, and a client of the one that is to replace it.
struct Authorities {
    new: Vec<Certificate>,
    old: Vec<Certificate>,
    shown: Option<Shown>,
}

impl Authorities {
    /// What is wrong with a certificate, if anything is.
    fn judge(&self, shown: Result<Certificate, String>) -> Option<String> {
        let signed = |shown: &Certificate, by: &[Certificate]| by.iter().any(|one| shown.is_signed_by(one));
        match shown {
            Err(error) => Some(format!("it does not show its certificate: {error}")),
            Ok(shown) if signed(&shown, &self.new) => None,
            Ok(shown) if signed(&shown, &self.old) => {
                Some("its certificate is of the old authority".to_owned())
            }
            Ok(_) => Some("its certificate is of neither authority".to_owned()),
        }
    }
}

/// Certificates on this machine that the old authority signed.
fn of_the_old(name: &str, held: &[Expiry]) -> Vec<String> {
    let old = format!("{}-old", expiry::called(name));
    let of_old = held.iter().filter(|entry| entry.ca_name == old);
    of_old.map(|entry| format!("{}: it is of the old authority", entry.name)).collect()
}

fn is_ready(node: &Node) -> bool {
    let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Where a node's kubelet serves.
fn kubelet(node: &Node) -> Option<String> {
    let status = node.status.as_ref()?;
    let port = status.daemon_endpoints.as_ref()?.kubelet_endpoint.as_ref()?.port;
    let address = status.addresses.iter().flatten().find(|address| address.type_ == "InternalIP")?;
    Some(place(&address.address, port))
}

/// Where API servers serve.
fn endpoints(slice: &EndpointSlice) -> Vec<String> {
    let port = slice.ports.iter().flatten().find_map(|port| port.port).unwrap_or(6443);
    slice.endpoints.iter().flatten().flat_map(|e| &e.addresses).map(|address| place(address, port)).collect()
}

fn place(address: &str, port: i32) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// The certificate that is served at a place.
async fn shown(place: &str) -> Result<Certificate, String> {
    let asked = async {
        let host = place.rsplit_once(':').map_or(place, |(host, _)| host).trim_matches(['[', ']']);
        let name = host.parse::<IpAddr>().map_err(|e| e.to_string())?;
        let config = trusted::config(&[], true, None).map_err(|e| chain(&e))?;
        let stream = TcpStream::connect(place).await.map_err(|e| e.to_string())?;
        let stream =
            TlsConnector::from(config).connect(name.into(), stream).await.map_err(|e| e.to_string())?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let first = chain.first().ok_or("there is none")?;
        Certificate::from_der(first).map_err(|e| e.to_string())
    };
    tokio::time::timeout(PATIENCE, asked).await.map_err(|_| "no answer".to_owned())?
}

#[cfg(test)]
mod tests;
