//! A CustomResourceDefinition without its schemas: all that paths, discovery and storage ask of it. Schemas are most of a definition's
//! bytes, so hundreds of definitions cost little until their objects are written ([`super::Definition`]).

use super::declared::{Conversion, Scale, Selectable, Unserved, is_true};
use super::intern;
use super::jsonpath::JsonPath;
use crate::access::Get as _;
use crate::names::compare_versions;
use crate::object;
use crate::resources::{Resource, Subresource};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use std::fmt;

/// Upstream's order in discovery.
const VERBS: [&str; 8] = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
const SUBRESOURCE_VERBS: [&str; 3] = ["get", "patch", "update"];
/// The member that is left out of a [`Sketch`].
const SCHEMA: &str = "openAPIV3Schema";

/// A stored definition, read but for its schemas.
#[derive(Clone, Debug)]
pub struct Sketch {
    /// `metadata` without its owners, `spec` without schemas, `status`.
    pub crd: Value,
    /// Of `spec` as it is written, schemas among it.
    digest: [u8; 32],
}

#[derive(Deserialize)]
struct Stored<'a> {
    metadata: Option<Metadata>,
    #[serde(borrow)]
    spec: Option<&'a RawValue>,
    #[serde(default)]
    status: Value,
}

/// What says who owns which field is as long as all the fields.
#[derive(Deserialize)]
struct Metadata {
    #[serde(default, rename = "managedFields")]
    _owners: IgnoredAny,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Sketch {
    /// Reads the JSON of a definition.
    ///
    /// # Errors
    /// It is no JSON of an object.
    pub fn read(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let stored: Stored<'_> = serde_json::from_slice(bytes)?;
        let text = stored.spec.map_or("null", RawValue::get);
        let spec = serde_json::from_str::<Bare>(text)?.0;
        let mut crd = Map::new();
        crd.insert(
            "metadata".to_owned(),
            stored.metadata.map_or(Value::Null, |metadata| metadata.rest.into()),
        );
        crd.insert("spec".to_owned(), spec);
        crd.insert("status".to_owned(), stored.status);
        Ok(Sketch { crd: Value::Object(crd), digest: Sha256::digest(text).into() })
    }
}

/// A value without the schemas in it.
struct Bare(Value);

impl<'de> Deserialize<'de> for Bare {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Bare;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Bare, E> {
        Ok(Bare(Value::Null))
    }

