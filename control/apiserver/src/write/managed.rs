//! `metadata.managedFields`: every write leaves who owns what behind it.

use crate::registry::Registry;
use crate::registry::call::{Call, Change, Seen};
use crate::registry::kind::Kind;
use crate::registry::metadata::time;
use crate::registry::rules::{Answers, Owned};
use futures::future::BoxFuture;
use machinery::access::{Get as _, copy_at, remove_at, set_at};
use machinery::apply::managed::{Managed, Manager};
use machinery::apply::set::Set;
use machinery::apply::versions::Halt;
use machinery::apply::{Applied, Write};
use machinery::object::{self, parse_api_version};
use machinery::status::Status;
use serde_json::{Value, json};

/// The manager of writes that name none: the server's own.
const OWN: &str = "kube-apiserver";
/// The manager of all that was there before anybody's writes were noted.
const BEFORE: &str = "before-first-apply";

/// A configuration to apply to whatever is stored.
pub(crate) struct Configuration<'a> {
    pub registry: &'a Registry,
    pub call: &'a Call<'a>,
    pub config: &'a Value,
}

impl Configuration<'_> {
    /// What it makes of an object of the stored version, or of nothing.
    pub(crate) async fn over(&self, old: Option<&Value>) -> Result<Value, Status> {
        let kind = &self.call.kind;
        let live = old.map(|old| {
            let mut live = old.clone();
            kind.to_client(&mut live);
            object::set_resource_version(&mut live, "");
            live
        });
        let object = apply(self.registry, self.call, live.as_ref(), self.config).await?;
        let mut object = kind.rules().normalize_applied(object).map_err(Status::bad_request)?;
        object::set_gvk(&mut object, &kind.gvk());
        kind.to_storage(&mut object);
        kind.default(&mut object);
        Ok(object)
    }
}

impl Change for Configuration<'_> {
    fn of<'a>(&'a self, stored: &'a Value) -> BoxFuture<'a, Result<Value, Status>> {
        Box::pin(self.over(Some(stored)))
    }
}

/// `config` applied over `live` (none: over nothing), both in the client's version: the object, its owners noted.
async fn apply(
    registry: &Registry,
    call: &Call<'_>,
    live: Option<&Value>,
    config: &Value,
) -> Result<Value, Status> {
    let kind = &call.kind;
    let (gvk, rules) = (kind.gvk(), kind.rules());
    let now = time(jiff::Timestamp::now());
    let reset = Set::of_fields(rules.reset_fields(call.subresource));
    let (bare, mut present) = match live {
        Some(live) => (without(live), owners(live)),
        // Nothing is there: what is applied is all there is.
        None => (json!({"apiVersion": gvk.api_version(), "kind": gvk.kind}), Managed::default()),
    };
    if live.is_some() && present.entries().is_empty() {
        // Upstream: `skipNonAppliedManager`.
        let before = Manager { name: BEFORE.to_owned(), ..manager(call, false) };
        let write = Write { manager: &before, now: &now, force: true, reset: &reset };
        let zero = rules.zero(&bare);
        let nothing = Owned { live: &zero, present: &present, write: &write };
        let noted = |answers: &Answers| rules.owners(nothing, &bare, answers);
        present = answered(registry, kind, noted).await?.unwrap_or_default();
    }
    let own = manager(call, true);
    let force = call.options.force.unwrap_or(false);
    let write = Write { manager: &own, now: &now, force, reset: &reset };
    let of = Owned { live: &bare, present: &present, write: &write };
    let merged = |answers: &Answers| rules.apply(of, config, answers);
    let Applied { mut object, managed, .. } = answered(registry, kind, merged).await?;
    note(&mut object, &managed);
    Ok(object)
}

/// What `step` comes to once it has every answer of the definition's webhook that it needs.
async fn answered<T>(
    registry: &Registry,
    kind: &Kind,
    step: impl Fn(&Answers) -> Result<T, Halt> + Send + Sync,
) -> Result<T, Status> {
    let mut answers = Answers::default();
    loop {
        // Each round gets further than the one before, and their number is bounded by that of the versions.
        let (objects, api_version) = match step(&answers) {
            Ok(done) => return Ok(done),
            Err(Halt::Refused(status)) => return Err(status),
            Err(Halt::Wants { objects, api_version }) => (objects, api_version),
        };
        let version = parse_api_version(&api_version).map(|(_, version)| version).unwrap_or_default();
        let said = registry.in_version(kind, objects.clone(), version).await?;
        answers.note(objects, &api_version, said);
    }
}

