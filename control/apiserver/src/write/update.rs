//! UPDATE and PATCH: read, change, admit, validate, compare-and-swap, again if somebody was faster.
//!
//! The change is a function from the present object to the wanted one: a PUT ignores its argument, a PATCH applies
//! itself to it, a subresource writes its part. A change that names a resourceVersion applies to that version alone and is never retried;
//! any other is applied again to what is stored now. A change that changes nothing writes nothing.

use super::delete;
use super::service::Grant;
use super::{Writer, Written, managed};
use crate::admission::{self, Attributes, Operation};
use crate::registry::call::{Call, Change};
use crate::registry::metadata::{deleting, finalizers};
use machinery::access::{Get as _, copy_at, remove_at};
use machinery::field::{FieldError, Path};
use machinery::object::{self, Gk};
use machinery::status::Status;
use serde_json::Value;
use store::{Entry, Expect};

/// Lost races after which an unconditional change is given up (upstream: `MaxRetryWhenPatchConflicts` for patches).
const TRIES: usize = 5;

/// A changed object that has been through the mutating half of admission.
struct Candidate<'a> {
    attributes: Attributes<'a>,
    new: Value,
    old: Value,
    /// Its managed fields, which it gets back when it is valid.
    owners: Option<Value>,
    entry: Entry,
    /// The client named what it means to replace.
    held: bool,
}

/// Must this write name a resourceVersion?
fn needs_revision(call: &Call<'_>) -> bool {
    !call.kind.rules().unconditional_update() && call.context.info.verb == "update"
}

impl Writer {
    /// Applies `change` to the object `call` names. `create_from` is what a PUT creates where nothing is stored.
    pub(crate) async fn update(
        &self,
        call: &Call<'_>,
        change: &dyn Change,
        create_from: Option<&Value>,
    ) -> Result<Written, Status> {
        for _ in 0..TRIES {
            let Some(entry) = self.registry.entry(&call.kind, &call.namespace, &call.name).await? else {
                // Whoever names a uid means an object that was there.
                let meant = create_from.filter(|_| !call.options.applies).map(object::uid);
                if let Some(uid) = meant.filter(|uid| !uid.is_empty()) {
                    return Err(other_uid(call, uid, ""));
                }
                return match create_from.filter(|_| {
                    call.options.applies
                        || (call.subresource.is_empty() && call.kind.rules().creates_on_update())
                }) {
                    Some(object) => self.create_by_update(call, object).await,
                    None => Err(Status::not_found(&call.kind.gr(), &call.name)),
                };
            };
            if let Some(written) = self.try_update(call, change, entry).await? {
                return Ok(written);
            }
        }
        Err(Status::conflict_modified(&call.kind.gr(), &call.name))
    }

    async fn create_by_update(&self, call: &Call<'_>, object: &Value) -> Result<Written, Status> {
        let mut object = object.clone();
        // Whatever version the client means, nothing is there to be of it.
        object::set_resource_version(&mut object, "");
        object::set_name(&mut object, &call.name);
        self.create(call, object).await
    }

    /// One round of read-change-write. `Ok(None)`: somebody else wrote in between, and the change may be tried again.
    async fn try_update(
        &self,
        call: &Call<'_>,
        change: &dyn Change,
        entry: Entry,
    ) -> Result<Option<Written>, Status> {
        let kind = &call.kind;
        let old = self.registry.decode(kind, &entry).await?;
        let mut new = change.of(&old).await?;
        check_identity(call, &old, &new)?;
        let asked = new.text("metadata.resourceVersion").to_owned();
        let held = !asked.is_empty() && asked != "0";
        if held && asked != entry.mod_revision.to_string() {
            return Err(Status::conflict_modified(&kind.gr(), &call.name));
        }
        if !held && needs_revision(call) {
            let missing = FieldError::invalid(
                &Path::new("metadata").child("resourceVersion"),
                0,
                "must be specified for an update",
            );
            // Upstream gives the resource where the kind belongs.
            let resource = Gk::new(kind.resource.group, kind.resource.plural);
            return Err(Status::invalid(&resource, &call.name, &[missing]));
        }
        carry_over(&old, &mut new);
        kind.rules().share(&mut new);
        // Owners are noted before admission, as upstream notes them: what it changes is nobody's.
        if !call.options.applies {
            managed::track(&self.registry, call, Some(&old), &mut new).await;
        }
        let noted = managed::of(&new);
        let mut attributes =
            Attributes::new(&self.admission, call, Operation::Update, Some(new), Some(old.clone()));
        admission::mutate(&self.registry, &mut attributes).await?;
        let mut new = attributes.object.take().unwrap_or_default();
        carry_over(&old, &mut new);
        let owners = managed::take(call, noted, &mut new);
        call.dedup_owners(&mut new, true);
        self.no_escalation(call, &new, Some(&old)).await?;
        let rules = kind.rules();
        rules.prepare_update(call.subresource, &mut new, &old);
        let mut grant = Grant::for_update(self, call, &mut new, &old).await?;
        let candidate = Candidate { attributes, new, old, owners, entry, held };
        let updated = self.update_granted(call, candidate, &mut grant).await;
        grant.close().await;
        updated
    }

