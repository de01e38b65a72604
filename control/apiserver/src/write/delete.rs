//! DELETE: preconditions, grace, finalizers; then gone (upstream: `registry/generic/registry/store.go`, `rest/delete.go`).
//!
//! The decision is [`plan`], a pure function of the stored object and the options; the rest retries it against the store.

use super::{Writer, Written, definition, service};
use crate::admission::{self, Attributes, Operation};
use crate::registry::call::Call;
use crate::registry::kind::Kind;
use crate::registry::metadata::{deleting, finalizers, time};
use crate::registry::options::{DeleteOptions, ListOptions, Propagation};
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use machinery::access::{Get as _, remove_at, set_at};
use machinery::object::{self, Gr};
use machinery::resources::strategy::{Dependents, dependents_by_default, grace_period_seconds};
use machinery::status::{Details, Status};
use serde_json::Value;
use store::{Entry, Expect};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// What a delete answers.
#[derive(Debug)]
pub(crate) enum Deleted {
    /// The object, still stored (or, for some resources, as it was when it went).
    Object(Written),
    Status(Status),
}

impl Writer {
    /// Deletes the object `call` names.
    pub(crate) async fn delete(&self, call: &Call<'_>, options: &DeleteOptions) -> Result<Deleted, Status> {
        let kind = &call.kind;
        loop {
            let entry = self
                .registry
                .entry(kind, &call.namespace, &call.name)
                .await?
                .ok_or_else(|| Status::not_found(&kind.gr(), &call.name))?;
            let object = self.registry.decode(kind, &entry).await?;
            check_preconditions(kind, &object, options)?;
            let mut attributes =
                Attributes::new(&self.admission, call, Operation::Delete, None, Some(object.clone()));
            attributes.dry_run |= options.dry_run;
            attributes.options = options.as_sent();
            admission::mutate(&self.registry, &mut attributes).await?;
            admission::validate(&self.registry, &mut attributes).await?;
            // A lost race is tried again on what is stored now: preconditions included, so this ends with the object.
            if let Some(deleted) = self.try_delete(kind, &entry, &object, options).await? {
                return Ok(deleted);
            }
        }
    }

    async fn try_delete(
        &self,
        kind: &Kind,
        entry: &Entry,
        object: &Value,
        options: &DeleteOptions,
    ) -> Result<Option<Deleted>, Status> {
        let uncollected = !self.registry.config.garbage_collection;
        let options = &DeleteOptions { uncollected, ..options.clone() };
        let plan = plan(kind, object, options, Timestamp::now());
        if options.dry_run {
            return Ok(Some(match plan {
                Plan::Pending => {
                    Deleted::Object(Written { object: object.clone(), entry: None, created: false })
                }
                Plan::Mark(object) => Deleted::Object(Written { object, entry: None, created: false }),
                Plan::Remove(object) => gone(kind, object),
            }));
        }
        match plan {
            Plan::Pending => {
                let (object, entry) = (object.clone(), Some(entry.clone()));
                Ok(Some(Deleted::Object(Written { object, entry, created: false })))
            }
            Plan::Mark(marked) => {
                let bytes = self.registry.encode(kind, &marked).await?;
                let written = self
                    .registry
                    .write(kind, &entry.key, bytes, Expect::At(entry.mod_revision), self.ttl(kind))
                    .await?;
                match written {
                    Some(entry) => Ok(Some(Deleted::Object(self.written(kind, marked, entry, false).await?))),
                    None => Ok(None),
                }
            }
            Plan::Remove(last) => {
                let Some(revision) = service::remove(self, kind, entry, &last).await? else {
                    return Ok(None);
                };
                let mut last = last;
                crate::registry::stored::set_revision(&mut last, revision);
                Ok(Some(gone(kind, last)))
            }
        }
    }

