//! A CustomResourceDefinition made ready to serve.

use super::columns::Columns;
pub(crate) use super::declared::condition;
pub use super::declared::{Conversion, Scale, Selectable, Unserved, is_true};
use super::outline::Outline;
use super::schema::{Schema, Shared};
use crate::access::Get as _;
use crate::goformat::go_type;
use crate::object::{self, Gvk};
use crate::resources::Resource;
use serde_json::Value;

/// What discovery lists while the definition is being deleted.
pub const VERBS_TERMINATING: [&str; 5] = ["delete", "deletecollection", "get", "list", "watch"];

/// Where an object comes from that is brought to its schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A client, or a webhook.
    Sent,
    /// A client's configuration that was merged into an object: a null that may not be stays, for validation to refuse it.
    Applied,
    /// The store: what is wrong with it is dropped.
    Stored,
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
    pub schema: Option<Shared>,
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

/// A CustomResourceDefinition, compiled: what its objects are written and read by.
#[derive(Clone, Debug)]
pub struct Definition {
    /// `spec.group`.
    pub group: &'static str,
    /// All versions, in the order of [`Outline::versions`].
    pub versions: Vec<Version>,
    /// The version objects are kept in.
    pub storage: &'static str,
    /// `spec.conversion`.
    pub conversion: Conversion,
    /// Of old definitions: nothing is pruned.
    pub preserve_unknown: bool,
}

impl Definition {
    /// What `outline` leaves out, from the definition as it is written.
    #[must_use]
    pub fn of(outline: &Outline, crd: &Value) -> Self {
        let versions = outline.versions.iter().map(|listed| {
            let all = crd.items("spec.versions");
            let of = all.iter().find(|of| of.text("name") == listed.name).unwrap_or(&Value::Null);
            let props = of.at("schema.openAPIV3Schema");
            Version {
                name: listed.name,
                served: listed.served,
                resource: listed.resource,
                schema: Some(props).filter(|p| p.is_object()).map(|props| Schema::from_props(props).into()),
                status: listed.status,
                scale: listed.scale.clone(),
                columns: Columns::new(of.items("additionalPrinterColumns")),
                selectable: listed.selectable.clone(),
                warning: listed.warning.clone(),
            }
        });
        Definition {
            group: outline.group,
            versions: versions.collect(),
            storage: outline.storage,
            conversion: outline.conversion.clone(),
            preserve_unknown: outline.preserve_unknown,
        }
    }

    /// A version, served or not.
    #[must_use]
    pub fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|v| v.name == name)
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
        origin: Origin,
    ) -> Result<Vec<String>, String> {
        let lenient = origin == Origin::Stored;
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
        let schema = version.schema.as_deref().unwrap_or(&empty);
        if !self.preserve_unknown {
            let gone = super::prune::prune(schema, object);
            unknown.extend(gone.iter().map(|path| format!("unknown field \"{path}\"")));
            super::prune::drop_nulls(schema, object, origin == Origin::Applied);
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
        if let Err(error) = self.coerce(version, object, Origin::Stored) {
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
        // Beyond what its integers hold, Go reads a float.
        Value::Number(n) if n.is_u64() && n.as_i64().is_none() => {
            *value = n.as_f64().map_or(Value::Null, Value::from);
        }
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

#[cfg(test)]
mod tests;
