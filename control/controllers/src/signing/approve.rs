//! Approves kubelets' requests.
//!
//! Woken by: the request; its node, whose addresses a serving certificate waits for. Reads: both; whose names and addresses there are. Writes: the request's approval.
//! Promises: a kubelet's client certificate is approved only if the authoriser lets the requester ask for one
//! (`certificatesigningrequests/selfnodeclient`, `.../nodeclient`); a serving certificate only for its own node's name and addresses, where
//! nobody else can be taken for by it ([`serving`]).
//! A node's other parts get theirs by the node's own request, likewise (`.../nodepartclient`, which only we know of), and of the general
//! client signer nothing else is approved.

use super::serving::{self, Others};
use super::{Requests, decided, issued, parse, with};
use crate::cluster::{Cluster, INFO};
use crate::informer::{Informer, key_of};
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, found};
use crate::recorder::{Note, Recorder, Severity, node};
use crate::service_cidr::nets;
use ipnet::IpNet;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use parking_lot::Mutex;
use pki::part::NodePart;
use pki::request::CertificateRequest;
use pki::signer::Signer;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// A request the authoriser does not let through is tried again: what allows it may be written after it.
const AGAIN: Duration = Duration::from_secs(30);
/// The label of an EndpointSlice that names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// What a requester may be allowed to create, and the text of the approval that follows.
const SELF: (&str, &str) =
    ("selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview.");
const ANY: (&str, &str) =
    ("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview.");
const PART: (&str, &str) =
    ("nodepartclient", "Auto approving client certificate of a part of the node after SubjectAccessReview.");

pub(crate) struct Approving {
    requests: Requests,
    nodes: Arc<Informer<Node>>,
    services: Arc<Informer<Service>>,
    service_ranges: Arc<Informer<ServiceCIDR>>,
    endpoints: Arc<Informer<EndpointSlice>>,
    info: Arc<Informer<ConfigMap>>,
    /// Of servers that the cluster may not tell of.
    api_servers: Vec<String>,
    recorder: Recorder,
    told: Told,
}

/// What was said of requests that are left to people.
#[derive(Default)]
struct Told(Mutex<HashMap<Key, String>>);

impl Told {
    /// Whether this was not said of the request last.
    fn is_news(&self, key: &Key, why: &str) -> bool {
        self.0.lock().insert(key.clone(), why.to_owned()).as_deref() != Some(why)
    }

    fn forget(&self, key: &Key) {
        self.0.lock().remove(key);
    }
}

impl Approving {
    /// Registers for what wakes it.
    #[must_use]
    pub(crate) fn new(
        cluster: &Cluster,
        client: Client,
        recorder: Recorder,
        api_servers: Vec<String>,
        queue: &Arc<Queue>,
    ) -> Self {
        let (wake, requests) = (queue.clone(), cluster.requests.clone());
        cluster.nodes.on_change(move |_, new| {
            let Some(node) = new else { return };
            let user = pki::node::user(&node.name_any());
            let waiting = requests.list("").into_iter().filter(|r| r.spec.username.as_deref() == Some(&user));
            waiting.filter(|r| !decided(r)).for_each(|r| wake.add(key_of(&*r)));
        });
        Self {
            requests: Requests::new(cluster, client, queue),
            nodes: cluster.nodes.clone(),
            services: cluster.services.clone(),
            service_ranges: cluster.service_cidrs.clone(),
            endpoints: cluster.endpoint_slices.clone(),
            info: cluster.cluster_info.clone(),
            api_servers,
            recorder,
            told: Told::default(),
        }
    }
}

impl Reconcile for Approving {
    const NAME: &'static str = "csrapproving";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let request = self.requests.known.get(key).filter(|r| !decided(r) && issued(r).is_none());
        let Some(request) = request else {
            self.told.forget(key);
            return Ok(None);
        };
        let Some(signer) = Signer::from_name(&request.spec.signer_name) else { return Ok(None) };
        let Ok(parsed) = parse(&request) else { return Ok(None) };
        let usages = request.spec.usages.as_deref().unwrap_or_default();
        if signer.validate(&parsed, usages).is_err() {
            return Ok(None);
        }
        match signer {
            Signer::ApiServerClientKubelet => {
                let own = request.spec.username.as_deref() == Some(&parsed.common_name);
                for (subresource, message) in [SELF, ANY].into_iter().skip(usize::from(!own)) {
                    if self.may(&request, subresource).await? {
                        return self.approve(&request, key, message).await;
                    }
                }
                Ok(Some(AGAIN))
            }
            Signer::ApiServerClient
                if node_of(&request).is_some() && NodePart::of_request(&parsed, usages).is_some() =>
            {
                match self.may(&request, PART.0).await? {
                    true => self.approve(&request, key, PART.1).await,
                    false => Ok(Some(AGAIN)),
                }
            }
            // A node that registers itself asks before it is there; its coming wakes the request.
            Signer::KubeletServing if !self.knows_node_of(&request) => Ok(Some(AGAIN)),
            Signer::KubeletServing => match self.objection(&request, &parsed) {
                None => {
                    let message =
                        "Auto approving kubelet serving certificate for the node's own name and addresses.";
                    self.approve(&request, key, message).await
                }
                Some(why) => {
                    self.leave(&request, key, &why);
                    Ok(Some(AGAIN))
                }
            },
            _ => Ok(None),
        }
    }
}

