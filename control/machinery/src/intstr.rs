//! `IntOrString`: a port by number or name, a count or a percentage.

use crate::goformat::go_quote;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString as Typed;
use serde_json::Value;
use std::fmt;

/// An integer or a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IntOrString {
    /// A JSON number.
    Int(i32),
    /// A name, or a percentage.
    String(String),
}

/// Why an `IntOrString` has no scaled value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A text that does not end in `%`.
    #[error("invalid value for IntOrString: invalid type: string is not a percentage")]
    NotPercentage,
    /// A text whose number does not parse.
    #[error("invalid value for IntOrString: invalid value {}: strconv.Atoi: parsing {}: invalid syntax", go_quote(.0), go_quote(.0.trim_end_matches('%')))]
    Number(String),
}

impl IntOrString {
    /// From JSON: a number that fits 32 bits or a string.
    #[must_use]
    pub fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::String(s) => Some(IntOrString::String(s.clone())),
            Value::Number(n) => n.as_i64().and_then(|n| i32::try_from(n).ok()).map(IntOrString::Int),
            _ => None,
        }
    }

    /// As Go's `intstr.Parse`: an integer where it is one, else the text.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        text.parse().map_or_else(|_| IntOrString::String(text.to_owned()), IntOrString::Int)
    }

    /// As JSON writes it: number or string.
    #[must_use]
    pub fn to_value(&self) -> Value {
        match self {
            IntOrString::Int(n) => (*n).into(),
            IntOrString::String(s) => s.clone().into(),
        }
    }

    /// The integer; a text that is one counts, anything else is 0.
    #[must_use]
    pub(crate) fn int_value(&self) -> i32 {
        match self {
            IntOrString::Int(n) => *n,
            IntOrString::String(s) => s.parse().unwrap_or_default(),
        }
    }

    /// The percentage, for a text such as `25%`.
    ///
    /// # Errors
    /// For a text that is no percentage. `Ok(None)` for an integer.
    pub fn percent(&self) -> Result<Option<i64>, Error> {
        match self {
            IntOrString::Int(_) => Ok(None),
            IntOrString::String(s) => {
                let digits = s.strip_suffix('%').ok_or(Error::NotPercentage)?;
                digits.parse().map(Some).map_err(|_| Error::Number(s.clone()))
            }
        }
    }

    /// The integer itself, or the percentage of `total`, rounded up or down.
    ///
    /// # Errors
    /// For a text that is no percentage.
    pub fn scaled(&self, total: i64, round_up: bool) -> Result<i64, Error> {
        let Some(percent) = self.percent()? else { return Ok(i64::from(self.int_value())) };
        let product = i128::from(percent) * i128::from(total);
        let quotient = if round_up { -(-product).div_euclid(100) } else { product.div_euclid(100) };
        Ok(i64::try_from(quotient).unwrap_or(if quotient < 0 { i64::MIN } else { i64::MAX }))
    }
}

impl From<&Typed> for IntOrString {
    fn from(typed: &Typed) -> Self {
        match typed {
            Typed::Int(n) => Self::Int(*n),
            Typed::String(text) => Self::String(text.clone()),
        }
    }
}

/// A count, or the percentage of `total`, rounded up or down; 0 for what validation refuses.
#[must_use]
pub fn part(value: &Typed, total: i32, round_up: bool) -> i32 {
    let scaled = IntOrString::from(value).scaled(i64::from(total), round_up).unwrap_or(0);
    i32::try_from(scaled).unwrap_or(if scaled < 0 { i32::MIN } else { i32::MAX })
}

impl fmt::Display for IntOrString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IntOrString::Int(n) => n.fmt(f),
            IntOrString::String(s) => s.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_scale_with_the_asked_rounding() {
        let scaled = |text: &str, up| IntOrString::parse(text).scaled(10, up);
        assert_eq!(scaled("25%", true), Ok(3));
        assert_eq!(scaled("25%", false), Ok(2));
        assert_eq!(scaled("30%", true), Ok(3));
        assert_eq!(scaled("7", true), Ok(7));
        let percent = Typed::String("34%".into());
        assert_eq!(
            (part(&percent, 3, true), part(&percent, 3, false), part(&Typed::Int(9), 3, true)),
            (2, 1, 9)
        );
        assert_eq!(
            (part(&Typed::String("x".into()), 3, true), part(&Typed::String("900%".into()), i32::MAX, true)),
            (0, i32::MAX)
        );
        assert_eq!(scaled("http", true), Err(Error::NotPercentage));
        assert_eq!(
            scaled("x%", true).unwrap_err().to_string(),
            "invalid value for IntOrString: invalid value \"x%\": strconv.Atoi: parsing \"x\": invalid syntax"
        );
    }
}
