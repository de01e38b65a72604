//! How etcd is started: every connection by TLS, with a certificate at both ends.

use super::place::{CLIENT_PORT, PEER_PORT, Place};
use crate::child::Program;
use anyhow::Context as _;
use jiff::Timestamp;
use pki::ClusterNames;
use pki::etcd::EtcdPki;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Where upstream's members tell of themselves, on the machine only.
const METRICS_PORT: u16 = 2381;
/// Entries between two snapshots of the log, as kubeadm has it.
const SNAPSHOT_COUNT: u64 = 10_000;

/// Who a member is, and with what it is started.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) ip: IpAddr,
    pub(super) program: PathBuf,
    pub(super) pki: EtcdPki,
}

/// Where a first start finds the others.
pub(super) enum Cluster {
    /// It is the first one.
    New,
    /// Names and peer URLs of all, ourselves included.
    Existing(Vec<(String, String)>),
}

impl Member {
    pub(super) fn new(name: &str, ip: IpAddr, program: Option<&Path>, pki: EtcdPki) -> anyhow::Result<Self> {
        Ok(Self { name: name.to_owned(), ip, program: find(program)?, pki })
    }

    pub(super) fn client_url(&self) -> String {
        url(self.ip, CLIENT_PORT)
    }

    pub(super) fn peer_url(&self) -> String {
        url(self.ip, PEER_PORT)
    }

    /// Where it listens for other members.
    pub(super) fn peer_address(&self) -> SocketAddr {
        SocketAddr::new(self.ip, PEER_PORT)
    }

    /// As it is to be run on `place`.
    pub(super) fn program(&self, place: &Place, cluster: &Cluster) -> anyhow::Result<Program> {
        Program::other("etcd", &self.program, self.arguments(place, cluster, SNAPSHOT_COUNT))
    }