    /// Deletes every selected object of `kind` in `namespace`; gives them as they were.
    pub(crate) async fn delete_collection(
        &self,
        call: &Call<'_>,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<crate::registry::list::List, Status> {
        let mut page = self.registry.list(&call.kind, &call.namespace, list).await?;
        let mut deleted = Vec::with_capacity(page.items.len());
        for some in page.items.chunks(self.registry.config.delete_workers.max(1)) {
            let mut each = Vec::with_capacity(some.len());
            for bytes in some {
                each.push(Box::pin(self.delete_one(call, bytes, options)));
            }
            for (gone, bytes) in futures::future::join_all(each).await.into_iter().zip(some) {
                match gone {
                    Ok(()) => deleted.push(bytes.clone()),
                    Err(e) if e.code == 404 => {}
                    Err(e) => return Err(e),
                }
            }
        }
        page.items = deleted;
        Ok(page)
    }

    /// Deletes one object of a collection.
    async fn delete_one(
        &self,
        call: &Call<'_>,
        bytes: &Bytes,
        options: &DeleteOptions,
    ) -> Result<(), Status> {
        let object = call.kind.decode_wire(bytes)?;
        let one = Call {
            namespace: object::namespace(&object).to_owned(),
            name: object::name(&object).to_owned(),
            ..call.clone()
        };
        self.delete(&one, options).await.map(drop)
    }
}

/// Namespaces and definitions are checked by storages of their own (upstream: `core/namespace/storage`,
/// `apiextensions/pkg/registry/customresourcedefinition`), all others by `rest.BeforeDelete`, which knows the kind only.
fn check_preconditions(kind: &Kind, object: &Value, options: &DeleteOptions) -> Result<(), Status> {
    let own_storage = kind.is("", "namespaces") || kind.is_definitions();
    let refused = |field: &str, wanted: &str, is: &str, perhaps: &str| {
        let name = object::name(object);
        if own_storage {
            let why = format!(
                "Precondition failed: {field} in precondition: {wanted}, {field} in object meta: {is}"
            );
            return Err(Status::conflict(&kind.gr(), name, why));
        }
        let why = format!(
            "the {field} in the precondition ({wanted}) does not match the {field} in record ({is}). \
             The object might have been {perhaps}"
        );
        Err(Status::conflict(&Gr::new(kind.resource.group, kind.resource.kind), name, why))
    };
    let (uid, version) = (object::uid(object), object::resource_version(object));
    match (&options.uid, &options.resource_version) {
        (Some(wanted), _) if wanted != uid => refused("UID", wanted, uid, "deleted and then recreated"),
        (_, Some(wanted)) if wanted != version => refused("ResourceVersion", wanted, version, "modified"),
        _ => Ok(()),
    }
}

/// What is to be done with a stored object.
#[derive(Debug, PartialEq)]
enum Plan {
    /// Nothing: it is being deleted already and the options ask for no sooner end.
    Pending,
    /// Write this state; it stays until its grace period and finalizers are through.
    Mark(Value),
    /// Remove it; this is its last state.
    Remove(Value),
}

fn plan(kind: &Kind, stored: &Value, options: &DeleteOptions, now: Timestamp) -> Plan {
    let mut object = stored.clone();
    if kind.is_definitions() && !deleting(&object) {
        // Its instances go first, whatever the client says of dependents.
        definition::mark(&mut object, &time(now));
        return Plan::Mark(object);
    }
    let graceful = kind.is("", "pods");
    // A negative period means the shortest one.
    let asked = options.grace.map(|grace| if grace < 0 { 1 } else { grace });
    let mut soon = true;
    let mut changed = false;
    if deleting(&object) {
        // Nothing is left of a period of none: it goes as soon as nothing else holds it.
        if graceful
            && let Some(pending) = object.int("metadata.deletionGracePeriodSeconds").filter(|p| *p != 0)
        {
            let pending = if pending < 0 { 1 } else { pending };
            // Only a shorter grace period may be asked for.
            let Some(grace) = asked.filter(|grace| *grace < pending) else { return Plan::Pending };
            let (end, grace) = shortened(&object, pending, grace, now);
            set_at(&mut object, "metadata.deletionTimestamp", time(end));
            set_at(&mut object, "metadata.deletionGracePeriodSeconds", grace);
            soon = grace == 0;
            changed = true;
        }
    } else if graceful {
        let grace = grace_period_seconds(kind.resource, &object, asked).unwrap_or(0);
        if grace > 0 || !finalizers(&object).is_empty() {
            mark(&mut object, now, grace);
            changed = true;
        }
        soon = grace == 0;
    }
    if let Some(wanted) = collector_finalizers(kind, &object, options) {
        object::set_finalizers(&mut object, wanted);
        changed = true;
    }
    if kind.is("", "namespaces") {
        set_at(&mut object, "status.phase", "Terminating");
    }
    let held = !finalizers(&object).is_empty() || (kind.is("", "namespaces") && spec_finalizers(&object));
    if held && !deleting(&object) {
        mark(&mut object, now, 0);
        if kind.is("", "namespaces") {
            // Namespaces have no grace period (upstream: `namespace/storage`).
            remove_at(&mut object, "metadata.deletionGracePeriodSeconds");
        }
        changed = true;
    }
    match (held || !soon, changed || object != *stored) {
        (true, true) => Plan::Mark(object),
        (true, false) => Plan::Pending,
        (false, _) => Plan::Remove(object),
    }
}

