//! Values of expressions.

pub(crate) mod list;

use super::authorizer::Authorization;
use crate::goformat::{go_float, go_quote};
use crate::quantity::Quantity;
use crate::url::Url;
use jiff::Timestamp;
use list::List;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// A key of a map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// `bool`.
    Bool(bool),
    /// `int` and `uint`: equal numbers are one key.
    Number(i128),
    /// `string`.
    Text(Arc<str>),
}

/// A network: its address and how many bits of it count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    pub ip: IpAddr,
    /// The length of the prefix.
    pub bits: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Semver {
    /// Major, minor, patch.
    pub numbers: [u64; 3],
    /// Identifiers after the dash.
    pub pre: Vec<String>,
    /// What is behind the plus; it does not compare.
    pub build: String,
}

/// A CEL value at run time.
#[derive(Clone, Debug)]
pub enum Value {
    /// `null`.
    Null,
    /// `bool`.
    Bool(bool),
    /// `int`.
    Int(i64),
    /// `uint`.
    Uint(u64),
    /// `double`.
    Double(f64),
    /// `string`.
    Text(Arc<str>),
    /// `bytes`.
    Bytes(Arc<[u8]>),
    /// `list`.
    List(Arc<List>),
    /// `map`, and every object.
    Map(Arc<BTreeMap<Key, Value>>),
    /// `google.protobuf.Timestamp`.
    Time(Timestamp),
    /// `google.protobuf.Duration`, in nanoseconds.
    Duration(i64),
    /// The name of a type.
    Type(Arc<str>),
    /// A value, or none.
    Optional(Option<Arc<Value>>),
    /// `kubernetes.Quantity`.
    Quantity(Quantity),
    /// `net.IP`.
    Ip(IpAddr),
    /// `net.CIDR`.
    Cidr(Cidr),
    /// `kubernetes.URL`.
    Url(Arc<Url>),
    /// `kubernetes.Semver`.
    Semver(Arc<Semver>),
    /// `kubernetes.NamedFormat`.
    Format(&'static str),
    /// `Object{...}`, `JSONPatch{...}`.
    Struct(Arc<Struct>),
    /// A value of the authorizer library.
    Authorization(Arc<Authorization>),
}

/// A literal of a type with a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Struct {
    /// `Object.spec`.
    pub name: Arc<str>,
    /// Those that are set.
    pub fields: BTreeMap<String, Value>,
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Text(a), Value::Text(b)) => a == b,
            (Value::Bytes(a), Value::Bytes(b)) => a == b,
            (Value::List(a), Value::List(b)) => a == b,
            (Value::Map(a), Value::Map(b)) => a == b,
            (Value::Time(a), Value::Time(b)) => a == b,
            (Value::Duration(a), Value::Duration(b)) => a == b,
            (Value::Type(a), Value::Type(b)) => a == b,
            (Value::Optional(a), Value::Optional(b)) => a == b,
            (Value::Quantity(a), Value::Quantity(b)) => a.cmp(b).is_eq(),
            (Value::Ip(a), Value::Ip(b)) => a == b,
            (Value::Cidr(a), Value::Cidr(b)) => a == b,
            (Value::Url(a), Value::Url(b)) => a.text == b.text,
            (Value::Semver(a), Value::Semver(b)) => a.numbers == b.numbers && a.pre == b.pre,
            (Value::Format(a), Value::Format(b)) => a == b,
            (Value::Struct(a), Value::Struct(b)) => a == b,
            (Value::Authorization(a), Value::Authorization(b)) => Arc::ptr_eq(a, b),
            _ => self.number_order(other).is_some_and(std::cmp::Ordering::is_eq),
        }
    }
}

impl Value {
    #[must_use]
    pub(crate) fn text_of(text: &str) -> Self {
        Value::Text(text.into())
    }

    #[must_use]
    pub(crate) fn list_of(items: Vec<Value>) -> Self {
        Value::List(Arc::new(items.into()))
    }

