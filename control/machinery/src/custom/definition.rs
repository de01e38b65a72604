//! A CustomResourceDefinition made ready to serve.

use super::columns::Columns;
use super::intern;
use super::jsonpath::JsonPath;
use super::schema::Schema;
use crate::access::Get as _;
use crate::names::compare_versions;
use crate::object::{self, Gvk};
use crate::resources::{Resource, Subresource};
use serde_json::Value;
use std::sync::Arc;

/// Upstream's order in discovery.
const VERBS: [&str; 8] = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
/// What discovery lists while the definition is being deleted.
pub const VERBS_TERMINATING: [&str; 5] = ["delete", "deletecollection", "get", "list", "watch"];
const SUBRESOURCE_VERBS: [&str; 3] = ["get", "patch", "update"];

/// How objects come from one version to another.
#[derive(Clone, Debug, PartialEq)]
pub enum Conversion {
    /// Another `apiVersion`, nothing else.
    None,
    /// Somebody is asked: `spec.conversion.webhook`.
    Webhook(Value),
}

/// The scale subresource's paths: `.spec.replicas`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Path of the desired replica count.
    pub spec_replicas: String,
    /// Path of the observed replica count.
    pub status_replicas: String,
    /// The selector in its text form; none where pods cannot be selected.
    pub selector: Option<String>,
}

/// A field that may be selected by.
#[derive(Clone, Debug)]
pub struct Selectable {
    /// As a selector names it: `spec.host`.
    pub name: &'static str,
    /// Where the value is.
    pub path: JsonPath,
}

/// An entry of `spec.versions`, compiled.
#[derive(Clone, Debug)]
pub struct Version {
    /// `v1`.
    pub name: &'static str,
    /// Clients may use it.
    pub served: bool,
    /// The declaration, with this version's subresources and selectable fields.
    pub resource: &'static Resource,
    /// What objects look like; none keeps nothing but metadata.
    pub schema: Option<Schema>,
    /// The schema as it is written.
    pub props: Value,
    /// `/status` is served.
    pub status: bool,
    /// `/scale` is served.
    pub scale: Option<Scale>,
    /// `additionalPrinterColumns`, compiled.
    pub columns: Columns,
    /// What may be selected by, beside name and namespace.
    pub selectable: Vec<Selectable>,
    /// The warning its clients get.
    pub warning: Option<String>,
}

/// A CustomResourceDefinition, compiled.
#[derive(Clone, Debug)]
pub struct Definition {
    /// `widgets.acme.com`.
    pub name: String,
    /// The uid of the CustomResourceDefinition.
    pub uid: String,
    /// `spec.group`.
    pub group: &'static str,
    /// All versions, the preferred one first.
    pub versions: Vec<Version>,
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
    /// Its `spec` and accepted names: what decides how objects are kept.
    pub spec: Arc<Value>,
}

/// Why a definition cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unserved {
    /// Its names are not accepted yet.
    #[error("the names of {0} are not accepted")]
    Names(String),
    /// No version is marked as stored.
    #[error("{0} has no storage version")]
    Storage(String),
    /// Too many definitions came and went.
    #[error("too many names of custom resources are known to serve {0}")]
    Full(String),
}

/// The condition of a definition.
#[must_use]
pub(crate) fn condition<'a>(crd: &'a Value, kind: &str) -> Option<&'a Value> {
    crd.items("status.conditions").iter().find(|c| c.text("type") == kind)
}

/// Whether a condition is there and true.
#[must_use]
pub fn is_true(crd: &Value, kind: &str) -> bool {
    condition(crd, kind).is_some_and(|c| c.text("status") == "True")
}

impl Definition {
    /// Reads a CustomResourceDefinition.
    ///
    /// # Errors
    /// Where it cannot be served (yet).
    pub fn compile(crd: &Value) -> Result<Self, Unserved> {
        let name = object::name(crd).to_owned();
        let full = || Unserved::Full(name.clone());
        if !is_true(crd, "NamesAccepted") && !is_true(crd, "Established") {
            return Err(Unserved::Names(name));
        }
        let (spec, accepted) = (crd.at("spec"), crd.at("status.acceptedNames"));
        if ["plural", "singular", "kind", "listKind"].iter().any(|n| accepted.text(n).is_empty()) {
            return Err(Unserved::Names(name));
        }
        let storage = spec.items("versions").iter().find(|v| v.flag("storage"));
        let storage = intern::text(storage.ok_or_else(|| Unserved::Storage(name.clone()))?.text("name"))
            .ok_or_else(full)?;
        let template = template(spec, accepted, storage).ok_or_else(full)?;
        let mut versions = Vec::new();
        for of in spec.items("versions") {
            versions.push(version(spec, &template, of).ok_or_else(full)?);
        }
        versions.sort_by(|a, b| compare_versions(b.name, a.name));
        let kept = serde_json::json!({"spec": spec, "acceptedNames": accepted});
        Ok(Definition {
            uid: object::uid(crd).to_owned(),
            group: template.group,
            versions,
            storage,
            conversion: match spec.text("conversion.strategy") {
                "Webhook" => Conversion::Webhook(spec.at("conversion.webhook").clone()),
                _ => Conversion::None,
            },
            preserve_unknown: spec.flag("preserveUnknownFields"),
            terminating: is_true(crd, "Terminating"),
            established: is_true(crd, "Established"),
            spec: Arc::new(kept),
            name,
        })
    }

