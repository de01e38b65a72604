//! `resource.Quantity`: a decimal fixed-point number with a remembered way of writing it.
//!
//! Parsing, rounding, capping and the canonical form follow upstream's `resource` package, down to which spellings
//! are kept as they were written (`1.500` stays, `1.5` becomes `1500m`). Where upstream goes on with big integers, a
//! number here has 38 significant digits; what is below is rounded away from zero.

mod decimal;
mod parse;

use decimal::Decimal;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// How a quantity is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// `12e6`.
    DecimalExponent,
    /// `12Mi`.
    BinarySi,
    /// `12M`.
    DecimalSi,
}

/// Why a text is no quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not of the form.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The number does not parse.
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    /// The suffix is unknown.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// A quantity. Compares by value: `1` equals `1000m`.
#[derive(Clone, Debug)]
pub struct Quantity {
    amount: Decimal,
    format: Format,
    /// The text it was parsed from, where upstream keeps it.
    text: Option<Box<str>>,
}

const SI: [(&str, i32); 9] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15)];
const EXA: (&str, i32) = ("E", 18);
const BINARY: [(&str, u32); 7] =
    [("", 0), ("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

impl Quantity {
    /// Parses any spelling.
    ///
    /// # Errors
    /// With upstream's texts.
    pub fn parse(text: &str) -> Result<Self, Error> {
        parse::quantity(text)
    }

    /// From a whole number.
    #[must_use]
    pub fn new(value: i64, format: Format) -> Self {
        Quantity { amount: Decimal::new(i128::from(value), 0), format, text: None }
    }

    /// A number of thousandths.
    #[must_use]
    pub fn from_milli(value: i64, format: Format) -> Self {
        Quantity { amount: Decimal::new(i128::from(value), -3), format, text: None }
    }

    /// Zero, as `0`.
    #[must_use]
    pub fn zero() -> Self {
        Quantity::new(0, Format::DecimalSi)
    }

    /// How it is written.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// True for zero of any spelling.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.amount.value == 0
    }

    /// -1, 0 or 1.
    #[must_use]
    pub fn sign(&self) -> i32 {
        self.amount.value.signum() as i32
    }

    /// The value in whole units, rounded away from zero; saturates at the ends of `i64`.
    #[must_use]
    pub fn value(&self) -> i64 {
        self.scaled_value(0)
    }

    /// The value in thousandths, rounded away from zero; saturates at the ends of `i64`.
    #[must_use]
    pub fn milli_value(&self) -> i64 {
        self.scaled_value(-3)
    }

    /// The value in units of `10^scale`, rounded away from zero; saturates at the ends of `i64`.
    #[must_use]
    pub(crate) fn scaled_value(&self, scale: i32) -> i64 {
        let rounded = self.amount.rescale(scale);
        let clamped = rounded.unwrap_or(if self.amount.value < 0 { i128::MIN } else { i128::MAX });
        i64::try_from(clamped).unwrap_or(if clamped < 0 { i64::MIN } else { i64::MAX })
    }

    /// The value as a whole number, where it is one that fits.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        let whole = self.amount.normal();
        if whole.scale < 0 && whole.value != 0 {
            return None;
        }
        i64::try_from(whole.rescale(0)?).ok()
    }

    /// Rounded away from zero to thousandths; written as it was where it has no finer part.
    #[must_use]
    pub(crate) fn rounded_to_milli(self) -> Quantity {
        match self.amount.rescale(-3) {
            Some(milli) if self.amount.scale < -3 => {
                Quantity { amount: Decimal::new(milli, -3), format: self.format, text: None }
            }
            _ => self,
        }
    }

    /// The nearest float.
    #[must_use]
    pub fn as_f64(&self) -> f64 {
        self.amount.value as f64 * 10_f64.powi(self.amount.scale)
    }

    #[cfg(test)]
    pub(crate) fn neg(&self) -> Quantity {
        Quantity { amount: self.amount.neg(), format: self.format, text: None }
    }

    /// The sum, written as `self` is unless that is zero.
    #[must_use]
    pub fn add(&self, other: &Quantity) -> Quantity {
        let format = if self.is_zero() { other.format } else { self.format };
        Quantity { amount: self.amount.add(other.amount), format, text: None }
    }

    /// The difference, written as `self` is unless that is zero.
    #[must_use]
    pub fn sub(&self, other: &Quantity) -> Quantity {
        let format = if self.is_zero() { other.format } else { self.format };
        Quantity { amount: self.amount.add(other.amount.neg()), format, text: None }
    }

    /// As it is written without regard to how it was spelled.
    #[must_use]
    pub fn canonical(&self) -> String {
        if self.is_zero() {
            return "0".to_owned();
        }
        match self.format {
            Format::BinarySi => self.binary().unwrap_or_else(|| self.decimal_si()),
            Format::DecimalSi => self.decimal_si(),
            Format::DecimalExponent => {
                let amount = self.amount.thousands();
                exponent_form(amount)
            }
        }
    }

    fn decimal_si(&self) -> String {
        let amount = self.amount.thousands();
        if let Some((suffix, _)) = SI.iter().chain([&EXA]).find(|(_, exponent)| *exponent == amount.scale) {
            return format!("{}{suffix}", amount.value);
        }
        // Past exa: all the digits where they fit, else an exponent.
        match amount.rescale(EXA.1) {
            Some(value) if amount.scale > EXA.1 => format!("{value}{}", EXA.0),
            _ => exponent_form(amount),
        }
    }

    /// `None` where a power of 1024 would lose precision, or say less than the plain number.
    fn binary(&self) -> Option<String> {
        let whole = self.amount.normal();
        let mut value = if whole.scale >= 0 { whole.rescale(0)? } else { return None };
        if value.unsigned_abs() < 1024 {
            return None;
        }
        let mut step = 0;
        while step + 1 < BINARY.len() && value % 1024 == 0 {
            value /= 1024;
            step += 1;
        }
        Some(format!("{value}{}", BINARY[step].0))
    }
}

fn exponent_form(amount: Decimal) -> String {
    if amount.scale == 0 { amount.value.to_string() } else { format!("{}e{}", amount.value, amount.scale) }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            Some(text) => f.write_str(text),
            None => f.write_str(&self.canonical()),
        }
    }
}

impl FromStr for Quantity {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Quantity::parse(text)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.amount.compare(other.amount)
    }
}

#[cfg(test)]
mod tests;
