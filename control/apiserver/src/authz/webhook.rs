//! Asks a service outside: SubjectAccessReviews over HTTP. Upstream: `apiserver/plugin/pkg/authorizer/webhook`.
//!
//! Conditions say which requests it is asked about; answers are kept for a while; a service that does not answer is asked again
//! a few times, and then the failure policy decides.
//!
//! - [`kept`]: the answers that are kept

mod kept;

use super::{Attributes, Authorizer, Decision, Rules, Verdict};
use crate::context::User;
use futures::future::BoxFuture;
use kept::Kept;
use machinery::admission::{BUDGET, Evaluator, Expression};
use machinery::labels::{Operator, Requirement};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Bytes of attributes whose answer is kept, at most: others would fill the cache at will.
const LONGEST_KEPT: usize = 10_000;
/// What is asked and answered.
const KIND: &str = "SubjectAccessReview";
/// How often the service is asked.
const TRIES: u32 = 5;
/// The pause after the first try; each is half as long again as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Threads that wait for answers at once: where many do, others get none, and the runtime keeps threads for everything else.
const WAITING: usize = 16;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// In words.
    pub text: String,
    /// Whether the service may answer when it is asked again.
    pub passing: bool,
}

/// The service that is asked.
pub trait Reviewer: Send + Sync {
    /// The review, with its status.
    fn review<'a>(&'a self, review: &'a Value) -> BoxFuture<'a, Result<Value, Failure>>;
}

/// Which reviews the service understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `authorization.k8s.io/v1`
    V1,
    /// `authorization.k8s.io/v1beta1`, whose `group` is the users' groups.
    V1Beta1,
}

/// A condition, as it is written and as it is evaluated.
pub struct Condition {
    /// Its text.
    pub source: String,
    /// On `request`, the spec of a review.
    pub expression: Expression,
}

/// How a service is asked.
pub struct Config {
    /// Which reviews it gets.
    pub version: Version,
    /// What all hold of the requests it is asked about.
    pub conditions: Vec<Condition>,
    /// How long a permission is kept; zero: not at all.
    pub allowed_for: Duration,
    /// How long anything else is kept.
    pub refused_for: Duration,
    /// Without an answer, others decide; otherwise nobody gets anything.
    pub fails_open: bool,
}

/// The authorizer.
pub struct Webhook {
    config: Config,
    reviewer: Arc<dyn Reviewer>,
    kept: Mutex<Kept>,
    /// Of those who block a thread.
    waiting: Semaphore,
}

/// What the service said: the `status` of its review.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
struct Said {
    allowed: Option<bool>,
    denied: Option<bool>,
    reason: Option<String>,
}

/// A request that the service is to be asked about.
struct Question {
    spec: Value,
    /// By which the answer is known.
    key: String,
}

/// Asks again where that may help.
pub(crate) async fn ask(reviewer: &dyn Reviewer, review: &Value) -> Result<Value, Failure> {
    let mut pause = FIRST_PAUSE;
    let mut tries = 1;
    loop {
        match reviewer.review(review).await {
            Err(failure) if failure.passing && tries < TRIES => {
                tracing::debug!(error = failure.text, "ask a webhook again");
                tokio::time::sleep(pause).await;
                pause += pause / 2;
                tries += 1;
            }
            answer => return answer,
        }
    }
}

impl Webhook {
    /// Asks `reviewer`.
    #[must_use]
    pub fn new(config: Config, reviewer: Arc<dyn Reviewer>) -> Self {
        Webhook { config, reviewer, kept: Mutex::default(), waiting: Semaphore::new(WAITING) }
    }

    fn failed(&self, error: String) -> Decision {
        let verdict = if self.config.fails_open { Verdict::NoOpinion } else { Verdict::Deny };
        Decision { verdict, reason: String::new(), error }
    }

