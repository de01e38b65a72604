//! Reading and writing the parts every API object has, on its JSON value; and the names of kinds and resources.

use serde_json::{Map, Value};
use std::fmt;

/// Group and kind: `Deployment.apps`, or `Pod` for the core group.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gk {
    /// API group, empty for core.
    pub group: String,
    /// `Deployment`.
    pub kind: String,
}

/// Group and resource: `deployments.apps`, or `pods` for the core group.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gr {
    /// API group, empty for core.
    pub group: String,
    /// Plural name, `deployments`.
    pub resource: String,
}

/// Group, version and kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gvk {
    /// API group, empty for core.
    pub group: String,
    /// `v1`.
    pub version: String,
    /// `Deployment`.
    pub kind: String,
}

/// `apps/v1` from its parts; `v1` for the core group.
#[must_use]
pub fn format_api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// Group and version of an `apiVersion`; `None` for more than one slash. The empty string is the empty pair.
#[must_use]
pub fn parse_api_version(api_version: &str) -> Option<(&str, &str)> {
    match api_version.split_once('/') {
        None => Some(("", api_version)),
        Some((_, version)) if version.contains('/') => None,
        Some(pair) => Some(pair),
    }
}

fn qualified(f: &mut fmt::Formatter<'_>, name: &str, group: &str) -> fmt::Result {
    f.write_str(name)?;
    if !group.is_empty() {
        write!(f, ".{group}")?;
    }
    Ok(())
}

// === impl Gk ===

impl Gk {
    /// `group` is empty for core.
    #[must_use]
    pub fn new(group: &str, kind: &str) -> Self {
        Gk { group: group.into(), kind: kind.into() }
    }
}

impl fmt::Display for Gk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        qualified(f, &self.kind, &self.group)
    }
}

// === impl Gr ===

impl Gr {
    /// `group` is empty for core.
    #[must_use]
    pub fn new(group: &str, resource: &str) -> Self {
        Gr { group: group.into(), resource: resource.into() }
    }

    /// True where both parts are empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.group.is_empty() && self.resource.is_empty()
    }
}

impl fmt::Display for Gr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        qualified(f, &self.resource, &self.group)
    }
}

// === impl Gvk ===

impl Gvk {
    /// `group` is empty for core.
    #[must_use]
    pub fn new(group: &str, version: &str, kind: &str) -> Self {
        Gvk { group: group.into(), version: version.into(), kind: kind.into() }
    }

    /// From `apiVersion` and `kind`; `None` where `apiVersion` has more than one slash.
    #[must_use]
    pub fn parse(api_version: &str, kind: &str) -> Option<Self> {
        parse_api_version(api_version).map(|(group, version)| Gvk::new(group, version, kind))
    }

    /// What an object says of itself; absent parts are empty.
    #[must_use]
    pub fn of(object: &Value) -> Option<Self> {
        Gvk::parse(api_version(object), kind(object))
    }

    /// `apps/v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        format_api_version(&self.group, &self.version)
    }

    /// Group and kind.
    #[must_use]
    pub fn gk(&self) -> Gk {
        Gk::new(&self.group, &self.kind)
    }
}

impl fmt::Display for Gvk {
    /// `apps/v1, Kind=Deployment`, as upstream's texts have it (core: `/v1, Kind=Pod`).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}, Kind={}", self.group, self.version, self.kind)
    }
}

// === reading ===

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// `apiVersion`, empty where absent.
#[must_use]
pub fn api_version(object: &Value) -> &str {
    text(object, "apiVersion")
}

/// `kind`, empty where absent.
#[must_use]
pub fn kind(object: &Value) -> &str {
    text(object, "kind")
}

/// `metadata`, or null.
#[must_use]
pub fn metadata(object: &Value) -> &Value {
    object.get("metadata").unwrap_or(&Value::Null)
}

/// `metadata.name`, empty where absent.
#[must_use]
pub fn name(object: &Value) -> &str {
    text(metadata(object), "name")
}

/// `metadata.generateName`, empty where absent.
#[must_use]
pub fn generate_name(object: &Value) -> &str {
    text(metadata(object), "generateName")
}

