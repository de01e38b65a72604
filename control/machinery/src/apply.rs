//! Server-side apply as pure functions: who owns which field, what an apply changes, what it conflicts with.
//!
//! - `order`: the order of merged lists.
//! - [`set`]: sets of fields, and their FieldsV1 form.
//! - [`structure`]: what merges how, from the field table (or deduced, where there is no schema).
//! - `typed`: field set, comparison, merge and removal of a value by its structure.
//! - [`managed`]: the owners, as `metadata.managedFields` has them.
//! - [`versions`]: what those own who wrote through another version.
//!
//! The algorithm is structured-merge-diff's.

pub mod managed;
mod order;
pub mod set;
pub mod structure;
mod typed;
pub mod versions;

use crate::goformat::go_quote;
use crate::object;
use crate::status::{Cause, Status};
use managed::{Managed, Manager};
use serde_json::Value;
use set::Set;
use structure::Structure;
use versions::{Halt, Versions, Views};

pub(crate) use typed::field_set;
use typed::{Comparison, compare};
pub use typed::{merge, untypable};

/// The one manager that takes over what its own client-side applies left behind.
const KUBECTL: &str = "kubectl";
/// Where a client-side apply keeps the configuration it applied.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// All annotations of an object together, in bytes.
const ANNOTATIONS_MAX: usize = 256 * 1024;

/// One write, as ownership sees it.
#[derive(Clone, Debug)]
pub struct Write<'a> {
    /// Field manager, operation and subresource.
    pub manager: &'a Manager,
    /// When (RFC 3339); noted where anything changes.
    pub now: &'a str,
    /// Takes fields from their owners instead of conflicting with them.
    pub force: bool,
    /// Fields the server resets in such a write: they end up owned by nobody, and none loses them.
    pub reset: &'a Set,
}

/// What an apply comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// The live object with the configuration merged in, what the manager no longer applies removed.
    pub object: Value,
    /// `metadata.managedFields` after the write.
    pub managed: Managed,
    /// False where neither the object nor the owners change.
    pub changed: bool,
}

/// Fields nobody owns: they identify the object, or are the server's.
fn unowned() -> Set {
    let mut set = Set::default();
    for path in [&["f:apiVersion"][..], &["f:kind"], &["f:metadata"]] {
        set.insert(path);
    }
    for name in [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "generation",
        "managedFields",
        "resourceVersion",
    ] {
        set.insert(&["f:metadata", &format!("f:{name}")]);
    }
    set
}

/// Applies `config` over `live`, both in the version of the write.
///
/// # Errors
/// 409 naming every field whose value would change under another owner, unless the write is forced; and what `versions` wants.
pub fn apply<S: Structure>(
    structure: S,
    live: &Value,
    config: &Value,
    owners: &Managed,
    write: &Write<'_>,
    versions: &dyn Versions<S>,
) -> Result<Applied, Halt> {
    let manager = write.manager;
    let views = Views { structure, own: &manager.api_version, versions };
    let applied = field_set(structure, config).difference(&unowned()).outside(write.reset);
    let mut managed = views.settled(owners);
    let last = managed.get(manager).cloned();
    managed.put(manager.clone(), applied.clone(), None);
    let mut object = merge(structure, live, config);
    if let Some(last) = last {
        object = views.without(object, &last, &managed)?;
    }
    let compared = views.compared(live, &object, &managed, write.reset)?;
    let conflicts: Vec<(Manager, Set)> = managed
        .entries()
        .iter()
        .filter(|e| e.manager != *manager)
        .filter_map(|e| Some((e.manager.clone(), e.fields.intersection(&changed(compared.of(&e.manager)?)))))
        .filter(|(_, set)| !set.is_empty())
        .collect();
    if !write.force && !conflicts.is_empty() {
        let refused = not_given_way(structure, live, manager, &conflicts);
        if !refused.is_empty() {
            return Err(conflict_status(&refused).into());
        }
    }
    for (other, lost) in &conflicts {
        managed.lose(other, lost);
    }
    managed.lose_each(|other| {
        compared.of(other).filter(|_| other != manager).map(|comparison| &comparison.removed)
    });
    // Who comes to own what is there already has changed nothing, and no time is noted.
    let differs = object != *live;
    managed.put(manager.clone(), applied, differs.then_some(write.now));
    managed.drop_empty();
    if manager.name == KUBECTL {
        renew_last_applied(&mut object, config);
    }
    let changed = managed != *owners || object != *live;
    Ok(Applied { object, managed, changed })
}

/// What has other values than before, or is new, and can be owned.
fn changed(comparison: &Comparison) -> Set {
    comparison.modified.union(&comparison.added).difference(&unowned())
}

