//! The event of a request as it comes to be. Upstream: `AuditContext` in `apiserver/pkg/audit/context.go`, and its filter.
//!
//! Whoever learns something of a request writes it here. The trail of a request that is not audited is empty: nothing that is written to it
//! is even made. A trail ends with its answer; one whose answer has a body that goes on, or left HTTP, when the last who holds it lets it go.

use super::Auditor;
use super::event::{AuthenticationMetadata, Event, ResponseStatus};
use super::follow::follow;
use super::level::{Level, Stage};
use super::objects;
use super::policy::Scope;
use crate::answer::Failure;
use crate::facts::{RequestInfo, Response, User};
use crate::request;
use bytes::Bytes;
use http::StatusCode;
use http_body::Body as _;
use jiff::{SignedDuration, Timestamp};
use machinery::{names, object};
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Requests that took longer say what took how long.
const SLOW: SignedDuration = SignedDuration::from_millis(500);

/// What a request spends its time with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layer {
    Authentication,
    Impersonation,
    Queue,
    Authorization,
    /// One after another.
    MutatingWebhooks,
    /// All at once: the slowest counts.
    ValidatingWebhooks,
}

impl Layer {
    fn annotation(self) -> &'static str {
        match self {
            Layer::Authentication => "apiserver.latency.k8s.io/authentication",
            Layer::Impersonation => "apiserver.latency.k8s.io/impersonation",
            Layer::Queue => "apiserver.latency.k8s.io/apf-queue-wait",
            Layer::Authorization => "apiserver.latency.k8s.io/authorization",
            Layer::MutatingWebhooks => "apiserver.latency.k8s.io/mutating-webhook",
            Layer::ValidatingWebhooks => "apiserver.latency.k8s.io/validating-webhook",
        }
    }
}

/// What an answer is, until the log has it: handlers leave it with their answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Logged {
    /// The object answered, as JSON.
    pub object: Option<Bytes>,
    /// The `Status` answered.
    pub status: Option<Value>,
}

/// Where everybody writes what they learn of a request. A cheap handle.
#[derive(Clone, Default)]
pub struct Trail(Option<Arc<Audited>>);

impl std::fmt::Debug for Trail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Trail").field(&self.level()).finish()
    }
}

struct Audited {
    auditor: Arc<Auditor>,
    scope: Scope,
    long_running: bool,
    state: Mutex<State>,
}

struct State {
    event: Event,
    layers: BTreeMap<&'static str, Duration>,
    started: bool,
    ended: bool,
}

impl Trail {
    pub(super) fn new(auditor: Arc<Auditor>, scope: Scope, event: Event, info: &RequestInfo) -> Self {
        let state = State { event, layers: BTreeMap::new(), started: false, ended: false };
        let long_running = request::is_long_running(info);
        Self(Some(Arc::new(Audited { auditor, scope, long_running, state: Mutex::new(state) })))
    }

    /// How much is written; nothing of a request that is not audited.
    pub(crate) fn level(&self) -> Level {
        self.0.as_ref().map_or(Level::None, |audited| audited.scope.level)
    }

    fn change(&self, change: impl FnOnce(&mut Event)) {
        if let Some(audited) = &self.0 {
            change(&mut audited.state.lock().event);
        }
    }

    /// Says something of the request beside its fields; what was said first stays.
    pub(crate) fn annotate(&self, key: &str, value: impl FnOnce() -> String) {
        self.change(|event| {
            let value = value();
            match event.annotations.get(key) {
                Some(known) if *known != value => {
                    tracing::warn!(
                        key,
                        value,
                        known,
                        audit_id = event.audit_id,
                        "an audit annotation is set already"
                    );
                }
                Some(_) => {}
                None => drop(event.annotations.insert(key.to_owned(), value)),
            }
        });
    }

