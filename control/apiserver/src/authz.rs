//! May this user do that? A union of authorizers: the first that allows or denies decides.
//!
//! - [`attributes`]: the question; [`forbidden`]: the words of a refusal
//! - [`rbac`]: roles and bindings; [`policy`]: those in memory, kept by observed changes
//! - [`node`]: what kubelets may do, by the [`graph`] of what their pods refer to
//! - [`bootstrap`]: the roles every cluster starts with
//! - [`webhook`]: a service outside that is asked; [`abac`]: policies of a file
//! - [`review`]: access reviews, as pure functions of the authorizer

pub mod abac;
pub mod attributes;
pub mod bootstrap;
pub mod forbidden;
pub mod graph;
pub mod node;
pub mod policy;
pub mod rbac;
pub mod review;
pub mod webhook;

pub use attributes::Attributes;

use crate::context::User;
use arc_swap::ArcSwap;
use futures::future::BoxFuture;
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

/// Decides on requests, most by what is in memory.
pub trait Authorizer: Send + Sync {
    /// The decision on one request, for who cannot wait: one that asks outside blocks the thread meanwhile. Whoever can wait asks by `decide`.
    fn authorize(&self, attributes: &Attributes) -> Decision;

    /// The same; it may wait for an answer from outside.
    fn decide<'a>(&'a self, attributes: &'a Attributes) -> BoxFuture<'a, Decision> {
        Box::pin(std::future::ready(self.authorize(attributes)))
    }

    /// What `user` may do in `namespace`.
    fn rules_for(&self, user: &User, namespace: &str) -> Rules;
}

/// What several have said, in order, of whom none decided.
#[derive(Default)]
struct Undecided {
    reasons: Vec<String>,
    errors: Vec<String>,
}

impl Undecided {
    /// The decision, if it is one.
    fn hear(&mut self, decision: Decision) -> Option<Decision> {
        if decision.verdict != Verdict::NoOpinion {
            return Some(decision);
        }
        self.reasons.extend(Some(decision.reason).filter(|r| !r.is_empty()));
        self.errors.extend(Some(decision.error).filter(|e| !e.is_empty()));
        None
    }

    fn together(self) -> Decision {
        let (reason, error) = (self.reasons.join("\n"), aggregate(&self.errors));
        Decision { verdict: Verdict::NoOpinion, reason, error }
    }
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
        let mut undecided = Undecided::default();
        let decided = self.0.iter().find_map(|authorizer| undecided.hear(authorizer.authorize(attributes)));
        decided.unwrap_or_else(|| undecided.together())
    }

    fn decide<'a>(&'a self, attributes: &'a Attributes) -> BoxFuture<'a, Decision> {
        Box::pin(async move {
            let mut undecided = Undecided::default();
            for authorizer in &self.0 {
                if let Some(decision) = undecided.hear(authorizer.decide(attributes).await) {
                    return decision;
                }
            }
            undecided.together()
        })
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

/// Authorizers that are replaced by others while the server runs.
pub struct Changing(ArcSwap<Union>);

impl Changing {
    /// Asks `union`, until it is replaced.
    #[must_use]
    pub fn new(union: Union) -> Self {
        Changing(ArcSwap::from_pointee(union))
    }

    /// Asks `union` from now on.
    pub fn replace(&self, union: Union) {
        self.0.store(Arc::new(union));
    }
}

impl Authorizer for Changing {
    fn authorize(&self, attributes: &Attributes) -> Decision {
        self.0.load_full().authorize(attributes)
    }

    fn decide<'a>(&'a self, attributes: &'a Attributes) -> BoxFuture<'a, Decision> {
        let union = self.0.load_full();
        Box::pin(async move { union.decide(attributes).await })
    }

    fn rules_for(&self, user: &User, namespace: &str) -> Rules {
        self.0.load_full().rules_for(user, namespace)
    }
}

/// Allows or refuses everything (upstream's `AlwaysAllow` and `AlwaysDeny`).
#[derive(Clone, Copy, Debug)]
pub struct Always(pub bool);

impl Authorizer for Always {
    fn authorize(&self, _: &Attributes) -> Decision {
        match self.0 {
            true => Decision::allow(""),
            false => Decision::no_opinion("Everything is forbidden."),
        }
    }

    fn rules_for(&self, _: &User, _: &str) -> Rules {
        let all = || vec!["*".to_owned()];
        let mut rules = Rules::default();
        if self.0 {
            let resources = all();
            rules.resources.push(ResourceRule {
                verbs: all(),
                api_groups: all(),
                resources,
                ..Default::default()
            });
            rules.paths.push(PathRule { verbs: all(), paths: all() });
        }
        rules
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
