//! CertificateSigningRequests: kubelets' are approved ([`approve`]), approved ones are signed ([`sign`]), old ones are removed ([`clean`]).
//! Each is a controller of its own, as upstream's are: a cluster may have others that approve, or sign.

use crate::cluster::Cluster;
use crate::informer::{Informer, key_of};
use crate::queue::Queue;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Api, Client};
use pki::request::CertificateRequest;
use std::sync::Arc;

mod approve;
mod authorities;
mod clean;
mod serving;
mod sign;

pub(crate) use approve::Approving;
pub use authorities::Authorities;
pub(crate) use clean::Cleaner;
pub(crate) use sign::Signing;

/// The requests, for a controller that is woken by each of them, and a client to write them.
struct Requests {
    known: Arc<Informer<CertificateSigningRequest>>,
    client: Client,
}

impl Requests {
    fn new(cluster: &Cluster, client: Client, queue: &Arc<Queue>) -> Self {
        let wake = queue.clone();
        cluster.requests.on_change(move |old, new| {
            if let Some(request) = new.or(old) {
                wake.add(key_of(&**request));
            }
        });
        Self { known: cluster.requests.clone(), client }
    }

    fn api(&self) -> Api<CertificateSigningRequest> {
        Api::all(self.client.clone())
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

/// The certificate it was given, as PEM.
fn issued(request: &CertificateSigningRequest) -> Option<&[u8]> {
    let certificate = request.status.as_ref()?.certificate.as_ref()?;
    Some(certificate.0.as_slice()).filter(|pem| !pem.is_empty())
}

/// Its conditions and one more.
fn with(
    request: &CertificateSigningRequest,
    kind: &str,
    reason: &str,
    message: &str,
) -> Vec<CertificateSigningRequestCondition> {
    let now = Time(jiff::Timestamp::now());
    let mut all = conditions(request).to_vec();
    all.push(CertificateSigningRequestCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(now.clone()),
        last_update_time: Some(now),
    });
    all
}

fn parse(request: &CertificateSigningRequest) -> Result<CertificateRequest, String> {
    let text = std::str::from_utf8(&request.spec.request.0).map_err(|e| e.to_string())?;
    CertificateRequest::from_pem(text).map_err(|e| e.to_string())
}
