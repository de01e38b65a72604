//! A certificate through the API: a CertificateSigningRequest, its approval by a controller or a person, its signature.
//!
//! The request's name follows from the key, and the key is kept until the certificate is there: an agent that was
//! killed while waiting takes up the request it made before.

use crate::identity::{Files, KeyPair, Role};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;
use kube::runtime::wait::await_condition;
use pki::request::Subject;
use pki::signer::Signer;
use pki::{Certificate, needs_renewal};
use std::time::Duration;

/// How long an approval may take before a new request is made, as upstream's kubelet.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("prepare a certificate request for {subject}")]
    Prepare {
        subject: String,
        #[source]
        source: pki::Error,
    },
    /// The request could not be written or read.
    #[error("{operation} certificate signing request {name}")]
    Api {
        operation: &'static str,
        name: String,
        /// What the API server said.
        #[source]
        source: Box<kube::Error>,
    },
    /// The request could not be watched.
    #[error("watch certificate signing request {name}")]
    Watch {
        name: String,
        #[source]
        source: Box<kube::runtime::wait::Error>,
    },
    /// Denied by an approver, or failed by the signer.
    #[error("certificate signing request {name} was {verdict}: {message}")]
    Refused {
        name: String,
        /// `denied` or `failed`.
        verdict: &'static str,
        /// Reason and message.
        message: String,
    },
    /// Nobody said anything, or the request was deleted.
    #[error("certificate signing request {name} was not answered")]
    Unanswered { name: String },
    /// The certificate is not what was asked for.
    #[error("certificate signing request {name} got an unusable certificate: {reason}")]
    Unusable { name: String, reason: String },
}

/// Asks `signer` to certify `subject`, waits, and stores the certificate as that of `role`.
pub(crate) async fn obtain(
    client: &kube::Client,
    files: &Files,
    role: Role,
    subject: &Subject,
) -> Result<KeyPair, Error> {
    let prepare = |source| Error::Prepare { subject: subject.common_name.clone(), source };
    let key_pem = files.pending_key(role).map_err(prepare)?;
    let request_pem = subject.request(&key_pem).map_err(prepare)?;
    let request = signing_request(role, &request_pem, &key_pem, subject).map_err(prepare)?;
    let name = request.metadata.name.clone().unwrap_or_default();
    let asked = ask(client, &name, &request).await;
    let pair = match asked.and_then(|answer| usable(&name, &answer, &key_pem, subject)) {
        Ok(pair) => pair,
        Err(error) => {
            let spent = match (role, &error) {
                (_, Error::Api { .. } | Error::Watch { .. }) => false,
                // A person may have to look at it: it is waited for as long as it is there, and made again as it was.
                (Role::Part(_), Error::Unanswered { .. }) => false,
                _ => true,
            };
            if spent {
                // The next attempt makes another one, with another key.
                files.forget_pending_key(role);
            }
            return Err(error);
        }
    };
    files.write_pair(role, &pair).map_err(prepare)?;
    Ok(pair)
}

fn signing_request(
    role: Role,
    request_pem: &str,
    key_pem: &str,
    subject: &Subject,
) -> Result<CertificateSigningRequest, pki::Error> {
    let (signer, usage, prefix) = match role {
        Role::Client => (Signer::ApiServerClientKubelet, "client auth", "node-csr"),
        Role::Serving => (Signer::KubeletServing, "server auth", "node-serving-csr"),
        Role::Part(_) => (Signer::ApiServerClient, "client auth", "node-part-csr"),
    };
    // The signature in a request is random: the name must follow from the key and what is asked for alone.
    let asked = format!("{}{subject:?}", pki::request::key_digest(key_pem)?);
    Ok(CertificateSigningRequest {
        metadata: ObjectMeta {
            name: Some(format!("{prefix}-{}", pki::bootstrap::digest(asked.as_bytes()))),
            ..ObjectMeta::default()
        },
        spec: CertificateSigningRequestSpec {
            request: ByteString(request_pem.as_bytes().to_vec()),
            signer_name: signer.name().to_owned(),
            usages: Some(vec!["digital signature".to_owned(), usage.to_owned()]),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    })
}

/// Writes the request unless it is there, and waits for an answer.
async fn ask(
    client: &kube::Client,
    name: &str,
    request: &CertificateSigningRequest,
) -> Result<CertificateSigningRequest, Error> {
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    match api.create(&PostParams::default(), request).await {
        Ok(_) => tracing::info!(name, signer = request.spec.signer_name, "asked for a certificate"),
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            tracing::info!(name, "took up the certificate request of an earlier life");
        }
        Err(source) => {
            let source = Box::new(source);
            return Err(Error::Api { operation: "create", name: name.to_owned(), source });
        }
    }
    let wait = await_condition(api, name, |found: Option<&CertificateSigningRequest>| {
        found.is_none_or(|found| answer(found).is_some())
    });
    let found = tokio::time::timeout(PATIENCE, wait)
        .await
        .map_err(|_| Error::Unanswered { name: name.to_owned() })?
        .map_err(|source| Error::Watch { name: name.to_owned(), source: Box::new(source) })?;
    found.ok_or_else(|| Error::Unanswered { name: name.to_owned() })
}

/// The certificate, or why there is none; `None` while nobody answered. Pure.
fn answer(request: &CertificateSigningRequest) -> Option<Result<&[u8], (&'static str, String)>> {
    let status = request.status.as_ref()?;
    for condition in status.conditions.iter().flatten() {
        let verdict = match condition.type_.as_str() {
            "Denied" => "denied",
            "Failed" => "failed",
            _ => continue,
        };
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        let message = format!("{} {}", part(&condition.reason), part(&condition.message));
        return Some(Err((verdict, message.trim().to_owned())));
    }
    status.certificate.as_ref().filter(|c| !c.0.is_empty()).map(|c| Ok(c.0.as_slice()))
}

fn usable(
    name: &str,
    request: &CertificateSigningRequest,
    key_pem: &str,
    subject: &Subject,
) -> Result<KeyPair, Error> {
    let unusable = |reason: String| Error::Unusable { name: name.to_owned(), reason };
    let pem = match answer(request) {
        None => return Err(Error::Unanswered { name: name.to_owned() }),
        Some(Err((verdict, message))) => {
            return Err(Error::Refused { name: name.to_owned(), verdict, message });
        }
        Some(Ok(pem)) => std::str::from_utf8(pem).map_err(|e| unusable(e.to_string()))?,
    };
    let certificate = Certificate::from_pem(pem).map_err(|e| unusable(e.to_string()))?;
    if certificate.common_name != subject.common_name {
        return Err(unusable(format!("it is for {:?}", certificate.common_name)));
    }
    if !certificate.has_key(key_pem) {
        return Err(unusable("it is for another key".to_owned()));
    }
    if needs_renewal(&certificate, Timestamp::now()) {
        return Err(unusable(format!("it is valid until {} only", certificate.not_after)));
    }
    Ok(KeyPair { certificate, key_pem: key_pem.to_owned() })
}