    /// Whether the service is to be asked at all. One condition that does not hold outweighs others that fail.
    fn applies(&self, attributes: &Attributes) -> Result<bool, String> {
        if self.config.conditions.is_empty() {
            return Ok(true);
        }
        let mut evaluator = Evaluator::default();
        evaluator.bind("request", &request(attributes));
        let mut errors = Vec::new();
        for Condition { source, expression } in &self.config.conditions {
            // Each has a budget of its own.
            evaluator.restart(BUDGET);
            match evaluator.evaluate(expression) {
                Ok(Value::Bool(true)) => {}
                Ok(_) => return Ok(false),
                Err(e) => {
                    errors
                        .push(format!("cel evaluation error: expression '{source}' resulted in error: {e}"));
                }
            }
        }
        if errors.is_empty() { Ok(true) } else { Err(super::aggregate(&errors)) }
    }

    fn keep(&self, key: String, said: Said) {
        let time = if said.allowed() { self.config.allowed_for } else { self.config.refused_for };
        if !time.is_zero() {
            self.kept.lock().keep(key, time, said);
        }
    }

    /// The decision where it is known, or what is to be asked.
    fn known(&self, attributes: &Attributes) -> Result<Decision, Question> {
        match self.applies(attributes) {
            Ok(true) => {}
            Ok(false) => return Ok(Decision::no_opinion("")),
            Err(error) => return Ok(self.failed(error)),
        }
        let spec = spec(attributes, self.config.version);
        let key = spec.to_string();
        match self.kept.lock().get(&key) {
            Some(said) => Ok(said.decision()),
            None => Err(Question { spec, key }),
        }
    }

    async fn answer(&self, attributes: &Attributes, question: Question) -> Decision {
        let version = match self.config.version {
            Version::V1 => "authorization.k8s.io/v1",
            Version::V1Beta1 => "authorization.k8s.io/v1beta1",
        };
        let review = json!({
            "apiVersion": version, "kind": KIND, "metadata": {}, "spec": question.spec,
            "status": {"allowed": false},
        });
        match ask(&*self.reviewer, &review).await.and_then(|answer| Said::of(&answer, version)) {
            Ok(said) => {
                let decision = said.decision();
                if length(attributes) < LONGEST_KEPT {
                    self.keep(question.key, said);
                }
                decision
            }
            Err(failure) => {
                tracing::error!(error = failure.text, "Failed to make webhook authorizer request");
                self.failed(failure.text)
            }
        }
    }

    async fn decided(&self, attributes: &Attributes) -> Decision {
        match self.known(attributes) {
            Ok(decision) => decision,
            Err(question) => self.answer(attributes, question).await,
        }
    }
}

impl Authorizer for Webhook {
    /// Blocks the thread where the answer is not known: the expressions of policies ask this way, which cannot wait otherwise. A few threads
    /// at most wait so; to more, the service does not answer.
    fn authorize(&self, attributes: &Attributes) -> Decision {
        let question = match self.known(attributes) {
            Ok(decision) => return decision,
            Err(question) => question,
        };
        let Ok(_permit) = self.waiting.try_acquire() else {
            return self.failed("too many expressions wait for an authorization webhook".to_owned());
        };
        let handle = match tokio::runtime::Handle::try_current() {
            Ok(handle) if handle.runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread => handle,
            _ => return self.failed("an authorization webhook cannot be asked here".to_owned()),
        };
        tokio::task::block_in_place(|| handle.block_on(self.answer(attributes, question)))
    }

    fn decide<'a>(&'a self, attributes: &'a Attributes) -> BoxFuture<'a, Decision> {
        Box::pin(self.decided(attributes))
    }

    fn rules_for(&self, _: &User, _: &str) -> Rules {
        let error = "webhook authorizer does not support user rule resolution".to_owned();
        Rules { incomplete: true, errors: vec![error], ..Rules::default() }
    }
}

impl Said {
    /// Of an answer; one that is no review, or whose fields are of other types, is none.
    fn of(answer: &Value, version: &str) -> Result<Self, Failure> {
        let wrong = |what: String| {
            let text = format!("the answer of an authorization webhook is no {KIND}: {what}");
            Failure { text, passing: false }
        };
        let Value::Object(fields) = answer else { return Err(wrong("it is no object".to_owned())) };
        for (name, wanted) in [("kind", KIND), ("apiVersion", version)] {
            match fields.get(name) {
                None | Some(Value::Null) => {}
                Some(Value::String(given)) if given.is_empty() || given == wanted => {}
                Some(given) => return Err(wrong(format!("its {name} is {given}"))),
            }
        }
        match fields.get("status") {
            None | Some(Value::Null) => Ok(Said::default()),
            // A sequence is no status, though it could be read as one.
            Some(status @ Value::Object(_)) => Said::deserialize(status).map_err(|e| wrong(e.to_string())),
            Some(_) => Err(wrong("its status is no object".to_owned())),
        }
    }