/// When a pod ends whose period of `pending` seconds becomes one of `grace`, and that period: an end that has passed is now,
/// and still leaves the kubelet a second to see it.
fn shortened(object: &Value, pending: i64, grace: i64, now: Timestamp) -> (Timestamp, i64) {
    let end = object::deletion_timestamp(object)
        .and_then(|t| machinery::time::parse(t).ok())
        .unwrap_or(now)
        .saturating_add(SignedDuration::from_secs(grace - pending))
        .unwrap_or(now);
    match end < now {
        true => (now, grace.min(1)),
        false => (end, grace),
    }
}

fn mark(object: &mut Value, now: Timestamp, grace: i64) {
    let end = now.saturating_add(SignedDuration::from_secs(grace)).unwrap_or(Timestamp::MAX);
    set_at(object, "metadata.deletionTimestamp", time(end));
    set_at(object, "metadata.deletionGracePeriodSeconds", grace);
    let generation = object::generation(object);
    if generation > 0 {
        object::set_generation(object, generation + 1);
    }
}

/// The finalizers the garbage collector should see, if they differ from the present ones.
fn collector_finalizers(kind: &Kind, object: &Value, options: &DeleteOptions) -> Option<Vec<String>> {
    let present = finalizers(object);
    let by_default = dependents_by_default(kind.resource);
    if by_default == Dependents::Unsupported || options.uncollected {
        return None;
    }
    let orphan_by_default = by_default == Dependents::Orphan;
    let orphan = match (options.orphan, options.propagation) {
        (Some(orphan), _) => orphan,
        (None, Some(policy)) => policy == Propagation::Orphan,
        (None, None) if present.contains(&ORPHAN) => true,
        (None, None) if present.contains(&FOREGROUND) => false,
        (None, None) => orphan_by_default,
    };
    let foreground = match (options.orphan, options.propagation) {
        (Some(_), _) => false,
        (None, Some(policy)) => policy == Propagation::Foreground,
        (None, None) => present.contains(&FOREGROUND),
    };
    let mut wanted: Vec<String> =
        present.iter().filter(|f| **f != ORPHAN && **f != FOREGROUND).map(|f| (*f).to_owned()).collect();
    if orphan {
        wanted.push(ORPHAN.to_owned());
    }
    if foreground {
        wanted.push(FOREGROUND.to_owned());
    }
    let mut sorted = (wanted.clone(), present.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>());
    sorted.0.sort();
    sorted.1.sort();
    (sorted.0 != sorted.1).then_some(wanted)
}

