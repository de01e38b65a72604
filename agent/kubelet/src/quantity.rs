//! Quantities as whole numbers, rounded up.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use machinery::quantity::Quantity as Exact;

/// The quantity in thousandths; zero when it is malformed (the API server refuses those).
pub fn milli(quantity: &Quantity) -> i64 {
    exact(quantity).map_or(0, |q| q.milli_value())
}

/// The quantity in whole units; zero when it is malformed.
pub fn whole(quantity: &Quantity) -> i64 {
    exact(quantity).map_or(0, |q| q.value())
}

/// The quantity in units of `divisor`, rounded up; a zero or malformed divisor counts as one.
pub fn divided(quantity: &Quantity, divisor: Option<&Quantity>) -> i64 {
    let by = divisor.and_then(exact).filter(|by| by.sign() > 0);
    let ceil = |amount: i64, by: i64| amount.div_euclid(by) + i64::from(amount.rem_euclid(by) != 0);
    match by.map(|by| by.as_i64().ok_or(by)) {
        None => whole(quantity),
        Some(Ok(by)) => ceil(whole(quantity), by),
        // a divisor with a fraction, which only CPU has: thousandths
        Some(Err(by)) => ceil(milli(quantity), by.milli_value()),
    }
}

fn exact(quantity: &Quantity) -> Option<Exact> {
    Exact::parse(&quantity.0).ok()
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