    fn allowed(&self) -> bool {
        self.allowed == Some(true)
    }

    fn decision(&self) -> Decision {
        let (verdict, error) = match (self.allowed(), self.denied == Some(true)) {
            (true, true) => {
                (Verdict::Deny, "webhook subject access review returned both allow and deny response")
            }
            (_, true) => (Verdict::Deny, ""),
            (true, false) => (Verdict::Allow, ""),
            (false, false) => (Verdict::NoOpinion, ""),
        };
        Decision { verdict, reason: self.reason.clone().unwrap_or_default(), error: error.to_owned() }
    }
}

fn length(attributes: &Attributes) -> usize {
    let Attributes { verb, group, version, resource, subresource, namespace, name, path, .. } = attributes;
    [verb, group, version, resource, subresource, namespace, name, path].iter().map(|text| text.len()).sum()
}

/// What is asked, every field of it: as conditions see it.
fn request(attributes: &Attributes) -> Value {
    let User { name, uid, groups, extra } = &attributes.user;
    let mut spec = json!({"user": name, "uid": uid, "groups": groups, "extra": extra});
    match attributes.is_resource {
        true => {
            let Attributes { verb, group, version, resource, subresource, namespace, name, .. } = attributes;
            spec["resourceAttributes"] = json!({
                "namespace": namespace, "verb": verb, "group": group, "version": version,
                "resource": resource, "subresource": subresource, "name": name,
            });
            let requirement = |term: &machinery::fields::Term| {
                let operator = if term.equals { "In" } else { "NotIn" };
                json!({"key": term.field, "operator": operator, "values": [term.value]})
            };
            let terms: Vec<Value> = attributes.fields.terms().iter().map(requirement).collect();
            if !terms.is_empty() {
                spec["resourceAttributes"]["fieldSelector"] = json!({"requirements": terms});
            }
            let labels: Vec<Value> = attributes.labels.iter().filter_map(label_requirement).collect();
            if !labels.is_empty() {
                spec["resourceAttributes"]["labelSelector"] = json!({"requirements": labels});
            }
        }
        false => {
            spec["nonResourceAttributes"] = json!({"path": attributes.path, "verb": attributes.verb});
        }
    }
    spec
}

/// Operators a review does not know are left out: a request is narrowed by more than that.
fn label_requirement(requirement: &Requirement) -> Option<Value> {
    let operator = match requirement.operator() {
        Operator::Equals | Operator::DoubleEquals | Operator::In => "In",
        Operator::NotEquals | Operator::NotIn => "NotIn",
        Operator::Exists => "Exists",
        Operator::DoesNotExist => "DoesNotExist",
        Operator::GreaterThan | Operator::LessThan => return None,
    };
    let mut out = json!({"key": requirement.key(), "operator": operator});
    if !requirement.values().is_empty() {
        out["values"] = json!(requirement.values());
    }
    Some(out)
}

/// The spec that is sent, without what is empty.
fn spec(attributes: &Attributes, version: Version) -> Value {
    let mut spec = request(attributes);
    let is_empty = |value: &Value| match value {
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    for pointer in ["/resourceAttributes", "/nonResourceAttributes", ""] {
        if let Some(Value::Object(fields)) = spec.pointer_mut(pointer) {
            // What is asked is about a resource or about none, however little is said of it.
            fields.retain(|name, value| name.ends_with("Attributes") || !is_empty(value));
        }
    }
    if version == Version::V1Beta1
        && let Value::Object(fields) = &mut spec
        && let Some(groups) = fields.remove("groups")
    {
        fields.insert("group".to_owned(), groups);
    }
    spec
}

#[cfg(test)]
mod tests;
