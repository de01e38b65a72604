//! Admission webhooks: other servers that change and judge requests. Upstream: `apiserver/pkg/admission/plugin/webhook`.
//!
//! Mutating webhooks are called one after another, by name of their configuration and place in it, each with what the one
//! before left; validating ones all at once. Reads the configurations in the watch cache; writes nothing but the object it
//! was given. Promises that a request is held no longer than each webhook's own timeout, and that requests about webhook
//! and policy configurations never reach a webhook: a broken one can always be removed.
//!
//! - [`annotate`]: what the audit log says of them; [`hook`]: a webhook as configured; [`rounds`]: calling again; the call: [`crate::webhook`]

mod annotate;
mod hook;
mod rounds;

pub(crate) use rounds::Rounds;

use super::review;
use super::subject::{Subject, shown};
use super::{Attributes, Seen, Verdict};
use crate::audit::Layer;
use crate::registry::Registry;
use crate::registry::kind::Kind;
use crate::registry::parsed::Parsed;
use futures::future::join_all;
use hook::Hook;
use machinery::goformat::go_quote;
use machinery::schema;
use machinery::status::Status;
use serde_json::Value;
use std::sync::Arc;

const GROUP: &str = "admissionregistration.k8s.io";
/// Requests about these never reach a webhook or policy.
const EXEMPT: [&str; 6] = [
    "ValidatingWebhookConfiguration",
    "MutatingWebhookConfiguration",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
];

/// The webhooks of this server.
#[derive(Default)]
pub(crate) struct Configured {
    mutating: Parsed<Hook>,
    validating: Parsed<Hook>,
}

/// Why a webhook does not let a request through.
enum Failure {
    /// It could not be asked, or its answer makes no sense; its policy may ignore that.
    Calling(String),
    /// It, or the server, says no.
    Refused(Box<Status>),
}

impl Failure {
    fn refused(status: Status) -> Self {
        Failure::Refused(Box::new(status))
    }
}

/// Is the request one that webhooks and policies never see?
pub(super) fn is_exempt(a: &Attributes<'_>) -> bool {
    matches!(a.seen, Seen::Already)
        || (a.kind.resource.group == GROUP && EXEMPT.contains(&a.kind.resource.kind))
}

fn hooks(registry: &Registry, configured: &Configured, plural: &str) -> Result<Arc<Vec<Hook>>, Status> {
    let Some(kind) = Kind::of(GROUP, plural) else { return Ok(Arc::default()) };
    let parsed = if plural.starts_with("mut") { &configured.mutating } else { &configured.validating };
    parsed.get(registry, &kind, Hook::parse)
}

/// Lets every mutating webhook that means the request change its object.
pub(super) fn mutate<'a>(registry: &'a Registry, a: &'a mut Attributes<'_>) -> Verdict<'a> {
    Box::pin(async move {
        if is_exempt(a) {
            return Ok(());
        }
        let hooks = hooks(registry, &a.admission.webhooks, "mutatingwebhookconfigurations")?;
        if hooks.is_empty() {
            return Ok(());
        }
        if a.rounds.is_second() {
            let object = a.object.take();
            a.rounds.webhooks.begin_second(object.as_ref());
            a.object = object;
        }
        let outcome = mutate_all(registry, a, &hooks).await;
        a.rounds.webhooks.end(a.object.as_ref());
        outcome
    })
}

/// The version in which the webhook means the request, if it does.
async fn meant(registry: &Registry, a: &Attributes<'_>, hook: &Hook) -> Result<Option<Kind>, Status> {
    let Some(kind) = hook.criteria.find(registry, a).await? else { return Ok(None) };
    if hook.conditions.is_empty() {
        return Ok(Some(kind));
    }
    let subject = Subject::new(registry, a, &kind).await?;
    let mut evaluator = subject.evaluator(registry, a);
    match hook.conditions.hold(&mut evaluator, hook.ignores_failure) {
        Ok(true) => Ok(Some(kind)),
        Ok(false) => Ok(None),
        Err(why) => Err(a.forbidden(why)),
    }
}

async fn mutate_all(registry: &Registry, a: &mut Attributes<'_>, hooks: &[Hook]) -> Result<(), Status> {
    for (index, hook) in hooks.iter().enumerate() {
        let Some(kind) = meant(registry, a, hook).await? else { continue };
        // Nobody is called for the first time in the second round.
        if a.rounds.is_second() && !a.rounds.webhooks.is_due(&hook.identity) {
            continue;
        }
        let audit = a.audit;
        let place = format!("round_{}_index_{index}", u8::from(a.rounds.is_second()));
        let changing = change(registry, a, hook, &kind, &place);
        let outcome = audit.timed(Layer::MutatingWebhooks, changing).await;
        annotate::mutated(audit, hook, &place, matches!(outcome, Ok(true)));
        if matches!(outcome, Ok(true)) {
            a.rounds.webhooks.changed();
            a.rounds.want();
        }
        if hook.reinvoked {
            a.rounds.webhooks.note(&hook.identity);
        }
        let prefix = annotate::MUTATION;
        judge(hook, outcome.map(|_| ()), || annotate::failed_open(audit, hook, prefix, &place))?;
    }
    Ok(())
}

