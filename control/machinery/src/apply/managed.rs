//! `metadata.managedFields`: who owns what, since when.

use super::set::Set;
use serde_json::{Value, json};

/// At most this many managers that update; the oldest are joined beyond it.
pub(crate) const MAX_UPDATE_MANAGERS: usize = 10;
const ANCIENT: &str = "ancient-changes";

/// Who owns: one entry is kept for each.
#[derive(Clone, Debug, Default)]
pub struct Manager {
    /// The field manager's name.
    pub name: String,
    /// By apply, or by any other write.
    pub applies: bool,
    /// The version written through.
    pub api_version: String,
    /// `status`, `scale`, ... or empty.
    pub subresource: String,
}

/// Appliers are the same manager whatever version they apply.
impl PartialEq for Manager {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && self.applies == other.applies
            && self.subresource == other.subresource
            && (self.applies || self.api_version == other.api_version)
    }
}

/// What one manager owns.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Field manager, operation and subresource.
    pub manager: Manager,
    /// Fields it owns.
    pub fields: Set,
    /// Since when, RFC 3339; empty where that was never said.
    pub time: String,
}

/// All owners of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Managed {
    entries: Vec<Entry>,
}

impl Managed {
    /// From `metadata.managedFields`; `None` for entries of another format, which upstream resets.
    #[must_use]
    pub fn from_value(list: &Value) -> Option<Self> {
        let mut entries = Vec::new();
        for entry in list.as_array().into_iter().flatten() {
            let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            if text("fieldsType") != "FieldsV1" {
                return None;
            }
            let applies = match text("operation").as_str() {
                "Apply" => true,
                "Update" => false,
                _ => return None,
            };
            let manager = Manager {
                name: text("manager"),
                applies,
                api_version: text("apiVersion"),
                subresource: text("subresource"),
            };
            let fields = Set::from_value(entry.get("fieldsV1").unwrap_or(&Value::Null));
            entries.push(Entry { manager, fields, time: text("time") });
        }
        Some(Managed { entries })
    }

    /// To `metadata.managedFields`: appliers first, then by time and name.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut entries: Vec<&Entry> = self.entries.iter().collect();
        entries.sort_by_key(|e| {
            (!e.manager.applies, &e.time, &e.manager.name, &e.manager.api_version, &e.manager.subresource)
        });
        let encode = |e: &Entry| {
            let mut out = json!({
                "manager": e.manager.name,
                "operation": if e.manager.applies { "Apply" } else { "Update" },
                "apiVersion": e.manager.api_version,
                "fieldsType": "FieldsV1",
                "fieldsV1": e.fields.to_value(),
            });
            if !e.time.is_empty() {
                out["time"] = e.time.clone().into();
            }
            if !e.manager.subresource.is_empty() {
                out["subresource"] = e.manager.subresource.clone().into();
            }
            out
        };
        entries.into_iter().map(encode).collect()
    }

    /// The entries, in no order.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry of this manager, operation and subresource.
    #[must_use]
    pub fn get(&self, manager: &Manager) -> Option<&Entry> {
        self.entries.iter().find(|e| e.manager == *manager)
    }

    /// Sets what a manager owns, and since when if that is given.
    pub fn put(&mut self, manager: Manager, fields: Set, time: Option<&str>) {
        match self.entries.iter_mut().find(|e| e.manager == manager) {
            Some(entry) => {
                entry.manager = manager;
                entry.fields = fields;
                if let Some(time) = time {
                    entry.time = time.to_owned();
                }
            }
            None => self.entries.push(Entry { manager, fields, time: time.unwrap_or_default().to_owned() }),
        }
    }

    /// Whether the same managers own the same in the same versions, whenever they came to.
    #[must_use]
    pub fn same_but_times(&self, other: &Managed) -> bool {
        let timeless = |managed: &Managed| -> Vec<(String, Entry)> {
            let timeless =
                |e: &Entry| (e.manager.api_version.clone(), Entry { time: String::new(), ..e.clone() });
            managed.entries.iter().map(timeless).collect()
        };
        let (mine, theirs) = (timeless(self), timeless(other));
        mine.len() == theirs.len() && mine.iter().all(|entry| theirs.contains(entry))
    }

    /// Takes fields from one manager.
    pub(crate) fn lose(&mut self, manager: &Manager, fields: &Set) {
        for entry in self.entries.iter_mut().filter(|e| e.manager == *manager) {
            entry.fields = entry.fields.difference(fields);
        }
    }

    /// Takes from each what `gone` says.
    pub(super) fn lose_each<'s>(&mut self, gone: impl Fn(&Manager) -> Option<&'s Set>) {
        for entry in &mut self.entries {
            if let Some(gone) = gone(&entry.manager) {
                entry.fields = entry.fields.difference(gone);
            }
        }
    }

    /// Puts others in the place of each one's fields; who gets none is forgotten.
    pub(super) fn settle(&mut self, fields: impl Fn(&Entry) -> Option<Set>) {
        self.entries.retain_mut(|entry| match fields(entry) {
            Some(fields) => {
                entry.fields = fields;
                true
            }
            None => false,
        });
    }

    /// Forgets who owns nothing.
    pub(super) fn drop_empty(&mut self) {
        self.entries.retain(|e| !e.fields.is_empty());
    }

    /// Joins the oldest updaters of a version beyond [`MAX_UPDATE_MANAGERS`].
    pub(super) fn cap(&mut self) {
        let mut updaters: Vec<Entry> = self.entries.extract_if(.., |e| !e.manager.applies).collect();
        updaters.sort_by(|a, b| a.time.cmp(&b.time).then_with(|| a.manager.name.cmp(&b.manager.name)));
        let mut excess = updaters.len().saturating_sub(MAX_UPDATE_MANAGERS);
        let mut joined: Vec<Entry> = Vec::new();
        let mut rest = updaters.into_iter().peekable();
        // Each further entry joined makes one fewer; the first of a version only changes its name.
        while let Some(entry) = rest.next_if(|_| excess > 0) {
            let manager = Manager { name: ANCIENT.to_owned(), subresource: String::new(), ..entry.manager };
            match joined.iter_mut().find(|j| j.manager == manager) {
                Some(old) => {
                    old.fields = old.fields.union(&entry.fields);
                    old.time = entry.time;
                    excess -= 1;
                }
                None => joined.push(Entry { manager, ..entry }),
            }
        }
        self.entries.extend(joined);
        self.entries.extend(rest);
    }
}
