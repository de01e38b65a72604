//! The parts of a control plane as processes of their own, with upstream's flags: a Deployment's pods get a node.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use pki::{ClusterNames, Pki};
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The longest wait for anything: other tests share the machine.
const PATIENCE: Duration = Duration::from_secs(120);

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the parts are told by files.
struct Place {
    dir: tempfile::TempDir,
    pki: Pki,
    port: u16,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let names =
            ClusterNames::of("cluster.local", IpAddr::from([10, 96, 0, 1]), &["127.0.0.1".to_owned()]);
        let pki = Pki::load_or_create(&dir.path().join("pki"), &names, Timestamp::now()).unwrap();
        Self { dir, pki, port: free_port() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn kubeconfig(&self, user: &str, groups: &[&str]) -> PathBuf {
        let path = self.file(&format!("{}.kubeconfig", user.replace(':', "-")));
        let url = format!("https://127.0.0.1:{}", self.port);
        self.pki.kubeconfig(&url, user, groups, Timestamp::now()).unwrap().write(&path).unwrap();
        path
    }

    /// Starts `windlass COMMAND`; its log goes to a file.
    fn start(&self, command: &str, flags: &[String]) -> Process {
        let log = std::fs::File::create(self.file(&format!("{command}.log"))).unwrap();
        let mut program = Command::new(env!("CARGO_BIN_EXE_windlass"));
        program.arg(command).args(flags).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Process(program.spawn().unwrap())
    }

    fn api_server(&self) -> Process {
        self.api_server_with(&[])
    }

    fn api_server_with(&self, more: &[String]) -> Process {
        let pki = |name: &str| self.file("pki").join(name).display().to_string();
        let flags = [
            format!("--data-dir={}", self.file("data").display()),
            format!("--secure-port={}", self.port),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/12".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
            format!("--service-account-key-file={}", pki("sa.pub")),
            format!("--service-account-signing-key-file={}", pki("sa.key")),
            format!("--client-ca-file={}", pki("ca.crt")),
            format!("--requestheader-client-ca-file={}", pki("front-proxy-ca.crt")),
            "--requestheader-allowed-names=front-proxy-client".to_owned(),
            "--requestheader-username-headers=X-Remote-User".to_owned(),
            "--requestheader-group-headers=X-Remote-Group".to_owned(),
            "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
            format!("--tls-cert-file={}", pki("apiserver.crt")),
            format!("--tls-private-key-file={}", pki("apiserver.key")),
        ];
        self.start("apiserver", &[&flags, more].concat())
    }

    fn scheduler(&self, port: u16) -> Process {
        let kubeconfig = self.kubeconfig("system:kube-scheduler", &[]);
        let config = self.file("scheduler.yaml");
        std::fs::write(
            &config,
            format!(
                "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n\
                 clientConnection: {{kubeconfig: {}}}\nprofiles: [{{}}, {{schedulerName: other}}]\n",
                kubeconfig.display()
            ),
        )
        .unwrap();
        let config = format!("--config={}", config.display());
        self.start("scheduler", &[config, format!("--secure-port={port}"), "--bind-address=127.0.0.1".into()])
    }

    fn controllers(&self, port: u16) -> Process {
        let kubeconfig = self.kubeconfig("system:kube-controller-manager", &[]);
        let flags = [
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--secure-port={port}"),
            "--bind-address=127.0.0.1".to_owned(),
            "--leader-elect=true".to_owned(),
            "--use-service-account-credentials=true".to_owned(),
            "--allocate-node-cidrs=true".to_owned(),
            "--cluster-cidr=10.244.0.0/16".to_owned(),
            format!("--root-ca-file={}", self.file("pki").join("ca.crt").display()),
        ];
        self.start("controllers", &flags)
    }

    async fn admin(&self) -> Client {
        let path = self.kubeconfig("admin", &["system:masters"]);
        let parsed = kube::config::Kubeconfig::read_from(path).unwrap();
        let options = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(parsed, &options).await.unwrap();
        Client::try_from(config).unwrap()
    }

    fn logs(&self) -> String {
        let read =
            |name: &str| std::fs::read_to_string(self.file(&format!("{name}.log"))).unwrap_or_default();
        ["apiserver", "scheduler", "controllers"].map(|name| format!("== {name}\n{}", read(name))).join("\n")
    }

    async fn until(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let start = Instant::now();
        while !holds().await {
            assert!(start.elapsed() < PATIENCE, "{what}\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

async fn make_node(client: &Client) {
    let nodes: Api<Node> = Api::all(client.clone());
    let node = serde_json::from_value(json!({"metadata": {"name": "n1"}})).unwrap();
    nodes.create(&PostParams::default(), &node).await.unwrap();
    let room = json!({"cpu": "4", "memory": "8Gi", "pods": "110"});
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let ready = json!({"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "",
        "lastHeartbeatTime": now, "lastTransitionTime": now});
    let status = json!({"status": {"capacity": room, "allocatable": room, "conditions": [ready]}});
    nodes.patch_status("n1", &PatchParams::default(), &Patch::Strategic(status)).await.unwrap();
}

fn deployment() -> Deployment {
    let labels = json!({"app": "web"});
    let container = json!({"name": "c", "image": "example/web"});
    serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": {
        "replicas": 2, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}}}}))
    .unwrap()
}