/// Asks every validating webhook that means the request.
pub(super) fn validate<'a>(registry: &'a Registry, a: &'a mut Attributes<'_>) -> Verdict<'a> {
    Box::pin(async move {
        if is_exempt(a) {
            return Ok(());
        }
        let hooks = hooks(registry, &a.admission.webhooks, "validatingwebhookconfigurations")?;
        let mut due = Vec::new();
        for hook in hooks.iter() {
            if let Some(kind) = meant(registry, a, hook).await? {
                due.push((hook, kind));
            }
        }
        let a = &*a;
        let calls = due.iter().enumerate().map(|(index, (hook, kind))| async move {
            let asking = ask(registry, a, hook, kind, false);
            let outcome = a.audit.timed(Layer::ValidatingWebhooks, asking).await;
            let place = || format!("round_0_index_{index}");
            judge(hook, outcome.map(|_| ()), || {
                annotate::failed_open(a.audit, hook, annotate::VALIDATION, &place());
            })
        });
        join_all(calls).await.into_iter().collect()
    })
}

/// What a failure comes to under the webhook's policy.
fn judge(hook: &Hook, outcome: Result<(), Failure>, failed_open: impl FnOnce()) -> Result<(), Status> {
    match outcome {
        Ok(()) => Ok(()),
        Err(Failure::Refused(status)) => Err(*status),
        Err(Failure::Calling(reason)) => {
            let text = format!("failed calling webhook {}: {reason}", go_quote(&hook.name));
            if hook.ignores_failure {
                tracing::warn!(
                    configuration = hook.configuration,
                    webhook = hook.name,
                    "failing open: {text}"
                );
                failed_open();
                return Ok(());
            }
            tracing::warn!(configuration = hook.configuration, webhook = hook.name, "failing closed: {text}");
            Err(Status::internal_error(text))
        }
    }
}

async fn ask(
    registry: &Registry,
    a: &Attributes<'_>,
    hook: &Hook,
    kind: &Kind,
    mutating: bool,
) -> Result<(review::Outcome, Value), Failure> {
    if a.dry_run && !hook.takes_dry_run {
        let why = format!("admission webhook {} does not support dry run", go_quote(&hook.name));
        return Err(Failure::refused(Status::bad_request(why)));
    }
    let version = hook.review_version.ok_or_else(|| {
        Failure::Calling(
            "could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)"
                .to_owned(),
        )
    })?;
    let uid = uuid::Uuid::new_v4().to_string();
    let (object, old) = shown(registry, a, kind).await.map_err(Failure::refused)?;
    let review = review::request(a, kind, &object, &old, version, &uid);
    let config = &registry.config;
    let credentials = if mutating { &config.mutating_webhooks } else { &config.validating_webhooks };
    let asking = hook.endpoint.ask(registry, credentials.as_deref(), &review, hook.timeout);
    let answered = asking.await.map_err(Failure::Calling)?;
    let answer = review::answer(&answered, version, &uid, mutating)
        .map_err(|why| Failure::Calling(format!("received invalid webhook response: {why}")))?;
    a.warnings.lock().extend(answer.warnings.iter().cloned());
    for (key, value) in &answer.annotations {
        a.annotate(|| (format!("{}/{key}", hook.name), value.clone()));
    }
    match &answer.refused {
        Some(result) => Err(Failure::refused(review::refusal(&hook.name, result))),
        None => Ok((answer, object)),
    }
}

/// Lets a webhook change the object; true if it did.
async fn change(
    registry: &Registry,
    a: &mut Attributes<'_>,
    hook: &Hook,
    kind: &Kind,
    place: &str,
) -> Result<bool, Failure> {
    let (answer, before) = ask(registry, a, hook, kind, true).await?;
    let Some((patch, patch_type)) = answer.patch else { return Ok(false) };
    let operations: json_patch::Patch = serde_json::from_slice(&patch)
        .map_err(|e| Failure::Calling(format!("received undecodable patch in webhook response: {e}")))?;
    if operations.0.is_empty() {
        return Ok(false);
    }
    let internal = |why: String| Failure::refused(Status::internal_error(why));
    if a.object.is_none() {
        return Err(internal(format!(
            "admission webhook {} attempted to modify the object, which is not supported for this operation",
            go_quote(&hook.name)
        )));
    }
    if patch_type != "JSONPatch" {
        return Err(Failure::Calling(format!("unsupported patch type {}", go_quote(&patch_type))));
    }
    let after =
        machinery::patch::json::operate(&before, &operations.0).map_err(|e| internal(e.to_string()))?;
    let changed = take(registry, a, kind, &before, after).await.map_err(internal)?;
    annotate::patched(a.audit, hook, place, &operations);
    Ok(changed)
}

/// Makes `after`, changed from `before` as `kind`'s version has it, the object to be: read, defaulted, converted back.
/// True if that changes anything.
pub(super) async fn take(
    registry: &Registry,
    a: &mut Attributes<'_>,
    kind: &Kind,
    before: &Value,
    after: Value,
) -> Result<bool, String> {
    let own = a.request_kind();
    let is_own = own == a.kind.gvk();
    let gvk = if is_own { kind.gvk() } else { own };
    let table = schema::builtin();
    let mut after = match table.kind(&gvk) {
        Some(id) => table.normalize(id, after).map_err(|e| e.to_string())?.value,
        None if is_own => kind.normalize(after)?.0,
        None => after,
    };
    machinery::object::set_gvk(&mut after, &gvk);
    let changed = after != *before;
    match a.seen {
        Seen::As(view) => {
            if let Some(object) = &mut a.object {
                (view.put_back)(&a.kind, object, &after);
            }
        }
        _ if a.sent.is_some() => a.object = Some(after),
        _ => {
            kind.to_storage(&mut after);
            kind.rules().complete(&mut after);
            if kind.is_converted() {
                after = registry.present(&a.kind, after).await.map_err(|e| e.message)?;
            } else {
                a.kind.rules().to_flight(&mut after);
            }
            a.object = Some(after);
        }
    }
    Ok(changed)
}
