//! Types of flags, and what their values may be.

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
}

const KINDS: [(&str, Kind); 9] = [
    ("bool", Kind::Bool),
    ("int", Kind::Int),
    ("float", Kind::Float),
    ("duration", Kind::Duration),
    ("ip", Kind::Ip),
    ("string", Kind::Text),
    ("list", Kind::List),
    ("array", Kind::Array),
    ("map", Kind::Map),
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
        matches!(self, Self::List | Self::Array | Self::Map)
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
            Self::Text | Self::List | Self::Array => Ok(()),
        }
    }
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
