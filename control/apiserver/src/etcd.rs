//! Objects at rest as upstream's API server keeps them in etcd, and as anything it or an older one may have left there is read.
//!
//! Built-in kinds are protobuf in the `k8s\0` envelope, in the version the field table calls the stored one; custom objects, APIServices and
//! CustomResourceDefinitions are JSON, the latter in `v1beta1` (`definitions`), which is smaller. Nothing of it has a resourceVersion. What
//! is read may be in either encoding and in any version that is known; it becomes the JSON that the registry works with, defaulted, since
//! who wrote it may not have known all fields there are.

mod definitions;

use crate::registry::stored;
use bytes::Bytes;
use machinery::codec::proto;
use machinery::object;
use machinery::resources::{self, Resource, convert, defaults};
use machinery::schema;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::LazyLock;
use store::encoding::{Decoded, Encoding, Source, Unreadable};

/// The built-in resources by the start of their keys.
static BY_PREFIX: LazyLock<HashMap<&'static str, &'static Resource>> = LazyLock::new(|| {
    let own = |r: &&Resource| r.is_stored() && r.group == r.storage_group;
    resources::all().iter().filter(own).map(|r| (r.key_prefix.as_str(), r)).collect()
});

/// What upstream's API servers keep that is no resource of the API (RangeAllocations, Endpoints): the start of its keys, and the resource by which
/// upstream decides how it is encrypted.
const BESIDE: [(&str, &str); 2] =
    [("/registry/ranges/", "services"), ("/registry/masterleases/", "apiServerIPInfo")];

/// Values as upstream's API server lays them out by default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Upstream;

impl Encoding for Upstream {
    fn encode(&self, key: &str, value: Bytes) -> Result<Bytes, Source> {
        Form::default().encode(key, value)
    }

    fn decode(&self, key: &str, stored: Bytes) -> Result<Decoded, Unreadable> {
        Form::default().decode(key, stored)
    }
}

/// Values as upstream's API server lays them out, built-in kinds in the form that is set (`--storage-media-type`).
#[derive(Clone, Copy, Debug, Default)]
pub struct Form {
    /// JSON in place of protobuf.
    pub json: bool,
}

impl Encoding for Form {
    fn encode(&self, key: &str, value: Bytes) -> Result<Bytes, Source> {
        if self.json && !resource(key).is_some_and(Resource::is_stored_as_json) {
            return Ok(value);
        }
        if beside(key).is_some() {
            return Ok(proto::encode(schema::builtin(), &serde_json::from_slice(&value)?)?.into());
        }
        let Some(resource) = resource(key) else { return Ok(value) };
        if resource.group == "apiregistration.k8s.io" {
            return Ok(value);
        }
        let mut object: Value = serde_json::from_slice(&value)?;
        if resource.is_stored_as_json() {
            definitions::to_v1beta1(&mut object);
            return Ok(stored::encode(&object)?);
        }
        Ok(proto::encode(schema::builtin(), &object)?.into())
    }

    fn decode(&self, key: &str, stored: Bytes) -> Result<Decoded, Unreadable> {
        let is_proto = stored.starts_with(proto::MAGIC);
        if is_proto && beside(key).is_some() {
            let object = proto::decode(schema::builtin(), &stored, None)?;
            return Ok(Decoded { value: stored::encode(&object)?, stale: false });
        }
        let Some(resource) = resource(key) else {
            return Ok(Decoded { value: stored, stale: false });
        };
        let mut object: Value = match is_proto {
            true => proto::decode(schema::builtin(), &stored, None)?,
            false => serde_json::from_slice(&stored)?,
        };
        let stale = is_proto == (self.json || resource.is_stored_as_json())
            || object::api_version(&object) != at_rest(resource);
        let value = stored::encode(&canonical(resource, &mut object)?)?;
        Ok(Decoded { value, stale })
    }
}

/// The built-in resource whose object lies at a key.
fn resource(key: &str) -> Option<&'static Resource> {
    let mut ends = key.match_indices('/').map(|(at, _)| &key[..=at]).skip(2);
    let (first, second) = (ends.next(), ends.next());
    [second, first].into_iter().flatten().find_map(|prefix| BY_PREFIX.get(prefix).copied())
}

/// What is at a key that is no resource of the API: the resource it is encrypted as.
fn beside(key: &str) -> Option<&'static str> {
    BESIDE.iter().find(|(prefix, _)| key.starts_with(prefix)).map(|(_, encrypted_as)| *encrypted_as)
}

/// Group and plural of the resource whose object lies at a key, a custom one's, too.
#[must_use]
pub fn group_resource(key: &str) -> Option<(&str, &str)> {
    if let Some(resource) = resource(key) {
        return Some((resource.group, resource.plural));
    }
    if let Some(encrypted_as) = beside(key) {
        return Some(("", encrypted_as));
    }
    let mut parts = key.strip_prefix("/registry/")?.splitn(3, '/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(group), Some(plural), Some(_)) => Some((group, plural)),
        _ => None,
    }
}

/// The version that is written.
fn at_rest(resource: &Resource) -> String {
    match resource.group {
        "apiextensions.k8s.io" => definitions::V1BETA1.to_owned(),
        _ => resource.storage_api_version(),
    }
}

/// The object in the version the registry stores, complete.
fn canonical(resource: &'static Resource, object: &mut Value) -> Result<Value, Source> {
    if object::api_version(object) == definitions::V1BETA1 {
        definitions::to_v1(object);
    }
    let (api_version, kind) = (object::api_version(object).to_owned(), object::kind(object).to_owned());
    let id = schema::builtin().named(&api_version, &kind);
    let id = id.ok_or_else(|| format!("no kind {kind:?} is known in version {api_version:?}"))?;
    let mut object = schema::builtin().normalize(id, object.take())?.value;
    if api_version != resource.storage_api_version() {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", &api_version));
        // The group of another resource that is kept here, too: events have two.
        let of = resources::by_gvk(group, version, &kind).unwrap_or(resource);
        convert::to_storage(of, version, &mut object);
    }
    defaults::complete(resource, &mut object);
    Ok(object)
}

#[cfg(test)]
mod tests;
