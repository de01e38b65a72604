//! Signs requests that were approved, as upstream's four signers do, each that has an authority.
//!
//! Woken by: the request. Reads: it. Writes: its certificate, or a `Failed` condition.

use super::{Authorities, Requests, has, issued, parse, with};
use crate::cluster::Cluster;
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, found};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use kube::api::{Patch, PatchParams};
use pki::signer::{Signer, lifetime};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

pub(crate) struct Signing {
    requests: Requests,
    authorities: Authorities,
    /// The longest life of a certificate.
    longest: SignedDuration,
}

impl Signing {
    /// Registers for what wakes it.
    #[must_use]
    pub(crate) fn new(
        cluster: &Cluster,
        client: Client,
        authorities: Authorities,
        longest: SignedDuration,
        queue: &Arc<Queue>,
    ) -> Self {
        Self { requests: Requests::new(cluster, client, queue), authorities, longest }
    }
}

impl Reconcile for Signing {
    const NAME: &'static str = "csrsigning";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(request) = self.requests.known.get(key) else { return Ok(None) };
        let Some(signer) = Signer::from_name(&request.spec.signer_name) else { return Ok(None) };
        if !has(&request, "Approved") || has(&request, "Failed") || issued(&request).is_some() {
            return Ok(None);
        }
        let Some(authority) = self.authorities.of(signer) else { return Ok(None) };
        let usages = request.spec.usages.clone().unwrap_or_default();
        let signed = parse(&request).and_then(|parsed| {
            signer.validate(&parsed, &usages).map_err(|e| e.to_string())?;
            let life = lifetime(request.spec.expiration_seconds, self.longest);
            authority.sign(&parsed, &usages, life, Timestamp::now()).map_err(|e| e.to_string())
        });
        let patch = match signed {
            Ok(certificate) => json!({ "status": { "certificate": STANDARD.encode(certificate) } }),
            Err(message) => {
                json!({ "status": { "conditions": with(&request, "Failed", "SignerValidationFailure", &message) } })
            }
        };
        let api = self.requests.api();
        let patched = api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        found(patched).map(|_| None).doing(|| format!("sign certificate request {key}"))
    }
}
