//! Quantities as whole numbers, rounded up.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// The quantity in thousandths; zero when it is malformed (the API server refuses those).
pub fn milli(quantity: &Quantity) -> i64 {
    scaled(&quantity.0, 1000).unwrap_or(0)
}

/// The quantity in whole units; zero when it is malformed.
pub fn whole(quantity: &Quantity) -> i64 {
    scaled(&quantity.0, 1).unwrap_or(0)
}

/// The quantity in units of `divisor`, rounded up; a zero or malformed divisor counts as one.
pub fn divided(quantity: &Quantity, divisor: Option<&Quantity>) -> i64 {
    // Nano units keep both operands whole for every suffix there is.
    let nano = |q: &Quantity| parse_nano(&q.0);
    let amount = nano(quantity).unwrap_or(0);
    let by = divisor.and_then(nano).filter(|by| *by > 0).unwrap_or(1_000_000_000);
    i64::try_from(ceil(amount, by)).unwrap_or(i64::MAX)
}

fn scaled(text: &str, scale: i128) -> Option<i64> {
    let nano = parse_nano(text)?.checked_mul(scale)?;
    Some(i64::try_from(ceil(nano, 1_000_000_000)).unwrap_or(i64::MAX))
}

fn ceil(amount: i128, by: i128) -> i128 {
    amount.div_euclid(by) + i128::from(amount.rem_euclid(by) != 0)
}

fn parse_nano(text: &str) -> Option<i128> {
    let text = text.trim();
    let end =
        text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (negative, number) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (numerator, power): (i128, i32) = match suffix {
        "Ki" => (1 << 10, 9),
        "Mi" => (1 << 20, 9),
        "Gi" => (1 << 30, 9),
        "Ti" => (1 << 40, 9),
        "Pi" => (1 << 50, 9),
        "Ei" => (1 << 60, 9),
        "n" => (1, 0),
        "u" => (1, 3),
        "m" => (1, 6),
        "" => (1, 9),
        "k" => (1, 12),
        "M" => (1, 15),
        "G" => (1, 18),
        "T" => (1, 21),
        "P" => (1, 24),
        "E" => (1, 27),
        exponent => (1, 9 + exponent.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?),
    };
    let (integer, fraction) = number.split_once('.').unwrap_or((number, ""));
    if integer.is_empty() && fraction.is_empty() {
        return None;
    }
    let digits: i128 = format!("0{integer}{fraction}").parse().ok()?;
    let power = power - i32::try_from(fraction.len()).ok()?;
    let mut amount = digits.checked_mul(numerator)?;
    if power >= 0 {
        amount = amount.checked_mul(10i128.checked_pow(u32::try_from(power).ok()?)?)?;
    } else {
        amount = ceil(amount, 10i128.checked_pow(power.unsigned_abs())?);
    }
    Some(if negative { -amount } else { amount })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        for (text, thousandths, units) in [
            ("100m", 100, 1),
            ("1", 1000, 1),
            ("1.5", 1500, 2),
            ("1Ki", 1_024_000, 1024),
            ("1e3", 1_000_000, 1000),
            ("1k", 1_000_000, 1000),
            ("0.5Gi", 536_870_912_000, 536_870_912),
            ("1n", 1, 1),
            ("x", 0, 0),
            ("", 0, 0),
        ] {
            let quantity = Quantity(text.to_owned());
            assert_eq!((milli(&quantity), whole(&quantity)), (thousandths, units), "{text}");
        }
        let mebi = Quantity("1Mi".to_owned());
        assert_eq!(divided(&Quantity("1500Ki".to_owned()), Some(&mebi)), 2);
        assert_eq!(divided(&Quantity("250m".to_owned()), Some(&Quantity("1m".to_owned()))), 250);
        assert_eq!(divided(&Quantity("250m".to_owned()), None), 1);
    }
}
