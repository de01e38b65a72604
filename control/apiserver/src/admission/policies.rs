//! Admission policies: rules in CEL that change and judge requests. Upstream: `apiserver/pkg/admission/plugin/policy`.
//!
//! A policy is evaluated once for each of its bindings that means the request, and each parameter object the binding gives.
//! What goes wrong in that is decided by the policy's failurePolicy. Requests about policies and webhooks themselves are
//! exempt, and reviews.
//!
//! - [`definition`]: policies and bindings; [`params`]: their parameters
//! - [`validating`], [`mutating`]: what each kind of policy does

mod definition;
mod mutating;
mod params;
mod validating;

pub(super) use mutating::mutate;
pub(super) use validating::validate;

use super::{Attributes, webhooks};
use crate::registry::Registry;
use crate::registry::kind::Kind;
use crate::registry::parsed::Parsed;
use definition::{Binding, Policy};
use machinery::status::{Cause, Details, Reason, Status};
use serde_json::Value;
use std::sync::Arc;

const GROUP: &str = "admissionregistration.k8s.io";

/// The policies of this server.
#[derive(Default)]
pub(crate) struct Configured {
    validating: Pair,
    mutating: Pair,
}

#[derive(Default)]
struct Pair {
    policies: Parsed<Policy>,
    bindings: Parsed<Binding>,
}

type Stored = (Arc<Vec<Policy>>, Arc<Vec<Binding>>);

impl Pair {
    fn get(&self, registry: &Registry, policies: &str, bindings: &str) -> Result<Stored, Status> {
        let (Some(policies), Some(bindings)) = (Kind::of(GROUP, policies), Kind::of(GROUP, bindings)) else {
            return Ok(Stored::default());
        };
        Ok((
            self.policies.get(registry, &policies, Policy::parse)?,
            self.bindings.get(registry, &bindings, Binding::parse)?,
        ))
    }
}

/// Is the request one no policy sees?
fn is_exempt(a: &Attributes<'_>) -> bool {
    let resource = a.kind.resource;
    let is_review = match resource.group {
        "authentication.k8s.io" => ["selfsubjectreviews", "tokenreviews"].contains(&resource.plural),
        "authorization.k8s.io" => true,
        _ => false,
    };
    is_review || webhooks::is_exempt(a)
}

/// One evaluation of a policy.
struct Invocation<'p> {
    policy: &'p Policy,
    binding: &'p Binding,
    /// The version in which the policy means the request.
    kind: Kind,
    param: Value,
}

/// Why a policy, or its use by a binding, cannot be evaluated.
struct Misconfigured<'p> {
    policy: &'p Policy,
    binding: Option<&'p Binding>,
    message: String,
}

/// Every evaluation the request is due, and what cannot be evaluated.
async fn invocations<'p>(
    registry: &Registry,
    a: &Attributes<'_>,
    policies: &'p [Policy],
    bindings: &'p [Binding],
) -> (Vec<Invocation<'p>>, Vec<Misconfigured<'p>>) {
    let (mut due, mut broken) = (Vec::new(), Vec::new());
    for policy in policies {
        let bound: Vec<&Binding> = bindings.iter().filter(|b| b.policy == policy.name).collect();
        if bound.is_empty() {
            continue;
        }
        let meant = match policy.criteria.find(registry, a).await {
            Ok(Some(kind)) => params::kind(registry, policy).map(|params| (kind, params)),
            Ok(None) => continue,
            Err(e) => Err(e.message),
        };
        let (kind, param_kind) = match meant {
            Ok(kinds) => kinds,
            Err(why) => {
                let message = format!("failed to configure policy: {why}");
                broken.push(Misconfigured { policy, binding: None, message });
                continue;
            }
        };
        for binding in bound {
            let found = async {
                if let Some(criteria) = &binding.criteria
                    && criteria.find(registry, a).await.map_err(|e| e.message)?.is_none()
                {
                    return Ok(Vec::new());
                }
                params::collect(registry, param_kind, binding, a.request_namespace()).await
            };
            match found.await {
                Ok(params) => {
                    due.extend(params.into_iter().map(|param| Invocation { policy, binding, kind, param }));
                }
                Err(why) => {
                    let message = format!("failed to configure binding: {why}");
                    broken.push(Misconfigured { policy, binding: Some(binding), message });
                }
            }
        }
    }
    (due, broken)
}

/// The refusal of a request by policies: `message` is the first's, `causes` are all of them.
fn refusal(a: &Attributes<'_>, message: &str, causes: Vec<String>, reason: &str) -> Status {
    let mut status = a.forbidden(message);
    (status.reason, status.code) = match reason {
        "Forbidden" => (Reason::Forbidden, 403),
        "Unauthorized" => (Reason::Unauthorized, 401),
        "RequestEntityTooLarge" => (Reason::RequestEntityTooLarge, 413),
        _ => (Reason::Invalid, 422),
    };
    let details = status.details.get_or_insert_with(|| Box::new(Details::default()));
    details.causes.extend(causes.into_iter().map(|message| Cause { message, ..Cause::default() }));
    status
}
