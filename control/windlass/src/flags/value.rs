//! Types of flags, and what their values may be.

use serde_json::{Map, Value, json};
use std::net::IpAddr;

/// The type of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    Int,
    Float,
    Duration,
    Ip,
    Text,
    /// Separated by commas.
    List,
    /// One a flag, which may be repeated.
    Array,
    /// `key=value` by commas.
    Map,
    /// `key=true` or `key=false` by commas.
    Gates,
    /// `key:value` by commas; a key may have several.
    Multimap,
}

const KINDS: [(&str, Kind); 11] = [
    ("bool", Kind::Bool),
    ("int", Kind::Int),
    ("float", Kind::Float),
    ("duration", Kind::Duration),
    ("ip", Kind::Ip),
    ("string", Kind::Text),
    ("list", Kind::List),
    ("array", Kind::Array),
    ("map", Kind::Map),
    ("gates", Kind::Gates),
    ("multimap", Kind::Multimap),
];

impl Kind {
    pub(crate) fn named(name: &str) -> Option<Self> {
        KINDS.iter().find(|(n, _)| *n == name).map(|(_, kind)| *kind)
    }

    pub(crate) fn name(self) -> &'static str {
        KINDS.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }

    /// Whether what is given twice counts twice.
    pub(crate) fn adds_up(self) -> bool {
        matches!(self, Self::List | Self::Array | Self::Map | Self::Gates | Self::Multimap)
    }

    /// Whether a value is of this type; the error is what Go says.
    pub(crate) fn check(self, text: &str) -> Result<(), String> {
        match self {
            Self::Bool => boolean(text).map(drop),
            Self::Int => number::<i64>(text, "ParseInt"),
            Self::Float => number::<f64>(text, "ParseFloat"),
            Self::Duration => machinery::duration::parse(text).map(drop).map_err(|e| e.to_string()),
            Self::Ip if text.is_empty() => Ok(()),
            Self::Ip => text.parse::<IpAddr>().map(drop).map_err(|_| format!("failed to parse IP: {text:?}")),
            Self::Map => match elements(text).iter().find(|pair| !pair.contains(['=', '<'])) {
                Some(pair) => Err(format!("malformed pair, expect string=string: {pair}")),
                None => Ok(()),
            },
            Self::Gates => elements(text).iter().try_for_each(|pair| gate(pair).map(drop)),
            Self::Multimap => match elements(text).iter().find(|pair| !pair.contains(':')) {
                Some(pair) => Err(format!("malformed pair, expect string:string: {pair}")),
                None => Ok(()),
            },
            Self::Text | Self::List | Self::Array => Ok(()),
        }
    }

    /// The value as a configuration file has it; `None` for one that leaves its field as it is.
    pub(crate) fn json(self, values: &[String]) -> Option<Value> {
        let last = values.last().map(String::as_str);
        match self {
            Self::Bool => boolean(last?).ok().map(Value::Bool),
            Self::Int => last?.parse::<i64>().ok().map(Value::from),
            Self::Float => last?.parse::<f64>().ok().map(Value::from),
            Self::Ip => last.filter(|text| !text.is_empty()).map(Value::from),
            Self::Duration | Self::Text => last.map(Value::from),
            Self::List | Self::Array => Some(json!(values)),
            Self::Map => {
                let pairs = values.iter().filter_map(|pair| pair.split_once(['=', '<']));
                let pairs = pairs.map(|(key, value)| (key.trim().to_owned(), json!(value.trim())));
                Some(Value::Object(pairs.collect()))
            }
            Self::Gates => {
                let pairs = values.iter().filter_map(|pair| gate(pair).ok());
                Some(Value::Object(pairs.map(|(key, on)| (key.to_owned(), json!(on))).collect()))
            }
            Self::Multimap => {
                let mut all: Map<String, Value> = Map::new();
                for (key, value) in values.iter().filter_map(|pair| pair.split_once(':')) {
                    let list = all.entry(key.trim()).or_insert_with(|| json!([]));
                    if let Value::Array(list) = list {
                        list.push(json!(value.trim()));
                    }
                }
                Some(Value::Object(all))
            }
        }
    }
}

/// A feature gate and what it is set to.
fn gate(pair: &str) -> Result<(&str, bool), String> {
    let (key, value) = pair.split_once('=').ok_or_else(|| format!("missing bool value for {pair}"))?;
    let (key, value) = (key.trim(), value.trim());
    let on = boolean(value).map_err(|error| format!("invalid value of {key}: {value}, err: {error}"))?;
    Ok((key, on))
}

fn number<T: std::str::FromStr>(text: &str, function: &str) -> Result<(), String> {
    text.parse::<T>().map(drop).map_err(|_| format!("strconv.{function}: parsing {text:?}: invalid syntax"))
}

/// Go's `strconv.ParseBool`.
pub(crate) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
    }
}

/// The parts between commas.
pub(crate) fn elements(text: &str) -> Vec<String> {
    text.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}