/// The conflicts that are left when `manager` may have what its client-side apply once set and nobody changed since (upstream:
/// `lastAppliedManager`).
fn not_given_way<S: Structure>(
    structure: S,
    live: &Value,
    manager: &Manager,
    conflicts: &[(Manager, Set)],
) -> Vec<(Manager, Set)> {
    let given_way = match manager.name == KUBECTL {
        true => last_applied(structure, live, &manager.api_version),
        false => Set::default(),
    };
    let left = conflicts.iter().map(|(other, set)| (other.clone(), set.difference(&given_way)));
    left.filter(|(_, set)| !set.is_empty()).collect()
}

/// The fields an object has from the configuration that a client-side apply left in it; none of a configuration in another version.
fn last_applied<S: Structure>(structure: S, live: &Value, api_version: &str) -> Set {
    let text = object::annotation(live, LAST_APPLIED).unwrap_or_default();
    let Ok(last) = serde_json::from_str::<Value>(text) else { return Set::default() };
    if object::api_version(&last) != api_version || !untypable(structure, &last).is_empty() {
        return Set::default();
    }
    let Comparison { added, modified, removed } = compare(structure, &last, live);
    field_set(structure, &last).difference(&modified).difference(&added).difference(&removed)
}

/// A client-side apply after this one is to find the configuration of this one (upstream: `lastAppliedUpdater`).
fn renew_last_applied(object: &mut Value, config: &Value) {
    if object::annotation(object, LAST_APPLIED).is_none_or(str::is_empty) {
        return;
    }
    let mut config = config.clone();
    if let Some(annotations) = config.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else {
        return;
    };
    // As Go writes it, which escapes what a browser could take for markup.
    let text = config.to_string().replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e");
    annotations.insert(LAST_APPLIED.to_owned(), format!("{text}\n").into());
    let size = |(name, value): (&String, &Value)| name.len() + value.as_str().map_or(0, str::len);
    if annotations.iter().map(size).sum::<usize>() > ANNOTATIONS_MAX {
        annotations.remove(LAST_APPLIED);
    }
}

/// The owners after `live` was changed into `new` (both in the version of the write) by anything but apply. For a create, `live` is the
/// type's zero value in canonical form.
///
/// # Errors
/// What `versions` wants.
pub fn update<S: Structure>(
    structure: S,
    live: &Value,
    new: &Value,
    owners: &Managed,
    write: &Write<'_>,
    versions: &dyn Versions<S>,
) -> Result<Managed, Halt> {
    let manager = write.manager;
    let views = Views { structure, own: &manager.api_version, versions };
    let mut managed = views.settled(owners);
    let compared = views.compared(live, new, &managed, write.reset)?;
    managed.lose_each(|other| compared.of(other).map(|comparison| &comparison.removed));
    let others: Vec<Manager> =
        managed.entries().iter().map(|e| e.manager.clone()).filter(|m| m != manager).collect();
    for other in others {
        managed.lose(&other, &compared.of(&other).map(changed).unwrap_or_default());
    }
    let changed = compared.of(manager).map(changed).unwrap_or_default();
    if !changed.is_empty() {
        let own = managed.get(manager).map(|e| e.fields.clone()).unwrap_or_default();
        managed.put(manager.clone(), own.union(&changed), Some(write.now));
    }
    managed.drop_empty();
    managed.cap();
    Ok(managed)
}

fn conflict_status(conflicts: &[(Manager, Set)]) -> Status {
    let mut causes = Vec::new();
    let mut lines = Vec::new();
    let mut conflicts: Vec<&(Manager, Set)> = conflicts.iter().collect();
    conflicts.sort_by(|(a, _), (b, _)| told_first(a).cmp(&told_first(b)));
    for (manager, set) in conflicts {
        let paths = set.paths();
        lines.push(format!("conflicts with {}:", describe(manager)));
        for path in paths {
            causes.push(Cause {
                reason: "FieldManagerConflict".to_owned(),
                message: format!("conflict with {}", describe(manager)),
                field: path.clone(),
            });
            lines.push(format!("- {path}"));
        }
    }
    let message = match causes.as_slice() {
        [only] => format!("Apply failed with 1 conflict: {}: {}", only.message, only.field),
        _ => format!("Apply failed with {} conflicts: {}", causes.len(), lines.join("\n")),
    };
    Status::apply_conflict(causes, message)
}

/// Upstream tells conflicts in the order of their managers, as they are written in JSON.
fn told_first(manager: &Manager) -> (&str, bool, &str, &str) {
    (&manager.name, !manager.applies, &manager.api_version, &manager.subresource)
}

fn describe(manager: &Manager) -> String {
    let mut text = go_quote(&manager.name);
    if !manager.subresource.is_empty() {
        text.push_str(&format!(" with subresource {}", go_quote(&manager.subresource)));
    }
    if !manager.applies {
        text.push_str(&format!(" using {}", manager.api_version));
    }
    text
}

#[cfg(test)]
mod tests;
