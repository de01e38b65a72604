//! Who would be left behind by a step of a rotation: before the new authority signs, everybody is to trust it; before the old one is
//! dropped, nobody is to show a certificate of it any more.
//!
//! Nodes and other servers are looked at where they serve: what they show there is renewed as everything else of theirs is. What has not
//! been given a place to look at (kubeconfigs that were given out, clients outside) is nobody's to know.

use crate::parts::kubeconfig;
use crate::settings;
use apiserver::trusted;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use pki::expiry::Expiry;
use pki::rotation::Step;
use pki::{Certificate, files};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;
use supervise::chain;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long somebody may take to show a certificate, or the API server to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long servers behind the API server take to learn of a front proxy's authority.
const SERVERS_LEARN: Duration = Duration::from_secs(60);

/// A rotation that has a step before it.
pub(super) struct Rotation<'r> {
    /// `ca` or `front-proxy-ca`.
    pub(super) name: &'r str,
    pub(super) step: Step,
    /// The server's keys and certificates.
    pub(super) dir: &'r Path,
    pub(super) data_dir: &'r Path,
}

impl Rotation<'_> {
    /// What is in the way of the step, each by its name.
    pub(super) async fn in_the_way(&self, held: &[Expiry], now: Timestamp) -> anyhow::Result<Vec<String>> {
        let mut all = Vec::new();
        match self.step {
            // Nothing is taken away, and nobody signs with it yet.
            Step::Prepare => return Ok(all),
            Step::Switch => all.extend(self.too_early(now)?),
            Step::Finish => all.extend(of_the_old(self.name, held)),
        }
        match self.cluster().await {
            Ok((nodes, servers)) => {
                if self.name == "ca" {
                    all.extend(self.nodes(&nodes).await?);
                }
                all.extend(self.servers(&servers).await?);
            }
            Err(error) => {
                all.push(format!("nodes and servers: the cluster cannot be asked for them: {error:#}"))
            }
        }
        Ok(all)
    }

    /// Who follows authorities does so by a period.
    fn too_early(&self, now: Timestamp) -> anyhow::Result<Option<String>> {
        let (period, who) = match self.name {
            "ca" => (node::AUTHORITIES_PERIOD, "agents"),
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

    async fn nodes(&self, nodes: &[Node]) -> anyhow::Result<Vec<String>> {
        let mut all = Vec::new();
        for node in nodes {
            let name = node.name_any();
            if self.step == Step::Switch {
                if !is_ready(node) {
                    all.push(format!("node {name}: it is not ready, and may not know the new authority"));
                }
                continue;
            }
            let why = match kubelet(node) {
                Some(place) => self.judge(shown(&place).await)?,
                None => Some("it has no address to look at".to_owned()),
            };
            all.extend(why.map(|why| format!("node {name}: {why}")));
        }
        Ok(all)
    }

    /// Other servers; this one is known by its certificate.
    async fn servers(&self, places: &[String]) -> anyhow::Result<Vec<String>> {
        let own = Certificate::from_pem(&files::read(&self.dir.join("apiserver.crt"))?)?;
        let mut all = Vec::new();
        for place in places {
            let shown = shown(place).await;
            if shown.as_ref().is_ok_and(|shown| shown.public_key == own.public_key) {
                continue;
            }
            let name = self.name;
            let why = match (self.step, name) {
                (Step::Finish, "ca") => self.judge(shown)?,
                (Step::Finish, _) => Some(format!("its {name} files must be those of this one")),
                _ => Some(format!(
                    "its pki directory must hold {name}-next.crt and {name}-next.key of this one"
                )),
            };
            all.extend(why.map(|why| format!("server {place}: {why}")));
        }
        Ok(all)
    }

    /// What is wrong with a certificate, if anything is.
    fn judge(&self, shown: Result<Certificate, String>) -> anyhow::Result<Option<String>> {
        let read = |file: String| -> anyhow::Result<Vec<Certificate>> {
            let text = files::read_optional(&self.dir.join(file))?.unwrap_or_default();
            if text.is_empty() { Ok(Vec::new()) } else { Ok(Certificate::list_from_pem(&text)?) }
        };
        let (new, old) = (read(format!("{}.crt", self.name))?, read(format!("{}-old.crt", self.name))?);
        let signed = |shown: &Certificate, by: &[Certificate]| by.iter().any(|one| shown.is_signed_by(one));
        Ok(match shown {
            Err(error) => Some(format!("it does not show its certificate: {error}")),
            Ok(shown) if signed(&shown, &new) => None,
            Ok(shown) if signed(&shown, &old) => Some("its certificate is of the old authority".to_owned()),
            Ok(_) => Some("its certificate is of neither authority".to_owned()),
        })
    }
}

/// Certificates on this machine that the old authority signed.
fn of_the_old(name: &str, held: &[Expiry]) -> Vec<String> {
    let old = format!("{name}-old");
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
