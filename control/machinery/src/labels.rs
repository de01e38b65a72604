//! Label selectors: the query language (`a=b,c in (d,e),!f`) and the `LabelSelector` object.

mod parse;

use crate::field::{FieldError, Path, aggregate};
use crate::goformat::go_quote;
use crate::names;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;

/// How a requirement relates a key to its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// `key=value`.
    Equals,
    /// `key==value`.
    DoubleEquals,
    /// `key!=value`.
    NotEquals,
    /// `key in (a,b)`.
    In,
    /// `key notin (a,b)`.
    NotIn,
    /// `key`.
    Exists,
    /// `!key`.
    DoesNotExist,
    /// `key>1`.
    GreaterThan,
    /// `key<1`.
    LessThan,
}

impl Operator {
    /// The operator of an expression of a selector: `In`. `Gt` and `Lt` are node selectors' only.
    #[must_use]
    pub fn of_expression(text: &str) -> Option<Self> {
        Some(match text {
            "In" => Self::In,
            "NotIn" => Self::NotIn,
            "Exists" => Self::Exists,
            "DoesNotExist" => Self::DoesNotExist,
            "Gt" => Self::GreaterThan,
            "Lt" => Self::LessThan,
            _ => return None,
        })
    }
}

/// One condition on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

/// All requirements must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// Selects nothing, whatever the labels.
    Nothing,
    /// Selects what meets every requirement; none selects everything. Sorted by key.
    All(Vec<Requirement>),
}

/// Why a selector is not one; the text is upstream's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

/// Labels by key, whatever keeps them.
pub trait Labels {
    /// The value of a label, where there is one.
    fn label(&self, key: &str) -> Option<&str>;
}

impl Labels for BTreeMap<String, String> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

impl Labels for Map<String, Value> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }
}

/// A `labels` value, null included.
impl Labels for Value {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }
}

impl<L: Labels> Labels for Option<L> {
    fn label(&self, key: &str) -> Option<&str> {
        self.as_ref().and_then(|l| l.label(key))
    }
}

impl<L: Labels + ?Sized> Labels for &L {
    fn label(&self, key: &str) -> Option<&str> {
        (**self).label(key)
    }
}

// === impl Requirement ===