/// Notes in `new` who owns what after `call` made it of `old` (none: created it). Where that cannot be told, as no webhook says what the
/// object is in another owner's version, nobody owns anything any more (upstream: `UpdateNoErrors`).
pub(super) async fn track(registry: &Registry, call: &Call<'_>, old: Option<&Value>, new: &mut Value) {
    let rules = call.kind.rules();
    let asked = new.present("metadata.managedFields").cloned();
    remove_at(new, "metadata.managedFields");
    // Owners own fields of the version they wrote in.
    let in_version = |mut object: Value| {
        rules.to_client(&mut object);
        object
    };
    let converted = (!rules.is_storage()).then(|| in_version(new.clone()));
    let written: &Value = converted.as_ref().unwrap_or(&*new);
    let (live, noted) = match old {
        Some(old) => (in_version(without(old)), owners(old)),
        None => (rules.zero(written), Managed::default()),
    };
    let present = match asked.filter(|_| call.subresource.is_empty()) {
        Some(asked) => chosen(&asked).unwrap_or(noted),
        None => noted,
    };
    // What nobody's writes were noted of stays so until somebody applies (upstream: `skipNonAppliedManager`).
    if old.is_some() && present.entries().is_empty() {
        return;
    }
    let now = time(jiff::Timestamp::now());
    let own = manager(call, false);
    let reset = Set::of_fields(rules.reset_fields(call.subresource));
    let write = Write { manager: &own, now: &now, force: true, reset: &reset };
    let of = Owned { live: &live, present: &present, write: &write };
    let noted = |answers: &Answers| rules.owners(of, written, answers);
    match answered(registry, &call.kind, noted).await {
        Ok(Some(managed)) => note(new, &managed),
        Ok(None) => {}
        Err(error) => {
            let (namespace, name) = (object::namespace(new), object::name(new));
            tracing::warn!(%error, kind = %call.kind.gvk(), namespace, name, "who owns its fields is not known any more");
        }
    }
}

/// What an object says of its owners.
pub(super) fn of(object: &Value) -> Option<Value> {
    object.present("metadata.managedFields").cloned()
}

/// Takes the owners out of an object that has been through admission. What nobody can read is put back to what was `noted` before, and
/// the client is told (upstream: `fieldmanager/admission.go`).
pub(super) fn take(call: &Call<'_>, noted: Option<Value>, object: &mut Value) -> Option<Value> {
    let after = remove_at(object, "metadata.managedFields").filter(|owners| !owners.is_null());
    if after == noted || after.as_ref().is_none_or(|owners| Managed::from_value(owners).is_some()) {
        return after;
    }
    call.warn([".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated mutating \
                admission controller; please fix your requests: the entries cannot be decoded"
        .to_owned()]);
    noted
}

/// Puts owners into an object.
pub(super) fn put(object: &mut Value, owners: Option<Value>) {
    if let Some(owners) = owners {
        set_at(object, "metadata.managedFields", owners);
    }
}

/// Puts the owners' times back as they were where a write changed nothing else: it is then no write at all
/// (upstream: `IgnoreManagedFieldsTimestampsTransformer`).
pub(super) fn keep_times(old: &Value, new: &mut Value) {
    let path = "metadata.managedFields";
    let (before, after) = (old.present(path), new.present(path));
    if before == after {
        return;
    }
    let owners = |list: Option<&Value>| Managed::from_value(list.unwrap_or(&Value::Null));
    let same_owners = matches!((owners(before), owners(after)), (Some(before), Some(after)) if before.same_but_times(&after));
    if same_owners && without(old) == without(new) {
        copy_at(old, new, path);
    }
}

/// The owners a writer says there are, as kubectl does when it moves to server-side apply: one empty entry forgets them all; nothing, or
/// nothing readable, leaves them to what was noted before, so that clients who know of no owners do not lose them.
fn chosen(asked: &Value) -> Option<Managed> {
    if asked.as_array().is_some_and(|list| matches!(list.as_slice(), [one] if *one == json!({}))) {
        return Some(Managed::default());
    }
    Managed::from_value(asked).filter(|managed| !managed.entries().is_empty())
}

fn manager(call: &Call<'_>, applies: bool) -> Manager {
    let name = &call.options.field_manager;
    Manager {
        name: if name.is_empty() { OWN.to_owned() } else { name.clone() },
        applies,
        api_version: call.kind.api_version(),
        subresource: match call.seen {
            // What is written as a Scale is noted as one.
            Seen::As(view) => view.subresource.to_owned(),
            _ => call.subresource.to_owned(),
        },
    }
}

/// Owners an object names; unreadable ones are forgotten, as upstream forgets them.
fn owners(object: &Value) -> Managed {
    object.present("metadata.managedFields").and_then(Managed::from_value).unwrap_or_default()
}

fn note(object: &mut Value, managed: &Managed) {
    match managed.to_value() {
        Value::Array(list) if list.is_empty() => {
            remove_at(object, "metadata.managedFields");
        }
        list => set_at(object, "metadata.managedFields", list),
    }
}

fn without(object: &Value) -> Value {
    let mut bare = object.clone();
    remove_at(&mut bare, "metadata.managedFields");
    bare
}
