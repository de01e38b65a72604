use super::*;
use crate::bootstrap::tests::{Cluster, cluster, config};
use ::client::credentials::Missing;
use pki::Kubeconfig;
use pki::bootstrap::JoinToken;
use pki::kubeconfig::Credentials;
use serde_json::json;
use std::error::Error as _;
use tokio_util::sync::CancellationToken;

struct Joined {
    cluster: Arc<Cluster>,
    keeper: Keeper,
    client: kube::Client,
    dir: tempfile::TempDir,
}

/// A node that has joined, and the keeper of its proxy's credentials.
async fn joined(given: Option<&str>) -> Joined {
    let (cluster, dir) = (cluster().await, tempfile::tempdir().unwrap());
    let token = JoinToken::new(cluster.token.clone(), cluster.pki.ca.certificate());
    let mut config = config(dir.path(), Some(token));
    let path = dir.path().join("given.kubeconfig");
    if let Some(bearer) = given {
        let (server, ca) = (cluster.server.lock().unwrap().clone(), cluster.pki.ca.cert_pem());
        let text = Kubeconfig::new("c", &server, &ca, "u", Credentials::Token(bearer.to_owned()));
        std::fs::write(&path, text.to_yaml().unwrap()).unwrap();
        config.part_kubeconfigs.insert(NodePart::Proxy, path);
    }
    let server = cluster.server.lock().unwrap().clone();
    let (node, files) = bootstrap::join(&config, &server, &CancellationToken::new()).await.unwrap();
    let (client, slot) = client::awaited();
    let keeper = Keeper {
        part: NodePart::Proxy,
        config: Arc::new(config),
        files: Arc::new(files),
        node,
        slot,
        recorder: Recorder::new(None, None).0,
        grace: Duration::from_millis(200),
        changed: crate::rotation::never(),
    };
    Joined { cluster, keeper, client, dir }
}

impl Joined {
    /// What the proxy is told while its credentials are kept; the fake knows no Services, and says so to those it knows.
    async fn ask(&self) -> kube::Error {
        let api = kube::Api::<k8s_openapi::api::core::v1::Service>::all(self.client.clone());
        tokio::select! {
            () = self.keeper.run() => panic!("it never ends"),
            asked = api.get("x") => asked.unwrap_err(),
        }
    }

    fn start_again(&mut self) {
        (self.client, self.keeper.slot) = client::awaited();
    }

    fn asked_as(&self) -> Vec<String> {
        let log = self.cluster.log.lock().unwrap();
        log.iter()
            .filter_map(|line| line.strip_prefix("GET /api/v1/services/x ").map(str::to_owned))
            .collect()
    }
}

fn missing(error: &kube::Error) -> Option<String> {
    error.source()?.downcast_ref::<Missing>().map(ToString::to_string)
}

#[tokio::test]
async fn a_part_gets_a_certificate_of_its_own_and_keeps_it() {
    let joined = joined(None).await;
    assert_eq!(missing(&joined.ask().await), None);
    assert_eq!(joined.asked_as(), ["certificate"]);
    let pair = joined.keeper.files.read_pair(Role::Part(NodePart::Proxy)).unwrap().unwrap();
    assert_eq!(pair.certificate.common_name, "system:kube-proxy");
    assert_eq!(pair.certificate.organizations, Vec::<String>::new());
    let written = Kubeconfig::read(&joined.dir.path().join("agent/proxy.kubeconfig")).unwrap();
    assert_eq!(written.users[0].name, "system:kube-proxy");
    let made = joined.cluster.requests.lock().unwrap().len();
    assert_eq!(missing(&joined.ask().await), None);
    assert_eq!(joined.cluster.requests.lock().unwrap().len(), made, "it has one already");
}

#[tokio::test]
async fn a_part_that_is_denied_a_certificate_must_not_speak_as_its_node() {
    let joined = joined(None).await;
    *joined.cluster.verdict.lock().unwrap() = "Denied";
    let told = missing(&joined.ask().await).unwrap();
    assert!(told.contains("denied") && told.contains("--proxy-kubeconfig"), "{told}");
    assert_eq!(joined.asked_as(), Vec::<String>::new());
}

#[tokio::test]
async fn a_request_nobody_answers_is_waited_for_and_must_not_be_made_again() {
    let mut joined = joined(None).await;
    *joined.cluster.verdict.lock().unwrap() = "NotYet";
    let before = joined.cluster.requests.lock().unwrap().len();
    let told = missing(&joined.ask().await).unwrap();
    assert!(told.contains("nobody has approved"), "{told}");
    // an agent that starts again takes it up
    joined.start_again();
    assert!(missing(&joined.ask().await).is_some());
    assert_eq!(joined.cluster.requests.lock().unwrap().len(), before + 1);
    for request in joined.cluster.requests.lock().unwrap().values_mut() {
        if request.pointer("/spec/signerName") != Some(&json!("kubernetes.io/kube-apiserver-client")) {
            continue;
        }
        let spec: k8s_openapi::api::certificates::v1::CertificateSigningRequestSpec =
            serde_json::from_value(request["spec"].clone()).unwrap();
        let asked = pki::CertificateRequest::from_pem(std::str::from_utf8(&spec.request.0).unwrap()).unwrap();
        let pem = joined.cluster.pki.sign(&asked, &spec.usages.unwrap(), None, Timestamp::now()).unwrap();
        request["status"] = json!({ "certificate": k8s_openapi::ByteString(pem.into_bytes()) });
    }
    joined.start_again();
    assert_eq!(missing(&joined.ask().await), None);
    assert_eq!(joined.asked_as(), ["certificate"]);
}

#[tokio::test]
async fn a_given_kubeconfig_is_used_and_no_certificate_asked_for() {
    let joined = joined(Some("a-token")).await;
    let before = joined.cluster.requests.lock().unwrap().len();
    assert_eq!(missing(&joined.ask().await), None);
    assert_eq!(joined.asked_as(), ["Bearer a-token"]);
    assert_eq!(joined.cluster.requests.lock().unwrap().len(), before);
}

#[tokio::test]
async fn a_part_that_could_not_connect_once_must_not_stay_without_credentials() {
    let mut joined = joined(None).await;
    assert_eq!(missing(&joined.ask().await), None);
    joined.start_again();
    let (kubeconfig, held) = (joined.keeper.files.kubeconfig(), joined.dir.path().join("held"));
    std::fs::rename(&kubeconfig, &held).unwrap();
    let api = kube::Api::<k8s_openapi::api::core::v1::Service>::all(joined.client.clone());
    let connected = async {
        let told = missing(&api.get("x").await.unwrap_err()).unwrap();
        assert!(told.contains("no credentials of the proxy"), "{told}");
        std::fs::rename(&held, &kubeconfig).unwrap();
        while missing(&api.get("x").await.unwrap_err()).is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = joined.keeper.run() => panic!("it never ends"),
        done = tokio::time::timeout(Duration::from_secs(60), connected) => done.unwrap(),
    }
}
