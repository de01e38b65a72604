//! CertificateApproval, CertificateSigning, CertificateSubjectRestriction: signing requests for a signer are approved and
//! signed by those who may do so for that signer, and nobody gets himself into `system:masters`.

use super::{Attributes, Operation, Verdict};
use crate::context::RequestInfo;
use crate::registry::Registry;
use crate::registry::hooks::Decision;
use base64::Engine as _;
use machinery::access::Get as _;
use machinery::status::Status;

const GROUP: &str = "certificates.k8s.io";
const RESOURCE: &str = "certificatesigningrequests";

pub(super) fn approval<'a>(registry: &'a Registry, a: &'a mut Attributes<'_>) -> Verdict<'a> {
    Box::pin(async move {
        if !a.is(GROUP, RESOURCE, "approval") || a.operation != Operation::Update {
            return Ok(());
        }
        may(registry, a, "approve").await
    })
}

pub(super) fn signing<'a>(registry: &'a Registry, a: &'a mut Attributes<'_>) -> Verdict<'a> {
    Box::pin(async move {
        if !a.is(GROUP, RESOURCE, "status") || a.operation != Operation::Update {
            return Ok(());
        }
        let same = |path: &str| a.old_object().text(path) == a.new_object().text(path);
        let conditions = |o: &serde_json::Value| o.items("status.conditions").to_vec();
        if same("status.certificate") && conditions(a.old_object()) == conditions(a.new_object()) {
            return Ok(());
        }
        may(registry, a, "sign").await
    })
}

pub(super) fn subject<'a>(_: &'a Registry, a: &'a mut Attributes<'_>) -> Verdict<'a> {
    Box::pin(async move {
        let request = a.new_object();
        if !a.is(GROUP, RESOURCE, "")
            || a.operation != Operation::Create
            || request.text("spec.signerName") != "kubernetes.io/kube-apiserver-client"
        {
            return Ok(());
        }
        let pem = base64::engine::general_purpose::STANDARD
            .decode(request.text("spec.request"))
            .ok()
            .and_then(|b| String::from_utf8(b).ok());
        let Some(parsed) = pem.and_then(|p| pki::request::CertificateRequest::from_pem(&p).ok()) else {
            return Err(a.forbidden("failed to parse CSR: PEM block type must be CERTIFICATE REQUEST"));
        };
        if parsed.organizations.iter().any(|o| o == "system:masters") {
            return Err(a.forbidden(
                "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed",
            ));
        }
        Ok(())
    })
}

/// May the user do `verb` on the request's signer, by its name or by its domain's wildcard?
async fn may(registry: &Registry, a: &Attributes<'_>, verb: &str) -> Result<(), Status> {
    let signer = a.old_object().text("spec.signerName").to_owned();
    let wildcard = signer.split('/').next().map(|domain| format!("{domain}/*")).unwrap_or_default();
    for name in [signer.clone(), wildcard] {
        let info = RequestInfo::any_version(verb, GROUP, "signers", "", &name);
        if let Decision::Allow(_) = registry.front()?.authorize(a.user, &info).await {
            return Ok(());
        }
    }
    let doing = if verb == "approve" { "approve requests" } else { "sign requests" };
    Err(a.forbidden(format!("user not permitted to {doing} with signerName {signer:?}")))
}