    /// The same where there may be nothing to say, which is found out only for who wants to know.
    pub(crate) fn annotate_if(&self, key: &str, value: impl FnOnce() -> Option<String>) {
        if self.0.is_some()
            && let Some(value) = value()
        {
            self.annotate(key, || value);
        }
    }

    /// The same for admission, whose keys others choose, from `level` on.
    pub(crate) fn annotate_admission(&self, level: Level, entry: impl FnOnce() -> (String, String)) {
        if level > self.level() {
            return;
        }
        let (key, value) = entry();
        let prefixed = key.split('/').count() == 2;
        if !prefixed || !names::qualified_name(&key).is_empty() {
            tracing::warn!(key, "the key of an audit annotation is no qualified name with a prefix");
            return;
        }
        self.annotate(&key, || value);
    }

    /// Does `work`, which is how long one layer takes.
    pub(crate) async fn timed<T>(&self, layer: Layer, work: impl Future<Output = T>) -> T {
        if self.0.is_none() {
            return work.await;
        }
        let begun = Instant::now();
        let done = work.await;
        self.took(layer, begun.elapsed());
        done
    }

    /// Does `work`, which the request goes on with.
    pub(crate) async fn until(self, work: impl Future<Output = ()>) {
        work.await;
    }

    /// Notes how long a layer took.
    pub(crate) fn took(&self, layer: Layer, time: Duration) {
        let Some(audited) = &self.0 else { return };
        let mut state = audited.state.lock();
        let all = state.layers.entry(layer.annotation()).or_default();
        *all = if layer == Layer::ValidatingWebhooks { time.max(*all) } else { time + *all };
    }

    /// Notes who the request goes on as, and by which constrained way.
    pub(crate) fn impersonates(&self, user: &User, constraint: &str) {
        self.change(|event| {
            event.impersonated_user = Some(user.into());
            event.authentication_metadata = (!constraint.is_empty())
                .then(|| AuthenticationMetadata { impersonation_constraint: constraint.to_owned() });
        });
    }

    /// Notes the object that was sent: what it says of itself, and as `shown` in the version of its client.
    pub(crate) fn request_object(&self, sent: &Value, shown: impl FnOnce() -> Value) {
        let (level, Some(audited)) = (self.level(), &self.0) else { return };
        let written = (level >= Level::Request)
            .then(|| objects::of(shown(), audited.scope.without_managed_fields))
            .flatten();
        self.change(|event| {
            event.request_object = written;
            let reference = event.object_ref.get_or_insert_default();
            for (field, own) in [
                (&mut reference.namespace, object::namespace(sent)),
                (&mut reference.name, object::name(sent)),
                (&mut reference.uid, object::uid(sent)),
                (&mut reference.resource_version, object::resource_version(sent)),
            ] {
                if field.is_empty() {
                    own.clone_into(field);
                }
            }
        });
    }

    /// Notes a patch that was sent.
    pub(crate) fn request_patch(&self, patch: &Bytes) {
        if self.level() >= Level::Request {
            self.change(|event| event.request_object = objects::of_patch(patch));
        }
    }

    /// Notes what an answer is; its failure stays with it.
    pub(crate) fn note(&self, response: &mut Response) {
        let Some(audited) = &self.0 else { return };
        let logged = response.extensions_mut().remove::<Logged>();
        let logged = match response.extensions().get::<Failure>() {
            Some(Failure(status)) => {
                Logged { object: Some(status.to_string().into()), status: Some(status.clone()) }
            }
            None => logged.unwrap_or_default(),
        };
        let object = logged
            .object
            .filter(|_| audited.scope.level >= Level::RequestResponse)
            .and_then(|object| objects::of_bytes(&object, audited.scope.without_managed_fields));
        self.change(|event| {
            if let Some(status) = &logged.status {
                event.response_status = Some(ResponseStatus::of(status));
            }
            if object.is_some() {
                event.response_object = object;
            }
        });
    }