impl Requirement {
    /// A checked requirement.
    ///
    /// # Errors
    /// For an invalid key or value, or values that do not go with the operator.
    pub fn new(key: &str, operator: Operator, values: Vec<String>) -> Result<Self, Error> {
        let mut errors = Vec::new();
        errors.extend(key_error(key, &Path::new("key")));
        let path = Path::new("values");
        let list = || Value::from(values.clone());
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => errors.push(FieldError::invalid(
                &path,
                list(),
                "for 'in', 'notin' operators, values set can't be empty",
            )),
            Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if values.len() != 1 => errors
                .push(FieldError::invalid(
                    &path,
                    list(),
                    "exact-match compatibility requires one single value",
                )),
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => errors.push(
                FieldError::invalid(&path, list(), "values set must be empty for exists and does not exist"),
            ),
            Operator::GreaterThan | Operator::LessThan => {
                if values.len() != 1 {
                    let detail = "for 'Gt', 'Lt' operators, exactly one value is required";
                    errors.push(FieldError::invalid(&path, list(), detail));
                }
                for (i, value) in values.iter().enumerate().filter(|(_, v)| v.parse::<i64>().is_err()) {
                    let detail = "for 'Gt', 'Lt' operators, the value must be an integer";
                    errors.push(FieldError::invalid(&path.index(i), value.as_str(), detail));
                }
            }
            _ => {}
        }
        for (i, value) in values.iter().enumerate() {
            let messages = names::label_value(value);
            if !messages.is_empty() {
                errors.push(FieldError::invalid(
                    &path.index(i).key(key),
                    value.as_str(),
                    messages.join("; "),
                ));
            }
        }
        match aggregate(&errors) {
            Some(text) => Err(Error(text)),
            None => Ok(Requirement { key: key.to_owned(), operator, values }),
        }
    }

    /// Label key, with its prefix.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// How the values are compared.
    #[must_use]
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// Values; none for `Exists` and `DoesNotExist`, one for comparisons.
    #[must_use]
    pub fn values(&self) -> &[String] {
        &self.values
    }

    /// Whether these labels meet it.
    pub fn matches(&self, labels: &impl Labels) -> bool {
        let value = labels.label(&self.key);
        let listed = |value: &str| self.values.iter().any(|v| v == value);
        let compared = |holds: fn(&i64, &i64) -> bool| {
            let wanted = self.values.first().and_then(|v| v.parse().ok());
            value.and_then(|v| v.parse().ok()).zip(wanted).is_some_and(|(have, want)| holds(&have, &want))
        };
        match self.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => value.is_some_and(listed),
            Operator::NotIn | Operator::NotEquals => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => compared(i64::gt),
            Operator::LessThan => compared(i64::lt),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut values = self.values.clone();
        values.sort();
        let (key, values) = (&self.key, values.join(","));
        match self.operator {
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::DoubleEquals => write!(f, "{key}=={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

fn key_error(key: &str, path: &Path) -> Option<FieldError> {
    let messages = names::qualified_name(key);
    (!messages.is_empty()).then(|| FieldError::invalid(path, key, messages.join("; ")))
}

// === impl Selector ===

impl Selector {
    /// The empty selector.
    #[must_use]
    pub fn everything() -> Self {
        Selector::All(Vec::new())
    }

    /// Selects what meets all of these.
    #[must_use]
    pub fn new(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Selector::All(requirements)
    }

    /// Parses the query language.
    ///
    /// # Errors
    /// With upstream's texts.
    pub fn parse(text: &str) -> Result<Self, Error> {
        parse::requirements(text).map(Selector::new)
    }

    /// Selects what has all of these labels; unchecked, as upstream's `SelectorFromSet`.
    #[must_use]
    pub fn from_set<K: Into<String>, V: Into<String>>(set: impl IntoIterator<Item = (K, V)>) -> Self {
        let exact = |(k, v): (K, V)| Requirement {
            key: k.into(),
            operator: Operator::Equals,
            values: vec![v.into()],
        };
        Selector::new(set.into_iter().map(exact).collect())
    }

    /// A map of labels as older kinds have it (`spec.selector` of Service and ReplicationController).
    #[must_use]
    pub fn from_map(map: &Map<String, Value>) -> Self {
        Selector::from_set(map.iter().map(|(k, v)| (k.as_str(), v.as_str().unwrap_or_default())))
    }

    /// A `LabelSelector` object; null selects nothing, the empty object everything.
    ///
    /// # Errors
    /// With upstream's texts.
    pub fn from_label_selector(selector: &Value) -> Result<Self, Error> {
        let Value::Object(selector) = selector else { return Ok(Selector::Nothing) };
        let mut requirements = Vec::new();
        for (key, value) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_owned();
            requirements.push(Requirement::new(key, Operator::Equals, vec![value])?);
        }
        for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let text = |key: &str| expression.get(key).and_then(Value::as_str).unwrap_or_default();
            let operator = text("operator");
            let known = Operator::of_expression(operator);
            let known = known.filter(|o| !matches!(o, Operator::GreaterThan | Operator::LessThan));
            let Some(operator) = known else {
                return Err(Error(format!("{} is not a valid label selector operator", go_quote(operator))));
            };
            let values = expression.get("values").and_then(Value::as_array).into_iter().flatten();
            let values = values.map(|v| v.as_str().unwrap_or_default().to_owned()).collect();
            requirements.push(Requirement::new(text("key"), operator, values)?);
        }
        Ok(Selector::new(requirements))
    }

    /// True where nothing is restricted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Selector::All(r) if r.is_empty())
    }

    /// What must hold; none for [`Selector::Nothing`], too.
    #[must_use]
    pub fn requirements(&self) -> &[Requirement] {
        match self {
            Selector::Nothing => &[],
            Selector::All(requirements) => requirements,
        }
    }

    /// Whether these labels are selected.
    pub fn matches(&self, labels: &impl Labels) -> bool {
        match self {
            Selector::Nothing => false,
            Selector::All(requirements) => requirements.iter().all(|r| r.matches(labels)),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.requirements().iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
