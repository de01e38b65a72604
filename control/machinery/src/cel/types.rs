//! Types of expressions, with how large their values may be.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The largest size assumed where nothing bounds it: what fits into a request.
pub(crate) const UNBOUNDED: u64 = 3 * 1024 * 1024;
/// The longest time and the longest duration in JSON, with quotes (upstream: `MaxDatetimeSizeJSON`, `MaxDurationSizeJSON`).
pub(crate) const TIME: u64 = 32;

/// Names that are types.
const TYPES: [&str; 18] = [
    "null_type",
    "bool",
    "int",
    "uint",
    "double",
    "string",
    "bytes",
    "list",
    "map",
    "type",
    "optional_type",
    "google.protobuf.Timestamp",
    "google.protobuf.Duration",
    "net.IP",
    "net.CIDR",
    "kubernetes.Quantity",
    "kubernetes.URL",
    "kubernetes.Semver",
];

/// The type of a name, if it is one's.
pub(super) fn type_value(name: &str) -> Option<&'static str> {
    TYPES.into_iter().find(|t| *t == name)
}

/// Whether a type's name with dots begins so.
pub(super) fn begins_type(name: &str) -> bool {
    TYPES.into_iter().filter_map(|t| t.split_once('.')).any(|(first, _)| first == name)
}

/// An object's fields, by their names in expressions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObjectType {
    /// For error texts.
    pub name: String,
    pub fields: BTreeMap<String, Type>,
    /// Other fields may be there too: they are of any type.
    pub open: bool,
}

/// A CEL type, with the size bounds that cost estimates need.
#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    /// `dyn`: anything.
    Dyn,
    /// `any`: anything, of so many characters at most; a device's attribute.
    Any(u64),
    /// What nothing has settled yet: the type of the items of `[]`.
    Free,
    /// `null`.
    Null,
    /// `bool`.
    Bool,
    /// `int`.
    Int,
    /// `uint`.
    Uint,
    /// `double`.
    Double,
    /// `string` of so many characters at most.
    Text(u64),
    /// `bytes` of that length at most.
    Bytes(u64),
    /// `google.protobuf.Timestamp`, written in so many characters at most.
    Time(u64),
    /// `google.protobuf.Duration`.
    Duration,
    /// A list of so many items at most.
    List(Box<Type>, u64),
    /// A map by texts (or anything else) of so many entries at most.
    Map(Box<Type>, Box<Type>, u64),
    /// An object with declared fields.
    Object(Arc<ObjectType>),
    /// A value or none.
    Optional(Box<Type>),
    /// A type as a value.
    Type,
    /// A type of a library.
    Named(&'static str),
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Dyn | Type::Free => f.write_str("dyn"),
            Type::Any(_) => f.write_str("any"),
            Type::Null => f.write_str("null"),
            Type::Bool => f.write_str("bool"),
            Type::Int => f.write_str("int"),
            Type::Uint => f.write_str("uint"),
            Type::Double => f.write_str("double"),
            Type::Text(_) => f.write_str("string"),
            Type::Bytes(_) => f.write_str("bytes"),
            Type::Time(_) => f.write_str("timestamp"),
            Type::Duration => f.write_str("duration"),
            Type::List(item, _) => write!(f, "list({item})"),
            Type::Map(key, value, _) => write!(f, "map({key}, {value})"),
            Type::Object(object) => f.write_str(&object.name),
            Type::Optional(inner) => write!(f, "optional_type({inner})"),
            Type::Type => f.write_str("type"),
            Type::Named(name) => f.write_str(name),
        }
    }
}

impl Type {
    /// `string` of any length.
    #[must_use]
    pub fn text() -> Self {
        Type::Text(UNBOUNDED)
    }

    /// `google.protobuf.Timestamp` with a date and a time of day.
    #[must_use]
    pub fn time() -> Self {
        Type::Time(TIME)
    }

    /// A list of any length.
    #[must_use]
    pub fn list(item: Type) -> Self {
        Type::List(Box::new(item), UNBOUNDED)
    }

    /// A map by texts.
    #[must_use]
    pub fn map(value: Type) -> Self {
        Type::Map(Box::new(Type::text()), Box::new(value), UNBOUNDED)
    }