    /// A map by texts.
    #[must_use]
    pub(crate) fn map_of(entries: impl IntoIterator<Item = (String, Value)>) -> Self {
        Value::Map(Arc::new(entries.into_iter().map(|(k, v)| (Key::Text(k.into()), v)).collect()))
    }

    /// JSON without a schema.
    #[must_use]
    pub(crate) fn from_json(json: &serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(is) => Value::Bool(*is),
            serde_json::Value::Number(n) => match n.as_i64() {
                Some(n) => Value::Int(n),
                None => Value::Double(n.as_f64().unwrap_or_default()),
            },
            serde_json::Value::String(text) => Value::text_of(text),
            serde_json::Value::Array(items) => Value::list_of(items.iter().map(Value::from_json).collect()),
            serde_json::Value::Object(fields) => {
                Value::map_of(fields.iter().map(|(k, v)| (k.clone(), Value::from_json(v))))
            }
        }
    }

    /// As JSON; none for what JSON has no form for.
    #[must_use]
    pub fn to_json(&self) -> Option<serde_json::Value> {
        Some(match self {
            Value::Null => serde_json::Value::Null,
            Value::Bool(is) => (*is).into(),
            Value::Int(n) => (*n).into(),
            Value::Uint(n) => (*n).into(),
            Value::Double(n) => (*n).into(),
            Value::Text(text) => (**text).into(),
            Value::List(items) => items.iter().map(Value::to_json).collect::<Option<Vec<_>>>()?.into(),
            Value::Map(entries) => {
                let entry = |(k, v): (&Key, &Value)| Some((k.text(), v.to_json()?));
                serde_json::Value::Object(entries.iter().map(entry).collect::<Option<_>>()?)
            }
            Value::Time(_) | Value::Duration(_) | Value::Quantity(_) => self.text().into(),
            Value::Bytes(bytes) => {
                use base64::Engine as _;
                base64::engine::general_purpose::STANDARD.encode(bytes).into()
            }
            Value::Optional(Some(inner)) => inner.to_json()?,
            Value::Struct(of) => of.to_json()?,
            _ => return None,
        })
    }

    /// The name of its type.
    #[must_use]
    pub(crate) fn type_name(&self) -> &str {
        match self {
            Value::Null => "null_type",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Uint(_) => "uint",
            Value::Double(_) => "double",
            Value::Text(_) => "string",
            Value::Bytes(_) => "bytes",
            Value::List(_) => "list",
            Value::Map(_) => "map",
            Value::Time(_) => "google.protobuf.Timestamp",
            Value::Duration(_) => "google.protobuf.Duration",
            Value::Type(_) => "type",
            Value::Optional(_) => "optional_type",
            Value::Quantity(_) => "kubernetes.Quantity",
            Value::Ip(_) => "net.IP",
            Value::Cidr(_) => "net.CIDR",
            Value::Url(_) => "kubernetes.URL",
            Value::Semver(_) => "kubernetes.Semver",
            Value::Format(_) => "kubernetes.NamedFormat",
            Value::Struct(of) => &of.name,
            Value::Authorization(of) => of.type_name(),
        }
    }

    /// As `string()` writes it, or as an error shows it.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Value::Null => "null".to_owned(),
            Value::Bool(is) => is.to_string(),
            Value::Int(n) => n.to_string(),
            Value::Uint(n) => n.to_string(),
            Value::Double(n) => go_float(*n),
            Value::Text(text) => text.to_string(),
            Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Value::List(items) => {
                format!("[{}]", items.iter().map(Value::quoted).collect::<Vec<_>>().join(", "))
            }
            Value::Map(entries) => {
                let entry = |(k, v): (&Key, &Value)| format!("{}: {}", k.value().quoted(), v.quoted());
                format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
            }
            Value::Time(time) => time.to_string(),
            Value::Duration(nanos) => {
                let seconds = *nanos as f64 / 1e9;
                format!("{}s", go_float(seconds))
            }
            Value::Type(name) => name.to_string(),
            Value::Optional(None) => "optional.none()".to_owned(),
            Value::Optional(Some(inner)) => format!("optional.of({})", inner.quoted()),
            Value::Quantity(quantity) => quantity.to_string(),
            Value::Ip(ip) => ip.to_string(),
            Value::Cidr(cidr) => format!("{}/{}", cidr.ip, cidr.bits),
            Value::Url(url) => url.text.clone(),
            Value::Semver(version) => {
                let [a, b, c] = version.numbers;
                let mut text = format!("{a}.{b}.{c}");
                if !version.pre.is_empty() {
                    text.push_str(&format!("-{}", version.pre.join(".")));
                }
                if !version.build.is_empty() {
                    text.push_str(&format!("+{}", version.build));
                }
                text
            }
            Value::Format(name) => (*name).to_owned(),
            Value::Struct(_) | Value::Authorization(_) => self.type_name().to_owned(),
        }
    }

    fn quoted(&self) -> String {
        match self {
            Value::Text(text) => go_quote(text),
            other => other.text(),
        }
    }

    /// Order of numbers of any type.
    #[must_use]
    pub(crate) fn number_order(&self, other: &Value) -> Option<std::cmp::Ordering> {
        let whole = |v: &Value| match v {
            Value::Int(n) => Some(i128::from(*n)),
            Value::Uint(n) => Some(i128::from(*n)),
            _ => None,
        };
        let float = |v: &Value| match v {
            Value::Double(n) => Some(*n),
            other => whole(other).map(|n| n as f64),
        };
        match (whole(self), whole(other)) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            _ => float(self)?.partial_cmp(&float(other)?),
        }
    }

    /// Order of values of one type.
    #[must_use]
    pub fn order(&self, other: &Value) -> Option<std::cmp::Ordering> {
        match (self, other) {
            (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
            (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
            (Value::Bytes(a), Value::Bytes(b)) => Some(a.cmp(b)),
            (Value::Time(a), Value::Time(b)) => Some(a.cmp(b)),
            (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
            _ => self.number_order(other),
        }
    }

    /// As a key of a map.
    #[must_use]
    pub fn key(&self) -> Option<Key> {
        Some(match self {
            Value::Bool(is) => Key::Bool(*is),
            Value::Int(n) => Key::Number(i128::from(*n)),
            Value::Uint(n) => Key::Number(i128::from(*n)),
            Value::Double(n) if n.fract() == 0.0 && n.abs() < 9e18 => Key::Number(*n as i128),
            Value::Text(text) => Key::Text(text.clone()),
            _ => return None,
        })
    }

    /// What the value costs to look at whole: a text's or list's length.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Value::Text(text) => text.chars().count() as u64,
            Value::Bytes(bytes) => bytes.len() as u64,
            Value::List(items) => items.len() as u64,
            Value::Map(entries) => entries.len() as u64,
            Value::Optional(Some(inner)) => inner.size(),
            // Their length in whole bytes.
            Value::Ip(ip) => {
                if ip.is_ipv4() {
                    4
                } else {
                    16
                }
            }
            Value::Cidr(cidr) => u64::from(cidr.bits).div_ceil(8),
            _ => 1,
        }
    }

    /// Zero values are none as optionals.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        match self {
            Value::Null => true,
            Value::Bool(is) => !is,
            Value::Int(n) => *n == 0,
            Value::Uint(n) => *n == 0,
            Value::Double(n) => *n == 0.0,
            Value::Duration(n) => *n == 0,
            Value::Text(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_) => self.size() == 0,
            Value::Struct(of) => of.fields.is_empty(),
            _ => false,
        }
    }
}

impl Key {
    /// The key as an expression sees it.
    #[must_use]
    pub fn value(&self) -> Value {
        match self {
            Key::Bool(is) => Value::Bool(*is),
            Key::Number(n) => match i64::try_from(*n) {
                Ok(n) => Value::Int(n),
                Err(_) => Value::Uint(u64::try_from(*n).unwrap_or_default()),
            },
            Key::Text(text) => Value::Text(text.clone()),
        }
    }

    /// As a field's name.
    #[must_use]
    pub fn text(&self) -> String {
        self.value().text()
    }
}
