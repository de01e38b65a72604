//! Admission: the mutating steps, then the validating ones, each in one visible order.
//!
//! A step sees every write as [`Attributes`] and says no with the status its client gets. The orders are upstream's;
//! webhooks and admission policies have their place at the marked lines.

mod certificates;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
mod nodes;
mod pod_security;
mod priority;
mod quota;
mod service_account;
mod storage;
mod tolerations;

use crate::context::User;
use crate::registry::Registry;
use crate::registry::create::{Call, Warnings};
use crate::registry::kind::Kind;
use futures::future::BoxFuture;
use machinery::status::Status;
use serde_json::Value;

/// What is about to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
}

/// One write, as admission sees it.
pub(crate) struct Attributes<'a> {
    pub operation: Operation,
    pub kind: Kind,
    pub subresource: &'a str,
    pub namespace: String,
    /// Empty before a generated name is chosen.
    pub name: String,
    /// The object to be; none for deletes.
    pub object: Option<Value>,
    /// The object that is; none for creates.
    pub old: Option<Value>,
    pub user: &'a User,
    pub dry_run: bool,
    /// What the client is told of a write that is let through.
    pub warnings: Warnings,
}

impl<'a> Attributes<'a> {
    pub(crate) fn new(
        call: &Call<'a>,
        operation: Operation,
        object: Option<Value>,
        old: Option<Value>,
    ) -> Self {
        let name = match &object {
            Some(object) if call.name.is_empty() => machinery::object::name(object).to_owned(),
            _ => call.name.clone(),
        };
        Attributes {
            operation,
            kind: call.kind,
            subresource: call.subresource,
            namespace: call.namespace.clone(),
            name,
            object,
            old,
            user: &call.context.user,
            dry_run: call.options.dry_run,
            warnings: call.warnings.clone(),
        }
    }

    /// Is this a write of that resource itself (or of that subresource)?
    pub(crate) fn is(&self, group: &str, plural: &str, subresource: &str) -> bool {
        self.kind.is(group, plural) && self.subresource == subresource
    }

    /// 403 about this object.
    pub(crate) fn forbidden(&self, why: impl std::fmt::Display) -> Status {
        Status::forbidden(&self.kind.gr(), &self.name, why)
    }

    /// The object to be (null where there is none).
    pub(crate) fn new_object(&self) -> &Value {
        self.object.as_ref().unwrap_or(&Value::Null)
    }

    /// The object that is (null where there is none).
    pub(crate) fn old_object(&self) -> &Value {
        self.old.as_ref().unwrap_or(&Value::Null)
    }
}

type Verdict<'a> = BoxFuture<'a, Result<(), Status>>;
type Step = for<'a> fn(&'a Registry, &'a mut Attributes<'_>) -> Verdict<'a>;

/// In upstream's order.
const MUTATING: &[Step] = &[
    namespace_lifecycle::check,
    limit_ranger::default,
    service_account::default,
    nodes::taint_new,
    priority::resolve,
    tolerations::default,
    storage::default_class,
    storage::protect,
    // Mutating admission policies, then mutating webhooks, stand here.
];

/// In upstream's order.
const VALIDATING: &[Step] = &[
    limit_ranger::check,
    service_account::check,
    pod_security::check,
    priority::check,
    storage::resize,
    certificates::approval,
    certificates::signing,
    certificates::subject,
    node_restriction::check,
    // Validating admission policies, then validating webhooks, stand here; the quota is charged last.
    quota::charge,
];

/// Lets every mutating step change the object.
pub(crate) async fn mutate(registry: &Registry, attributes: &mut Attributes<'_>) -> Result<(), Status> {
    for step in MUTATING {
        step(registry, attributes).await?;
    }
    Ok(())
}

/// Asks every validating step.
pub(crate) async fn validate(registry: &Registry, attributes: &mut Attributes<'_>) -> Result<(), Status> {
    for step in VALIDATING {
        step(registry, attributes).await?;
    }
    Ok(())
}
