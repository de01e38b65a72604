//! What an expression may ask of an authorizer: the values on the way from `authorizer` to a decision
//! (upstream: `apiserver/pkg/cel/library/authz.go`).

use std::fmt;
use std::sync::Arc;

/// What is to be decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// A service account's user name, where it is not the one who asks.
    pub account: Option<String>,
    /// `get`
    pub verb: String,
    /// Path of a request that is about no resource.
    pub path: Option<String>,
    /// API group, empty for core.
    pub group: String,
    /// Plural name, `pods`.
    pub resource: String,
    /// Subresource, `log`; or empty.
    pub subresource: String,
    /// Namespace; empty for cluster scope.
    pub namespace: String,
    /// Object name; empty for all.
    pub name: String,
    /// Field selector, or empty. No authorizer here looks at labels.
    pub fields: String,
}

/// Whether it is allowed, and why.
pub(crate) type Decide = dyn Fn(&Check) -> (bool, String) + Send + Sync;

/// What the CEL variables `authorizer` and `authorizer.requestResource` stand for.
#[derive(Clone)]
pub struct Authorizer {
    decide: Arc<Decide>,
    request: Check,
}

impl Authorizer {
    /// `request` is what the current request would be checked for.
    pub fn new(decide: Arc<Decide>, request: Check) -> Self {
        Authorizer { decide, request }
    }

    pub(crate) fn root(&self) -> super::Value {
        self.at(Stage::Authorizer, Check::default())
    }

    /// `authorizer.requestResource`
    pub(crate) fn request_resource(&self) -> super::Value {
        self.at(Stage::Resource, self.request.clone())
    }

    fn at(&self, stage: Stage, check: Check) -> super::Value {
        super::Value::Authorization(Arc::new(Authorization { stage, check, decide: self.decide.clone() }))
    }
}

/// How far a check has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Authorizer,
    Path,
    Group,
    Resource,
    Decision { allowed: bool, reason: String },
}

/// A check on its way, or its decision.
#[derive(Clone)]
pub struct Authorization {
    pub(super) stage: Stage,
    pub(super) check: Check,
    decide: Arc<Decide>,
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorization").field("stage", &self.stage).field("check", &self.check).finish()
    }
}

/// The names of their types.
pub(super) const AUTHORIZER: &str = "kubernetes.authorization.Authorizer";
pub(super) const PATH: &str = "kubernetes.authorization.PathCheck";
pub(super) const GROUP: &str = "kubernetes.authorization.GroupCheck";
pub(super) const RESOURCE: &str = "kubernetes.authorization.ResourceCheck";
pub(super) const DECISION: &str = "kubernetes.authorization.Decision";

/// The type of `authorizer`.
pub(crate) const AUTHORIZER_TYPE: super::Type = super::Type::Named(AUTHORIZER);
/// The type of `authorizer.requestResource`.
pub(crate) const RESOURCE_TYPE: super::Type = super::Type::Named(RESOURCE);

impl Authorization {
    pub(super) fn type_name(&self) -> &'static str {
        match self.stage {
            Stage::Authorizer => AUTHORIZER,
            Stage::Path => PATH,
            Stage::Group => GROUP,
            Stage::Resource => RESOURCE,
            Stage::Decision { .. } => DECISION,
        }
    }

    /// The next step, with what it adds.
    pub(super) fn step(&self, stage: Stage, add: impl FnOnce(&mut Check)) -> super::Value {
        let mut next = Authorization { stage, ..self.clone() };
        add(&mut next.check);
        super::Value::Authorization(Arc::new(next))
    }

    pub(super) fn ask(&self, verb: &str) -> super::Value {
        let check = Check { verb: verb.to_owned(), ..self.check.clone() };
        let (allowed, reason) = (self.decide)(&check);
        self.step(Stage::Decision { allowed, reason }, |_| {})
    }
}
