//! CREATE: name, stamp, admit, validate, write once.

use super::service::Grant;
use super::{Writer, Written, definition, managed, privileged, system};
use crate::admission::{self, Attributes, Operation};
use crate::registry::call::Call;
use crate::registry::kind::Kind;
use crate::registry::metadata;
use machinery::access::{Get as _, object_at, remove_at, set_at};
use machinery::field::{FieldError, Path};
use machinery::object;
use machinery::status::{Reason, Status};
use serde_json::Value;
use store::Expect;

/// How many generated names are tried before the client is told to.
const NAME_TRIES: usize = 8;

/// An object that has been through the mutating half of admission.
struct Candidate<'a> {
    attributes: Attributes<'a>,
    object: Value,
    /// Its managed fields, which it gets back when it is valid.
    owners: Option<Value>,
    name: String,
}

impl Writer {
    /// Creates `object` (in the stored version).
    pub(crate) async fn create(&self, call: &Call<'_>, object: Value) -> Result<Written, Status> {
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
            remove_at(&mut object, "metadata.namespace");
        }
        call.dedup_owners(&mut object, false);
        let generate = object::generate_name(&object).to_owned();
        let generated = object::name(&object).is_empty() && !generate.is_empty();
        for attempt in 1.. {
            let mut candidate = object.clone();
            if generated {
                object::set_name(
                    &mut candidate,
                    &machinery::names::generate_name(&generate, self.registry.random()),
                );
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
    ) -> Result<Result<Written, String>, Status> {
        let Call { context, kind, options, .. } = call;
        stamp(&mut object);
        if let Some(why) = kind.rules().closed() {
            return Err(Status::forbidden(&kind.gr(), object::name(&object), why));
        }
        let shares = kind.rules().share(&mut object);
        // Owners are noted before admission, as upstream notes them: what it adds is nobody's.
        if !options.applies {
            managed::track(&self.registry, call, None, &mut object).await;
        }
        let noted = managed::of(&object);
        let sent = shares.then(|| object.clone());
        let mut attributes = Attributes::new(&self.admission, call, Operation::Create, Some(object), None);
        admission::mutate(&self.registry, &mut attributes).await?;
        let mut object = attributes.object.take().unwrap_or_default();
        let unchanged = sent.is_some_and(|sent| sent == object);
        let owners = managed::take(call, noted, &mut object);
        call.dedup_owners(&mut object, true);
        self.no_escalation(call, &object, None).await?;
        let rules = kind.rules();
        call.warn(rules.prepare_create(&mut object));
        if unchanged {
            // What the template got shows on both, as to upstream they are one map, unless a webhook made two of it.
            remove_at(&mut object, "metadata.labels");
            rules.share(&mut object);
        }
        system::before_create(kind, context, &mut object);
        // Nothing is granted to what has no name; what else is wrong with it is said all the same.
        if object::name(&object).is_empty() && kind.resource.is_stored() {
            let mut errors = self.faults(call, &object).await?;
            if errors.is_empty() {
                let name = Path::new("metadata").child("name");
                errors.push(FieldError::required(&name, "name or generateName is required"));
            }
            return Err(Status::invalid(&kind.gk(), "", &errors));
        }
        let name = object::name(&object).to_owned();
        // Numbers are granted before validation, as upstream grants them: what is validated is what is stored.
        let mut grant = Grant::for_create(self, call, &mut object).await?;
        let candidate = Candidate { attributes, object, owners, name };
        let created = self.create_granted(call, candidate, &mut grant).await;
        grant.close().await;
        created
    }

    /// Validates an object that has everything, and writes it.
    async fn create_granted(
        &self,
        call: &Call<'_>,
        candidate: Candidate<'_>,
        grant: &mut Grant,
    ) -> Result<Result<Written, String>, Status> {
        let Call { kind, options, .. } = call;
        let Candidate { mut attributes, mut object, owners, name } = candidate;
        let rules = kind.rules();
        let errors = self.faults(call, &object).await?;
        if !errors.is_empty() {
            return Err(Status::invalid(&kind.gk(), &name, &errors));
        }
        call.warn(rules.warnings("", &object, None));
        managed::put(&mut object, owners);
        attributes.object = Some(object);
        attributes.name.clone_from(&name);
        admission::validate(&self.registry, &mut attributes).await?;
        let mut object = attributes.object.take().unwrap_or_default();
        rules.read_back(&mut object);
        let key = kind.key_of(&object);
        if options.dry_run {
            return match self.registry.entry(kind, object::namespace(&object), &name).await? {
                Some(_) => Ok(Err(name)),
                None => self.unwritten(kind, object, true).await.map(Ok),
            };
        }
        // The store's own refusal, after everybody else's.
        if object.text("metadata.resourceVersion").parse::<u64>().is_ok_and(|revision| revision != 0) {
            let why = "resourceVersion should not be set on objects to be created";
            return Err(Status::failure(500, Reason::Unknown, why));
        }
        if kind.custom.is_some() {
            // A watch that goes on from this object needs a cache that is older than it; without one it begins anew.
            let _ = self.registry.filled(kind).await;
        }
        let (bytes, ttl) = (self.registry.encode(kind, &object).await?, self.ttl(kind));
        match grant.write(&self.registry, kind, &key, bytes, Expect::Absent, ttl).await? {
            Some(entry) => {
                if kind.is_definitions() {
                    definition::settled(&self.registry, kind, &name, entry.mod_revision).await;
                }
                self.written(kind, object, entry, true).await.map(Ok)
            }
            None => Ok(Err(name)),
        }
    }

    /// Everything that is wrong with a new object, whoever says so.
    async fn faults(&self, call: &Call<'_>, object: &Value) -> Result<Vec<FieldError>, Status> {
        let mut errors = self.disallowed_devices(call, object, None).await?;
        errors.extend(call.kind.rules().validate_create(object));
        errors.extend(self.disallowed(call, object));
        Ok(errors)
    }

    /// What is wrong with an object by this server's settings.
    pub(super) fn disallowed(&self, call: &Call<'_>, object: &Value) -> Vec<FieldError> {
        match self.registry.config.privileged {
            true => Vec::new(),
            false => privileged::refused(&call.kind, call.subresource, object),
        }
    }

    /// How long objects of this resource live.
    pub(super) fn ttl(&self, kind: &Kind) -> Option<std::time::Duration> {
        (kind.resource.plural == "events").then_some(self.registry.config.event_ttl)
    }
}

/// Sets what the server alone decides (upstream: `rest.FillObjectMetaSystemFields` and `rest.BeforeCreate`).
fn stamp(object: &mut Value) {
    for own in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
        object_at(object, "metadata").remove(own);
    }
    set_at(object, "metadata.uid", uuid::Uuid::new_v4().to_string());
    set_at(object, "metadata.creationTimestamp", metadata::time(jiff::Timestamp::now()));
}
