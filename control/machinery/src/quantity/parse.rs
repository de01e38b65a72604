//! Reading a quantity.

use super::decimal::Decimal;
use super::{BINARY, EXA, Error, Format, Quantity, SI};

/// Far past any use, and far from overflowing a scale.
const LARGEST_EXPONENT: i32 = 1_000_000;

/// The finest place kept: nano.
const NANO: i32 = -9;
const MAX_ALLOWED: i128 = i64::MAX as i128;

struct Parts<'a> {
    negative: bool,
    /// Without leading zeros, possibly empty.
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

enum Suffix {
    Ten(i32, Format),
    Two(u32),
}

fn split(text: &str) -> Result<Parts<'_>, Error> {
    let (negative, rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let rest = rest.trim_start_matches('0');
    let (whole, rest) = digits(rest);
    let (fraction, suffix) = match rest.strip_prefix('.') {
        Some(rest) => digits(rest),
        None => ("", rest),
    };
    let tail = suffix.trim_start_matches(['e', 'E', 'i', 'n', 'u', 'm', 'k', 'K', 'M', 'G', 'T', 'P']);
    let tail = tail.strip_prefix(['-', '+']).unwrap_or(tail);
    if !tail.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Error::Format);
    }
    Ok(Parts { negative, whole, fraction, suffix })
}

fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

fn interpret(suffix: &str) -> Option<Suffix> {
    if let Some((_, exponent)) = SI.iter().chain([&EXA]).find(|(s, _)| *s == suffix) {
        return Some(Suffix::Ten(*exponent, Format::DecimalSi));
    }
    if let Some((_, exponent)) = BINARY.iter().find(|(s, _)| *s == suffix) {
        return Some(Suffix::Two(*exponent));
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    (exponent.unsigned_abs() <= LARGEST_EXPONENT.unsigned_abs())
        .then_some(Suffix::Ten(exponent, Format::DecimalExponent))
}

/// Digits as a decimal; past 38 digits rounded up.
fn number(whole: &str, fraction: &str) -> Option<Decimal> {
    let mut value = 0_i128;
    let mut scale = 0_i64;
    let (mut dropped, mut full) = (false, false);
    let fraction = fraction.trim_end_matches('0');
    for (i, digit) in whole.bytes().chain(fraction.bytes()).enumerate() {
        let after_point = i >= whole.len();
        let longer = value.checked_mul(10).and_then(|v| v.checked_add(i128::from(digit - b'0')));
        match longer.filter(|_| !full) {
            Some(longer) => {
                value = longer;
                scale -= i64::from(after_point);
            }
            None => {
                full = true;
                dropped |= digit != b'0';
                scale += i64::from(!after_point);
            }
        }
    }
    Some(Decimal::new(value.saturating_add(i128::from(dropped)), i32::try_from(scale).ok()?))
}

pub(super) fn quantity(text: &str) -> Result<Quantity, Error> {
    if text.is_empty() {
        return Err(Error::Format);
    }
    let parts = split(text)?;
    let suffix = interpret(parts.suffix).ok_or(Error::Suffix)?;
    let (mut amount, mut format) = match suffix {
        Suffix::Ten(exponent, format) => {
            let number = number(parts.whole, parts.fraction).ok_or(Error::Numeric)?;
            let scale = number.scale.checked_add(exponent).ok_or(Error::Numeric)?;
            // Written canonically, digits move into the exponent: it must be one that can be read again.
            let digits = number.value.unsigned_abs().checked_ilog10().unwrap_or(0);
            if scale.saturating_add_unsigned(digits) > LARGEST_EXPONENT {
                return Err(Error::Numeric);
            }
            (Decimal::new(number.value, scale), format)
        }
        Suffix::Two(exponent) => (binary(&parts, exponent), Format::BinarySi),
    };
    if amount.scale < NANO && amount.value != 0 {
        amount = Decimal::new(amount.rescale(NANO).unwrap_or(1), NANO);
    }
    if format == Format::BinarySi {
        if amount.compare(Decimal::new(MAX_ALLOWED, 0)).is_gt() {
            amount = Decimal::new(MAX_ALLOWED, 0);
        }
        if amount.value > 0 && amount.compare(Decimal::new(1, 0)).is_lt() {
            format = Format::DecimalSi;
        }
    }
    let text = keeps_spelling(&parts, text).then(|| text.into());
    let amount = if parts.negative { amount.neg() } else { amount };
    Ok(Quantity { amount, format, text })
}

/// A number times a power of two. Whole and fraction apart, so that neither overflows.
fn binary(parts: &Parts<'_>, exponent: u32) -> Decimal {
    let factor = 1_i128 << exponent;
    let (Some(whole), Some(fraction)) = (number(parts.whole, ""), number("", parts.fraction)) else {
        return Decimal::new(MAX_ALLOWED, 0);
    };
    let whole = match whole.rescale(0).and_then(|w| w.checked_mul(factor)) {
        Some(whole) => Decimal::new(whole, 0),
        None => return Decimal::new(MAX_ALLOWED, 0),
    };
    let places = fraction.scale.max(-19);
    let fraction = fraction.rescale(places).unwrap_or(0);
    whole.add(Decimal::new(fraction.saturating_mul(factor), places))
}

/// Whether upstream's short path takes the number and finds it in (what it holds to be) canonical form, in which
/// case the text is written back as it came.
fn keeps_spelling(parts: &Parts<'_>, text: &str) -> bool {
    if text == "0" {
        return true;
    }
    let whole = if parts.whole.is_empty() { "0" } else { parts.whole };
    let length = whole.len() + parts.fraction.len();
    let shifted = || format!("{whole}{}", parts.fraction);
    match interpret(parts.suffix) {
        Some(Suffix::Two(exponent)) => {
            let fits = (whole.len() + (exponent * 3 / 10) as usize) < 15;
            fits && parts.fraction.is_empty()
                && exponent % 10 == 0
                && whole.parse::<i64>().is_ok_and(|v| v & 0x07 != 0)
        }
        Some(Suffix::Ten(exponent, _)) => {
            let scale = i64::from(exponent) - parts.fraction.len() as i64;
            let digits = shifted();
            length <= 18
                && scale >= i64::from(NANO)
                && scale % 3 == 0
                && !digits.ends_with("000")
                && !digits.starts_with('0')
        }
        None => false,
    }
}
