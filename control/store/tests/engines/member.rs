//! etcd members of a test's own: on loopback ports, in a directory that goes with them, ended by their process ids.

use jiff::Timestamp;
use pki::{Authority, Leaf};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = "/usr/bin/etcd";

/// Members that know each other.
pub struct Cluster {
    members: Vec<Member>,
    /// Whether clients are spoken to by TLS only, and must show a certificate of [`Cluster::authority`]'s.
    authority: Option<Authority>,
    dir: tempfile::TempDir,
}

struct Member {
    client: u16,
    peer: u16,
    health: u16,
    process: Option<Child>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (0..self.members.len()).for_each(|n| self.kill(n));
    }
}

impl Cluster {
    /// `None`, and a line that says so, where there is no etcd.
    pub fn start(count: usize) -> Option<Self> {
        Self::start_with(count, None)
    }

    /// As [`Cluster::start`], with TLS and client certificates.
    pub fn start_tls() -> Option<Self> {
        Self::start_with(1, Some(Authority::generate("etcd-ca", Timestamp::now()).unwrap()))
    }

    fn start_with(count: usize, authority: Option<Authority>) -> Option<Self> {
        if !Path::new(PROGRAM).exists() {
            println!("skipped: there is no {PROGRAM}");
            return None;
        }
        // All at once, so that no two are the same.
        let listeners: Vec<_> = (0..3 * count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> = listeners.iter().map(|l| l.local_addr().unwrap().port()).collect();
        drop(listeners);
        let members = ports.chunks(3);
        let members =
            members.map(|p| Member { client: p[0], peer: p[1], health: p[2], process: None }).collect();
        let mut cluster = Self { members, authority, dir: tempfile::tempdir().unwrap() };
        (0..count).for_each(|n| cluster.run(n));
        let deadline = Instant::now() + Duration::from_secs(20);
        while !(0..count).all(|n| cluster.is_healthy(n)) {
            assert!(Instant::now() < deadline, "etcd does not come up: {}", cluster.log(0));
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(cluster)
    }

    pub fn config(&self) -> ::etcd::Config {
        let scheme = if self.authority.is_some() { "https" } else { "http" };
        let endpoints = self.members.iter().map(|m| format!("{scheme}://127.0.0.1:{}", m.client)).collect();
        let authorities = self.authority.as_ref().map(|a| a.cert_pem().into_bytes());
        let identity = self.authority.as_ref().map(|a| {
            let issued = a.issue(&Leaf::client("kube-apiserver-etcd-client", &[]), Timestamp::now()).unwrap();
            (issued.cert_pem.into_bytes(), issued.key_pem.into_bytes())
        });
        ::etcd::Config { endpoints, authorities, identity, cluster: None }
    }

    /// What makes a member take TLS, and client certificates only.
    fn tls(&self) -> Vec<String> {
        let Some(authority) = &self.authority else { return Vec::new() };
        let local = std::net::IpAddr::from([127, 0, 0, 1]);
        let issued =
            authority.issue(&Leaf::server("etcd", Vec::new(), vec![local]), Timestamp::now()).unwrap();
        let files = [
            ("trusted-ca-file", authority.cert_pem()),
            ("cert-file", issued.cert_pem),
            ("key-file", issued.key_pem),
        ];
        let mut arguments = vec!["--client-cert-auth".to_owned()];
        for (flag, pem) in files {
            let path = self.dir.path().join(flag);
            std::fs::write(&path, pem).unwrap();
            arguments.push(format!("--{flag}={}", path.display()));
        }
        arguments
    }

    /// Starts a member, anew or after [`Cluster::kill`].
    pub fn run(&mut self, n: usize) {
        let url = |port| format!("http://127.0.0.1:{port}");
        let peers: Vec<_> =
            self.members.iter().enumerate().map(|(n, m)| format!("m{n}={}", url(m.peer))).collect();
        let log =
            std::fs::File::options().create(true).append(true).open(self.dir.path().join(format!("{n}.log")));
        let Member { client, peer, health, .. } = self.members[n];
        let client = match self.authority {
            Some(_) => format!("https://127.0.0.1:{client}"),
            None => url(client),
        };
        let process = Command::new(PROGRAM)
            .args(["--heartbeat-interval=20", "--election-timeout=200"])
            .arg(format!("--name=m{n}"))
            .arg(format!("--data-dir={}", self.dir.path().join(n.to_string()).display()))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-metrics-urls={}", url(health)))
            .args(self.tls())
            .arg(format!("--listen-peer-urls={}", url(peer)))
            .arg(format!("--initial-advertise-peer-urls={}", url(peer)))
            .arg(format!("--initial-cluster={}", peers.join(",")))
            .stdout(Stdio::null())
            .stderr(log.unwrap())
            .spawn()
            .unwrap();
        self.members[n].process = Some(process);
    }

    /// Kills a member at once, if it runs.
    pub fn kill(&mut self, n: usize) {
        if let Some(mut process) = self.members[n].process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Stops a member where it stands (`true`), or lets it go on.
    pub fn freeze(&self, n: usize, frozen: bool) {
        let signal = if frozen { "-STOP" } else { "-CONT" };
        let pid = self.members[n].process.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Whether a member says that it has a leader.
    pub fn is_healthy(&self, n: usize) -> bool {
        use std::io::{Read, Write};
        let address = ([127, 0, 0, 1], self.members[n].health).into();
        let Ok(mut socket) = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1)) else {
            return false;
        };
        let _ = socket.set_read_timeout(Some(Duration::from_secs(2)));
        let _ = socket.write_all(b"GET /health HTTP/1.0\r\n\r\n");
        let mut answer = String::new();
        let _ = socket.read_to_string(&mut answer);
        answer.contains("true")
    }

    fn log(&self, n: usize) -> String {
        std::fs::read_to_string(self.dir.path().join(format!("{n}.log"))).unwrap_or_default()
    }
}
