//! A member that runs.

use etcd::v3::request_op::Request;
use etcd::v3::{PutRequest, RequestOp, TxnRequest};
use etcd::{Client, Config, Repeat};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub const PROGRAM: &str = "/usr/bin/etcd";
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Member {
    name: &'static str,
    pub data: PathBuf,
    pub client: String,
    pub peer: String,
    process: Option<Child>,
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Member {
    pub fn new(dir: &Path, name: &'static str) -> Self {
        let url = || format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
        Self { name, data: dir.join(name), client: url(), peer: url(), process: None }
    }

    pub fn start(&mut self, cluster: &str, state: &str, snapshot_count: u32) {
        let log = std::fs::File::options().create(true).append(true).open(self.data.with_extension("log"));
        let mut command = Command::new(PROGRAM);
        command.args(["--name", self.name, "--initial-cluster", cluster, "--initial-cluster-state", state]);
        command.args(["--listen-client-urls", &self.client, "--advertise-client-urls", &self.client]);
        command.args(["--listen-peer-urls", &self.peer, "--initial-advertise-peer-urls", &self.peer]);
        command.args([
            "--snapshot-count",
            &snapshot_count.to_string(),
            "--experimental-initial-corrupt-check",
        ]);
        command.arg("--data-dir").arg(&self.data).stdout(Stdio::null()).stderr(log.unwrap());
        self.process = Some(command.spawn().unwrap());
    }

    pub fn stop(&mut self) {
        let mut process = self.process.take().unwrap();
        let pid = process.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        process.wait().unwrap();
    }

    pub fn client(&self) -> Client {
        Client::new(&Config { endpoints: vec![self.client.clone()], ..Config::default() }).unwrap()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.data.with_extension("log")).unwrap_or_default()
    }
}

pub async fn until<T, F: Future<Output = Option<T>>>(member: &Member, mut probe: impl FnMut() -> F) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < end, "{}", member.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub async fn serves(member: &Member) {
    let client = member.client();
    until(member, || async { client.member_list().await.ok() }).await;
}

pub async fn put(client: &Client, key: &str) -> i64 {
    let put = PutRequest { key: key.to_owned().into(), value: "v".into(), lease: 0 };
    let success = vec![RequestOp { request: Some(Request::RequestPut(put)) }];
    let done = client.txn(TxnRequest { success, ..TxnRequest::default() }, Repeat::Always).await.unwrap();
    done.header.unwrap().revision
}