/// What a part answers on its port, without credentials.
async fn asked(port: u16, path: &str) -> Option<u16> {
    let mut config = kube::Config::new(format!("https://localhost:{port}").parse().unwrap());
    config.accept_invalid_certs = true;
    let client = Client::try_from(config).unwrap();
    let request = http::Request::get(path).body(kube::client::Body::empty()).unwrap();
    Some(client.send(request).await.ok()?.status().as_u16())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_that_are_processes_of_their_own_place_the_pods_of_a_deployment() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let place = Place::new();
    let _api_server = place.api_server();
    let client = place.admin().await;
    place
        .until("the API server is ready", async || {
            let request = http::Request::get("/readyz").body(Vec::new()).unwrap();
            client.request_text(request).await.is_ok()
        })
        .await;
    let (scheduler_port, controllers_port) = (free_port(), free_port());
    let _scheduler = place.scheduler(scheduler_port);
    let _controllers = place.controllers(controllers_port);
    make_node(&client).await;
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
    place.until("the namespace has its account", async || accounts.get("default").await.is_ok()).await;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "default");
    deployments.create(&PostParams::default(), &deployment()).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    place
        .until("both pods have a node", async || {
            let pods = pods.list(&ListParams::default()).await.unwrap().items;
            let node = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
            pods.len() == 2 && pods.iter().all(|pod| node(pod).as_deref() == Some("n1"))
        })
        .await;
    // The account of the deployment controller may update this, and not patch it.
    place
        .until("the deployment says what became of it", async || {
            let status = deployments.get("web").await.unwrap().status.unwrap_or_default();
            (status.replicas, status.updated_replicas) == (Some(2), Some(2))
        })
        .await;
    let nodes: Api<Node> = Api::all(client.clone());
    let spec = nodes.get("n1").await.unwrap().spec.unwrap();
    assert_eq!(spec.pod_cidr.as_deref(), Some("10.244.0.0/24"));

    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-system");
    for name in ["kube-scheduler", "kube-controller-manager"] {
        let holder = leases.get(name).await.unwrap().spec.unwrap().holder_identity.unwrap();
        assert!(holder.contains('_'), "{name} is led by {holder}");
    }
    for (port, name) in [(scheduler_port, "scheduler"), (controllers_port, "controllers")] {
        for path in ["/healthz", "/livez", "/readyz"] {
            assert_eq!(asked(port, path).await, Some(200), "{name} {path}");
        }
        assert_eq!(asked(port, "/metrics").await, Some(403), "{name}: counters are not for everybody");
    }
}

#[tokio::test]
async fn flags_of_the_api_server_reach_the_server_that_runs() {
    let place = Place::new();
    let tokens = place.file("tokens.csv");
    std::fs::write(&tokens, "sesame,robot,1,\"system:masters,bots\"\n").unwrap();
    let _api = place.api_server_with(&[
        format!("--token-auth-file={}", tokens.display()),
        "--runtime-config=batch/v1=false".to_owned(),
        "--disabled-metrics=apiserver_current_inflight_requests".to_owned(),
        "--enable-priority-and-fairness=false".to_owned(),
        "--tls-min-version=VersionTLS13".to_owned(),
        "--feature-gates=APIServerTracing=true".to_owned(),
    ]);
    let path = place.kubeconfig("nobody", &[]);
    let parsed = kube::config::Kubeconfig::read_from(path).unwrap();
    let options = kube::config::KubeConfigOptions::default();
    let mut config = kube::Config::from_custom_kubeconfig(parsed, &options).await.unwrap();
    let token = "sesame".to_owned();
    config.auth_info = kube::config::AuthInfo { token: Some(token.into()), ..Default::default() };
    let robot = Client::try_from(config).unwrap();
    let get = async |path: &str| robot.request_text(http::Request::get(path).body(Vec::new()).unwrap()).await;
    place.until("the API server is ready", async || get("/readyz").await.is_ok()).await;
    let who = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let ask = http::Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
        .header("content-type", "application/json")
        .body(serde_json::to_vec(&who).unwrap())
        .unwrap();
    let said: serde_json::Value = robot.request(ask).await.unwrap();
    assert_eq!(said["status"]["userInfo"]["username"], "robot");
    assert_eq!(
        said["status"]["userInfo"]["groups"],
        json!(["system:masters", "bots", "system:authenticated"])
    );
    assert!(get("/apis/apps/v1").await.is_ok());
    assert!(get("/apis/batch/v1").await.is_err());
    let metrics = get("/metrics").await.unwrap();
    assert!(metrics.contains("apiserver_request_total"));
    assert!(!metrics.contains("apiserver_current_inflight_requests"));
}

#[test]
fn a_part_refuses_what_it_does_not_know_by_name() {
    let said = |line: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_windlass")).args(line).output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let (done, text) = said(&["scheduler", "--kubeconfigs=/x"]);
    assert!(!done && text.contains("unknown flag: --kubeconfigs"), "{text}");
    let (done, text) = said(&["scheduler", "--profiling=false", "--kubeconfig=/nowhere"]);
    assert!(
        !done && text.contains("flag --profiling has no effect here") && text.contains("/nowhere"),
        "{text}"
    );
}

#[test]
fn a_part_is_called_by_upstreams_name() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("kube-scheduler");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_windlass"), &link).unwrap();
    let output = Command::new(&link).arg("--version").output().unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().starts_with("Kubernetes v1.36."));
}