    /// Validates an object that has everything, and writes it.
    async fn update_granted(
        &self,
        call: &Call<'_>,
        candidate: Candidate<'_>,
        grant: &mut Grant,
    ) -> Result<Option<Written>, Status> {
        let Candidate { mut attributes, mut new, old, owners, entry, held } = candidate;
        let kind = &call.kind;
        let rules = kind.rules();
        let mut errors = new_finalizers(&old, &new);
        errors.extend(self.disallowed_devices(call, &new, Some(&old)).await?);
        errors.extend(rules.validate_update(call.subresource, &new, &old));
        errors.extend(self.disallowed(call, &new));
        if !errors.is_empty() {
            return Err(Status::invalid(&kind.gk(), &call.name, &errors));
        }
        call.warn(rules.warnings(call.subresource, &new, Some(&old)));
        managed::put(&mut new, owners);
        managed::keep_times(&old, &mut new);
        attributes.object = Some(new);
        admission::validate(&self.registry, &mut attributes).await?;
        let mut new = attributes.object.take().unwrap_or_default();
        rules.read_back(&mut new);
        if delete::is_finished(kind, &new) && !call.options.dry_run {
            // The last finalizer went: the update is the delete (upstream: `ShouldDeleteDuringUpdate`).
            let finished = grant.finish(self, kind, &entry, &new).await?;
            return Ok(finished.then_some(Written { object: new, entry: None, created: false }));
        }
        let bytes = self.registry.encode(kind, &new).await?;
        // One at rest in another form than it would get now (another key, another version) is written although nothing changes.
        if bytes == entry.value && !entry.stale {
            return Ok(Some(Written { object: old, entry: Some(entry), created: false }));
        }
        if call.options.dry_run {
            return self.unwritten(kind, new, false).await.map(Some);
        }
        let (expect, ttl) = (Expect::At(entry.mod_revision), self.ttl(kind));
        match grant.write(&self.registry, kind, &entry.key, bytes, expect, ttl).await? {
            Some(entry) => self.written(kind, new, entry, false).await.map(Some),
            None if held => Err(Status::conflict_modified(&kind.gr(), &call.name)),
            None => Ok(None),
        }
    }
}

/// Namespace and name of an object sent to replace another must be those of the request: said before anything is looked up.
pub(crate) fn check_names(call: &Call<'_>, object: &Value) -> Result<(), Status> {
    let namespace = object::namespace(object);
    if call.kind.resource.namespaced && !namespace.is_empty() && namespace != call.namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let name = object::name(object);
    if name.is_empty() {
        return Err(Status::bad_request(format!(
            "the name of the object ({} based on URL) was undeterminable: name must be provided",
            call.name
        )));
    }
    if name != call.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.name
        )));
    }
    Ok(())
}

/// The refusal of a write that means an object of another uid than `present`.
fn other_uid(call: &Call<'_>, asked: &str, present: &str) -> Status {
    Status::conflict(
        &call.kind.gr(),
        &call.name,
        format!("Precondition failed: UID in precondition: {asked}, UID in object meta: {present}"),
    )
}

/// Name, namespace and uid of the changed object must be those of the request and the stored one.
fn check_identity(call: &Call<'_>, old: &Value, new: &Value) -> Result<(), Status> {
    if !object::name(new).is_empty() {
        check_names(call, new)?;
    }
    let uid = object::uid(new);
    if !uid.is_empty() && uid != object::uid(old) {
        return Err(other_uid(call, uid, object::uid(old)));
    }
    Ok(())
}

/// Metadata that is the server's: what a client says of it does not count.
const OWN: [&str; 5] = ["name", "namespace", "generateName", "generation", "resourceVersion"];
/// Metadata that an object keeps once it has it; a client that sets it on one that has not is refused by validation.
const KEPT: [&str; 4] = ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"];

/// Metadata no client may change (upstream: `rest.BeforeUpdate`).
fn carry_over(old: &Value, new: &mut Value) {
    for own in OWN {
        copy_at(old, new, &format!("metadata.{own}"));
    }
    for kept in KEPT {
        let path = format!("metadata.{kept}");
        // Upstream's own period yields to one that is sent, for validation to refuse it.
        let sent = kept == "deletionGracePeriodSeconds" && new.has(&path);
        if old.has(&path) && !sent {
            copy_at(old, new, &path);
        }
    }
    remove_at(new, "metadata.selfLink");
}

#[cfg(test)]
#[test]
fn a_deletion_timestamp_a_client_sets_on_a_live_object_must_not_be_dropped_unsaid() {
    use serde_json::json;
    let going = json!({"metadata": {"name": "x", "deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 5, "uid": "u"}});
    let mut live = going.clone();
    carry_over(&json!({"metadata": {"name": "x", "uid": "u"}}), &mut live);
    assert_eq!(live, going, "validation refuses it as immutable");
    let mut kept =
        json!({"metadata": {"name": "y", "generation": 9, "deletionTimestamp": "2027-01-01T00:00:00Z"}});
    carry_over(&going, &mut kept);
    assert_eq!(kept, going, "what it has, it keeps");
    let mut sooner = json!({"metadata": {"deletionGracePeriodSeconds": 0}});
    carry_over(&going, &mut sooner);
    assert_eq!(sooner["metadata"]["deletionGracePeriodSeconds"], 0, "validation refuses it as immutable");
}

/// An object that is being deleted gets no new finalizers.
fn new_finalizers(old: &Value, new: &Value) -> Vec<FieldError> {
    if !deleting(old) {
        return Vec::new();
    }
    let before = finalizers(old);
    let added: Vec<String> =
        finalizers(new).into_iter().filter(|f| !before.contains(f)).map(|f| format!("{f:?}")).collect();
    if added.is_empty() {
        return Vec::new();
    }
    let why = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
        added.join(", ")
    );
    vec![FieldError::forbidden(&Path::new("metadata").child("finalizers"), why)]
}