impl Approving {
    /// Says that a serving certificate is left to people, once for each reason: until somebody approves, nobody reads logs of the node's
    /// pods or runs commands in them.
    fn leave(&self, request: &CertificateSigningRequest, key: &Key, why: &str) {
        if !self.told.is_news(key, why) {
            return;
        }
        tracing::warn!(request = %key, why, "a serving certificate is left to people");
        if let Some(name) = node_of(request) {
            self.recorder.note(Note {
                component: "certificate-controller",
                about: node(name),
                severity: Severity::Warning,
                reason: "ServingCertificateNotApproved".into(),
                message: format!("certificate signing request {key} is left to people: {why}"),
                action: None,
            });
        }
    }

    async fn approve(
        &self,
        request: &CertificateSigningRequest,
        key: &Key,
        message: &str,
    ) -> Result<Option<Duration>, Error> {
        let all = with(request, "Approved", "AutoApproved", message);
        let patch = json!({ "metadata": { "resourceVersion": request.resource_version() }, "status": { "conditions": all } });
        let approved = self
            .requests
            .api()
            .patch_approval(&key.name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        found(approved).map(|_| None).doing(|| format!("approve certificate request {key}"))
    }

    /// Whether the authoriser lets the requester create this subresource of certificate requests.
    async fn may(&self, request: &CertificateSigningRequest, subresource: &str) -> Result<bool, Error> {
        let spec = &request.spec;
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: spec.username.clone(),
                uid: spec.uid.clone(),
                groups: spec.groups.clone(),
                extra: spec.extra.clone(),
                resource_attributes: Some(ResourceAttributes {
                    group: Some("certificates.k8s.io".to_owned()),
                    resource: Some("certificatesigningrequests".to_owned()),
                    verb: Some("create".to_owned()),
                    subresource: Some(subresource.to_owned()),
                    version: Some("*".to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let api: Api<SubjectAccessReview> = Api::all(self.requests.client.clone());
        let answer = api
            .create(&PostParams::default(), &review)
            .await
            .doing(|| format!("review access for {}", request.name_any()))?;
        Ok(answer.status.is_some_and(|s| s.allowed))
    }

    fn knows_node_of(&self, request: &CertificateSigningRequest) -> bool {
        node_of(request).is_none_or(|name| self.nodes.get(&Key::new("", name)).is_some())
    }

    /// Why a request for a serving certificate is left to people.
    fn objection(&self, request: &CertificateSigningRequest, parsed: &CertificateRequest) -> Option<String> {
        let own = request.spec.username.as_deref() == Some(&parsed.common_name);
        let Some(name) = node_of(request).filter(|_| own) else {
            return Some("it is no node's own".to_owned());
        };
        let Some(node) = self.nodes.get(&Key::new("", name)) else {
            return Some("the node is not there".to_owned());
        };
        let ranges: Vec<IpNet> = self.service_ranges.list("").iter().flat_map(|range| nets(range)).collect();
        let others = Others {
            nodes: &self.nodes.list(""),
            services: &self.services.list(""),
            service_ranges: &ranges,
            api_servers: &self.api_servers(),
        };
        serving::objection(&node, parsed, &others)
    }

    /// Addresses of API servers, and the name by which machines reach one.
    fn api_servers(&self) -> Vec<String> {
        let of_api = |slice: &&Arc<EndpointSlice>| {
            slice.labels().get(SERVICE_NAME).is_some_and(|service| service == "kubernetes")
        };
        let slices = self.endpoints.list("default");
        let endpoints = slices.iter().filter(of_api).flat_map(|slice| slice.endpoints.iter().flatten());
        let mut all: Vec<String> = endpoints.flat_map(|endpoint| endpoint.addresses.clone()).collect();
        all.extend(self.api_servers.iter().cloned());
        let info = self.info.get(&Key::new(INFO.0, INFO.1));
        let text = info.as_ref().and_then(|info| info.data.as_ref()?.get("kubeconfig"));
        let server =
            text.and_then(|text| Some(pki::Kubeconfig::parse(text).ok()?.cluster().ok()?.server.clone()));
        let uri = server.and_then(|server| server.parse::<http::Uri>().ok());
        all.extend(
            uri.as_ref().and_then(http::Uri::host).map(|host| host.trim_matches(['[', ']']).to_owned()),
        );
        all
    }
}

/// The node whose kubelet made the request.
fn node_of(request: &CertificateSigningRequest) -> Option<&str> {
    let groups = request.spec.groups.as_deref().unwrap_or_default();
    pki::node::of_user(request.spec.username.as_deref()?, groups).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_is_left_to_people_must_not_be_told_of_again_and_again() {
        let (told, one, other) = (Told::default(), Key::new("", "a"), Key::new("", "b"));
        assert!(told.is_news(&one, "x") && !told.is_news(&one, "x"));
        assert!(told.is_news(&other, "x") && told.is_news(&one, "y") && !told.is_news(&one, "y"));
        told.forget(&one);
        assert!(told.is_news(&one, "y") && !told.is_news(&other, "x"));
    }
}