    fn visit_bool<E>(self, is: bool) -> Result<Bare, E> {
        Ok(Bare(is.into()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Bare, E> {
        Ok(Bare(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Bare, E> {
        Ok(Bare(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Bare, E> {
        Ok(Bare(number.into()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Bare, E> {
        Ok(Bare(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Bare, A::Error> {
        let mut items = Vec::new();
        while let Some(Bare(item)) = from.next_element()? {
            items.push(item);
        }
        Ok(Bare(Value::Array(items)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Bare, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = from.next_key::<String>()? {
            if name == SCHEMA {
                from.next_value::<IgnoredAny>()?;
            } else {
                fields.insert(name, from.next_value::<Bare>()?.0);
            }
        }
        Ok(Bare(Value::Object(fields)))
    }
}

/// The schema of a version as it is written, out of the JSON of its definition; null where it has none.
#[must_use]
pub fn schema_of(bytes: &[u8], version: &str) -> Value {
    #[derive(Deserialize)]
    struct Spec<'a> {
        #[serde(borrow, default)]
        versions: Vec<Of<'a>>,
    }
    #[derive(Deserialize)]
    struct Of<'a> {
        name: String,
        #[serde(borrow)]
        schema: Option<Holder<'a>>,
    }
    #[derive(Deserialize)]
    struct Holder<'a> {
        #[serde(borrow, rename = "openAPIV3Schema")]
        schema: Option<&'a RawValue>,
    }
    let read = || {
        let stored: Stored<'_> = serde_json::from_slice(bytes).ok()?;
        let spec: Spec<'_> = serde_json::from_str(stored.spec?.get()).ok()?;
        let version = spec.versions.into_iter().find(|of| of.name == version)?;
        serde_json::from_str(version.schema?.schema?.get()).ok()
    };
    read().unwrap_or_default()
}

/// An entry of `spec.versions` but for its schema.
#[derive(Clone, Debug)]
pub struct Listed {
    /// `v1`.
    pub name: &'static str,
    /// Clients may use it.
    pub served: bool,
    /// The declaration, with this version's subresources and selectable fields.
    pub resource: &'static Resource,
    /// `/status` is served.
    pub status: bool,
    /// `/scale` is served.
    pub scale: Option<Scale>,
    /// What may be selected by, beside name and namespace.
    pub selectable: Vec<Selectable>,
    /// The warning its clients get.
    pub warning: Option<String>,
}

/// A CustomResourceDefinition that can be served, but for its schemas.
#[derive(Clone, Debug)]
pub struct Outline {
    /// `widgets.acme.com`.
    pub name: String,
    /// The uid of the CustomResourceDefinition.
    pub uid: String,
    /// `spec.group`.
    pub group: &'static str,
    /// All versions, the preferred one first.
    pub versions: Vec<Listed>,
    /// The version objects are kept in.
    pub storage: &'static str,
    /// `spec.conversion`.
    pub conversion: Conversion,
    /// Of old definitions: nothing is pruned.
    pub preserve_unknown: bool,
    /// It is being deleted: nothing new is created.
    pub terminating: bool,
    /// Discovery lists it.
    pub established: bool,
    /// Of its `spec` and accepted names: what decides how objects are kept and described.
    pub digest: [u8; 32],
}

impl Outline {
    /// What `sketch` comes to once its status is that of `planned`.
    ///
    /// # Errors
    /// Where it cannot be served (yet).
    pub fn of(sketch: &Sketch, planned: &Value) -> Result<Self, Unserved> {
        let crd = &sketch.crd;
        let name = object::name(crd).to_owned();
        let full = || Unserved::Full(name.clone());
        if !is_true(planned, "NamesAccepted") && !is_true(planned, "Established") {
            return Err(Unserved::Names(name));
        }
        let (spec, accepted) = (crd.at("spec"), planned.at("status.acceptedNames"));
        if ["plural", "singular", "kind", "listKind"].iter().any(|n| accepted.text(n).is_empty()) {
            return Err(Unserved::Names(name));
        }
        let storage = spec.items("versions").iter().find(|v| v.flag("storage"));
        let storage = intern::text(storage.ok_or_else(|| Unserved::Storage(name.clone()))?.text("name"))
            .ok_or_else(full)?;
        let template = template(spec, accepted, storage).ok_or_else(full)?;
        let mut versions = Vec::new();
        for of in spec.items("versions") {
            versions.push(listed(spec, &template, of).ok_or_else(full)?);
        }
        versions.sort_by(|a, b| compare_versions(b.name, a.name));
        let digest = Sha256::new_with_prefix(sketch.digest).chain_update(accepted.to_string());
        Ok(Outline {
            uid: object::uid(crd).to_owned(),
            group: template.group,
            versions,
            storage,
            conversion: match spec.text("conversion.strategy") {
                "Webhook" => Conversion::Webhook(spec.at("conversion.webhook").clone()),
                _ => Conversion::None,
            },
            preserve_unknown: spec.flag("preserveUnknownFields"),
            terminating: is_true(planned, "Terminating"),
            established: is_true(planned, "Established"),
            digest: digest.finalize().into(),
            name,
        })
    }

    /// A version, served or not.
    #[must_use]
    pub fn version(&self, name: &str) -> Option<&Listed> {
        self.versions.iter().find(|v| v.name == name)
    }

    /// A version clients may use.
    #[must_use]
    pub fn served(&self, name: &str) -> Option<&Listed> {
        self.version(name).filter(|v| v.served)
    }

    /// Whether objects are kept and served as `other` keeps and serves them.
    #[must_use]
    pub fn same_storage(&self, other: &Outline) -> bool {
        self.uid == other.uid && self.digest == other.digest
    }

    /// Whether another version of an object is a webhook's to make.
    #[must_use]
    pub fn asks(&self) -> bool {
        self.conversion != Conversion::None
    }
}

/// The declaration all versions share.
fn template(spec: &Value, accepted: &Value, storage: &'static str) -> Option<Resource> {
    let texts = |key: &str| intern::texts(accepted.items(key).iter().filter_map(Value::as_str));
    let group = intern::text(spec.text("group"))?;
    let plural = intern::text(accepted.text("plural"))?;
    let mut versions: Vec<&str> =
        spec.items("versions").iter().filter(|v| v.flag("served")).map(|v| v.text("name")).collect();
    versions.sort_by(|a, b| compare_versions(b, a));
    Some(Resource {
        group,
        versions: intern::texts(versions)?,
        storage_group: group,
        storage_version: storage,
        kind: intern::text(accepted.text("kind"))?,
        list_kind: accepted.text("listKind").to_owned(),
        plural,
        singular: accepted.text("singular").to_owned(),
        short_names: texts("shortNames")?,
        categories: texts("categories")?,
        namespaced: spec.text("scope") == "Namespaced",
        verbs: VERBS.to_vec(),
        subresources: Vec::new(),
        key_prefix: format!("/registry/{group}/{plural}/"),
        fields: Vec::new(),
        hash_version: storage,
    })
}

fn listed(spec: &Value, template: &Resource, of: &Value) -> Option<Listed> {
    let mut resource = template.clone();
    let mut subresource = |name, kind, group_version| {
        let verbs = SUBRESOURCE_VERBS.to_vec();
        resource.subresources.push(Subresource { name, kind, group_version, verbs });
    };
    let status = of.has("subresources.status");
    if status {
        subresource("status", template.kind, None);
    }
    let scale = of.has("subresources.scale").then(|| {
        subresource("scale", "Scale", Some(("autoscaling", "v1")));
        let scale = of.at("subresources.scale");
        Scale {
            spec_replicas: scale.text("specReplicasPath").to_owned(),
            status_replicas: scale.text("statusReplicasPath").to_owned(),
            selector: Some(scale.text("labelSelectorPath")).filter(|p| !p.is_empty()).map(str::to_owned),
        }
    });
    let mut selectable = Vec::new();
    for field in of.items("selectableFields") {
        let path = field.text("jsonPath");
        if let Ok(parsed) = JsonPath::parse(path) {
            selectable.push(Selectable { name: intern::text(path.trim_start_matches('.'))?, path: parsed });
        }
    }
    resource.fields = selectable.iter().map(|s| s.name).collect();
    let name = intern::text(of.text("name"))?;
    Some(Listed {
        name,
        served: of.flag("served"),
        resource: intern::resource(resource)?,
        status,
        scale,
        selectable,
        warning: of.flag("deprecated").then(|| deprecation(spec, of)),
    })
}

/// The warning clients of a deprecated version get, unless its author wrote another.
fn deprecation(spec: &Value, of: &Value) -> String {
    if let Some(own) = of.at("deprecationWarning").as_str() {
        return own.to_owned();
    }
    let (group, kind) = (spec.text("group"), spec.text("names.kind"));
    let old = of.text("name");
    let mut message = format!("{group}/{old} {kind} is deprecated");
    let newer = spec.items("versions").iter().filter(|v| v.flag("served") && !v.flag("deprecated"));
    let best = newer
        .map(|v| v.text("name"))
        .filter(|v| compare_versions(v, old).is_gt())
        .max_by(|a, b| compare_versions(a, b));
    if let Some(best) = best {
        message.push_str(&format!("; use {group}/{best} {kind}"));
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn stored(color: &str, established: bool) -> Vec<u8> {
        let names =
            json!({"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"});
        let status = if established { "True" } else { "False" };
        json!({"metadata": {"name": "widgets.acme.com", "uid": "u"},
            "spec": {"group": "acme.com", "scope": "Namespaced", "names": names,
                "versions": [{"name": "v1", "served": true, "storage": true, "ratio": 1.5,
                    "schema": {"openAPIV3Schema": {"type": "object", "description": color}}}]},
            "status": {"acceptedNames": names, "conditions": [
                {"type": "NamesAccepted", "status": "True"}, {"type": "Established", "status": status}]}})
        .to_string()
        .into_bytes()
    }

    fn outline(bytes: &[u8]) -> Outline {
        let sketch = Sketch::read(bytes).unwrap();
        Outline::of(&sketch, &sketch.crd).unwrap()
    }

    #[test]
    fn a_sketch_has_everything_but_the_schemas_and_the_owners() {
        let bytes = stored("red", true);
        let sketch = Sketch::read(&bytes).unwrap();
        let mut whole: Value = serde_json::from_slice(&bytes).unwrap();
        let mut owned = whole.clone();
        owned["metadata"]["managedFields"] = json!([{"manager": "me"}]);
        assert_eq!(Sketch::read(owned.to_string().as_bytes()).unwrap().crd["metadata"], whole["metadata"]);
        whole["metadata"]["annotations"] = json!({"managedFields": "kept", "openAPIV3Schema": "kept"});
        assert_eq!(Sketch::read(whole.to_string().as_bytes()).unwrap().crd["metadata"], whole["metadata"]);
        let mut whole: Value = serde_json::from_slice(&bytes).unwrap();
        whole["spec"]["versions"][0]["schema"] = json!({});
        assert_eq!(sketch.crd, whole);
        assert_eq!(schema_of(&bytes, "v1")["description"], "red");
        assert_eq!(schema_of(&bytes, "v2"), Value::Null);
        assert!(Sketch::read(b"[]").is_err() && Sketch::read(b"{}").is_ok());
    }

    #[test]
    fn a_schema_that_changes_must_not_pass_for_the_same_storage() {
        let (red, blue) = (outline(&stored("red", true)), outline(&stored("blue", true)));
        assert!(!red.same_storage(&blue));
        // What the status says beside the names decides nothing of how objects are kept.
        let before = outline(&stored("red", false));
        assert!(red.same_storage(&before) && red.established && !before.established);
    }
}
