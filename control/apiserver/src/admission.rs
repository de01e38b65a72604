//! Admission: the mutating steps, then the validating ones, each in one visible order.
//!
//! A step sees every write as [`Attributes`] and says no with the status its client gets. The orders are upstream's.
//! What users add stands last in both, but for the quota: [`policies`] and [`webhooks`], on [`matching`], `conditions`,
//! `subject` and `review`.

mod certificates;
mod classes;
mod conditions;
mod ingress;
mod limit_ranger;
mod matching;
mod namespace_lifecycle;
mod node_restriction;
mod nodes;
mod pod_resize;
mod pod_security;
mod policies;
mod priority;
mod quota;
mod review;
mod runtime_class;
mod service_account;
mod storage;
mod subject;
mod tolerations;
mod topology_labels;
mod webhooks;

pub(crate) use crate::registry::call::{Seen, View};
pub(crate) use crate::registry::operation::Operation;

use crate::audit::{Level, Trail};
use crate::context::User;
use crate::registry::Registry;
use crate::registry::call::{Call, Warnings, Writes};
use crate::registry::kind::Kind;
use futures::future::BoxFuture;
use machinery::object::Gvk;
use machinery::status::Status;
use serde_json::Value;
use std::sync::Weak;

/// What admission has besides the registry.
pub(crate) struct Admission {
    webhooks: webhooks::Configured,
    policies: policies::Configured,
    writes: Weak<dyn Writes>,
}

impl Admission {
    /// `writes` carries out what admission itself writes.
    pub(crate) fn new(writes: Weak<dyn Writes>) -> Self {
        Admission {
            webhooks: webhooks::Configured::default(),
            policies: policies::Configured::default(),
            writes,
        }
    }
}

/// One write, as admission sees it.
pub(crate) struct Attributes<'a> {
    admission: &'a Admission,
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
    /// What the client is told of a write that is admitted.
    pub warnings: Warnings,
    /// `CreateOptions` and their like, as webhooks get them; null for connects.
    pub options: Value,
    /// What webhooks and policies make of it.
    pub seen: Seen,
    /// The kind of `object` where it is not the resource's own: a Binding, an Eviction, PodExecOptions.
    pub sent: Option<Gvk>,
    /// What is to be written of the request.
    pub audit: &'a Trail,
    /// Which webhooks have been called, and are to be called again.
    rounds: webhooks::Rounds,
}

impl<'a> Attributes<'a> {
    pub(crate) fn new(
        admission: &'a Admission,
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
            admission,
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
            options: call.options.as_sent(operation),
            seen: call.seen,
            sent: None,
            audit: &call.context.audit,
            rounds: webhooks::Rounds::default(),
        }
    }

    /// A request whose body is of another kind than the resource, and which only webhooks and policies admit.
    pub(crate) fn of_sent(
        admission: &'a Admission,
        call: &Call<'a>,
        operation: Operation,
        gvk: Gvk,
        object: Value,
    ) -> Self {
        let mut attributes = Attributes::new(admission, call, operation, Some(object), None);
        if operation == Operation::Connect {
            attributes.options = Value::Null;
        }
        attributes.sent = Some(gvk);
        attributes
    }

    /// The namespace as requests name it: a Namespace is in itself.
    pub(crate) fn request_namespace(&self) -> &str {
        if self.kind.is("", "namespaces") { &self.name } else { &self.namespace }
    }

    /// The subresource as requests name it.
    pub(crate) fn request_subresource(&self) -> &str {
        match self.seen {
            Seen::As(view) => view.subresource,
            _ => self.subresource,
        }
    }

    /// The kind of what was sent, in the request's version.
    pub(crate) fn request_kind(&self) -> Gvk {
        match (self.seen, &self.sent) {
            (Seen::As(view), _) => Gvk::new(view.gvk.0, view.gvk.1, view.gvk.2),
            (_, Some(gvk)) => gvk.clone(),
            _ => self.kind.gvk(),
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

    /// Has the audit log say something of the request, under a key that a plugin or its author chose.
    pub(crate) fn annotate(&self, entry: impl FnOnce() -> (String, String)) {
        self.audit.annotate_admission(Level::Metadata, entry);
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
    node_restriction::check,
    nodes::taint_new,
    priority::resolve,
    tolerations::default,
    storage::default_class,
    storage::protect,
    runtime_class::merge,
    ingress::default_class,
    topology_labels::copy,
    policies::mutate,
    webhooks::mutate,
];

/// In upstream's order.
const VALIDATING: &[Step] = &[
    limit_ranger::check,
    service_account::check,
    pod_security::check,
    priority::check,
    storage::resize,
    runtime_class::check,
    certificates::approval,
    certificates::signing,
    certificates::subject,
    pod_resize::check,
    policies::validate,
    webhooks::validate,
    quota::charge,
];

/// What sees requests that are no writes of a resource, too (a token, an eviction, a binding): what users add, the rules for
/// kubelets, the labels of a node's place.
const ADDED_MUTATING: &[Step] =
    &[node_restriction::check, topology_labels::copy, policies::mutate, webhooks::mutate];
const ADDED_VALIDATING: &[Step] = &[policies::validate, webhooks::validate];

/// Lets every mutating step change the object; once more where a webhook changed what another had seen.
pub(crate) async fn mutate(registry: &Registry, attributes: &mut Attributes<'_>) -> Result<(), Status> {
    twice(MUTATING, registry, attributes).await
}

/// Asks every validating step.
pub(crate) async fn validate(registry: &Registry, attributes: &mut Attributes<'_>) -> Result<(), Status> {
    all(VALIDATING, registry, attributes).await
}

/// Asks webhooks and policies about what a client sent to a subresource, or wants to connect to. They may change it.
pub(crate) async fn sent(registry: &Registry, attributes: &mut Attributes<'_>) -> Result<(), Status> {
    twice(ADDED_MUTATING, registry, attributes).await?;
    all(ADDED_VALIDATING, registry, attributes).await
}

async fn twice(steps: &[Step], registry: &Registry, attributes: &mut Attributes<'_>) -> Result<(), Status> {
    all(steps, registry, attributes).await?;
    if attributes.rounds.again() {
        all(steps, registry, attributes).await?;
    }
    Ok(())
}

async fn all(steps: &[Step], registry: &Registry, attributes: &mut Attributes<'_>) -> Result<(), Status> {
    for step in steps {
        step(registry, attributes).await?;
    }
    Ok(())
}