/// True when nothing holds a deleted object any more.
pub(super) fn is_finished(kind: &Kind, object: &Value) -> bool {
    deleting(object)
        && finalizers(object).is_empty()
        && object.present("metadata.deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0) == 0
        && !(kind.is("", "namespaces") && spec_finalizers(object))
}

/// `spec.finalizers` of a namespace, which holds it as `metadata.finalizers` holds any object.
pub(super) fn spec_finalizers(object: &Value) -> bool {
    !object.items("spec.finalizers").is_empty() && object.present("spec").is_some()
}

fn gone(kind: &Kind, object: Value) -> Deleted {
    if returns_object(kind) {
        return Deleted::Object(Written { object, entry: None, created: false });
    }
    let mut status = Status::success();
    status.code = 0;
    Deleted::Status(status.with_details(Details {
        name: object::name(&object).to_owned(),
        group: kind.resource.group.to_owned(),
        kind: kind.resource.plural.to_owned(),
        uid: object::uid(&object).to_owned(),
        ..Details::default()
    }))
}

/// Upstream: `ReturnDeletedObject`.
fn returns_object(kind: &Kind) -> bool {
    const RETURNED: &[(&str, &str)] = &[
        ("", "namespaces"),
        ("", "pods"),
        ("", "services"),
        ("", "persistentvolumes"),
        ("", "persistentvolumeclaims"),
        ("", "podtemplates"),
        ("", "resourcequotas"),
        ("", "serviceaccounts"),
        ("resource.k8s.io", "deviceclasses"),
        ("resource.k8s.io", "devicetaintrules"),
        ("resource.k8s.io", "resourceclaims"),
        ("resource.k8s.io", "resourceclaimtemplates"),
        ("resource.k8s.io", "resourcepoolstatusrequests"),
        ("resource.k8s.io", "resourceslices"),
        ("storage.k8s.io", "storageclasses"),
        ("storage.k8s.io", "volumeattachments"),
        ("storage.k8s.io", "csinodes"),
        ("storage.k8s.io", "csidrivers"),
        ("storage.k8s.io", "volumeattributesclasses"),
    ];
    RETURNED.iter().any(|(group, plural)| kind.is(group, plural))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn pod() -> Value {
        json!({"metadata": {"name": "p", "generation": 1}, "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}})
    }

    fn kind(plural: &str) -> Kind {
        Kind::of("", plural).unwrap()
    }

    #[test]
    fn who_deletes_must_be_given_what_upstream_gives() {
        let given = |group: &str, plural: &str| returns_object(&Kind::of(group, plural).unwrap());
        for plural in ["deviceclasses", "resourceclaims", "resourceclaimtemplates", "resourceslices"] {
            assert!(given("resource.k8s.io", plural), "{plural}");
        }
        assert!(given("", "namespaces") && given("", "pods") && given("storage.k8s.io", "csinodes"));
        assert!(!given("storage.k8s.io", "csistoragecapacities") && !given("", "configmaps"));
    }

    #[test]
    fn a_running_pod_is_marked_then_removed_by_the_kubelet() {
        let Plan::Mark(marked) = plan(&kind("pods"), &pod(), &DeleteOptions::default(), now()) else {
            panic!("not marked")
        };
        assert_eq!(marked["metadata"]["deletionTimestamp"], "2026-01-01T00:00:30Z");
        assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
        assert_eq!(marked["metadata"]["generation"], 2);
        assert_eq!(plan(&kind("pods"), &marked, &DeleteOptions::default(), now()), Plan::Pending);
        let sooner = DeleteOptions { grace: Some(10), ..DeleteOptions::default() };
        let Plan::Mark(shortened) = plan(&kind("pods"), &marked, &sooner, now()) else {
            panic!("not shortened")
        };
        assert_eq!(shortened["metadata"]["deletionTimestamp"], "2026-01-01T00:00:10Z");
        let kubelet = DeleteOptions { grace: Some(0), ..DeleteOptions::default() };
        assert!(matches!(plan(&kind("pods"), &marked, &kubelet, now()), Plan::Remove(_)));
    }

    #[test]
    fn a_shorter_grace_period_must_not_end_in_the_past() {
        let Plan::Mark(marked) = plan(&kind("pods"), &pod(), &DeleteOptions::default(), now()) else {
            panic!("not marked")
        };
        let later = now() + SignedDuration::from_secs(20);
        for (asked, period, end) in [(10, 1, "2026-01-01T00:00:20Z"), (25, 25, "2026-01-01T00:00:25Z")] {
            let sooner = DeleteOptions { grace: Some(asked), ..DeleteOptions::default() };
            let Plan::Mark(shortened) = plan(&kind("pods"), &marked, &sooner, later) else {
                panic!("{asked}")
            };
            assert_eq!(shortened["metadata"]["deletionTimestamp"], end);
            assert_eq!(shortened["metadata"]["deletionGracePeriodSeconds"], period);
        }
        let longer = DeleteOptions { grace: Some(30), ..DeleteOptions::default() };
        assert_eq!(plan(&kind("pods"), &marked, &longer, later), Plan::Pending);
    }

    #[test]
    fn a_negative_grace_period_must_not_be_taken_for_none() {
        let negative = DeleteOptions { grace: Some(-1), ..DeleteOptions::default() };
        let Plan::Mark(marked) = plan(&kind("pods"), &pod(), &negative, now()) else { panic!("not marked") };
        assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 1);
        let Plan::Mark(first) = plan(&kind("pods"), &pod(), &DeleteOptions::default(), now()) else {
            panic!("not marked")
        };
        let Plan::Mark(again) = plan(&kind("pods"), &first, &negative, now()) else {
            panic!("not shortened")
        };
        assert_eq!(again["metadata"]["deletionGracePeriodSeconds"], 1);
    }

    #[test]
    fn a_failed_precondition_must_not_be_told_in_the_words_of_another_storage() {
        let object = json!({"metadata": {"name": "x", "uid": "u", "resourceVersion": "7"}});
        let uid = DeleteOptions { uid: Some("o".to_owned()), ..DeleteOptions::default() };
        let version = DeleteOptions { resource_version: Some("8".to_owned()), ..DeleteOptions::default() };
        let text = |plural: &str, options: &DeleteOptions| {
            check_preconditions(&kind(plural), &object, options).unwrap_err().message
        };
        assert_eq!(
            text("pods", &uid),
            "Operation cannot be fulfilled on Pod \"x\": the UID in the precondition (o) does not match the UID in record (u). \
             The object might have been deleted and then recreated"
        );
        assert_eq!(
            text("configmaps", &version),
            "Operation cannot be fulfilled on ConfigMap \"x\": the ResourceVersion in the precondition (8) does not match the \
             ResourceVersion in record (7). The object might have been modified"
        );
        assert_eq!(
            text("namespaces", &uid),
            "Operation cannot be fulfilled on namespaces \"x\": Precondition failed: UID in precondition: o, UID in object meta: u"
        );
    }

    #[test]
    fn a_pod_that_never_ran_or_has_ended_goes_at_once() {
        let mut unscheduled = pod();
        remove_at(&mut unscheduled, "spec.nodeName");
        let mut ended = pod();
        set_at(&mut ended, "status.phase", "Succeeded");
        for pod in [unscheduled, ended] {
            assert!(matches!(plan(&kind("pods"), &pod, &DeleteOptions::default(), now()), Plan::Remove(_)));
        }
    }

    #[test]
    fn finalizers_follow_the_propagation_policy() {
        let object = json!({"metadata": {"name": "x"}});
        for (policy, finalizer) in
            [(Propagation::Orphan, "orphan"), (Propagation::Foreground, "foregroundDeletion")]
        {
            let options = DeleteOptions { propagation: Some(policy), ..DeleteOptions::default() };
            let Plan::Mark(marked) = plan(&kind("configmaps"), &object, &options, now()) else {
                panic!("{policy:?}")
            };
            assert_eq!(marked["metadata"]["finalizers"], json!([finalizer]));
            assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
        }
        let background =
            DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
        assert!(matches!(plan(&kind("configmaps"), &object, &background, now()), Plan::Remove(_)));
    }

    #[test]
    fn a_namespace_waits_for_its_spec_finalizers() {
        let object = json!({"metadata": {"name": "x"}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
        let Plan::Mark(marked) = plan(&kind("namespaces"), &object, &DeleteOptions::default(), now()) else {
            panic!("not marked")
        };
        assert_eq!(marked["status"]["phase"], "Terminating");
        assert_eq!(marked["metadata"]["deletionTimestamp"], "2026-01-01T00:00:00Z");
        assert_eq!(plan(&kind("namespaces"), &marked, &DeleteOptions::default(), now()), Plan::Pending);
        let mut finalized = marked;
        set_at(&mut finalized, "spec.finalizers", json!([]));
        assert!(is_finished(&kind("namespaces"), &finalized));
    }
}