    /// A version, served or not.
    #[must_use]
    pub fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|v| v.name == name)
    }

    /// A version clients may use.
    #[must_use]
    pub fn served(&self, name: &str) -> Option<&Version> {
        self.version(name).filter(|v| v.served)
    }

    /// Whether objects are kept and served as `other` keeps and serves them.
    #[must_use]
    pub fn same_storage(&self, other: &Definition) -> bool {
        self.uid == other.uid && self.spec == other.spec
    }

    /// Whether another version of an object is a webhook's to make.
    #[must_use]
    pub fn asks(&self) -> bool {
        self.conversion != Conversion::None
    }

    /// Brings an object, as a client sent it or as it was stored, to what its version's schema knows. Gives the strict
    /// complaints: `unknown field "spec.x"`.
    ///
    /// # Errors
    /// For metadata of the wrong type, in the words of Go's decoder.
    pub fn coerce(
        &self,
        version: &Version,
        object: &mut Value,
        lenient: bool,
    ) -> Result<Vec<String>, String> {
        for name in ["kind", "apiVersion"] {
            if let Some(other) = object.get(name).filter(|v| !v.is_string()) {
                return Err(format!(
                    ".{name} accessor error: {other} is of the type {}, expected string",
                    go_type(other)
                ));
            }
        }
        if !lenient {
            whole_numbers(object);
        }
        let mut unknown = match object.get_mut("metadata") {
            Some(metadata) => super::meta::normalize(metadata, "", lenient)?,
            None => Vec::new(),
        };
        let empty = Schema::default();
        let schema = version.schema.as_ref().unwrap_or(&empty);
        if !self.preserve_unknown {
            let gone = super::prune::prune(schema, object);
            unknown.extend(gone.iter().map(|path| format!("unknown field \"{path}\"")));
            super::prune::drop_nulls(schema, object);
        }
        let mut embedded = Vec::new();
        let root = crate::field::Path::root();
        for name in version.schema.iter().flat_map(|s| s.properties.keys()) {
            let (Some(inner), Some(value)) = (schema.properties.get(name), object.get_mut(name)) else {
                continue;
            };
            if !matches!(name.as_str(), "metadata" | "apiVersion" | "kind") {
                super::meta::coerce(inner, value, &root.child(name), lenient, &mut embedded)
                    .map_err(|e| e.to_string())?;
            }
        }
        embedded.sort_unstable();
        unknown.extend(embedded);
        Ok(unknown)
    }

    /// Fills in an object's defaults.
    pub fn default(&self, version: &Version, object: &mut Value) {
        if let Some(schema) = &version.schema {
            super::prune::fill(schema, object);
        }
    }

    /// A stored object as it is read. It may have been stored when another version was: where versions differ by name
    /// only it is renamed, else it stays in the version it has.
    pub fn read(&self, object: &mut Value) {
        let Some(stored) = self.version(self.storage) else { return };
        if self.conversion == Conversion::None {
            object::set_gvk(object, &Gvk::new(self.group, self.storage, stored.resource.kind));
        }
        let own = Gvk::of(object).map(|g| g.version).unwrap_or_default();
        let version = self.version(&own).unwrap_or(stored);
        if let Err(error) = self.coerce(version, object, true) {
            // Lenient coercion only fails where an object is none; it is shown as it is stored.
            let _ = error;
        }
        if object::generation(object) == 0 {
            object::set_generation(object, 1);
        }
        self.default(version, object);
    }
}

/// Go writes a whole float as an integer: what is stored does not depend on how its writer spelt it.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(n) if n.is_f64() => {
            if let Some(f) = n.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 9e15) {
                *value = (f as i64).into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
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

fn version(spec: &Value, template: &Resource, of: &Value) -> Option<Version> {
    let props = of.at("schema.openAPIV3Schema");
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
    Some(Version {
        name,
        served: of.flag("served"),
        resource: intern::resource(resource)?,
        schema: Some(props).filter(|p| p.is_object()).map(Schema::from_props),
        props: props.clone(),
        status,
        scale,
        columns: Columns::new(of.items("additionalPrinterColumns")),
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
mod tests;
