//! An object is read by itself, and leniently.
//!
//! What is stored was accepted by some API server, not by the types here. A null is read as absent, as Go reads it; where these types
//! cannot do without a value that Go would leave zero, it is given that zero. What is still unreadable is known by its metadata, so that
//! it is missed, changed and deleted like any other. The strict reading comes first: the rest costs nothing while all is well.

use crate::key::{Identity, Key};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};

/// Times that the types require and Go does not.
const REQUIRED: [&str; 2] = ["lastTransitionTime", "lastObservedTime"];
/// Go's zero time.
const ZERO: &str = "0001-01-01T00:00:00Z";

static UNREADABLE: AtomicU64 = AtomicU64::new(0);

/// How often an object could not be read in this process, counted once a version it was seen in.
#[must_use]
pub fn unreadable() -> u64 {
    UNREADABLE.load(Ordering::Relaxed)
}

/// Reads an object.
///
/// # Errors
/// It cannot be read as a `K`, however leniently.
pub fn decode<K: DeserializeOwned>(json: &str) -> Result<K, serde_json::Error> {
    serde_json::from_str(json).or_else(|_| {
        let mut value: Value = serde_json::from_str(json)?;
        amend(&mut value);
        serde_json::from_value(value)
    })
}

/// Says that an object cannot be read, and counts it.
pub(crate) fn report(path: &str, key: &Key, error: &serde_json::Error) {
    UNREADABLE.fetch_add(1, Ordering::Relaxed);
    tracing::warn!(path, %key, %error, "an object cannot be read: it is left as it was last known");
}

/// Removes nulls, and fills in what these types cannot do without.
fn amend(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for name in REQUIRED {
                if let Some(time) = fields.get_mut(name).filter(|time| time.is_null()) {
                    *time = ZERO.into();
                }
            }
            fields.retain(|_, field| !field.is_null());
            for (name, field) in fields.iter_mut() {
                amend(field);
                if name == "conditions"
                    && let Value::Array(conditions) = field
                {
                    for condition in conditions.iter_mut().filter_map(Value::as_object_mut) {
                        condition.entry(REQUIRED[0]).or_insert_with(|| ZERO.into());
                    }
                }
            }
        }
        Value::Array(items) => {
            items.retain(|item| !item.is_null());
            items.iter_mut().for_each(amend);
        }
        _ => {}
    }
}

/// The metadata a watcher itself needs; whatever type each field has.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Metadata<'a> {
    #[serde(borrow, deserialize_with = "text")]
    name: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "text")]
    namespace: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "text")]
    uid: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "text")]
    pub(crate) resource_version: Cow<'a, str>,
}

impl Metadata<'_> {
    /// The metadata of an object; empty where there is none.
    pub(crate) fn of(json: &str) -> Metadata<'_> {
        #[derive(Deserialize)]
        struct Object<'a> {
            #[serde(borrow)]
            metadata: Option<Metadata<'a>>,
        }
        serde_json::from_str::<Object<'_>>(json).ok().and_then(|o| o.metadata).unwrap_or_default()
    }

    pub(crate) fn identity(&self) -> Identity {
        Identity { key: Key::new(&self.namespace, &self.name), uid: self.uid.as_ref().into() }
    }
}

/// A text; empty for anything else.
fn text<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'a, str>, D::Error> {
    struct Text;
    impl<'de> serde::de::Visitor<'de> for Text {
        type Value = Cow<'de, str>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a text")
        }

        fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
            Ok(Cow::Borrowed(text))
        }

        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            Ok(Cow::Owned(text.to_owned()))
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Cow::Borrowed(""))
        }

        fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
            Ok(Cow::Borrowed(""))
        }

        fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
            Ok(Cow::Borrowed(""))
        }

        fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
            Ok(Cow::Borrowed(""))
        }

        fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
            Ok(Cow::Borrowed(""))
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            while seq.next_element::<serde::de::IgnoredAny>()?.is_some() {}
            Ok(Cow::Borrowed(""))
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            while map.next_entry::<serde::de::IgnoredAny, serde::de::IgnoredAny>()?.is_some() {}
            Ok(Cow::Borrowed(""))
        }
    }
    deserializer.deserialize_any(Text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{Pod, Service};
    use serde_json::json;

    #[test]
    fn a_null_must_not_make_an_object_unreadable() {
        let service = json!({
            "metadata": {"name": "s", "namespace": "n", "labels": null, "creationTimestamp": null, "managedFields": [null]},
            "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80, "targetPort": null}, null]},
            "status": {"conditions": [
                {"type": "A", "status": "True", "lastTransitionTime": null},
                {"type": "B", "status": "True", "reason": null},
            ]},
        });
        let read: Service = decode(&service.to_string()).unwrap();
        assert_eq!(read.spec.unwrap().ports.unwrap().len(), 1);
        let conditions = read.status.unwrap().conditions.unwrap();
        assert_eq!(conditions.iter().map(|c| &*c.type_).collect::<Vec<_>>(), ["A", "B"]);
        assert_eq!(conditions[0].last_transition_time.0.to_string(), ZERO);
    }

    #[test]
    fn what_cannot_be_read_is_an_error_with_an_identity() {
        let pod = json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "resourceVersion": "7"},
            "spec": {"containers": [{"name": "c", "ports": [{"containerPort": "eighty"}]}]},
        })
        .to_string();
        assert!(decode::<Pod>(&pod).is_err());
        let metadata = Metadata::of(&pod);
        assert_eq!(metadata.resource_version, "7");
        assert_eq!(metadata.identity(), Identity { key: Key::new("n", "p"), uid: "u".into() });
    }

    #[test]
    fn metadata_of_any_shape_is_read() {
        let odd = json!({"metadata": {"name": "p", "namespace": 7, "uid": {"a": [1]}, "labels": "x",
            "resourceVersion": [1.5, true]}});
        let odd = odd.to_string();
        let metadata = Metadata::of(&odd);
        assert_eq!(metadata.identity().key, Key::new("", "p"));
        assert_eq!((&*metadata.uid, &*metadata.resource_version), ("", ""));
        for none in ["null", "{}", "[]", r#"{"metadata": 1}"#, r#"{"metadata": {"name": "a\u0062"}}"#] {
            assert!(Metadata::of(none).identity().key.name.len() != 1, "{none}");
        }
    }
}
