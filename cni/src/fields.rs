//! Strict reading of a configuration object, field by field, so that every complaint names its field.

use std::{fmt::Display, str::FromStr};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::Error;

/// The fields of one JSON object that have not been read yet.
#[derive(Debug)]
pub(crate) struct Fields {
    path: String,
    map: Map<String, Value>,
}

impl Fields {
    /// `path` is how the object is called in complaints; empty for the configuration itself.
    pub(crate) fn of(path: &str, value: Value) -> Result<Self, Error> {
        match value {
            Value::Object(map) => Ok(Self { path: path.to_owned(), map }),
            other => Err(Error::decode(
                if path.is_empty() { "network configuration" } else { path },
                &format!("expected an object, found {}", kind(&other)),
            )),
        }
    }

    pub(crate) fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Removes a field. Case does not matter where the exact name is not there, as for the programs that write it: containerd says
    /// `HostPort` where the convention says `hostPort`.
    fn remove(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).or_else(|| {
            let other = self.map.keys().find(|key| key.eq_ignore_ascii_case(name))?.clone();
            self.map.remove(&other)
        })
    }

    /// Takes a field; `null` counts as absent.
    pub(crate) fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, Error> {
        match self.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value)
                .map(Some)
                .map_err(|error| Error::decode(self.path_of(name), &error)),
        }
    }

    /// Takes a field that has a sensible zero.
    pub(crate) fn take_or_default<T: DeserializeOwned + Default>(&mut self, name: &str) -> Result<T, Error> {
        Ok(self.take(name)?.unwrap_or_default())
    }

    /// Takes a string field that has a syntax of its own, such as an address. An empty string counts as absent.
    pub(crate) fn take_parsed<T>(&mut self, name: &str) -> Result<Option<T>, Error>
    where
        T: FromStr,
        T::Err: Display,
    {
        match self.take::<String>(name)? {
            None => Ok(None),
            Some(text) if text.is_empty() => Ok(None),
            Some(text) => text
                .parse()
                .map(Some)
                .map_err(|error| Error::config(self.path_of(name), format!("{text:?}: {error}"))),
        }
    }

    /// Takes an object to be read by field in turn.
    pub(crate) fn take_fields(&mut self, name: &str) -> Result<Option<Self>, Error> {
        match self.take::<Value>(name)? {
            None => Ok(None),
            Some(value) => Self::of(&self.path_of(name), value).map(Some),
        }
    }

    /// Refuses a known field that is set to something that would need doing.
    pub(crate) fn refuse(&mut self, name: &str) -> Result<(), Error> {
        match self.remove(name) {
            None | Some(Value::Null | Value::Bool(false)) => Ok(()),
            Some(Value::Number(number)) if number.as_u64() == Some(0) => Ok(()),
            Some(Value::String(text)) if text.is_empty() => Ok(()),
            Some(Value::Array(items)) if items.is_empty() => Ok(()),
            Some(value) => {
                Err(Error::UnsupportedField { field: self.path_of(name), value: value.to_string() })
            }
        }
    }

    /// Refuses what is left. The specification allows that, and a typo is then found where it was made.
    /// Keys with a slash belong to the runtime (`cni.dev/...`) or to a vendor.
    pub(crate) fn finish(self) -> Result<(), Error> {
        match self.map.iter().find(|(name, _)| !name.contains('/')) {
            None => Ok(()),
            Some((name, value)) => {
                Err(Error::UnsupportedField { field: self.path_of(name), value: value.to_string() })
            }
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
