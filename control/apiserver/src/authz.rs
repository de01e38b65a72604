//! May this user do that? A union of authorizers: the first that allows or denies decides.
//!
//! - [`attributes`]: the question; [`forbidden`]: the words of a refusal
//! - [`rbac`]: roles and bindings; [`policy`]: those in memory, kept by observed changes
//! - [`node`]: what kubelets may do, by the [`graph`] of what their pods refer to
//! - [`bootstrap`]: the roles every cluster starts with
//! - [`review`]: access reviews, as pure functions of the authorizer

pub mod attributes;
pub mod bootstrap;
pub mod forbidden;
pub mod graph;
pub mod node;
pub mod policy;
pub mod rbac;
pub mod review;

pub use attributes::Attributes;

use crate::context::User;
use std::sync::Arc;

/// Members may do anything.
pub const MASTERS: &str = "system:masters";

/// What an authorizer thinks of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Allowed, no matter what others think.
    Allow,
    /// Refused, no matter what others think.
    Deny,
    /// Others decide; refused where nobody allows.
    NoOpinion,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub verdict: Verdict,
    /// Why, for the refusal's message and for access reviews. Often empty.
    pub reason: String,
    /// What went wrong on the way to the verdict: `status.evaluationError` of access reviews.
    pub error: String,
}

impl Decision {
    /// Allowed because of `reason`.
    pub fn allow(reason: impl Into<String>) -> Self {
        Decision { verdict: Verdict::Allow, reason: reason.into(), error: String::new() }
    }

    /// No opinion, with a `reason` that a refusal will quote.
    pub fn no_opinion(reason: impl Into<String>) -> Self {
        Decision { verdict: Verdict::NoOpinion, reason: reason.into(), error: String::new() }
    }

    /// Whether the request may go on.
    #[must_use]
    pub fn allowed(&self) -> bool {
        self.verdict == Verdict::Allow
    }
}

/// One rule on resources, as SelfSubjectRulesReview lists it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceRule {
    pub verbs: Vec<String>,
    pub api_groups: Vec<String>,
    pub resources: Vec<String>,
    /// Names; empty for all.
    pub resource_names: Vec<String>,
}

/// One rule on paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathRule {
    pub verbs: Vec<String>,
    pub paths: Vec<String>,
}

/// All that is known of what a user may do in a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    pub resources: Vec<ResourceRule>,
    pub paths: Vec<PathRule>,
    /// The list may lack some.
    pub incomplete: bool,
    pub errors: Vec<String>,
}

/// Decides on requests. Never waits: everything it needs is in memory.
pub trait Authorizer: Send + Sync {
    /// The decision on one request.
    fn authorize(&self, attributes: &Attributes) -> Decision;

    /// What `user` may do in `namespace`.
    fn rules_for(&self, user: &User, namespace: &str) -> Rules;
}

/// Several authorizers, asked in order.
#[derive(Clone)]
pub struct Union(Vec<Arc<dyn Authorizer>>);

impl Union {
    /// Asks `authorizers` in order.
    #[must_use]
    pub fn new(authorizers: Vec<Arc<dyn Authorizer>>) -> Self {
        Union(authorizers)
    }
}

impl Authorizer for Union {
    fn authorize(&self, attributes: &Attributes) -> Decision {
        let (mut reasons, mut errors) = (Vec::new(), Vec::new());
        for authorizer in &self.0 {
            let decision = authorizer.authorize(attributes);
            if decision.verdict != Verdict::NoOpinion {
                return decision;
            }
            reasons.extend(Some(decision.reason).filter(|r| !r.is_empty()));
            errors.extend(Some(decision.error).filter(|e| !e.is_empty()));
        }
        Decision { verdict: Verdict::NoOpinion, reason: reasons.join("\n"), error: aggregate(&errors) }
    }

    fn rules_for(&self, user: &User, namespace: &str) -> Rules {
        let mut all = Rules::default();
        for rules in self.0.iter().map(|a| a.rules_for(user, namespace)) {
            all.resources.extend(rules.resources);
            all.paths.extend(rules.paths);
            all.incomplete |= rules.incomplete;
            all.errors.extend(rules.errors);
        }
        all
    }
}

/// Several errors in one text, as apimachinery's aggregate prints them.
pub(crate) fn aggregate(errors: &[String]) -> String {
    let mut unique: Vec<&str> = Vec::new();
    for error in errors {
        if !unique.contains(&error.as_str()) {
            unique.push(error);
        }
    }
    match unique.as_slice() {
        [] => String::new(),
        [one] => (*one).to_owned(),
        many => format!("[{}]", many.join(", ")),
    }
}

/// Lets `system:masters` do anything, roles or no roles.
#[derive(Clone, Copy, Debug, Default)]
pub struct Masters;

impl Authorizer for Masters {
    fn authorize(&self, attributes: &Attributes) -> Decision {
        if attributes.user.groups.iter().any(|g| g == MASTERS) {
            return Decision::allow("");
        }
        Decision::no_opinion("")
    }

    /// None: as upstream, who the group is bound to is told by roles (`cluster-admin`), so that nothing is told twice.
    fn rules_for(&self, _user: &User, _namespace: &str) -> Rules {
        Rules::default()
    }
}