    /// Writes that the request is there; false where it is to be refused for that could not be written.
    pub(crate) async fn received(&self) -> bool {
        let Some(audited) = &self.0 else { return true };
        if audited.write(Stage::RequestReceived).await {
            return true;
        }
        audited.state.lock().ended = true;
        audited.auditor.rejected();
        false
    }

    /// Writes the answer: that it begins, where it may go on forever, and that it is complete, now or when its body ends.
    pub(crate) async fn answered(&self, mut response: Response) -> Response {
        let Some(audited) = self.0.as_ref().filter(|audited| !audited.state.lock().ended) else {
            return response;
        };
        self.note(&mut response);
        self.code(&response);
        if audited.long_running {
            audited.write(Stage::ResponseStarted).await;
        }
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return response;
        }
        let whole = response.body().is_end_stream() || response.body().size_hint().exact().is_some();
        if whole {
            audited.measure();
            audited.write(Stage::ResponseComplete).await;
            return response;
        }
        response.map(|body| follow(body, self.clone()))
    }

    /// Writes the answer to a request that was refused before it was audited: one event.
    pub(crate) async fn refused(&self, response: &mut Response) {
        let Some(audited) = &self.0 else { return };
        self.note(response);
        self.code(response);
        audited.write(Stage::ResponseStarted).await;
        audited.state.lock().ended = true;
    }

    /// Writes that the server panicked.
    pub(crate) async fn panicked(&self, why: &str) {
        let Some(audited) = &self.0 else { return };
        self.change(|event| {
            event.response_status = Some(ResponseStatus {
                code: 500,
                status: "Failure".to_owned(),
                reason: "InternalError".to_owned(),
                message: format!("APIServer panic'd: {why}"),
                ..ResponseStatus::default()
            });
        });
        audited.write(Stage::Panic).await;
    }

    fn code(&self, response: &Response) {
        self.change(|event| event.response_status.get_or_insert_default().code = response.status().as_u16());
    }
}

impl Audited {
    /// The event of a stage, unless the policy omits it.
    fn at(&self, stage: Stage) -> Option<Arc<Event>> {
        let mut state = self.state.lock();
        match stage {
            Stage::RequestReceived => {}
            Stage::ResponseStarted => state.started = true,
            Stage::ResponseComplete | Stage::Panic => state.ended = true,
        }
        if self.scope.omitted.contains(stage) {
            return None;
        }
        state.event.stage = stage;
        if stage != Stage::RequestReceived {
            state.event.stage_timestamp = Timestamp::now();
        }
        Some(Arc::new(state.event.clone()))
    }

    async fn write(&self, stage: Stage) -> bool {
        match self.at(stage) {
            Some(event) => self.auditor.send(event).await,
            None => true,
        }
    }

    /// Says what a slow request spent its time with.
    fn measure(&self) {
        let mut state = self.state.lock();
        let total = Timestamp::now().duration_since(state.event.request_received_timestamp);
        if total <= SLOW || state.layers.is_empty() {
            return;
        }
        let layers = std::mem::take(&mut state.layers);
        let text = |nanos: u128| machinery::duration::format(i64::try_from(nanos).unwrap_or(i64::MAX));
        for (name, time) in layers {
            state.event.annotations.entry(name.to_owned()).or_insert_with(|| text(time.as_nanos()));
        }
        let total = text(total.unsigned_abs().as_nanos());
        state.event.annotations.insert("apiserver.latency.k8s.io/total".to_owned(), total);
    }
}

impl Drop for Audited {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        if state.ended {
            return;
        }
        let started = state.started;
        state.event.response_status.get_or_insert_with(|| ResponseStatus {
            code: 200,
            status: "Success".to_owned(),
            message: "Connection closed early".to_owned(),
            ..ResponseStatus::default()
        });
        let mut due = Vec::new();
        if self.long_running && !started {
            due.extend(self.at(Stage::ResponseStarted));
        }
        self.measure();
        due.extend(self.at(Stage::ResponseComplete));
        self.auditor.ends(due);
    }
}