    pub(super) fn arguments(&self, place: &Place, cluster: &Cluster, snapshot_count: u64) -> Vec<String> {
        let loopback: IpAddr =
            if self.ip.is_ipv6() { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
        // A node that has only a loopback address may share the usual one with others.
        let local = if self.ip.is_loopback() { self.ip } else { loopback };
        let mut clients = vec![url(local, CLIENT_PORT)];
        clients.extend((local != self.ip).then(|| self.client_url()));
        let (state, members) = match cluster {
            Cluster::New => ("new", format!("{}={}", self.name, self.peer_url())),
            Cluster::Existing(all) => {
                let all: Vec<String> = all.iter().map(|(name, peer)| format!("{name}={peer}")).collect();
                ("existing", all.join(","))
            }
        };
        let ((server, server_key), (peer, peer_key)) = (self.pki.server_files(), self.pki.peer_files());
        let authority = self.pki.authority_file();
        let show = |path: &Path| path.display().to_string();
        let all = [
            ("name", self.name.clone()),
            ("data-dir", show(&place.data())),
            ("listen-client-urls", clients.join(",")),
            ("advertise-client-urls", self.client_url()),
            ("listen-peer-urls", self.peer_url()),
            ("initial-advertise-peer-urls", self.peer_url()),
            ("initial-cluster", members),
            ("initial-cluster-state", state.to_owned()),
            ("listen-metrics-urls", format!("http://{}", SocketAddr::new(local, METRICS_PORT))),
            ("snapshot-count", snapshot_count.to_string()),
            ("cert-file", show(&server)),
            ("key-file", show(&server_key)),
            ("trusted-ca-file", show(&authority)),
            ("client-cert-auth", "true".to_owned()),
            ("peer-cert-file", show(&peer)),
            ("peer-key-file", show(&peer_key)),
            ("peer-trusted-ca-file", show(&authority)),
            ("peer-client-cert-auth", "true".to_owned()),
            ("experimental-initial-corrupt-check", "true".to_owned()),
            ("logger", "zap".to_owned()),
            ("log-level", "warn".to_owned()),
        ]
        .map(|(flag, value)| format!("--{flag}={value}"));
        let token = match cluster {
            // A cluster made anew by a machine that was in another one is another one: members left of that must not take it for theirs.
            Cluster::New => {
                Some(format!("--initial-cluster-token={}-{}", self.name, Timestamp::now().as_nanosecond()))
            }
            Cluster::Existing(_) => None,
        };
        all.into_iter().chain(token).collect()
    }
}

/// Names and addresses in a member's certificates: peers look at the address that a connection comes from, too.
pub(super) fn names(node: &str, ips: &[IpAddr]) -> ClusterNames {
    let mut all = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    all.extend(ips);
    all.sort();
    all.dedup();
    ClusterNames { dns_names: vec![node.to_owned(), "localhost".to_owned()], ips: all }
}

fn url(ip: IpAddr, port: u16) -> String {
    format!("https://{}", SocketAddr::new(ip, port))
}

fn find(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(path) = given {
        anyhow::ensure!(path.is_file(), "--etcd-program {}: there is no such file", path.display());
        return Ok(path.to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join("etcd")).find(|file| file.is_file());
    found.context("there is no program etcd in the PATH: install it (Debian: etcd-server), or name it with --etcd-program")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(ip: &str, cluster: &Cluster) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let ip: IpAddr = ip.parse().unwrap();
        let pki = EtcdPki::load_or_create(dir.path(), "n1", &names("n1", &[ip]), Timestamp::now()).unwrap();
        let member = Member { name: "n1".into(), ip, program: "/usr/bin/etcd".into(), pki };
        member.arguments(&Place::of(Path::new("/s")), cluster, 10)
    }

    #[test]
    fn no_connection_must_be_without_certificates() {
        let all = arguments("192.0.2.1", &Cluster::New);
        for flag in ["client-cert-auth", "peer-client-cert-auth"] {
            assert!(all.contains(&format!("--{flag}=true")));
        }
        let urls = all.iter().filter(|a| a.contains("-urls=") && !a.starts_with("--listen-metrics"));
        urls.for_each(|urls| assert!(!urls.contains("http://"), "{urls}"));
        let plain: Vec<_> = all.iter().filter(|a| a.contains("http://")).collect();
        assert_eq!(plain, ["--listen-metrics-urls=http://127.0.0.1:2381"]);
        assert!(!all.iter().any(|a| a.contains("unsafe") || a.contains("force") || a.contains("auto-tls")));
        assert!(
            all.contains(&"--listen-client-urls=https://127.0.0.1:2379,https://192.0.2.1:2379".to_owned())
        );
        assert!(all.contains(&"--initial-cluster=n1=https://192.0.2.1:2380".to_owned()));
    }

    #[test]
    fn a_cluster_made_anew_must_not_pass_for_the_one_before() {
        let token =
            || arguments("192.0.2.1", &Cluster::New).into_iter().find(|a| a.contains("cluster-token"));
        let (first, second) = (token().unwrap(), token().unwrap());
        assert_ne!(first, second);
    }

    #[test]
    fn servers_of_one_machine_must_not_take_each_others_loopback() {
        let all = arguments(
            "127.0.5.1",
            &Cluster::Existing(vec![("n1".into(), "p1".into()), ("n2".into(), "p2".into())]),
        );
        assert!(all.contains(&"--listen-client-urls=https://127.0.5.1:2379".to_owned()));
        assert!(all.contains(&"--listen-metrics-urls=http://127.0.5.1:2381".to_owned()));
        assert!(all.contains(&"--initial-cluster=n1=p1,n2=p2".to_owned()));
        assert!(all.contains(&"--initial-cluster-state=existing".to_owned()));
        assert!(!all.iter().any(|a| a.contains("cluster-token")), "they have theirs");
        let v6 = arguments("2001:db8::1", &Cluster::New);
        assert!(
            v6.contains(&"--listen-client-urls=https://[::1]:2379,https://[2001:db8::1]:2379".to_owned())
        );
    }
}
