//! CREATE: name, stamp, admit, validate, write once.

use super::kind::Kind;
use super::metadata::{self, at, remove, set, text};
use super::options::WriteOptions;
use super::{Registry, managed, services, system};
use crate::admission::{self, Attributes, Operation, Seen};
use crate::context::Context;
use machinery::object;
use machinery::status::Status;
use parking_lot::Mutex;
use serde_json::Value;
use std::sync::Arc;
use store::Expect;

/// How many generated names are tried before the client is told to.
const NAME_TRIES: usize = 8;

/// What a client is told beside the answer.
pub(crate) type Warnings = Arc<Mutex<Vec<String>>>;

/// One write: who, what, where, how.
#[derive(Clone)]
pub(crate) struct Call<'a> {
    pub context: &'a Context,
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
    pub subresource: &'a str,
    pub options: WriteOptions,
    pub warnings: Warnings,
    /// What webhooks and policies see of it.
    pub seen: Seen,
}

impl Call<'_> {
    /// Tells the client beside the answer.
    pub(crate) fn warn(&self, warnings: impl IntoIterator<Item = String>) {
        self.warnings.lock().extend(warnings);
    }

    /// Owner references given twice stand once, and the client is told (upstream: `dedupOwnerReferencesAndAddWarning`).
    pub(crate) fn dedup_owners(&self, object: &mut Value, after_admission: bool) {
        let twice = object::dedup_owner_references(object);
        if !twice.is_empty() {
            let when = if after_admission { " after mutating admission happens" } else { "" };
            self.warn([format!(
                ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, \
                 and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
                twice.join(", ")
            )]);
        }
    }
}

impl Registry {
    /// Creates `object` (in the stored version).
    pub(crate) async fn create(&self, call: &Call<'_>, object: Value) -> Result<Value, Status> {
        let Call { kind, namespace, .. } = call;
        let mut object = object;
        if kind.resource.namespaced {
            let given = object::namespace(&object);
            if !given.is_empty() && given != namespace {
                return Err(Status::bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request",
                ));
            }
            if namespace.is_empty() {
                return Err(Status::bad_request("an empty namespace may not be set during creation"));
            }
            object::set_namespace(&mut object, namespace);
        } else {
            remove(&mut object, &["metadata", "namespace"]);
        }
        call.dedup_owners(&mut object, false);
        let generate = object::generate_name(&object).to_owned();
        let generated = object::name(&object).is_empty() && !generate.is_empty();
        for attempt in 1.. {
            let mut candidate = object.clone();
            if generated {
                object::set_name(&mut candidate, &machinery::names::generate_name(&generate, self.random()));
            }
            match self.create_named(call, candidate).await? {
                Ok(created) => return Ok(created),
                Err(name) if generated && attempt < NAME_TRIES => {
                    tracing::debug!(resource = %kind.gr(), name, "a generated name is taken");
                }
                Err(name) if generated => return Err(Status::generate_name_conflict(&kind.gr(), &name, 1)),
                Err(name) => return Err(Status::already_exists(&kind.gr(), &name)),
            }
        }
        unreachable!("the loop ends by returning")
    }

    /// Creates an object under its name; the inner error is that name, taken.
    async fn create_named(
        &self,
        call: &Call<'_>,
        mut object: Value,
    ) -> Result<Result<Value, String>, Status> {
        let Call { context, kind, options, .. } = call;
        let applied =
            call.options.applies.then(|| at(&object, &["metadata", "managedFields"]).cloned()).flatten();
        stamp(&mut object);
        if kind.definition().is_some_and(|(definition, _)| definition.terminating) {
            let why = "create not allowed while custom resource definition is terminating";
            return Err(Status::forbidden(&kind.gr(), object::name(&object), why));
        }
        let mut attributes = Attributes::new(call, Operation::Create, Some(object), None);
        admission::mutate(self, &mut attributes).await?;
        let mut object = attributes.object.take().unwrap_or_default();
        call.dedup_owners(&mut object, true);
        self.no_escalation(call, &object, None).await?;
        kind.prepare_create(&mut object);
        if object::name(&object).is_empty() && kind.resource.is_stored() {
            let missing = machinery::field::FieldError::required(
                &machinery::field::Path::new("metadata").child("name"),
                "name or generateName is required",
            );
            return Err(Status::invalid(&kind.gk(), "", &[missing]));
        }
        let name = object::name(&object).to_owned();
        system::before_create(kind, context, &mut object)?;
        // Numbers are granted before validation, as upstream grants them: what is validated is what is stored.
        let grant = services::Grant::for_create(self, kind, &mut object)?;
        let errors = kind.validate_create(&object);
        if !errors.is_empty() {
            return Err(Status::invalid(&kind.gk(), &name, &errors));
        }
        call.warn(kind.warnings(call.subresource, &object, None));
        attributes.object = Some(object);
        attributes.name.clone_from(&name);
        admission::validate(self, &mut attributes).await?;
        let object = attributes.object.take().unwrap_or_default();
        let mut object = object;
        match applied {
            Some(owners) => set(&mut object, &["metadata", "managedFields"], owners),
            None => managed::track(call, None, &mut object),
        }
        let key = kind.key_of(&object);
        if options.dry_run {
            return Ok(match self.entry(kind, object::namespace(&object), &name).await? {
                Some(_) => Err(name),
                None => Ok(object),
            });
        }
        // The store's own refusal, after everybody else's.
        if text(&object, &["metadata", "resourceVersion"]).parse::<u64>().is_ok_and(|revision| revision != 0)
        {
            return Err(Status::internal_error("resourceVersion should not be set on objects to be created"));
        }
        let ttl = self.ttl(kind);
        match self.write(kind, &key, self.encode(kind, &object).await?, Expect::Absent, ttl).await? {
            Some(entry) => {
                grant.keep();
                self.written(kind, object, &entry).await.map(Ok)
            }
            None => Ok(Err(name)),
        }
    }

    /// How long objects of this resource live.
    pub(super) fn ttl(&self, kind: &Kind) -> Option<std::time::Duration> {
        (kind.resource.plural == "events").then_some(self.config.event_ttl)
    }
}

/// Sets what the server alone decides (upstream: `rest.FillObjectMetaSystemFields` and `rest.BeforeCreate`).
fn stamp(object: &mut Value) {
    for own in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "managedFields"] {
        remove(object, &["metadata", own]);
    }
    set(object, &["metadata", "uid"], uuid::Uuid::new_v4().to_string());
    set(object, &["metadata", "creationTimestamp"], metadata::time(jiff::Timestamp::now()));
}
