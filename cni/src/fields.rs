//! Reading a configuration object field by field, so that every complaint names its field.

use std::{fmt::Display, str::FromStr};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{Error, remarks::Remarks};

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

    /// Remarks on what is left. A key may be a typo, or one of a later version or of another's program: files with the latter work
    /// with upstream's plugins, which ignore what they do not know.
    /// Keys with a slash belong to the runtime (`cni.dev/...`) or to a vendor.
    pub(crate) fn finish(self, remarks: &Remarks) {
        for (name, value) in self.map.iter().filter(|(name, _)| !name.contains('/')) {
            remarks.add(format!("unknown field in network configuration: {}: {value}", self.path_of(name)));
        }
    }

    /// Takes the name of what is to keep a plugin's rules: here that is nftables, whichever of the two is asked for.
    pub(crate) fn take_backend(&mut self, name: &str, remarks: &Remarks) -> Result<(), Error> {
        match self.take_or_default::<String>(name)?.as_str() {
            "" | "nftables" => Ok(()),
            "iptables" => {
                remarks.add(format!("{}: rules are kept in nftables, not iptables", self.path_of(name)));
                Ok(())
            }
            other => Err(Error::UnsupportedField { field: self.path_of(name), value: format!("{other:?}") }),
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_key_of_a_later_version_must_not_fail_a_working_file() {
        let mut fields =
            Fields::of("ipam", json!({ "known": 1, "log_level": "debug", "cni.dev/x": 1 })).unwrap();
        assert_eq!(fields.take::<u32>("known").unwrap(), Some(1));
        let remarks = Remarks::default();
        fields.finish(&remarks);
        assert_eq!(remarks.list(), ["unknown field in network configuration: ipam.log_level: \"debug\""]);
    }

    #[test]
    fn what_would_have_to_be_done_and_is_not_is_refused_all_the_same() {
        let mut fields = Fields::of("", json!({ "a": ["!", "-d", "192.0.2.0/24"], "b": [] })).unwrap();
        assert!(fields.refuse("a").is_err());
        assert!(fields.refuse("b").is_ok());
    }

    #[test]
    fn rules_asked_of_iptables_are_made_and_another_keeper_is_refused() {
        let of = |backend: Value| {
            let remarks = Remarks::default();
            let mut fields = Fields::of("", json!({ "backend": backend })).unwrap();
            (fields.take_backend("backend", &remarks).is_ok(), remarks.list().len())
        };
        assert_eq!(of(json!("iptables")), (true, 1));
        assert_eq!(of(json!("nftables")), (true, 0));
        assert_eq!(of(Value::Null), (true, 0));
        assert_eq!(of(json!("ebtables")), (false, 0));
    }
}
