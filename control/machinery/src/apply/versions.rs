//! What a manager owns is said in the version it wrote through: there it is compared, and there it keeps what another gives up (upstream:
//! structured-merge-diff's `merge.Converter`, and Kubernetes' `versionConverter`).
//!
//! Versions may be told apart by a webhook only. So what asks for an object in another version can stop with [`Halt::Wants`]; who has the
//! answer asks again.

use super::managed::{Entry, Managed, Manager};
use super::set::Set;
use super::structure::{Rule, Structure, Takes};
use super::typed::{self, Comparison, compare, field_set};
use crate::status::Status;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Why ownership cannot be told (yet).
#[derive(Clone, Debug, PartialEq)]
pub enum Halt {
    /// The write is refused.
    Refused(Status),
    /// These objects are needed in that version, which somebody else has to say. Whoever knows asks again, and gets further.
    Wants {
        /// Objects in any version of their kind.
        objects: Vec<Value>,
        /// `group/version`.
        api_version: String,
    },
}

impl From<Status> for Halt {
    fn from(status: Status) -> Self {
        Halt::Refused(status)
    }
}

/// The other versions of an object's kind.
pub trait Versions<S> {
    /// How objects of a version (`group/version`) merge; none where the kind has no such version, or has it no more: nobody owns anything
    /// in it.
    fn structure(&self, api_version: &str) -> Option<S>;

    /// Objects in a version for which there is a structure.
    ///
    /// # Errors
    /// [`Halt::Wants`] with those that are not known there.
    fn objects(&self, objects: &[&Value], api_version: &str) -> Result<Vec<Value>, Halt>;
}

/// A kind of one version.
impl<S> Versions<S> for () {
    fn structure(&self, _: &str) -> Option<S> {
        None
    }

    fn objects(&self, objects: &[&Value], _: &str) -> Result<Vec<Value>, Halt> {
        Ok(objects.iter().copied().cloned().collect())
    }
}

/// The versions that the owners of an object wrote through, as a write in one of them sees them.
pub(super) struct Views<'a, S> {
    pub structure: S,
    /// The version of the write.
    pub own: &'a str,
    pub versions: &'a dyn Versions<S>,
}

/// What a write changes, by version.
pub(super) struct Compared(BTreeMap<String, Comparison>);

impl Compared {
    /// In the version a manager wrote through.
    pub(super) fn of(&self, manager: &Manager) -> Option<&Comparison> {
        self.0.get(&manager.api_version)
    }
}

impl<S: Structure> Views<'_, S> {
    fn structure(&self, api_version: &str) -> Option<S> {
        if api_version == self.own { Some(self.structure) } else { self.versions.structure(api_version) }
    }

    fn objects(&self, objects: &[&Value], api_version: &str) -> Result<Vec<Value>, Halt> {
        self.versions.objects(objects, api_version)
    }

    /// The owners that are left by now: of versions there are, and of whole values where these merge as a whole meanwhile.
    pub(super) fn settled(&self, owners: &Managed) -> Managed {
        let mut managed = owners.clone();
        managed.settle(|entry| Some(settled(self.structure(&entry.manager.api_version)?, &entry.fields)));
        managed
    }

    /// What makes `new` of `live` (both of the write's version), in it and in every other one that somebody owns fields in.
    pub(super) fn compared(
        &self,
        live: &Value,
        new: &Value,
        owners: &Managed,
        reset: &Set,
    ) -> Result<Compared, Halt> {
        let own = compare(self.structure, live, new).outside(reset);
        let mut all = BTreeMap::from([(self.own.to_owned(), own)]);
        for version in owners.entries().iter().map(|entry| &entry.manager.api_version) {
            if all.contains_key(version) {
                continue;
            }
            let Some(structure) = self.structure(version) else { continue };
            if let [live, new] = self.objects(&[live, new], version)?.as_slice() {
                all.insert(version.clone(), compare(structure, live, new).outside(reset));
            }
        }
        Ok(Compared(all))
    }

    /// `merged` without what its manager applied `last` and nobody has any more (upstream: `Updater.prune`).
    pub(super) fn without(&self, merged: Value, last: &Entry, owners: &Managed) -> Result<Value, Halt> {
        let then = &last.manager.api_version;
        let Some(structure) = self.structure(then).filter(|_| !last.fields.is_empty()) else {
            return Ok(merged);
        };
        let mut kept: BTreeMap<&str, Set> = BTreeMap::new();
        for entry in owners.entries() {
            let kept = kept.entry(&entry.manager.api_version).or_default();
            *kept = kept.union(&entry.fields);
        }
        let whole = self.at(&merged, self.own, then)?;
        let mut left = whole.clone();
        typed::remove(structure, &mut left, &last.fields, &kept.remove(then.as_str()).unwrap_or_default());
        if left == whole {
            return Ok(merged);
        }
        if kept.is_empty() {
            return self.at(&left, then, self.own);
        }
        let mut version = then.as_str();
        for (other, kept) in &kept {
            let Some(structure) = self.structure(other) else { continue };
            let mut all = self.at(&merged, self.own, other)?;
            let some = self.at(&left, version, other)?;
            let kept = kept.union(&field_set(structure, &some));
            let everything = field_set(structure, &all);
            typed::remove(structure, &mut all, &everything, &kept);
            (left, version) = (all, *other);
        }
        // Whatever else the others' versions made of it: what it never applied stays.
        let left = self.at(&left, version, then)?;
        let mut out = whole;
        typed::remove(structure, &mut out, &last.fields, &field_set(structure, &left));
        self.at(&out, then, self.own)
    }

    fn at(&self, object: &Value, from: &str, to: &str) -> Result<Value, Halt> {
        if from == to {
            return Ok(object.clone());
        }
        let converted = self.objects(&[object], to)?;
        Ok(converted.into_iter().next().unwrap_or_default())
    }
}

/// What is owned of values that once merged part by part and now merge as a whole is the whole (upstream:
/// `typed.ReconcileFieldSetWithSchema`).
fn settled<S: Structure>(structure: S, fields: &Set) -> Set {
    fields.map_nodes(|element, below| {
        let inner = match element.strip_prefix("f:") {
            Some(name) => structure.field(name),
            None => structure.element(),
        };
        let container = match inner.takes() {
            Takes::Object => json!({}),
            Takes::List => json!([]),
            _ => return Some(below.clone()),
        };
        (inner.rule(&container) != Rule::Atomic).then(|| settled(inner, below))
    })
}