    /// Whether a value of one type may stand where the other is wanted.
    #[must_use]
    pub fn fits(&self, other: &Type) -> bool {
        match (self, other) {
            (Type::Dyn | Type::Any(_) | Type::Free, _) | (_, Type::Dyn | Type::Any(_) | Type::Free) => true,
            (Type::Text(_), Type::Text(_)) | (Type::Bytes(_), Type::Bytes(_)) => true,
            (Type::Time(_), Type::Time(_)) => true,
            (Type::List(a, _), Type::List(b, _)) => a.fits(b),
            (Type::Map(ak, av, _), Type::Map(bk, bv, _)) => ak.fits(bk) && av.fits(bv),
            (Type::Optional(a), Type::Optional(b)) => a.fits(b),
            // Objects, times and durations may be null; scalars may not.
            (Type::Null, other) | (other, Type::Null) if other.may_be_null() => true,
            (a, b) => a == b,
        }
    }

    /// Whether two are one type, sizes aside.
    pub(super) fn same(&self, other: &Type) -> bool {
        match (self, other) {
            (Type::Free, _) | (_, Type::Free) => true,
            (Type::Text(_), Type::Text(_)) | (Type::Bytes(_), Type::Bytes(_)) => true,
            (Type::Time(_), Type::Time(_)) => true,
            (Type::List(a, _), Type::List(b, _)) | (Type::Optional(a), Type::Optional(b)) => a.same(b),
            (Type::Map(ak, av, _), Type::Map(bk, bv, _)) => ak.same(bk) && av.same(bv),
            (a, b) => a == b,
        }
    }

    /// What nothing has settled is anything.
    pub(super) fn settled(self) -> Type {
        match self {
            Type::Free => Type::Dyn,
            Type::List(item, most) => Type::List(Box::new(item.settled()), most),
            Type::Map(key, value, most) => {
                Type::Map(Box::new(key.settled()), Box::new(value.settled()), most)
            }
            Type::Optional(inner) => Type::Optional(Box::new(inner.settled())),
            other => other,
        }
    }

    fn may_be_null(&self) -> bool {
        matches!(self, Type::Object(_) | Type::Time(_) | Type::Duration | Type::Optional(_) | Type::Named(_))
    }

    /// The type both are of, where one fits the other.
    #[must_use]
    pub fn join(&self, other: &Type) -> Type {
        match (self, other) {
            (a, b) if a == b => a.clone(),
            (a, b) if !a.fits(b) => Type::Dyn,
            (Type::Free, of) | (of, Type::Free) => of.clone(),
            (Type::List(a, most), Type::List(b, other)) => Type::List(Box::new(a.join(b)), *most.max(other)),
            (Type::Map(ak, av, most), Type::Map(bk, bv, other)) => {
                Type::Map(Box::new(ak.join(bk)), Box::new(av.join(bv)), *most.max(other))
            }
            (Type::Optional(a), Type::Optional(b)) => Type::Optional(Box::new(a.join(b))),
            (Type::Null, of) | (of, Type::Null) => of.clone(),
            (Type::Dyn, _) | (_, Type::Dyn) => Type::Dyn,
            (Type::Any(most), _) | (_, Type::Any(most)) => Type::Any(*most),
            (a, b) => if a.size() >= b.size() { a } else { b }.clone(),
        }
    }

    /// Its name as an error about an expression's result has it.
    #[must_use]
    pub fn declared(&self) -> String {
        match self {
            Type::Null => "null_type".to_owned(),
            Type::Time(_) => "google.protobuf.Timestamp".to_owned(),
            Type::Duration => "google.protobuf.Duration".to_owned(),
            Type::List(item, _) => format!("list({})", item.declared()),
            Type::Map(key, value, _) => format!("map({}, {})", key.declared(), value.declared()),
            Type::Optional(inner) => format!("optional_type({})", inner.declared()),
            other => other.to_string(),
        }
    }

    /// How large a value may be: characters, items, entries.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Type::Dyn | Type::Free => UNBOUNDED,
            Type::Any(size)
            | Type::Text(size)
            | Type::Bytes(size)
            | Type::List(_, size)
            | Type::Map(_, _, size) => *size,
            Type::Object(object) => object.fields.len() as u64,
            Type::Optional(inner) => inner.size(),
            _ => 1,
        }
    }

    /// The type of a value that is of one or the other; `dyn` where they differ.
    pub(super) fn either(&self, other: &Type) -> Type {
        let is_anything = |kind: &Type| matches!(kind, Type::Dyn | Type::Any(_));
        if self.fits(other) && other.fits(self) && !is_anything(self) && !is_anything(other) {
            self.join(other)
        } else {
            Type::Dyn
        }
    }

    /// Of one size whatever its value.
    pub(super) fn is_scalar(&self) -> bool {
        self.is_number() || matches!(self, Type::Bool | Type::Time(_) | Type::Duration)
    }

    pub(super) fn is_number(&self) -> bool {
        matches!(self, Type::Int | Type::Uint | Type::Double)
    }
}