/// `metadata.namespace`, empty where absent.
#[must_use]
pub fn namespace(object: &Value) -> &str {
    text(metadata(object), "namespace")
}

/// `metadata.uid`, empty where absent.
#[must_use]
pub fn uid(object: &Value) -> &str {
    text(metadata(object), "uid")
}

/// `metadata.resourceVersion`, empty where absent.
#[must_use]
pub fn resource_version(object: &Value) -> &str {
    text(metadata(object), "resourceVersion")
}

/// `metadata.generation`, 0 where absent.
#[must_use]
pub fn generation(object: &Value) -> i64 {
    metadata(object).get("generation").and_then(Value::as_i64).unwrap_or_default()
}

/// `metadata.creationTimestamp` as text, empty where absent or null.
#[must_use]
pub fn creation_timestamp(object: &Value) -> &str {
    text(metadata(object), "creationTimestamp")
}

/// `metadata.deletionTimestamp` as text; `None` for an object that is not being deleted.
#[must_use]
pub fn deletion_timestamp(object: &Value) -> Option<&str> {
    metadata(object).get("deletionTimestamp").and_then(Value::as_str)
}

/// `metadata.labels`, where there are any.
#[must_use]
pub fn labels(object: &Value) -> Option<&Map<String, Value>> {
    metadata(object).get("labels").and_then(Value::as_object)
}

/// `metadata.annotations`, where there are any.
#[must_use]
pub(crate) fn annotations(object: &Value) -> Option<&Map<String, Value>> {
    metadata(object).get("annotations").and_then(Value::as_object)
}

/// Value of a label.
#[must_use]
pub fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    labels(object)?.get(key)?.as_str()
}

/// Value of an annotation.
#[must_use]
pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    annotations(object)?.get(key)?.as_str()
}

/// `metadata.finalizers`.
pub fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    metadata(object)
        .get("finalizers")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

/// `metadata.ownerReferences`.
#[must_use]
pub fn owner_references(object: &Value) -> &[Value] {
    metadata(object).get("ownerReferences").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The owner reference whose `controller` is true.
#[must_use]
pub(crate) fn controller_of(object: &Value) -> Option<&Value> {
    owner_references(object).iter().find(|r| r.get("controller").and_then(Value::as_bool) == Some(true))
}

// === writing ===

/// The object at `key`, made (in place of anything that is no object) where absent.
/// Does nothing useful for a `value` that is itself no object: the result is then a fresh object put in its place.
pub(crate) fn entry_object<'a>(value: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    let slot = as_map(value).entry(key).or_insert(Value::Null);
    as_map(slot)
}

fn as_map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        // The line above made it an object.
        _ => unreachable!("value was just made an object"),
    }
}

/// `metadata`, made where absent.
pub fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    entry_object(object, "metadata")
}

/// Sets a text field of `metadata`, or removes it for the empty string.
pub(crate) fn set_meta_text(object: &mut Value, key: &str, value: &str) {
    let metadata = metadata_mut(object);
    if value.is_empty() {
        metadata.remove(key);
    } else {
        metadata.insert(key.to_owned(), value.into());
    }
}

/// Sets `apiVersion` and `kind`.
pub fn set_gvk(object: &mut Value, gvk: &Gvk) {
    let map = as_map(object);
    map.insert("apiVersion".into(), gvk.api_version().into());
    map.insert("kind".into(), gvk.kind.clone().into());
}

/// Sets `metadata.name`.
pub fn set_name(object: &mut Value, name: &str) {
    set_meta_text(object, "name", name);
}

/// Sets `metadata.namespace`.
pub fn set_namespace(object: &mut Value, namespace: &str) {
    set_meta_text(object, "namespace", namespace);
}

/// Sets `metadata.uid`.
pub fn set_uid(object: &mut Value, uid: &str) {
    set_meta_text(object, "uid", uid);
}

/// Sets `metadata.resourceVersion`.
pub fn set_resource_version(object: &mut Value, version: &str) {
    set_meta_text(object, "resourceVersion", version);
}

