//! CertificateSigningRequests: kubelets' are approved, approved ones are signed, old ones are removed.
//!
//! Woken by: the request. Reads: the request, the node it is for. Writes: its approval, its certificate, a `Failed` condition.
//! Promises: a kubelet gets a client certificate only if the authoriser lets the requester ask for one
//! (`certificatesigningrequests/nodeclient`, `.../selfnodeclient`); a serving certificate only for its own node's name and addresses.
//! A node's other parts get theirs by the node's own request, likewise (`.../nodepartclient`, which only we know of), and of the general
//! client signer nothing else is approved.

use crate::cluster::Cluster;
use crate::informer::{Informer, key_of};
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, found};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use pki::authority::Authority;
use pki::part::NodePart;
use pki::request::CertificateRequest;
use pki::signer::{Signer, lifetime};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long a finished request stays (upstream's certificate cleaner).
const KEEP_FINISHED: SignedDuration = SignedDuration::from_hours(1);
/// How long a request nobody decided on stays.
const KEEP_PENDING: SignedDuration = SignedDuration::from_hours(24);

pub(crate) struct Signing {
    requests: Arc<Informer<CertificateSigningRequest>>,
    nodes: Arc<Informer<Node>>,
    authority: watch::Receiver<Arc<Authority>>,
    client: Client,
}

impl Signing {
    /// Registers for what wakes it.
    #[must_use]
    pub(crate) fn new(
        cluster: &Cluster,
        client: Client,
        authority: watch::Receiver<Arc<Authority>>,
        queue: &Arc<Queue>,
    ) -> Self {
        let wake = queue.clone();
        cluster.requests.on_change(move |old, new| {
            if let Some(request) = new.or(old) {
                wake.add(key_of(&**request));
            }
        });
        // a serving certificate waits for its node to say its addresses
        let (wake, requests) = (queue.clone(), cluster.requests.clone());
        cluster.nodes.on_change(move |_, new| {
            let Some(node) = new else { return };
            let user = format!("system:node:{}", node.name_any());
            let waiting = requests.list("").into_iter().filter(|r| r.spec.username.as_deref() == Some(&user));
            waiting.filter(|r| !decided(r)).for_each(|r| wake.add(key_of(&*r)));
        });
        Self { requests: cluster.requests.clone(), nodes: cluster.nodes.clone(), authority, client }
    }
}

fn conditions(request: &CertificateSigningRequest) -> &[CertificateSigningRequestCondition] {
    request.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default()
}

fn has(request: &CertificateSigningRequest, kind: &str) -> bool {
    conditions(request).iter().any(|c| c.type_ == kind)
}

fn decided(request: &CertificateSigningRequest) -> bool {
    has(request, "Approved") || has(request, "Denied") || has(request, "Failed")
}

impl Reconcile for Signing {
    const NAME: &'static str = "certificate-controller";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(request) = self.requests.get(key) else { return Ok(None) };
        if let Some(wait) = self.expire(&request, key).await? {
            let Some(signer) = Signer::from_name(&request.spec.signer_name) else { return Ok(Some(wait)) };
            let issued =
                request.status.as_ref().and_then(|s| s.certificate.as_ref()).is_some_and(|c| !c.0.is_empty());
            if has(&request, "Approved") && !has(&request, "Failed") && !issued {
                self.sign(&request, key, signer).await?;
            } else if !decided(&request) {
                self.approve(&request, key, signer).await?;
            }
            return Ok(Some(wait));
        }
        Ok(None)
    }
}

impl Signing {
    fn api(&self) -> Api<CertificateSigningRequest> {
        Api::all(self.client.clone())
    }

    /// Removes a request past its time; gives the time left otherwise.
    async fn expire(
        &self,
        request: &CertificateSigningRequest,
        key: &Key,
    ) -> Result<Option<Duration>, Error> {
        let keep = if decided(request) { KEEP_FINISHED } else { KEEP_PENDING };
        let age = request
            .creation_timestamp()
            .map_or(SignedDuration::ZERO, |t| Timestamp::now().duration_since(t.0));
        if age < keep {
            return Ok(Some((keep - age).unsigned_abs()));
        }
        found(self.api().delete(&key.name, &DeleteParams::default()).await)
            .doing(|| format!("delete certificate request {key}"))?;
        Ok(None)
    }

