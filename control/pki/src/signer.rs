//! The rules of the built-in `kubernetes.io/*` signers: who may be certified, for which usages, for how long.
//! Upstream: `pkg/apis/certificates/helpers.go`, `pkg/controller/certificates/signer`.

use crate::CertificateRequest;
use crate::node;
use jiff::SignedDuration;
use std::collections::BTreeSet;

/// A signer this control plane answers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signer {
    /// Clients of the API server; never approved automatically.
    ApiServerClient,
    /// Client certificates of kubelets.
    ApiServerClientKubelet,
    /// Serving certificates of kubelets.
    KubeletServing,
    /// Anything, for the cluster authority; kept for old clients.
    LegacyUnknown,
}

/// Why a request does not fit its signer: the message of the `Failed` condition with reason `SignerValidationFailure`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum Rejection {
    #[error("subject organization is not system:nodes")]
    Organization,
    #[error("subject common name does not begin with system:node:")]
    CommonName,
    #[error("DNS or IP subjectAltName is required")]
    NamesRequired,
    #[error("DNS subjectAltNames are not allowed")]
    DnsNames,
    #[error("Email subjectAltNames are not allowed")]
    Emails,
    #[error("IP subjectAltNames are not allowed")]
    Ips,
    #[error("URI subjectAltNames are not allowed")]
    Uris,
    #[error("usages did not match [{}]", .0.join(" "))]
    Usages(Vec<&'static str>),
    #[error("invalid usage for client certificate: {0}")]
    InvalidUsage(String),
    #[error("missing required usage for client certificate: client auth")]
    ClientAuthMissing,
}

/// Shortest life a request may ask for; anything shorter is lifted to it.
pub const SHORTEST_LIFE: SignedDuration = SignedDuration::from_mins(10);

impl Signer {
    /// All built-in signers.
    pub const ALL: [Self; 4] =
        [Self::ApiServerClient, Self::ApiServerClientKubelet, Self::KubeletServing, Self::LegacyUnknown];

    /// `spec.signerName`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ApiServerClient => "kubernetes.io/kube-apiserver-client",
            Self::ApiServerClientKubelet => "kubernetes.io/kube-apiserver-client-kubelet",
            Self::KubeletServing => "kubernetes.io/kubelet-serving",
            Self::LegacyUnknown => "kubernetes.io/legacy-unknown",
        }
    }

    /// The signer of that name; `None` for one that is not ours to answer.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }

    /// Checks a request and its `spec.usages` against the signer's rules.
    pub fn validate(self, request: &CertificateRequest, usages: &[String]) -> Result<(), Rejection> {
        match self {
            Self::ApiServerClient => api_server_client(usages),
            Self::ApiServerClientKubelet => kubelet_client(request, usages),
            Self::KubeletServing => kubelet_serving(request, usages),
            Self::LegacyUnknown => Ok(()),
        }
    }
}

/// How long a certificate lives when `spec.expirationSeconds` asks for so much: at most `longest`, which upstream's signers leave a year
/// unless told otherwise ([`crate::authority::LEAF_LIFE`]), and at least ten minutes where a life is asked for that is shorter than both.
#[must_use]
pub fn lifetime(expiration_seconds: Option<i32>, longest: SignedDuration) -> SignedDuration {
    match expiration_seconds.map(|seconds| SignedDuration::from_secs(seconds.into())) {
        Some(asked) if asked <= longest => asked.max(SHORTEST_LIFE),
        _ => longest,
    }
}

fn api_server_client(usages: &[String]) -> Result<(), Rejection> {
    for usage in usages {
        if !["digital signature", "key encipherment", "client auth"].contains(&usage.as_str()) {
            return Err(Rejection::InvalidUsage(usage.clone()));
        }
    }
    if usages.iter().any(|u| u == "client auth") { Ok(()) } else { Err(Rejection::ClientAuthMissing) }
}

fn kubelet_client(request: &CertificateRequest, usages: &[String]) -> Result<(), Rejection> {
    organization(request)?;
    refuse(!request.dns_names.is_empty(), Rejection::DnsNames)?;
    refuse(!request.emails.is_empty(), Rejection::Emails)?;
    refuse(!request.ips.is_empty(), Rejection::Ips)?;
    refuse(!request.uris.is_empty(), Rejection::Uris)?;
    common_name(request)?;
    exactly(usages, &["client auth", "digital signature", "key encipherment"])
}

fn kubelet_serving(request: &CertificateRequest, usages: &[String]) -> Result<(), Rejection> {
    organization(request)?;
    refuse(request.dns_names.is_empty() && request.ips.is_empty(), Rejection::NamesRequired)?;
    refuse(!request.emails.is_empty(), Rejection::Emails)?;
    refuse(!request.uris.is_empty(), Rejection::Uris)?;
    exactly(usages, &["digital signature", "key encipherment", "server auth"])?;
    common_name(request)
}

fn refuse(when: bool, why: Rejection) -> Result<(), Rejection> {
    if when { Err(why) } else { Ok(()) }
}

fn organization(request: &CertificateRequest) -> Result<(), Rejection> {
    refuse(request.organizations != [node::GROUP], Rejection::Organization)
}

fn common_name(request: &CertificateRequest) -> Result<(), Rejection> {
    refuse(!request.common_name.starts_with(node::USER_PREFIX), Rejection::CommonName)
}

/// The usages are those of `wanted`; key encipherment, which only RSA needs, may be left out.
fn exactly(usages: &[String], wanted: &[&'static str]) -> Result<(), Rejection> {
    let asked: BTreeSet<&str> = usages.iter().map(String::as_str).collect();
    let all: BTreeSet<&str> = wanted.iter().copied().collect();
    let mut without = all.clone();
    without.remove("key encipherment");
    refuse(asked != all && asked != without, Rejection::Usages(wanted.to_vec()))
}