/// Sets `metadata.generation`; 0 removes it.
pub fn set_generation(object: &mut Value, generation: i64) {
    let metadata = metadata_mut(object);
    if generation == 0 {
        metadata.remove("generation");
    } else {
        metadata.insert("generation".into(), generation.into());
    }
}

/// Sets `metadata.finalizers`; none removes it.
pub fn set_finalizers<S: Into<String>>(object: &mut Value, finalizers: impl IntoIterator<Item = S>) {
    let list: Vec<Value> = finalizers.into_iter().map(|f| Value::String(f.into())).collect();
    let metadata = metadata_mut(object);
    if list.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".into(), list.into());
    }
}

/// Takes out owner references that are there already, word for word, and gives their uids.
pub fn dedup_owner_references(object: &mut Value) -> Vec<String> {
    let references = owner_references(object);
    let repeats = |(at, reference): &(usize, &Value)| references[..*at].contains(reference);
    if !references.iter().enumerate().any(|entry| repeats(&entry)) {
        return Vec::new();
    }
    let (twice, once): (Vec<_>, Vec<_>) = references.iter().enumerate().partition(repeats);
    let uids = twice.into_iter().map(|(_, reference)| text(reference, "uid").to_owned()).collect();
    let kept: Vec<Value> = once.into_iter().map(|(_, reference)| reference.clone()).collect();
    metadata_mut(object).insert("ownerReferences".into(), kept.into());
    uids
}

/// Sets a label; makes `metadata.labels` where there is none.
pub fn set_label(object: &mut Value, key: &str, value: &str) {
    set_in_map(object, "labels", key, Some(value));
}

/// Sets one annotation, or removes it.
pub fn set_annotation(object: &mut Value, key: &str, value: Option<&str>) {
    set_in_map(object, "annotations", key, value);
}

fn set_in_map(object: &mut Value, map: &str, key: &str, value: Option<&str>) {
    let metadata = metadata_mut(object);
    let entries = as_map(metadata.entry(map).or_insert(Value::Null));
    match value {
        Some(value) => entries.insert(key.to_owned(), value.into()),
        None => entries.remove(key),
    };
    if entries.is_empty() {
        metadata.remove(map);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn api_versions_round_trip() {
        assert_eq!(parse_api_version("apps/v1"), Some(("apps", "v1")));
        assert_eq!(parse_api_version("v1"), Some(("", "v1")));
        assert_eq!(parse_api_version("a/b/c"), None);
        assert_eq!(format_api_version("", "v1"), "v1");
        assert_eq!(Gvk::new("apps", "v1", "Deployment").to_string(), "apps/v1, Kind=Deployment");
    }

    #[test]
    fn an_owner_must_not_stand_twice() {
        let owner = |uid: &str, block: bool| json!({"kind": "K", "name": "n", "uid": uid, "blockOwnerDeletion": block});
        let mut object = json!({"metadata": {"ownerReferences":
            [owner("a", true), owner("b", true), owner("a", true), owner("a", false), owner("b", true)]}});
        assert_eq!(dedup_owner_references(&mut object), ["a", "b"]);
        assert_eq!(owner_references(&object), [owner("a", true), owner("b", true), owner("a", false)]);
        assert!(dedup_owner_references(&mut object).is_empty());
    }

    #[test]
    fn setters_make_what_is_missing_and_never_panic() {
        let mut object = json!(7);
        set_name(&mut object, "x");
        set_annotation(&mut object, "a", Some("b"));
        set_label(&mut object, "l", "v");
        set_finalizers(&mut object, ["f"]);
        assert_eq!(
            object,
            json!({"metadata": {"name": "x", "annotations": {"a": "b"}, "labels": {"l": "v"}, "finalizers": ["f"]}})
        );
        set_annotation(&mut object, "a", None);
        assert_eq!(annotations(&object), None);
        assert_eq!(finalizers(&object).collect::<Vec<_>>(), ["f"]);
        assert_eq!(label(&object, "l"), Some("v"));
    }
}