    async fn approve(
        &self,
        request: &CertificateSigningRequest,
        key: &Key,
        signer: Signer,
    ) -> Result<(), Error> {
        let Ok(parsed) = parse(request) else { return Ok(()) };
        let usages = request.spec.usages.clone().unwrap_or_default();
        if signer.validate(&parsed, &usages).is_err() {
            return Ok(());
        }
        let message = match signer {
            Signer::ApiServerClientKubelet => {
                let own = request.spec.username.as_deref() == Some(&parsed.common_name);
                let (subresource, message) = if own {
                    (
                        "selfnodeclient",
                        "Auto approving self kubelet client certificate after SubjectAccessReview.",
                    )
                } else {
                    ("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview.")
                };
                if !self.may(request, subresource).await? {
                    return Ok(());
                }
                message
            }
            Signer::ApiServerClient
                if node_of(request).is_some() && NodePart::of_request(&parsed, &usages).is_some() =>
            {
                if !self.may(request, "nodepartclient").await? {
                    return Ok(());
                }
                "Auto approving client certificate of a part of the node after SubjectAccessReview."
            }
            Signer::KubeletServing if self.is_for_own_node(request, &parsed) => {
                "Auto approving kubelet serving certificate for the node's own name and addresses."
            }
            _ => return Ok(()),
        };
        let now = Time(Timestamp::now());
        let mut all = conditions(request).to_vec();
        all.push(CertificateSigningRequestCondition {
            type_: "Approved".to_owned(),
            status: "True".to_owned(),
            reason: Some("AutoApproved".to_owned()),
            message: Some(message.to_owned()),
            last_transition_time: Some(now.clone()),
            last_update_time: Some(now),
        });
        let patch = json!({ "metadata": { "resourceVersion": request.resource_version() }, "status": { "conditions": all } });
        let approved =
            self.api().patch_approval(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        found(approved).map(drop).doing(|| format!("approve certificate request {key}"))
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
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let answer = api
            .create(&PostParams::default(), &review)
            .await
            .doing(|| format!("review access for {}", request.name_any()))?;
        Ok(answer.status.is_some_and(|s| s.allowed))
    }

    fn is_for_own_node(&self, request: &CertificateSigningRequest, parsed: &CertificateRequest) -> bool {
        let own = request.spec.username.as_deref() == Some(&parsed.common_name);
        let Some(name) = node_of(request).filter(|_| own) else { return false };
        let Some(node) = self.nodes.get(&Key::new("", name)) else { return false };
        let addresses = node.status.as_ref().and_then(|s| s.addresses.clone()).unwrap_or_default();
        let known: BTreeSet<String> =
            addresses.into_iter().map(|a| a.address).chain([name.to_owned()]).collect();
        parsed.dns_names.iter().all(|n| known.contains(n))
            && parsed.ips.iter().all(|ip| known.contains(&ip.to_string()))
    }

    async fn sign(
        &self,
        request: &CertificateSigningRequest,
        key: &Key,
        signer: Signer,
    ) -> Result<(), Error> {
        let usages = request.spec.usages.clone().unwrap_or_default();
        let signed = parse(request).and_then(|parsed| {
            signer.validate(&parsed, &usages).map_err(|e| e.to_string())?;
            let life = lifetime(request.spec.expiration_seconds);
            let authority = self.authority.borrow().clone();
            authority.sign(&parsed, &usages, life, Timestamp::now()).map_err(|e| e.to_string())
        });
        let patch = match signed {
            Ok(certificate) => json!({ "status": { "certificate": STANDARD.encode(certificate) } }),
            Err(message) => {
                let now = Time(Timestamp::now());
                let mut all = conditions(request).to_vec();
                all.push(CertificateSigningRequestCondition {
                    type_: "Failed".to_owned(),
                    status: "True".to_owned(),
                    reason: Some("SignerValidationFailure".to_owned()),
                    message: Some(message),
                    last_transition_time: Some(now.clone()),
                    last_update_time: Some(now),
                });
                json!({ "status": { "conditions": all } })
            }
        };
        let patched = self.api().patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        found(patched).map(drop).doing(|| format!("sign certificate request {key}"))
    }
}

/// The node whose kubelet made the request.
fn node_of(request: &CertificateSigningRequest) -> Option<&str> {
    let in_group = request.spec.groups.iter().flatten().any(|group| group == "system:nodes");
    let name = request.spec.username.as_deref()?.strip_prefix("system:node:")?;
    (in_group && !name.is_empty()).then_some(name)
}

fn parse(request: &CertificateSigningRequest) -> Result<CertificateRequest, String> {
    let text = std::str::from_utf8(&request.spec.request.0).map_err(|e| e.to_string())?;
    CertificateRequest::from_pem(text).map_err(|e| e.to_string())
}
